"""Samplers of completions, behind one interface."""
