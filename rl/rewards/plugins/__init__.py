"""User-defined reward functions, run in a child process."""
