"""A run directory to a verdict: pure functions."""
