"""Verifiers: the verdict contract, mathematics ground truth, executed code."""
