"""Data and reward functions of the shipped recipes."""
