"""Executed code as ground truth: programs run in jails that they cannot leave, and are judged outside of them."""
