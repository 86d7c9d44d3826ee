"""The ways to build a jail, one a file."""
