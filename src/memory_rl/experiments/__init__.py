"""Many experiments at once: grids of cells, executors, the choice of learning rates, and results."""
