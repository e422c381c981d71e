"""The system under test: clickstream and transactions in, five queries out; knows nothing of the harness."""
