"""Train or search a model: ``tools/train.py CONFIG``. The code is in :mod:`ruas_mm.cli.train`."""

from __future__ import annotations

from ruas_mm.cli.process import run
from ruas_mm.cli.train import main

if __name__ == '__main__':
    run(main)
