"""Run the experiments of a table and print it: ``run.py TABLE``, e.g. ``run.py search_detection``.

A table is a small config in ``tables/``: rows, each with what it searches and trains, and the metric. Every search and
every training is one run of ``tools/train.py`` in a folder of its own. Finished runs are kept, a killed one goes on,
and several processes of this tool share the runs of one table between them.
"""

from __future__ import annotations

import argparse
import copy
import fcntl
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mmengine.config import Config
from rich.console import Console
from rich.markdown import Markdown
from scipy import stats

import ruas_mm
from ruas_mm.apis.config_check import read_keys
from ruas_mm.engine.random_search import draw_architectures
from ruas_mm.registry import MODELS
from ruas_mm.search import Genotype
from ruas_mm.utils.fileio import atomic_write

_ROOT = Path(__file__).parents[2]


@dataclass
class Result:
    """What one run gave.

    Attributes:
        metrics (list[float]): The metric at each validation; empty for a search.
        cpu_seconds (float): CPU time of the run, without attempts that were killed.
        slots (dict[str, str]): Architecture that was trained or found; empty for that of the config.
        digest (str): Of the config, to tell whether the result is that of the present table.
        version (str): Version of this package.
    """

    metrics: list[float]
    cpu_seconds: float
    slots: dict[str, str]
    digest: str
    version: str


class Table:
    """The runs of one table.

    Args:
        path (Path): The config of the table.
        out (Path): Folder of the runs.
        data (dict[str, str]): What ``{NAME}`` in the values of options stands for.
    """

    def __init__(self, path: Path, out: Path, data: dict[str, str]) -> None:
        self.name = path.stem
        self.config = Config.fromfile(path)
        self.out = out / self.name
        self._data = data

    def run(self, rows: list[str]) -> None:
        """Run what is missing, the first seed of all rows first.

        Args:
            rows (list[str]): Names of the rows.
        """
        plans = {row: self._plan(row) for row in rows}
        for place in range(max(map(len, plans.values()))):
            for row, plan in plans.items():
                if place < len(plan):
                    self._run_cell(row, *plan[place])

    def _plan(self, row: str) -> list[tuple[int, int]]:
        """Return search and training of every cell of a row."""
        config = self.config.rows[row]
        searches = config.get('searches', self.config.searches)
        trainings = config.get('trainings', self.config.trainings)
        return [(search, training) for training in range(trainings) for search in range(searches)]

    def _run_cell(self, row: str, search: int, training: int) -> None:
        """Search, if the row does, and train."""
        config = self.config.rows[row]
        slots: dict[str, str] | None = None
        if 'search' in config:
            found = self._once(row, f'search-{search}', 'search', search, None)
            if found is None:
                return
            slots = found.slots
        elif config.get('genotype') == 'random':
            slots = self._random(row, search)
        seed = search * self.config.rows[row].get('trainings', self.config.trainings) + training
        self._once(row, f'train-{search}-{training}', 'train', seed, slots)

    def _random(self, row: str, seed: int) -> dict[str, str]:
        """Draw one candidate for each slot."""
        model = MODELS.build(self._build_config(row, 'random', 0).model)
        return draw_architectures(model, 1, seed)[0]

    def _build_config(self, row: str, part: str, seed: int, fill: bool = True) -> Config:
        """Return the config of a run: that of the table's part with the options of table and row."""
        options: dict[str, Any] = {'randomness.seed': seed}
        source = ''
        for level in (self.config.get(part, {}), self.config.rows[row].get(part, {})):
            source = level.get('config', source)
            options.update(copy.deepcopy(level.get('options', {})))  # merging takes `_delete_` out of them
        config = Config.fromfile(_ROOT / source)
        config.merge_from_dict(self._fill(options) if fill else options)
        return config

    def _digest(self, row: str, part: str, seed: int, slots: dict[str, str] | None) -> str:
        """Return a hash of all that a result depends on but the place of the data."""
        config = self._build_config(row, part, seed, fill=False).to_dict()
        keys = read_keys()
        read = {key: value for key, value in config.items() if key in keys}
        return hashlib.sha256(json.dumps([read, slots], sort_keys=True, default=str).encode()).hexdigest()

    def _fill(self, value: Any) -> Any:
        """Put the data sets in the place of their names."""
        if isinstance(value, dict):
            return {key: self._fill(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(map(self._fill, value))
        return value.format(**self._data) if isinstance(value, str) else value

    def _once(self, row: str, name: str, part: str, seed: int, slots: dict[str, str] | None) -> Result | None:
        """Return the result of a run, now or from an earlier one; None where another process has it in hand."""
        digest = self._digest(row, part, seed, slots)
        work_dir = self.out / row / name
        work_dir.mkdir(parents=True, exist_ok=True)
        with _locked(work_dir / '.lock') as mine:
            if not mine:
                return None
            result = self._read(row, name)
            if result is not None and result.digest == digest:
                return result
            kept = work_dir / 'digest.txt'
            if not kept.is_file() or kept.read_text() != digest:  # what is there belongs to another config
                for path in work_dir.iterdir():
                    if path.name != '.lock':
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
                kept.write_text(digest)
            return self._execute(row, name, part, seed, slots, digest)

    def _execute(self, row: str, name: str, part: str, seed: int, slots: dict[str, str] | None, digest: str) -> Result:
        work_dir = self.out / row / name
        self._build_config(row, part, seed).dump(work_dir / 'config.py')
        command = [sys.executable, _ROOT / 'tools/train.py', work_dir / 'config.py', '--work-dir', work_dir, '--resume']
        genotype = self.config.rows[row].get('genotype') if part == 'train' else None
        if slots is not None:
            Genotype(slots).save(work_dir / 'architecture.json')
            genotype = work_dir / 'architecture.json'
        if genotype is not None:
            command += ['--genotype', genotype]
        before = _children_seconds()
        print(f'{self.name}: {row} {name}', flush=True)
        with open(work_dir / 'output.txt', 'w') as output:
            done = subprocess.run(list(map(str, command)), stdout=output, stderr=subprocess.STDOUT, env=_environment())
        if done.returncode:
            raise SystemExit(f'Error: {row} {name} has failed; its output is in {work_dir / "output.txt"}.')
        if part == 'search':
            slots = Genotype.load(work_dir / 'genotype.json').slots
        metrics = [] if part == 'search' else _metrics(work_dir, self.config.metric)
        result = Result(metrics, _children_seconds() - before, slots or {}, digest, ruas_mm.__version__)
        atomic_write(work_dir.with_suffix('.json'), json.dumps(asdict(result), indent=1) + '\n')
        for checkpoint in work_dir.glob('*.pth') if part == 'train' else ():
            checkpoint.unlink()  # hundreds of runs would fill the disk
        return result

    def _read(self, row: str, name: str) -> Result | None:
        path = self.out / row / f'{name}.json'
        return Result(**json.loads(path.read_text())) if path.is_file() else None

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return the figures of every row that has any.

        Returns:
            dict[str, dict]: By row: ``values`` (one list of trainings for each search), ``mean``, ``sd`` (of the
            searches), ``difference`` to the baseline with its 95 % interval (Welch's t), and mean CPU seconds.
        """
        last = self.config.get('average_last', 1)
        summary: dict[str, dict[str, Any]] = {}
        for row, config in self.config.rows.items():
            trained: dict[int, list[Result]] = {}
            for search, training in self._plan(row):
                result = self._read(row, f'train-{search}-{training}')
                if result is not None:
                    trained.setdefault(search, []).append(result)
            if not trained:
                continue
            values = {search: [mean(r.metrics[-last:]) for r in results] for search, results in trained.items()}
            units = [mean(group) for group in values.values()]
            searches = [self._read(row, f'search-{search}') for search in trained] if 'search' in config else []
            summary[row] = {
                'title': config.get('title', row),
                'values': values,
                'mean': mean(units),
                'sd': stdev(units) if len(units) > 1 else None,
                'search_seconds': mean(r.cpu_seconds for r in searches) if searches else None,
                'train_seconds': mean(r.cpu_seconds for results in trained.values() for r in results),
            }
        base = summary.get(self.config.get('baseline'))
        for figures in summary.values():
            if base is not None and figures is not base:
                figures['difference'] = difference(_units(figures), _units(base))
        return summary

    def markdown(self) -> str:
        """Return the table as Markdown."""
        lines = [
            f'| | {self.config.metric} of each search (mean of its trainings) | mean ± sd | difference to '
            f'{self.config.get("baseline")}, 95 % interval | CPU s, search | CPU s, training |',
            '| --- | --- | --- | --- | --- | --- |',
        ]
        for figures in self.summary().values():
            units = ', '.join(f'{value:.3f}' for value in _units(figures))
            spread = '' if figures['sd'] is None else f' ± {figures["sd"]:.3f}'
            interval = figures.get('difference')
            text = '' if interval is None else f'{interval[0]:+.3f} ({interval[1]:+.3f} to {interval[2]:+.3f})'
            search = '' if figures['search_seconds'] is None else f'{figures["search_seconds"]:.0f}'
            lines.append(
                f'| {figures["title"]} | {units} | {figures["mean"]:.3f}{spread} | {text} | {search} | '
                f'{figures["train_seconds"]:.0f} |'
            )
        return '\n'.join(lines) + '\n'


def difference(values: list[float], baseline: list[float]) -> tuple[float, float, float] | None:
    """Return the difference of two means with its 95 % interval.

    Args:
        values (list[float]): Independent figures.
        baseline (list[float]): Independent figures of the other.

    Returns:
        tuple[float, float, float] | None: Difference, lower and upper end by Welch's t; None with fewer than two
        figures on a side.
    """
    if min(len(values), len(baseline)) < 2:
        return None
    interval = stats.ttest_ind(values, baseline, equal_var=False).confidence_interval(0.95)
    return mean(values) - mean(baseline), float(interval.low), float(interval.high)


def _units(figures: dict[str, Any]) -> list[float]:
    return [mean(group) for group in figures['values'].values()]


def _metrics(work_dir: Path, metric: str) -> list[float]:
    """Return a metric at every validation in a work directory, whose run may have been resumed."""
    values: dict[int, float] = {}
    for scalars in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in scalars.read_text().splitlines():
            row = json.loads(line)
            for name, value in row.items():
                if name.endswith(metric):
                    values[row['step'] or len(values)] = value  # a loop by iterations counts no steps
    if not values:
        raise SystemExit(f'Error: {work_dir} has no validation with the metric {metric!r}.')
    return [values[step] for step in sorted(values)]


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _environment() -> dict[str, str]:
    """Return the environment with this checkout first on the path."""
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, [str(_ROOT), os.environ.get('PYTHONPATH')]))}


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Hold a lock file, which ends with the process; yield whether it was free."""
    with open(path, 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def main() -> None:
    """Run the tool."""
    tables = Path(__file__).parent / 'tables'
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        'table', help=f'one of {", ".join(sorted(path.stem for path in tables.glob("*.py")))}, or a file'
    )
    parser.add_argument('--rows', nargs='+', metavar='ROW', help='only these rows')
    parser.add_argument(
        '--data', nargs='*', default=[], metavar='NAME=PATH', help='where the data sets of the table are'
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmark'), help='folder of the runs')
    parser.add_argument('--table-only', action='store_true', help='run nothing, print what there is')
    args = parser.parse_args()
    path = Path(args.table) if args.table.endswith('.py') else tables / f'{args.table}.py'
    if not path.is_file():
        raise SystemExit(
            f'Error: there is no table {args.table}; choose from {", ".join(p.stem for p in tables.glob("*.py"))}.'
        )
    table = Table(path, args.out, dict(pair.split('=', 1) for pair in args.data))
    rows = args.rows or list(table.config.rows)
    unknown = set(rows) - set(table.config.rows)
    if unknown:
        raise SystemExit(f'Error: {path.name} has no row {", ".join(unknown)}; it has {", ".join(table.config.rows)}.')
    if not args.table_only:
        table.run(rows)
    atomic_write(args.out / f'{table.name}.json', json.dumps(table.summary(), indent=1) + '\n')
    atomic_write(args.out / f'{table.name}.md', table.markdown())
    Console(width=160).print(Markdown(table.markdown()))


if __name__ == '__main__':
    main()
