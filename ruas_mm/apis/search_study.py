"""The runs behind a search's validity report: each a part of its own, run once."""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from ruas_mm.apis.config_check import check_overrides
from ruas_mm.apis.search_halves import config_text, genotypes_in, supernet_validation, training_on_halves
from ruas_mm.apis.tools import FormattedOnce
from ruas_mm.engine.metric_selection import SupernetEvaluator, find_metric, greater_is_better
from ruas_mm.evaluation.search_statistics import affordable, slot_statistics
from ruas_mm.evaluation.search_validity import build_report
from ruas_mm.search import Genotype, searchable_slots
from ruas_mm.utils.checkpoint import load_from_local, named_checkpoint
from ruas_mm.utils.fileio import atomic_write, check_file

STAGES = ('search', 'supernet', 'rank', 'compare')
_NEEDS = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
_SATURATED = 0.98  # a value of the feature, in [0, 1], above which an image is burnt out


def run_process(command: Sequence[Any]) -> float:
    """Run a tool of this project in a process of its own.

    Args:
        command (Sequence[Any]): The tool and its arguments.

    Returns:
        float: CPU seconds that it took, its workers' included.

    Raises:
        RuntimeError: If it fails; with what it said.
    """
    before = os.times()
    command = [sys.executable, *map(str, command)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(failure(command, done.stderr))
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def failure(command: Sequence[Any], errors: str) -> str:
    """Say in one line which tool failed, and what it said last."""
    said = [line for line in errors.splitlines() if line.strip()] or ['it said nothing.']
    message = next((line for line in said if line.startswith('Error: ')), said[-1])
    return f'{" ".join(map(str, command[1:]))} failed: {message.removeprefix("Error: ")}'


def load(path: str, options: Mapping[str, Any], own: Mapping[str, Any]) -> Config:
    """Read a config with its options."""
    check_file(path, 'Config')
    config = Config.fromfile(path)
    given = {**options, **own}
    for remark in check_overrides(config, given):
        print(f'Note: {remark}', file=sys.stderr)
    config.merge_from_dict(given)
    for key in _NEEDS:
        if not config.get(key):
            raise ValueError(f'Config {path} must define {key}.')
    return config


class SearchStudy:
    """All parts of a report, each run once.

    Args:
        args (argparse.Namespace): The options of ``tools/analysis_tools/search_validity.py``.
        tools (Path): The folder of ``train.py`` and ``test.py``.

    Raises:
        ValueError: If the configs do not fit together, or the folder holds a study with other options.
    """

    def __init__(self, args: argparse.Namespace, tools: Path) -> None:
        self.args, self.out, self.tools = args, args.out, tools
        self.search_config = load(args.config, args.cfg_options, args.search_options)
        path = Path(args.config)
        partner = args.train_config or str(path.with_name(path.name.replace('_search', '')))
        if Path(partner) == path:
            raise ValueError(f'Name the config that trains the result of {path}: --train-config.')
        halves = self._on_halves(partner)
        self.seed = (self.search_config.get('randomness') or {}).get('seed') or 0
        self.write('search.py', config_text(self.search_config))
        self.write('supernet.py', config_text(supernet_validation(self.search_config, halves)))
        self.write('train.py', config_text(halves))
        self.plain = self._plain(halves)
        self.metric = args.metric
        self.fixed: dict[str, str] = {}  # slots that are not searched
        self.architectures: dict[str, str | None] = {'plain': self.plain_genotype}

    def _on_halves(self, path: str) -> Config:
        config = load(path, self.args.cfg_options, self.args.train_options)
        halves = training_on_halves(self.search_config, config)
        # validation figures are read from the local backend's file
        halves.vis_backends = [dict(type='mmengine.LocalVisBackend')]
        if halves.get('visualizer'):
            halves.visualizer.vis_backends = halves.vis_backends
        return halves

    def _plain(self, halves: Config) -> dict[str, str]:
        """Prepare the plain architecture; return its operations by slot."""
        fallback, self.plain_genotype, model = self.args.fallback, None, halves.model
        if fallback and fallback.endswith('.py'):
            plain = self._on_halves(fallback)
            self.write('plain.py', config_text(plain))
            model = plain.model
        slots: dict[str, str] = {}
        for genotype in genotypes_in(model):
            slots |= Genotype.load(genotype).slots
        if fallback and not fallback.endswith('.py'):
            slots |= Genotype.load(fallback).slots
            self.plain_genotype = self.write_genotype('plain', slots)
        return slots

    def write(self, name: str, text: str) -> Path:
        """Write a file that must be the same whenever the study goes on."""
        path = self.out / name
        if path.exists() and path.read_text() != text:
            raise ValueError(
                f'{self.out} holds parts of a study with other options: {name} differs; choose another --out.'
            )
        if not path.exists():
            atomic_write(path, text)
        return path

    def write_genotype(self, name: str, slots: Mapping[str, str]) -> str:
        """Write an architecture for the trainings, and return its path."""
        return str(self.write(f'genotypes/{name}.json', Genotype(dict(slots)).to_json()))

    def part(
        self,
        name: str,
        tool: str,
        positional: Sequence[Any],
        flags: Sequence[Any],
        figures: Callable[[Path], dict[str, float]] | None = None,
    ) -> dict[str, Any]:
        """Run a part unless it is finished.

        Args:
            name (str): Its folder.
            tool (str): ``train.py`` or ``test.py``.
            positional (Sequence[Any]): The tool's positional arguments.
            flags (Sequence[Any]): Its flags beside the work directory.
            figures (Callable, optional): Reads the part's figures from its folder.

        Returns:
            dict[str, Any]: ``cpu_seconds`` and ``figures``.
        """
        folder = self.out / name
        finished = folder / 'finished.json'
        if not finished.exists():
            resume = ['--resume'] if tool == 'train.py' and named_checkpoint(folder) else []
            print(f'{name} …', flush=True)
            seconds = run_process([self.tools / tool, *positional, '--work-dir', folder, *resume, *flags])
            result = {'cpu_seconds': seconds, 'figures': figures(folder) if figures else {}}
            atomic_write(finished, json.dumps(result, indent=2) + '\n')
        return json.loads(finished.read_text())

    # --- Searches -----------------------------------------------------------------------------------------------------

    def search(self, index: int) -> dict[str, Any]:
        """Search with one seed; return what is known of it."""
        name = f'search_{index}'
        options = ['--cfg-options', f'randomness.seed={self.seed + index}']
        part = self.part(name, 'train.py', [self.out / 'search.py'], options)
        found = Genotype.load(self.out / name / 'genotype.json')
        path = self.out / name / 'slots.json'
        kept = json.loads(path.read_text()) if path.exists() else {}
        slots = kept.get('slots')
        result = {
            'architecture': {slot: found.slots[slot] for slot in found.probabilities},
            'probabilities': found.probabilities,
            'candidates': {slot: len(row) for slot, row in found.probabilities.items()},
            'weight_steps': kept.get('weight_steps'),
            'architecture_steps': kept.get('architecture_steps'),
            'cpu_seconds': part['cpu_seconds'],
        }
        if not (result['weight_steps'] and set(found.probabilities) <= set(slots or ())):
            state = load_from_local(self.checkpoint(index), 'cpu').get('ruas_search', {})
            slots = {
                **slot_statistics(found.slots, found.probabilities, state.get('records', ())),
                **(slots or {}),
            }
            done = state.get('iterations', {})
            steps = {phase: done.get(phase, 0) + done.get('joint', 0) for phase in ('scene', 'task')}
            result['weight_steps'] = result['weight_steps'] or steps
        self.fixed = {slot: name for slot, name in found.slots.items() if slot not in found.probabilities}
        self.architectures[f'found_{index}'] = self.write_genotype(f'found_{index}', found.slots)
        return {**result, 'slots': {slot: slots[slot] for slot in found.probabilities}}

    def checkpoint(self, index: int) -> str:
        """Return the last checkpoint of a search."""
        checkpoint = named_checkpoint(self.out / f'search_{index}')
        if not checkpoint:
            raise FileNotFoundError(f'{self.out}/search_{index} holds no checkpoint of its search.')
        return checkpoint

    # --- Supernets ----------------------------------------------------------------------------------------------------

    def measured(self, name: str, measure: Any) -> Any:
        """Return a value of ``supernet.json``, measured now if it is not there."""
        path = self.out / 'supernet.json'
        known = json.loads(path.read_text()) if path.exists() else {}
        if name not in known:
            print(f'supernet: {name} …', flush=True)
            known[name] = measure()
            atomic_write(path, json.dumps(known, indent=2) + '\n')
        return known[name]

    @functools.lru_cache(maxsize=1)  # noqa: B019 - one study per process
    def supernet(self, index: int) -> SupernetEvaluator:
        """Load the supernet of a search."""
        config = Config.fromfile(self.out / 'supernet.py')
        config.work_dir, config.log_level, config.resume, config.load_from = (
            str(self.out / 'supernet'),
            'WARNING',
            False,
            None,
        )
        config.experiment_name = f'supernet_{index}_{os.getpid()}_{self.out.resolve()}'.replace('/', '_')
        config.vis_backends = [dict(type='mmengine.LocalVisBackend')]
        if config.get('visualizer'):
            config.visualizer.vis_backends = config.vis_backends
        object.__setattr__(config, '__class__', FormattedOnce)
        runner = Runner.from_cfg(config)
        runner.model.load_state_dict(load_from_local(self.checkpoint(index), 'cpu')['state_dict'])
        for group in searchable_slots(runner.model):
            group.temperature = self._last_temperature()
        loader = runner.build_dataloader(config.train_dataloader, seed=runner.seed)
        return SupernetEvaluator(runner, loader, self.args.batches, self.args.metric)

    def _last_temperature(self) -> float:
        hooks = self.search_config.get('custom_hooks') or []
        return next((hook['temperature'][1] for hook in hooks if 'temperature' in hook), 1.0)

    def as_trained(self, index: int) -> dict[str, Any]:
        """Return figure and saturation of a supernet as the search left it."""

        def measure() -> dict[str, Any]:
            evaluator = self.supernet(index)
            with saturation(evaluator.model) as shares:
                figure = evaluator.as_trained()
            values, total = shares
            return {'metric': evaluator.metric, 'figure': figure, 'saturation': values / total if total else None}

        return self.measured(f'search_{index} as trained', measure)

    def one_hot(self, name: str, architecture: Mapping[str, str]) -> float:
        """Return the figure of one architecture in the supernet of the first search."""
        return self.measured(name, lambda: self.supernet(0)(architecture))

    def importance(self, search: Mapping[str, Any], greater: bool) -> dict[str, dict[str, Any]]:
        """Replace the choice of each slot in the supernet by the plain operation, or by the runner-up."""
        found = search['architecture']
        base = self.one_hot('found', found)
        result = {}
        for slot, row in search['probabilities'].items():
            other = self.plain.get(slot)
            if other == found[slot] or other not in row:
                other = max((name for name in row if name != found[slot]), key=row.get)
            figure = self.one_hot(f'found with {slot} = {other}', {**found, slot: other})
            result[slot] = {
                'replaced_by': other,
                'figure': figure,
                'worse_by': (base - figure) * (1 if greater else -1),
            }
        return result

    # --- Trainings ----------------------------------------------------------------------------------------------------

    def train(self, name: str, seed: int) -> dict[str, Any]:
        """Train an architecture with one seed on the weights' half; return the part, with its ``figure``."""
        genotype = self.architectures[name]
        flags = ['--genotype', genotype] if genotype else []
        result = self.part(
            f'{name}_{seed}',
            'train.py',
            [self._config(name)],
            [*flags, '--cfg-options', f'randomness.seed={seed}'],
            figures=_validated,
        )
        self.metric = find_metric(result['figures'], self.args.metric)
        return {**result, 'figure': result['figures'][self.metric]}

    def test(self, name: str, seed: int) -> float:
        """Test what has been trained on the test set; return the figure."""
        folder = self.out / f'{name}_{seed}'
        genotype = self.architectures[name]
        flags = ['--genotype', genotype] if genotype else []
        part = self.part(f'{name}_{seed}/test', 'test.py', [self._config(name), folder], flags, figures=_tested)
        return part['figures'][find_metric(part['figures'], self.args.metric)]

    def _config(self, name: str) -> Path:
        plain = self.out / 'plain.py'
        return plain if name == 'plain' and plain.exists() else self.out / 'train.py'

    def random(self, index: int, spaces: Mapping[str, Sequence[str]]) -> tuple[str, dict[str, str]]:
        """Return name and operations of a random architecture."""
        draw = random.Random(f'{self.seed} {index}')
        name, slots = f'random_{index}', {slot: draw.choice(list(row)) for slot, row in spaces.items()}
        self.architectures[name] = self.write_genotype(name, {**self.fixed, **slots})
        return name, slots

    # --- Everything ---------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Run all parts, and return the report."""
        args, stages = self.args, self.args.stages
        searches = [self.search(index) for index in range(args.searches)]
        spaces = searches[0]['probabilities']
        result: dict[str, Any] = {'config': args.config, 'searches': searches, 'figures': None}
        figures: dict[str, dict[int, float]] = {}
        training_seconds = 0.0

        def train(name: str, seeds: Sequence[int]) -> None:
            nonlocal training_seconds
            for seed in seeds:
                part = self.train(name, seed)
                figures.setdefault(name, {})[seed] = part['figure']
                training_seconds = max(training_seconds, part['cpu_seconds'])

        if 'supernet' in stages:
            for index in reversed(range(args.searches)):  # the first one's supernet, needed below, stays loaded
                left = self.as_trained(index)
                searches[index]['saturation'] = left['saturation']
                self.metric = left['metric']
            result['importance'] = self.importance(searches[0], greater_is_better(self.metric))
        seeds = range(args.trainings)
        if 'rank' in stages and args.rank:
            drawn = [self.random(index, spaces) for index in range(args.rank)]
            supernet = [self.one_hot(name, slots) for name, slots in drawn]
            for name, _ in drawn:
                train(name, seeds[:2])
            trainings = {seed: [figures[name][seed] for name, _ in drawn] for seed in seeds[:2]}
            result['ranking'] = {'architectures': args.rank, 'supernet': supernet, 'trainings': trainings}
        if 'compare' in stages:
            train('plain', seeds)
            for index in range(args.searches):
                train(f'found_{index}', seeds)
            cost = max(search['cpu_seconds'] for search in searches)
            count = affordable(cost, training_seconds) if args.random == 'auto' else int(args.random)
            names = [self.random(index, spaces)[0] for index in range(count)]
            for name in names:
                train(name, [0])
            sign = 1 if greater_is_better(self.metric) else -1
            best = max(names, key=lambda name: sign * figures[name][0])
            train(best, range(1, args.trainings + 1))  # the first seed chose it
            result |= {'figures': figures, 'random': count, 'best_random': best}
            result['cost'] = {'of a search': cost, 'of a training': training_seconds}
            if args.test:
                rows = ['plain', *(f'found_{index}' for index in range(args.searches)), best]
                result['test'] = {name: {seed: self.test(name, seed) for seed in figures[name]} for name in rows}
        return build_report({**result, 'metric': self.metric, 'greater': greater_is_better(self.metric or '')})


@contextmanager
def saturation(model: Any) -> Iterator[list[int]]:
    """Count the values of a scene module's feature: those above 0.98, and all."""
    counts = [0, 0]
    scene = getattr(model, 'scene_module', None)

    def count(module: Any, inputs: Any, output: Any) -> None:
        feature = output.features[-1]
        counts[0] += int((feature > _SATURATED).sum())
        counts[1] += feature.numel()

    handle = scene.register_forward_hook(count) if scene is not None else None
    try:
        yield counts
    finally:
        if handle:
            handle.remove()


def _figures(line: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a line that LoggerHook writes after a validation or test; none of training's."""
    if 'loss' in line or 'lr' in line:
        return {}
    others = ('step', 'iter', 'epoch', 'time', 'data_time', 'memory')
    return {name: value for name, value in line.items() if isinstance(value, (int, float)) and name not in others}


def _validated(folder: Path) -> dict[str, float]:
    """Return the figures of the last validation of a run."""
    last: dict[str, float] = {}
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            figures = _figures(json.loads(line))
            if figures:
                last = figures
    if not last:
        raise ValueError(f'The training in {folder} left no figures of a validation.')
    return last


def _tested(folder: Path) -> dict[str, float]:
    """Return the figures of a test, from the file that LoggerHook writes after it."""
    results = sorted(path for path in folder.glob('*/*.json') if path.stem == path.parent.name)
    if not results:
        raise ValueError(f'The test in {folder} left no figures.')
    return _figures(json.loads(results[-1].read_text()))
