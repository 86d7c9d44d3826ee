"""Interfaces that all packages share: strict configuration, errors, and stages."""
