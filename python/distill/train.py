"""``python -m distill.train DATASET``: from a folder of audio to a trained model, as ``distill train``."""

from __future__ import annotations

import sys

from distill.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
