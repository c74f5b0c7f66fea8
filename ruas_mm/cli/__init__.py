"""The command line: what ``ruas`` and the scripts in ``tools/`` run.

Importing this package sets how torch's threads wait for work, unless the user has; see :mod:`ruas_mm.cli.process`.
torch reads it once, when it is imported, so this package comes before torch.
"""

from __future__ import annotations

from ruas_mm.cli.process import limit_spinning

limit_spinning()
