"""What a run costs in seconds, over all its resumptions."""

from __future__ import annotations

import os
import time
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner

_KEY = 'ruas_seconds'  # of a checkpoint


class StopwatchHook(Hook):
    """Measures the CPU time of all processes, their finished data workers included, and the wall time of a run.

    Time begins with training. A run that was killed goes on with the time of the checkpoint that it resumes from, which
    knows rank 0's and stands for that of each rank.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._start = (0.0, 0.0)
        self._before = {'cpu': 0.0, 'wall': 0.0}

    def before_train(self, runner: Runner) -> None:
        """Start."""
        self._start = _now()

    def seconds(self) -> dict[str, float]:
        """Return the seconds so far, CPU time added up over all ranks; every rank has to call it.

        Returns:
            dict[str, float]: ``cpu`` and ``wall``.
        """
        own = self._own_seconds()
        total = torch.tensor(own['cpu'], dtype=torch.float64)
        all_reduce(total)
        return {'cpu': round(total.item(), 2), 'wall': round(own['wall'], 2)}

    def _own_seconds(self) -> dict[str, float]:
        cpu, wall = (now - start for now, start in zip(_now(), self._start, strict=True))
        return {'cpu': self._before['cpu'] + cpu, 'wall': self._before['wall'] + wall}

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the seconds to a checkpoint, which rank 0 saves alone."""
        checkpoint[_KEY] = self._own_seconds()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Go on from the seconds of the checkpoint to resume from."""
        if runner._resume:
            self._before = checkpoint.get(_KEY, self._before)


def _now() -> tuple[float, float]:
    return sum(os.times()[:4]), time.time()
