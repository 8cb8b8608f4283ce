"""The meter: what was learned, in bits.

It needs NumPy and SciPy only; it is handed probabilities, and knows no policy and no prompt.
"""
