"""The pipeline with one defect planted in it, for runs that must fail: `python broken.py DEFECT …pipeline flags`.

A harness that never fails a wrong pipeline proves nothing. Production code has no switch for this;
the defect replaces one function of `pipeline.transforms` from outside.
"""

from __future__ import annotations

import sys

from pyspark.sql import functions as F

from pipeline import job, transforms


def counted_twice() -> None:
    """One clickstream event in ten thousand counts twice in page_views."""
    right = transforms.page_views

    def page_views(records):
        again = records.where((F.col("offset") % 10_000) == 77)
        return right(records.unionByName(again))

    transforms.page_views = page_views


DEFECTS = {"counted_twice": counted_twice}

if __name__ == "__main__":
    DEFECTS[sys.argv[1]]()
    sys.exit(job.main(sys.argv[2:]))
