"""Pipelines that are wrong in one way, as variants of the oracle: no Kafka and no Spark, thousands of rows in milliseconds."""

from harness.job.clickstream.mutants import records, values
from harness.job.clickstream.mutants.model import Given, Item, Mutant, Rows, given

MUTANTS: tuple[Mutant, ...] = (*values.mutants(), *records.mutants())
"""Every wrong pipeline that is known, of all queries."""

__all__ = ["MUTANTS", "Given", "Item", "Mutant", "Rows", "given"]
