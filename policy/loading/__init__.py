"""Load policies from `tiny`, a folder, a hub id or a GGUF file, and save them again."""
