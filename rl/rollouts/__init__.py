"""Rollouts: sample completions, score them, and train on them, independently of the algorithm."""
