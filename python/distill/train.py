"""``python -m distill.train DATASET``: the same as ``distill train DATASET``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from distill.cli.main import run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv`, by default that of the process, and return the exit status."""
    return run("train", sys.argv[1:] if argv is None else argv, "python -m distill.train")


if __name__ == "__main__":
    sys.exit(main())
