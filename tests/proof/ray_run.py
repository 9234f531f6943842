"""Preprocess a dataset on a Ray cluster, in small parts: ray_run.py DATASET ADDRESS EXPANSION PART_ROWS.

It prints what the run did, as JSON.

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


def main() -> None:
    """Run."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    dataset, address, expansion, part_rows = sys.argv[1:]
    parts.rows_that_fit = lambda shape, dtype: int(part_rows)
    result = preprocess(dataset, training(augmentation_expansion=int(expansion)), engine=RayEngine(address))
    print(json.dumps({"decoded": result.decoded, "adopted": result.adopted, "rows": result.rows}))  # noqa: T201


if __name__ == "__main__":
    main()
