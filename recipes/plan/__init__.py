"""Plan a run: size, memory and time of each stage."""
