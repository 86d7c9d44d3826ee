"""Metrics and suites that measure a policy."""
