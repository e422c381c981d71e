"""Load: events sent when they are due, whatever happened to the ones before."""
