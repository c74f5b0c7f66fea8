"""What a search writes: records in the log, the genotype, drawings, and the command that trains the result."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import master_only
from mmengine.model import BaseModel
from mmengine.runner import Runner

from ruas_mm.engine.architecture_cost import ArchitectureCost
from ruas_mm.engine.search_history import SearchHistory, entropy
from ruas_mm.search import SearchSlots, derive_genotype


class SearchReport:
    """Records the architecture during a search, and reports it at the end.

    Args:
        model (BaseModel): The searched model, unwrapped.
        slots (Sequence[SearchSlots]): Its searchable slots.
        origin (dict): Settings of the search, kept in the genotype.
        cost (ArchitectureCost, optional): Measured costs to report along with the architecture.

    Attributes:
        history (SearchHistory): The records so far.
    """

    def __init__(
        self,
        model: BaseModel,
        slots: Sequence[SearchSlots],
        origin: dict[str, Any],
        cost: ArchitectureCost | None = None,
    ) -> None:
        self.history = SearchHistory()
        self._model = model
        self._slots = slots
        self._origin = origin
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
        settings = {
            'config': runner.cfg.filename,
            **self._origin,
            'seed': runner.seed,
            'iterations': iteration,
            'ended': ended,
        }
        derive_genotype(self._model, settings).save(self.genotype_path(runner))

    @master_only
    def finish(self, runner: Runner, ended: str) -> None:
        """Write genotype and drawings, and log the command that trains the result.

        Args:
            runner (Runner): The run.
            ended (str): Why the search has ended.
        """
        # Here, because matplotlib takes long to import.
        from ruas_mm.visualization.architecture import draw_architecture
        from ruas_mm.visualization.probabilities import plot_probabilities

        path = self.genotype_path(runner)
        self.save_genotype(runner, runner.iter, ended)
        edges = {name: edge for group in self._slots for name, edge in zip(group.names, group.edges, strict=True)}
        draw_architecture(derive_genotype(self._model), edges, path.with_name('architecture.png'))
        plot_probabilities(self.history.records, path.with_name('probabilities.png'))
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
