"""The job runs."""
