"""The harness's description of the clickstream job and the pipeline's own say the same."""

from __future__ import annotations

from dataclasses import fields

import pytest

from harness.job.clickstream import contract
from pipeline import schema


@pytest.mark.parametrize("query", contract.QUERIES)
def test_both_describe_the_same_query(query):
    """Topics, columns and sink of a query are the same on both sides."""
    ours, theirs = contract.QUERIES[query], schema.QUERIES[query]
    assert {field.name: getattr(theirs, field.name) for field in fields(theirs)} == {
        field.name: getattr(ours, field.name) for field in fields(theirs)
    }


@pytest.mark.parametrize("name", [name for name in dir(contract) if name.endswith(("_S", "_MAX")) or name == "WINDOW"])
def test_both_have_the_same_numbers(name):
    """Windows, delays, gap and horizon are the same on both sides."""
    assert getattr(schema, name) == getattr(contract, name)


def test_queries_and_topics_are_equal():
    """Nothing is described on one side alone."""
    assert (list(schema.QUERIES), list(schema.INPUT)) == (list(contract.QUERIES), list(contract.INPUT))
