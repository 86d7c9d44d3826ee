"""Rewards, rollouts, and one small file for each algorithm."""
