"""When each module is searched: phases, warm-up and the end of a search."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from ruas_mm.engine.search_history import SearchHistory
from ruas_mm.search import Phase, SearchSlots

STRATEGIES = ('cooperative', 'independent', 'global')
SCENE_WEIGHTS = ('scene', 'joint')


class PhaseSchedule:
    """Decides the phase of every iteration, whether the architecture is trained in it, and when the search ends.

    The strategies are those of Table IV of the paper:

    * ``cooperative``: rounds of ``scene_iters`` iterations of the scene phase, then ``task_iters`` of the task phase.
    * ``independent``: the scene phase until its end, then the task phase; the run is divided in the same proportion.
    * ``global``: every iteration is joint.

    Without a scene module every iteration of the first two belongs to the task phase.

    Args:
        strategy (str): ``cooperative``, ``independent`` or ``global``.
        scene_iters (int): Iterations of the scene phase per round, at least 1.
        task_iters (int): Iterations of the task phase per round, at least 1.
        warmup (int | float): Iterations of each phase that train weights only, before its first architecture step:
            their number, or as a float below 1 their share of the phase's planned iterations.
        patience (int, optional): Intervals without change after which the search ends; None never ends it early.
        tolerance (float): Largest change of an architecture parameter that counts as none.
        scene_weights (str): Which loss trains the weights: ``scene`` that of the iteration's phase, so that the scene
            loss alone trains the scene module (the paper); ``joint`` that of ordinary training in every iteration, so
            that only the architecture alternates between the modules.

    Attributes:
        iterations (dict[str, int]): Iterations of each phase so far.
        architecture_steps (dict[str, int]): Architecture steps of each phase so far, of those that have any.
        ended (str, optional): Why there are no more architecture steps; None while there are.
    """

    def __init__(
        self,
        strategy: str = 'cooperative',
        scene_iters: int = 10,
        task_iters: int = 10,
        warmup: int | float = 0,
        patience: int | None = None,
        tolerance: float = 0.01,
        scene_weights: str = 'scene',
    ) -> None:
        self.strategy = strategy
        self.scene_weights = scene_weights
        self.scene_iters = scene_iters
        self.task_iters = task_iters
        self.warmup = warmup
        self.patience = patience
        self.tolerance = tolerance
        self.iterations = {phase.value: 0 for phase in Phase}
        self.architecture_steps: dict[str, int] = {}
        self.ended: str | None = None
        self._searched_since: dict[str, int] = {}  # phase -> iteration of its first architecture step
        self._scene_ended: int | None = None  # iteration at which `independent` began the task phase
        self._has_scene = True
        self._max_iters = 0
        self._planned: Counter[Phase] = Counter()

    @property
    def round_length(self) -> int:
        """Iterations of one round."""
        return self.scene_iters + self.task_iters

    def start(self, has_scene: bool, max_iters: int) -> None:
        """Set what is known only when training begins.

        Args:
            has_scene (bool): Whether the model has a scene module.
            max_iters (int): Iterations of the run.
        """
        self._has_scene = has_scene
        self._max_iters = max_iters
        self._planned = Counter(self.phase(iteration) for iteration in range(max_iters))

    def warmup_iterations(self, phase: Phase) -> int:
        """Return the number of warm-up iterations of a phase."""
        share = isinstance(self.warmup, float)
        return math.ceil(self.warmup * self._planned[phase]) if share else self.warmup

    def planned_steps(self, phase: Phase) -> int:
        """Return the number of architecture steps of a phase if the run does not end early."""
        return max(self._planned[phase] - self.warmup_iterations(phase), 0)

    def progress(self, phase: Phase) -> float:
        """Return how far the architecture steps of a phase have come, from 0 at the first to 1 at the last."""
        done = self.iterations[phase.value] - self.warmup_iterations(phase)
        return min(max(done, 0) / max(self.planned_steps(phase) - 1, 1), 1.0)

    def phase(self, iteration: int) -> Phase:
        """Return the phase of an iteration, counted from 0."""
        if self.strategy == 'global':
            return Phase.JOINT
        if not self._has_scene:
            return Phase.TASK
        if self.strategy == 'independent':
            planned = self._max_iters * self.scene_iters // self.round_length
            end = planned if self._scene_ended is None else self._scene_ended
            return Phase.SCENE if iteration < end else Phase.TASK
        return Phase.SCENE if iteration % self.round_length < self.scene_iters else Phase.TASK

    def weight_phase(self, phase: Phase) -> Phase:
        """Return the phase whose loss trains the weights in an iteration of a phase."""
        return Phase.JOINT if self.scene_weights == 'joint' else phase

    def weight_steps(self) -> dict[str, int]:
        """Return the number of weight steps that each module has taken so far."""
        steps = {'scene': 0, 'task': 0}
        for phase in Phase:
            trained = self.weight_phase(phase)
            steps['scene'] += self.iterations[phase.value] * (self._has_scene and trained is not Phase.TASK)
            steps['task'] += self.iterations[phase.value] * (trained is not Phase.SCENE)
        return steps

    def searches(self, phase: Phase) -> bool:
        """Return whether the next iteration of a phase trains the architecture."""
        return not self.ended and self.iterations[phase.value] >= self.warmup_iterations(phase)

    def begin_search(self, phase: Phase, iteration: int) -> None:
        """Count an architecture step, and note the iteration of the first one of each phase."""
        self._searched_since.setdefault(phase.value, iteration)
        self.architecture_steps[phase.value] = self.architecture_steps.get(phase.value, 0) + 1

    def count(self, phase: Phase) -> None:
        """Count an iteration of a phase."""
        self.iterations[phase.value] += 1

    def check_settled(
        self, history: SearchHistory, slots: dict[Phase, list[SearchSlots]], phase: Phase, iteration: int
    ) -> str | None:
        """End the search, or the scene phase of ``independent``, if the architecture has settled.

        Args:
            history (SearchHistory): The records so far.
            slots (dict[Phase, list[SearchSlots]]): The slots of each phase.
            phase (Phase): The current phase.
            iteration (int): Iterations done.

        Returns:
            str | None: A sentence for the log if the scene phase has ended; otherwise None.
        """
        if self.ended or self.patience is None:
            return None
        phases = (Phase.SCENE, Phase.TASK) if self.strategy == 'cooperative' else (phase,)
        phases = [phase for phase in phases if slots[phase]]
        if any(phase.value not in self._searched_since for phase in phases):
            return None
        since = max((self._searched_since[phase.value] for phase in phases), default=0)
        names = [name for phase in phases for group in slots[phase] for name in group.names]
        if not history.settled(names, self.patience, self.tolerance, since):
            return None
        if self.strategy == 'independent' and phase is Phase.SCENE:
            self._scene_ended = iteration
            return f'The architecture of the scene module has settled after {iteration} iterations.'
        self.ended = f'the architecture settled after {iteration} iterations'
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {
            'strategy': self.strategy,
            'iterations': self.iterations,
            'searched_since': self._searched_since,
            'architecture_steps': self.architecture_steps,
            'scene_ended': self._scene_ended,
            'ended': self.ended,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state.

        Args:
            state (dict): What :meth:`state_dict` returned; other keys are ignored.

        Raises:
            ValueError: If it is the state of another strategy.
        """
        if state['strategy'] != self.strategy:
            raise ValueError(
                f'The checkpoint to resume from is of a search with strategy {state["strategy"]!r}, not '
                f'{self.strategy!r}.'
            )
        self.iterations, self._searched_since = state['iterations'], state['searched_since']
        self._scene_ended, self.ended = state['scene_ended'], state['ended']
        self.architecture_steps = state.get('architecture_steps', {})  # checkpoints of earlier versions have none
