"""Check a recipe before anything runs."""
