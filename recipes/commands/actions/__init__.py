"""Carry out the commands whose work is large; the command's own file, one folder up, only takes its options."""
