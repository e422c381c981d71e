"""A test and benchmark harness for streaming pipelines: replay, break, measure, compare every row, report."""
