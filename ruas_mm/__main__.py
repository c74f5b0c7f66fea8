"""``python -m ruas_mm``: the command ``ruas`` with this interpreter."""

from __future__ import annotations

from ruas_mm.cli.main import main

if __name__ == '__main__':
    main('python -m ruas_mm')
