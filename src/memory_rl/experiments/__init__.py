"""Many experiments at once: grids of cells, their executors, the choice of learning rates, and what comes out
of them together.
"""
