"""Rewards: built-in kinds, reward models and plug-ins, and their composition."""
