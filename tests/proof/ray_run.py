"""Preprocess a dataset on a Ray cluster, in small parts: ray_run.py DATASET ADDRESS. Prints what a run did, as JSON.

In a process of its own, which a test can kill. The nodes compute the parts as they are: only the plan is made of more.
"""

from __future__ import annotations

import json
import logging
import sys

from distill.preprocess import parts
from distill.preprocess.pipeline import preprocess
from distill.preprocess.ray_engine import RayEngine
from sounds import training

ROWS_PER_PART = 400
EXPANSION = 60


def config():
    """Return a configuration in which a file of a second takes a tenth of one."""
    return training(augmentation_expansion=EXPANSION)


def main() -> None:
    """Run."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parts.rows_that_fit = lambda shape, dtype: ROWS_PER_PART
    result = preprocess(sys.argv[1], config(), engine=RayEngine(sys.argv[2]))
    print(json.dumps({"decoded": result.decoded, "adopted": result.adopted, "rows": result.rows}))  # noqa: T201


if __name__ == "__main__":
    main()
