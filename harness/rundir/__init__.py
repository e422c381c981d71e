"""What happened: a run directory."""
