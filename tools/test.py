"""Test a model: ``tools/test.py CONFIG CHECKPOINT``. The code is in :mod:`ruas_mm.cli.test`."""

from __future__ import annotations

from ruas_mm.cli.process import run
from ruas_mm.cli.test import main

if __name__ == '__main__':
    run(main)
