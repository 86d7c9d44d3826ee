"""The Gemma 3 policy: loading, chat format, sampling, training engine."""
