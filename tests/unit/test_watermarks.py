"""The law of the watermark, by hand: what Spark does is seen in tests/spark, and what the simulated run does is this law."""

from __future__ import annotations

import pytest

from harness.engines.spark.watermarks import watermarks_after

CLICKS, BOTH = ("clicks",), ("clicks", "purchases")


@pytest.mark.parametrize(
    ("newest", "sources", "starts", "watermarks"),
    [
        pytest.param([], CLICKS, {0}, [0], id="nothing read"),
        pytest.param([{"clicks": 200}], CLICKS, {0}, [0, 0], id="less than the delay"),
        pytest.param([{"clicks": 900}, {}], CLICKS, {0}, [0, 600, 600], id="it stays where nothing is read"),
        pytest.param([{"clicks": 900}, {"clicks": 400}], CLICKS, {0}, [0, 600, 600], id="it never falls"),
        pytest.param([{"clicks": 900, "purchases": 700}], BOTH, {0}, [0, 400], id="the slower source decides"),
        pytest.param([{"clicks": 900}, {"clicks": 2000}], BOTH, {0}, [0, 0, 0], id="a silent source holds it back"),
        pytest.param(
            [{"clicks": 900, "purchases": 1500}, {"clicks": 2000}], BOTH, {0}, [0, 600, 1200], id="what was read counts"
        ),
        pytest.param(
            [{"clicks": 900, "purchases": 1500}, {"clicks": 2000}],
            BOTH,
            {0, 1},
            [0, 600, 600],
            id="until the pipeline is started again",
        ),
    ],
)
def test_watermarks_of_successive_batches(newest, sources, starts, watermarks):
    """The smallest of the newest event times, less a delay of 300 ms."""
    assert watermarks == watermarks_after(newest, sources, starts, 300)
