"""What a job under test promises: its records, and the rows that must come of them."""
