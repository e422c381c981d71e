"""What to do, as one page of TOML: the load, the data, the brokers, the pipeline, the limits and the faults.

A scenario is frozen and complete: everything a run depends on stands in it, so the file written
into the run directory does the same again.
"""

from harness.scenario.fields import (
    BATCH_MAX_S,
    CRASH_POINTS,
    DISKS_OF_THE_PIPELINE,
    FAULT_TARGETS_OF_SPARK,
    FAULTS_OF_DISKS,
    FAULTS_OF_NETWORK,
    FAULTS_OF_PROCESSES,
    FAULTS_OF_RESTARTS,
    FAULTS_OF_THE_CLUSTER,
    PLACEHOLDERS,
    Fault,
    Kafka,
    Limits,
    Load,
    Output,
    Pipeline,
    Scenario,
    in_order,
)
from harness.scenario.toml import Override, described, dump, folder, load, names, nearest, parse
from harness.scenario.validate import contradictions

__all__ = [
    "BATCH_MAX_S",
    "CRASH_POINTS",
    "DISKS_OF_THE_PIPELINE",
    "FAULTS_OF_DISKS",
    "FAULTS_OF_NETWORK",
    "FAULTS_OF_PROCESSES",
    "FAULTS_OF_RESTARTS",
    "FAULTS_OF_THE_CLUSTER",
    "FAULT_TARGETS_OF_SPARK",
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
