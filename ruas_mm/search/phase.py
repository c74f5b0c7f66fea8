"""Which of the method's losses a model returns while it is searched."""

from __future__ import annotations

from enum import Enum


class Phase(str, Enum):
    """What ``model.search_phase`` asks of a model's training loss (paper §4.2, METHOD §7).

    ``JOINT``: the task's loss plus lambda times the scene's; ordinary training. ``SCENE``: the scene loss alone; the
    task module does not run. ``TASK``: the task's loss alone, with the scene module's output detached. ``COUPLED``: the
    task's loss alone, with a gradient to the scene module.
    """

    JOINT = 'joint'
    SCENE = 'scene'
    TASK = 'task'
    COUPLED = 'coupled'
