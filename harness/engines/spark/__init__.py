"""Spark: its log, its sinks, its standalone cluster."""
