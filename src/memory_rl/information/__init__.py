"""The meter: what was learned, in bits.

It needs NumPy only; it is handed probabilities, and knows no policy and no prompt.
"""
