"""Data sources: prompts, demonstrations and preferences."""
