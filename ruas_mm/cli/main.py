"""The command ``ruas``: one name for the tools, from wherever the package is installed."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Any, NamedTuple

from ruas_mm.cli.process import run
from ruas_mm.version import __version__

_EXAMPLES = """examples:
  ruas enhance photos/ bright/                    # a folder of pictures and videos, with the weights of the package
  ruas train detection/ruas_ssd_demo              # a config of the package by its name, or the path of any config
  ruas test detection/ruas_ssd_demo work_dirs/ruas_ssd_demo --show-dir pictures
  ruas search detection/ruas_ssd_demo_search      # writes genotype.json, which train takes with --genotype

"ruas COMMAND --help" lists the options of a command."""


class Command(NamedTuple):
    """A command of ``ruas``.

    Args:
        summary (str): What it does.
        module (str): Where its ``main`` is; imported when the command is called, so that a command needs no more
            packages than it uses.
        options (dict[str, Any]): Further arguments of that ``main``.
    """

    summary: str
    module: str
    options: dict[str, Any] = {}


COMMANDS = {
    'enhance': Command('turn dark images and videos into bright ones', 'ruas_mm.cli.enhance'),
    'train': Command('train a detector, a segmentor or an enhancer', 'ruas_mm.cli.train'),
    'test': Command('test a checkpoint, and draw its results', 'ruas_mm.cli.test'),
    'search': Command('search an architecture for your data', 'ruas_mm.cli.train', {'search': True}),
}


def main(prog: str = 'ruas') -> None:
    """Run the command that the arguments of the process ask for.

    Args:
        prog (str): How the user has called the program. Defaults to ``'ruas'``.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Low-light vision with RUAS: detection, segmentation and enhancement in the dark.',
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='version', version=f'ruas_mm {__version__}')
    commands = parser.add_subparsers(title='commands', dest='command', metavar='COMMAND', required=True)
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.summary, add_help=False)
    name = parser.parse_args(sys.argv[1:2]).command  # the rest is for the command to read
    command = COMMANDS[name]

    def chosen() -> None:
        tool = importlib.import_module(command.module)
        tool.main(sys.argv[2:], f'{prog} {name}', **command.options)

    run(chosen)
