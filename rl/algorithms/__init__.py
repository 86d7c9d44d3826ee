"""Algorithms that learn from a policy's own samples (BOND and REINFORCE), and the functions they are built from."""
