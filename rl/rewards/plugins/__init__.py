"""Reward functions of the user's own, run in a child process."""
