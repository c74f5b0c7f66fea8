"""Compare the test results of several work directories: ``compare_results.py work_dirs/a work_dirs/b_*``.

Directories whose names differ only in a final ``_<number>`` (``a_0``, ``a_1``, …) are treated as runs of one experiment
with several seeds: they share a row with the mean and the standard deviation.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table


def last_result(work_dir: Path) -> dict[str, float]:
    """Return the metrics of the last ``tools/test.py`` in a work directory.

    Args:
        work_dir (Path): Work directory of the run.

    Returns:
        dict[str, float]: Metrics by name.

    Raises:
        FileNotFoundError: If there are none.
        ValueError: If the file is damaged or empty.
    """
    # LoggerHook writes <time>/<time>.json after a test; training metrics are in vis_data.
    results = sorted(path for path in work_dir.glob('*/*.json') if path.stem == path.parent.name)
    if not results:
        raise FileNotFoundError(f'{work_dir} holds no test result; run tools/test.py with --work-dir {work_dir} first.')
    try:
        figures = json.loads(results[-1].read_text())
    except ValueError:
        raise ValueError(f'{results[-1]} is damaged: it is not JSON.') from None
    figures = {name: value for name, value in figures.items() if isinstance(value, (int, float))}
    if not figures:
        raise ValueError(f'{results[-1]} holds no figures.')
    return figures


def main() -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        'work_dirs', nargs='+', type=Path, metavar='WORK_DIR', help='work directories with test results'
    )
    parser.add_argument('--metric', help='end of the name of the figure to show (default: the first one)')
    args = parser.parse_args()
    runs: dict[str, dict[str, float]] = defaultdict(dict)
    shown = args.metric
    for work_dir in args.work_dirs:
        try:
            figures = last_result(work_dir)
        except (FileNotFoundError, ValueError) as error:
            sys.exit(f'Error: {error}')
        metric = next((name for name in figures if shown is None or name.endswith(shown)), None)
        if metric is None:
            sys.exit(f'Error: {work_dir} has no figure {shown!r}; it has {", ".join(figures)}.')
        shown = shown or metric
        name, seed = re.fullmatch(r'(.+?)(?:_(\d+))?', work_dir.resolve().name).groups()
        if (seed or '') in runs[name]:
            sys.exit(f'Error: two work directories are called {work_dir.resolve().name}; rename one.')
        runs[name][seed or ''] = figures[metric]
    seeds = sorted({seed for values in runs.values() for seed in values}, key=lambda seed: (len(seed), seed))
    table = Table('run', *(f'seed {seed}' if seed else 'one run' for seed in seeds), 'mean ± sd', title=shown)
    for name, values in runs.items():
        spread = f' ± {statistics.stdev(values.values()):.4f}' if len(values) > 1 else ''
        cells = (f'{values[seed]:.4f}' if seed in values else '' for seed in seeds)
        table.add_row(name, *cells, f'{statistics.mean(values.values()):.4f}{spread}')
    Console(width=140).print(table)


if __name__ == '__main__':
    main()
