"""Pipelines that are wrong in one way, as variants of the oracle: no Kafka and no Spark, thousands of rows in milliseconds."""
