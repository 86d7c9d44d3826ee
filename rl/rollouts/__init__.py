"""Sample completions, score them, and train on them, whatever the algorithm."""
