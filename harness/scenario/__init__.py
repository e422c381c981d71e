"""What to do, as one page of TOML: the load, the data, the brokers, the pipeline, the limits and the faults.

A scenario is frozen and complete: everything a run depends on stands in it, so the file written
into the run directory does the same again.
"""

from harness.faults import Fault, in_order
from harness.scenario.fields import (
    BATCH_MAX_S,
    PLACEHOLDERS,
    Kafka,
    Limits,
    Load,
    Output,
    Pipeline,
    Scenario,
)
from harness.scenario.toml import Override, described, dump, folder, load, names, nearest, parse
from harness.scenario.validate import contradictions

__all__ = [
    "BATCH_MAX_S",
    "PLACEHOLDERS",
    "Fault",
    "Kafka",
    "Limits",
    "Load",
    "Output",
    "Override",
    "Pipeline",
    "Scenario",
    "contradictions",
    "described",
    "dump",
    "folder",
    "in_order",
    "load",
    "names",
    "nearest",
    "parse",
]
