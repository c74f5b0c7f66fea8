"""What a search writes: records in the log, the genotype, drawings, and the command that trains the result."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.dist import master_only
from mmengine.model import BaseModel
from mmengine.runner import Runner

from ruas_mm.engine.architecture_cost import ArchitectureCost
from ruas_mm.engine.phase_schedule import PhaseSchedule
from ruas_mm.engine.search_history import SearchHistory, entropy
from ruas_mm.engine.slot_decisions import DECIDED, SlotDecision, agreement, decide, merge_replicas, table
from ruas_mm.engine.slot_statistics import SlotStatistics
from ruas_mm.search import Genotype, SearchSlots, derive_genotype, slot_edges
from ruas_mm.utils.fileio import atomic_write


class SearchReport:
    """Records the architecture during a search, and reports it at the end.

    Args:
        model (BaseModel): The searched model, unwrapped.
        slots (Sequence[SearchSlots]): Its searchable slots.
        origin (dict): Settings of the search, kept in the genotype.
        schedule (PhaseSchedule): Counts the steps.
        statistics (SlotStatistics): What the gradients say about the candidates.
        fallback (Mapping[str, str], optional): Operation by slot for those that are not decided, as
            :func:`ruas_mm.engine.slot_decisions.load_fallback` returns it. Defaults to none.
        cost (ArchitectureCost, optional): Measured costs to report along with the architecture.

    Attributes:
        history (SearchHistory): The records so far.
        replicas (list[dict[str, str]]): The most probable candidate of each slot in the other searches of a run with
            replicas, once they have ended.
    """

    def __init__(
        self,
        model: BaseModel,
        slots: Sequence[SearchSlots],
        origin: dict[str, Any],
        schedule: PhaseSchedule,
        statistics: SlotStatistics,
        fallback: Mapping[str, str] | None = None,
        cost: ArchitectureCost | None = None,
    ) -> None:
        self.history = SearchHistory()
        self.replicas: list[dict[str, str]] = []
        self._model = model
        self._slots = slots
        self._origin = origin
        self._schedule = schedule
        self._statistics = statistics
        self._fallback = fallback or {}
        self._cost = cost

    @staticmethod
    def genotype_path(runner: Runner) -> Path:
        """Return where the genotype of a run is written."""
        return Path(runner.work_dir, 'genotype.json')

    def record(self, runner: Runner, iteration: int, ended: str | None) -> None:
        """Record the architecture, show it in log and visualizer, and write the genotype.

        Args:
            runner (Runner): The run.
            iteration (int): Iterations done.
            ended (str, optional): Why the search has ended; None if it has not.
        """
        probabilities = self.history.add(iteration, self._slots)
        decisions = self.decisions()
        scalars = {}
        lines = []
        for group in self._slots:
            entropies = [entropy(probabilities[slot]) for slot in group.names]
            mean, most = sum(entropies) / len(entropies), math.log(len(group.candidates))
            scalars[f'search/entropy/{group.prefix}'] = mean
            choices = []
            for slot in group.names:
                for candidate, p in probabilities[slot].items():
                    scalars[f'search/probability/{slot}/{candidate}'] = p
                best = max(probabilities[slot], key=probabilities[slot].get)
                choices.append(f'{slot.rpartition(".")[2]} {best} {probabilities[slot][best]:.3f}')
                if decisions[slot].status != DECIDED:
                    choices[-1] += f' ({decisions[slot].status})'
            lines.append(f'  {group.prefix} (entropy {mean:.3f} of {most:.3f}): {", ".join(choices)}')
        if self._cost is not None:
            expected, derived = self._cost.expected(self._slots).item(), self._cost.derived(self._slots)
            scalars.update({'search/cost/expected': expected, 'search/cost/derived': derived})
            reference = f'{expected:.4g} expected, {derived:.4g} derived, reference {self._cost.reference:.4g}'
            lines.append(f'  {self._cost.type}: {reference}')
        runner.logger.info('\n'.join([f'Architecture after {iteration} iterations:', *lines]))
        runner.visualizer.add_scalars(scalars, step=iteration)
        self.save_genotype(runner, iteration, ended or 'not ended yet')

    @master_only
    def save_genotype(self, runner: Runner, iteration: int, ended: str) -> None:
        """Write the most probable architecture.

        Args:
            runner (Runner): The run.
            iteration (int): Iterations done.
            ended (str): Why the search has ended, for the file.
        """
        self._genotype(self._settings(runner, iteration, ended)).save(self.genotype_path(runner))

    def decisions(self) -> dict[str, SlotDecision]:
        """Return what is known of each slot now."""
        first = self.history.records[0]['probabilities']
        decisions = decide(self._slots, self._statistics, first, self._fallback)
        return merge_replicas(decisions, self.replicas, self._fallback)

    def _settings(self, runner: Runner, iteration: int, ended: str) -> dict[str, Any]:
        return {
            'config': runner.cfg.filename,
            **self._origin,
            'seed': runner.seed,
            'iterations': iteration,
            'weight_steps': self._schedule.weight_steps(),
            'ended': ended,
        }

    def _genotype(self, origin: dict[str, Any] | None = None) -> Genotype:
        """Return the most probable operations, and the fallback's where nothing was decided."""
        genotype, decisions = derive_genotype(self._model, origin), self.decisions()
        instead = {slot: decision.choice for slot, decision in decisions.items() if decision.choice != decision.best}
        undecided = {slot: decision.reason for slot, decision in decisions.items() if decision.status != DECIDED}
        return replace(genotype, slots={**genotype.slots, **instead}, undecided=undecided)

    @master_only
    def finish(self, runner: Runner, ended: str, seconds: Mapping[str, float]) -> None:
        """Write genotype, ``slots.json`` and drawings, and log the decisions and the command that trains the result.

        Args:
            runner (Runner): The run.
            ended (str): Why the search has ended.
            seconds (Mapping[str, float]): What the search cost: ``cpu`` and ``wall``.
        """
        # Here, because matplotlib takes long to import.
        from ruas_mm.visualization.architecture import draw_architecture
        from ruas_mm.visualization.probabilities import plot_probabilities

        path = self.genotype_path(runner)
        self.save_genotype(runner, runner.iter, ended)
        draw_architecture(self._genotype(), slot_edges(self._model), path.with_name('architecture.png'))
        plot_probabilities(self.history.records, path.with_name('probabilities.png'))
        decisions = self.decisions()
        open_slots = sum(decision.status != DECIDED for decision in decisions.values())
        runner.logger.info(
            f'{len(decisions) - open_slots} of {len(decisions)} slots are decided; slots.json says why the others are '
            f'not:\n{table(decisions)}'
        )
        searched = Path(runner.cfg.filename or 'CONFIG.py')
        trained = searched.with_name(searched.name.replace('_search', ''))
        option = f'--genotype {shlex.quote(str(path))}'
        if trained != searched and trained.is_file():
            advice = f'To train it:\n  python tools/train.py {shlex.quote(str(trained))} {option}'
        else:
            advice = f'To train it, give tools/train.py the config of the model without the search, and {option}'
        runner.logger.info(
            f'The search has ended: {ended}. It found {path} (architecture.png, probabilities.png beside it). {advice}'
        )
        self._save_slots(runner, ended, decisions, seconds)

    def _save_slots(
        self, runner: Runner, ended: str, decisions: Mapping[str, SlotDecision], seconds: Mapping[str, float]
    ) -> None:
        """Write ``slots.json``: the last file, so that its presence says that the search has ended."""
        content = {
            'format': 'ruas_mm.slots',
            'version': 1,
            **self._settings(runner, runner.iter, ended),
            'architecture_steps': self._schedule.architecture_steps,
            'seconds': dict(seconds),
        }
        if self.replicas:
            best = {slot: decision.best for slot, decision in decisions.items()}
            candidates = {slot: len(group.candidates) for group in self._slots for slot in group.names}
            content['agreement'] = agreement([best, *self.replicas], candidates)
        content['slots'] = {slot: decision.as_dict() for slot, decision in decisions.items()}
        path = self.genotype_path(runner).with_name('slots.json')
        atomic_write(path, json.dumps(content, indent=2, allow_nan=False) + '\n')
