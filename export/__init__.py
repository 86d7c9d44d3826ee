"""Checkpoints for other tools, each verified against the trained policy."""
