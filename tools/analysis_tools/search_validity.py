"""Say how far a search can be trusted: ``search_validity.py SEARCH_CONFIG --fallback ssd_plain --out DIR``.

Searches with several seeds, looks into their supernets, and trains what they found beside the plain architecture and
random ones, on the half of the training images that trained the weights, judged on the other half. Every run is a part
of its own in a folder below DIR: the same command again goes on where it was killed, and runs no finished part again.
DIR/validity.md, validity.json and validity.png hold the report; docs/search.md says how to read it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import DictAction

from ruas_mm.apis.run_tool import add_debug_argument, run_tool
from ruas_mm.apis.search_study import STAGES, SearchStudy
from ruas_mm.evaluation.search_validity import markdown
from ruas_mm.utils.fileio import atomic_write

TOOLS = Path(__file__).resolve().parents[1]


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='search config, whose training data are a ruas_mm.split_dataset')
    parser.add_argument('--train-config', help='config that trains the result (default: the name without "_search")')
    parser.add_argument('--out', required=True, type=Path, metavar='DIR', help='folder of all parts and the report')
    parser.add_argument('--searches', type=int, default=2, metavar='N', help='searches, by seed (default: 2)')
    parser.add_argument('--trainings', type=int, default=2, metavar='N', help='trainings of each architecture')
    parser.add_argument('--random', default='auto', metavar='N', help="random architectures; auto: for a search's cost")
    parser.add_argument('--rank', type=int, default=6, metavar='N', help='random architectures to rank (default: 6)')
    parser.add_argument(
        '--batches', type=int, default=10, metavar='N', help='training batches for batch statistics in the supernet'
    )
    parser.add_argument('--metric', metavar='KEY', help='figure of the validation (default: the first one)')
    parser.add_argument(
        '--fallback',
        metavar='NAME',
        help='the plain architecture: a genotype (slots that it lacks are those of the training config), or a config '
        '(.py) of the plain model (default: the genotypes in the training config)',
    )
    parser.add_argument('--stages', nargs='+', choices=STAGES, default=STAGES, help='what to do (default: everything)')
    parser.add_argument('--test', action='store_true', help='test the compared architectures on the test set too')
    for name, what in (('cfg', 'all configs'), ('search', 'the search alone'), ('train', 'the trainings alone')):
        parser.add_argument(
            f'--{name}-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE', help=f'for {what}'
        )
    add_debug_argument(parser)
    args = parser.parse_args(arguments)
    for option, minimum in (('searches', 1), ('trainings', 1), ('rank', 0), ('batches', 1)):
        if getattr(args, option) < minimum:
            parser.error(f'--{option} must be at least {minimum}, got {getattr(args, option)}')
    if args.random != 'auto' and not (args.random.isdigit() and int(args.random)):
        parser.error(f'--random must be "auto" or a number of at least 1, got {args.random!r}')
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the tool; see the module's text."""
    from ruas_mm.visualization.validity import plot_validity

    args = parse_args(arguments)
    report = SearchStudy(args, TOOLS).run()
    atomic_write(args.out / 'validity.json', json.dumps(report, indent=2) + '\n')
    atomic_write(args.out / 'validity.md', markdown(report))
    plot_validity(report, args.out / 'validity.png')
    if report['advice']:
        print(report['advice'])
    print(f'The report is {args.out}/validity.md, with validity.json and validity.png beside it.')


if __name__ == '__main__':
    run_tool(main)
