"""Bradley-Terry reward models on Gemma 3, and their average in weight space (WARM)."""
