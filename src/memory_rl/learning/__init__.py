"""How parameters move: advantages (numpy) and objectives (torch)."""
