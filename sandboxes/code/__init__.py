"""Executed code as ground truth: programs run in isolated jails and are judged outside them."""
