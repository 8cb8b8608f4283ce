"""The meter: what was learned, in bits. Numpy only; it is handed probabilities and knows no policy and no
prompt.
"""
