"""A process that runs a command line tool: what it sets for the CPU before the tool starts."""

from __future__ import annotations

import os
from collections.abc import Callable

_WAITING = ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY')
_SPINCOUNT = '3000'


def limit_spinning() -> None:
    """Let idle threads of torch's OpenMP library sleep soon, unless the user has set how they wait.

    An idle thread of that library, GNU's libgomp, runs an empty loop of up to 300 000 rounds before it sleeps. Where
    another program needs the processor, that loop takes the time of the thread that all others wait for: with one other
    busy program on two cores, a training step takes many times as long. docs/tools.md has the figures behind the number
    that is set. The library reads the environment when torch is imported; setting it later has no effect.
    """
    if not any(name in os.environ for name in _WAITING):
        os.environ['GOMP_SPINCOUNT'] = _SPINCOUNT


def flush_denormals() -> None:
    """Let the processor take denormal numbers as 0, which some processors compute with up to 30 times slower.

    These are the numbers below 1.2e-38 in float32, such as weights that decay to nothing. The setting belongs to a
    thread. Threads and data loader workers inherit it from the thread that starts them, so it is set before torch first
    computes: the threads of OpenMP are started then, and not again.
    """
    import numpy as np
    import torch

    for dtype in (np.float32, np.float64):  # numpy looks for the smallest number once, and warns if that is flushed
        np.finfo(dtype)
    torch.set_flush_denormal(True)


def run(main: Callable[[], None]) -> None:
    """Run a tool as the program of this process; see :func:`ruas_mm.apis.run_tool.run_tool`.

    Args:
        main (Callable): The tool.
    """
    from ruas_mm.apis.run_tool import run_tool  # imports torch, which must come after limit_spinning

    def prepared() -> None:
        flush_denormals()
        main()

    run_tool(prepared)
