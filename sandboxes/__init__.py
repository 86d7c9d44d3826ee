"""Verifiers that judge completions: mathematics, executed code and instructions, all with one type of verdict."""
