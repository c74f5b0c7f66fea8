"""Random search: the baseline that a search has to beat at equal cost."""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner

from ruas_mm.engine.nested_run import common_seed, find_hooks, nested_config, nested_run, read_together
from ruas_mm.engine.objective import unwrapped
from ruas_mm.engine.stopwatch_hook import StopwatchHook
from ruas_mm.search import Genotype, derive_genotype, searchable_slots, set_genotype, slot_edges
from ruas_mm.utils.fileio import atomic_write


def draw_architectures(model: BaseModel, count: int, seed: int) -> list[dict[str, str]]:
    """Draw operations uniformly and independently for all searchable slots.

    Args:
        model (BaseModel): The model, unwrapped; slots that are not searchable keep their operation.
        count (int): Number of architectures. Those of a smaller number are the first of a larger one.
        seed (int): Seed.

    Returns:
        list[dict[str, str]]: Operation by slot.
    """
    generator, fixed = random.Random(seed), derive_genotype(model).slots
    slots = searchable_slots(model)
    return [
        {**fixed, **{name: generator.choice(group.candidates) for group in slots for name in group.names}}
        for _ in range(count)
    ]


class RandomSearch:
    """Trains random architectures as the run's config says, and keeps the one with the best validation metric.

    Sample i is a run of its own in ``sample_i`` of the work directory: the config without the search's hook, with the
    architecture in the model. Samples that have ended are kept, and one that was killed goes on.

    Args:
        runner (Runner): The run, with a searchable model.
        samples (int): Number of architectures, at least 1.
        metric (str): Name of the validation metric as the log shows it; larger is better.
        hook (type[Hook]): The class of the search's hook.

    Raises:
        ValueError: If the run has no validation.
    """

    def __init__(self, runner: Runner, samples: int, metric: str, hook: type[Hook]) -> None:
        if runner._val_loop is None:
            raise ValueError(
                f"strategy='random' judges each sample by {metric!r} of its validation, but the config has no "
                'val_dataloader, val_evaluator and val_cfg.'
            )
        self._runner = runner
        self._model = unwrapped(runner)
        self._count = samples
        self._metric = metric
        self._hook = hook
        self._folder = Path(runner.work_dir)
        self._seed = self._choose_seed()

    def _choose_seed(self) -> int:
        """Return the run's seed; where the config leaves that to chance, the one that the samples were drawn with."""
        earlier = read_together(self._folder / 'samples.json')
        left_to_chance = (self._runner.cfg.get('randomness') or {}).get('seed') is None
        if left_to_chance and earlier is not None and isinstance(earlier.get('seed'), int):
            return earlier['seed']
        return common_seed(self._runner)

    def run(self) -> None:
        """Train and judge the samples, and write ``samples.json``, ``genotype.json`` and ``architecture.png``.

        Raises:
            ValueError: If a folder holds another sample, or the validation has no such metric.
        """
        samples: list[dict[str, Any]] = []
        self._save(samples)
        for index, slots in enumerate(draw_architectures(self._model, self._count, self._seed)):
            samples.append(self._sample(index, slots))
            self._save(samples)
        self._finish(samples)

    def _sample(self, index: int, slots: dict[str, str]) -> dict[str, Any]:
        """Return the result of one sample, which may have ended before."""
        runner, folder = self._runner, self._folder / f'sample_{index}'
        result = read_together(folder / 'sample.json')
        begun = read_together(folder / 'genotype.json') if result is None else result
        if begun is not None and begun.get('slots') != slots:
            raise ValueError(
                f'{folder} holds another architecture than the one drawn with seed {self._seed}: give this search '
                'another work directory, or the seed of that one.'
            )
        if result is not None:
            runner.logger.info(f'Sample {index + 1} of {self._count} has ended already: {folder} is taken as it is.')
        else:
            runner.logger.info(f'Sample {index + 1} of {self._count} is trained in {folder}.')
            result = self._train(folder, slots)
        value = result['metrics'].get(self._metric)
        if self._metric not in result['metrics']:
            raise ValueError(
                f'The validation of {folder} has no metric {self._metric!r}; it has {", ".join(result["metrics"])}.'
            )
        return {'folder': folder.name, **result, 'value': value}

    def _train(self, folder: Path, slots: dict[str, str]) -> dict[str, Any]:
        runner = self._runner
        load_from = None if runner._resume else runner._load_from
        config = nested_config(runner, folder.name, self._seed, load_from)
        hooks = find_hooks(config, self._hook)
        config.custom_hooks = [
            hook for hook in config.get('custom_hooks') or () if not any(hook is search for search in hooks)
        ]
        set_genotype(config.model, slots)
        if is_main_process():
            Genotype(slots, origin={'strategy': 'random', 'seed': self._seed}).save(folder / 'genotype.json')
        stopwatch, last = StopwatchHook(), _LastMetrics()
        with nested_run(runner, config) as nested:
            left = searchable_slots(unwrapped(nested))
            if left:
                raise ValueError(
                    f'The config of the model has no key "genotype" for {left[0].prefix}; write genotype=None there.'
                )
            nested.register_hook(stopwatch)
            nested.register_hook(last)
            nested.train()
            if last.iteration != nested.iter:  # it ended before, or the interval of validations did not fit
                nested.val_loop.run()
            steps = {'scene': nested.iter * (getattr(self._model, 'scene_module', None) is not None)}
            result = {
                'slots': slots,
                'metrics': last.metrics,
                'weight_steps': {**steps, 'task': nested.iter},
                'seconds': stopwatch.seconds(),
            }
        if is_main_process():
            _write(folder / 'sample.json', result)
        return result

    def _save(self, samples: Sequence[dict[str, Any]]) -> None:
        """Write ``samples.json``."""
        if not is_main_process():
            return
        values = [sample['value'] for sample in samples if sample['value'] is not None]
        content = {
            'format': 'ruas_mm.samples',
            'version': 1,
            'config': self._runner.cfg.filename,
            'seed': self._seed,
            'metric': self._metric,
            'best': _best(samples)['folder'] if samples else None,
            'mean': statistics.fmean(values) if values else None,
            'sd': statistics.stdev(values) if len(values) > 1 else None,
            'seconds': {key: round(sum(each['seconds'][key] for each in samples), 2) for key in ('cpu', 'wall')},
            'samples': samples,
        }
        _write(self._folder / 'samples.json', content)

    def _finish(self, samples: Sequence[dict[str, Any]]) -> None:
        if not is_main_process():
            return
        from ruas_mm.visualization.architecture import draw_architecture  # here: matplotlib takes long to import

        best, path = _best(samples), self._folder / 'genotype.json'
        origin = {
            'config': self._runner.cfg.filename,
            'strategy': 'random',
            'samples': len(samples),
            'seed': self._seed,
            'metric': self._metric,
            'value': best['value'],
            'weight_steps': best['weight_steps'],
        }
        genotype = Genotype(best['slots'], origin=origin)
        genotype.save(path)
        draw_architecture(genotype, slot_edges(self._model), path.with_name('architecture.png'))
        lines = [f'  {each["folder"]}  {_text(each["value"])}  {each["seconds"]["cpu"]:.0f} s' for each in samples]
        self._runner.logger.info(
            '\n'.join([f'{self._metric} and CPU time of the samples:', *lines])
            + f'\nThe best one is {best["folder"]}: {path} (samples.json, architecture.png beside it).'
        )


class _LastMetrics(Hook):
    """Keeps the metrics of the last validation, and its iteration."""

    def __init__(self) -> None:
        self.metrics: dict[str, float | None] = {}
        self.iteration: int | None = None

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, Any] | None = None) -> None:
        self.iteration, self.metrics = runner.iter, {}
        for name, value in (metrics or {}).items():
            try:
                number = float(value)
            except (TypeError, ValueError):  # such as a line to copy into a table
                continue
            self.metrics[name] = number if math.isfinite(number) else None


def _best(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return max(samples, key=lambda sample: -math.inf if sample['value'] is None else sample['value'])


def _text(value: float | None) -> str:
    return 'not finite' if value is None else f'{value:.4f}'


def _write(path: Path, content: Mapping[str, Any]) -> None:
    atomic_write(path, json.dumps(content, indent=2, allow_nan=False) + '\n')
