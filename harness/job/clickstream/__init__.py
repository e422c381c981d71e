"""The clickstream job: its events, what is valid, and what must come out."""
