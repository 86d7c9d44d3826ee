"""Checkpoints for other tools, and the proof that they are what they say."""
