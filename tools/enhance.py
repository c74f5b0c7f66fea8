"""Enhance dark images and videos: ``tools/enhance.py IN OUT``. The code is in :mod:`ruas_mm.cli.enhance`."""

from __future__ import annotations

from ruas_mm.cli.enhance import main
from ruas_mm.cli.process import run

if __name__ == '__main__':
    run(main)
