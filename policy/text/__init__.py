"""Conversion of conversations to tokens: Gemma 3's chat format, tokenizers, and the ids that end a turn."""
