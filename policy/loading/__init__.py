"""Loading of policies from `tiny`, a folder, a hub id or a GGUF file, and saving them."""
