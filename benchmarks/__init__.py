"""Speed and fidelity, each a script that prints a table and writes JSON."""
