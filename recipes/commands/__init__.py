"""Implement the commands of `gemsmith`, one file each."""
