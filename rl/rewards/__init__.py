"""Rewards: ground truth, reward models and plug-ins, composed."""
