"""One run, once."""
