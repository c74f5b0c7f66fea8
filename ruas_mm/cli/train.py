"""Train or search a model: ``tools/train.py CONFIG``."""

from __future__ import annotations

import argparse
import inspect
import shlex
import sys
from collections.abc import Sequence

from mmengine.config import Config
from mmengine.device import get_device

from ruas_mm.apis.config_check import find_class
from ruas_mm.apis.run_tool import unmasked_interrupts
from ruas_mm.apis.tool_runner import ToolRunner
from ruas_mm.apis.tools import add_common_arguments, find_checkpoint, load_config, set_amp, set_resume
from ruas_mm.cli.shipped_configs import find_config
from ruas_mm.engine import CooperativeSearchHook, LoadedWeightsHook
from ruas_mm.engine.pending_validation_hook import PendingValidationHook
from ruas_mm.utils.checkpoint import named_checkpoint

_EXAMPLES = """examples:
  ruas train detection/ruas_ssd_darkface          # a config of the package; its data are in data/darkface/
  ruas train mine.py --work-dir work_dirs/mine    # a config of your own
  ruas train mine.py --work-dir work_dirs/mine --resume
  ruas train enhance/ruas_a_unpaired --cfg-options train_dataloader.dataset.data_root=photos/
  ruas train detection/ruas_ssd_darkface --genotype work_dirs/ruas_ssd_darkface_search/genotype.json"""
_EXAMPLES_OF_SEARCH = """examples:
  ruas search detection/ruas_ssd_darkface_search  # writes genotype.json to work_dirs/ruas_ssd_darkface_search/
  ruas search detection/ruas_ssd_darkface_search --resume
  ruas train detection/ruas_ssd_darkface --genotype work_dirs/ruas_ssd_darkface_search/genotype.json"""


def parse_args(argv: Sequence[str] | None = None, prog: str | None = None, search: bool = False) -> argparse.Namespace:
    """Read the command line.

    Args:
        argv (Sequence[str], optional): The arguments; by default those of the process.
        prog (str, optional): The command of ``ruas`` that is called; by default the script is.
        search (bool): Whether the help is about searches alone. Defaults to False.

    Returns:
        argparse.Namespace: The options.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Search an architecture.' if search else 'Train or search a model.',
        epilog=(_EXAMPLES_OF_SEARCH if search else _EXAMPLES) if prog else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help=f'config file{", or the name of a config of the package" if prog else ""}')
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint; without a path from the newest sound one in the work directory',
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def how_to_resume(args: argparse.Namespace, command: Sequence[str], work_dir: str) -> str:
    """Say how to go on after Ctrl-C.

    Args:
        args (argparse.Namespace): What :func:`parse_args` returned.
        command (Sequence[str]): The command line that it read, with the name of the program.
        work_dir (str): The work directory.

    Returns:
        str: The command, or that there is no checkpoint yet.
    """
    checkpoint = named_checkpoint(work_dir)
    if not checkpoint:
        return f'There is no checkpoint in {work_dir} yet.'
    if args.launcher != 'none':
        return f'To go on from {checkpoint}, launch the same command with --resume.'
    more = [] if args.resume == 'auto' else ['--resume']  # the last one counts
    return f'To go on from {checkpoint}: {shlex.join([*command, *more])}'


def has_search(config: Config) -> bool:
    """Return whether a config searches an architecture.

    Args:
        config (Config): The config to run.
    """
    hooks = [find_class(config, 'custom_hooks.0', hook.get('type'))[1] for hook in config.get('custom_hooks') or []]
    return any(inspect.isclass(hook) and issubclass(hook, CooperativeSearchHook) for hook in hooks)


def main(argv: Sequence[str] | None = None, prog: str | None = None, search: bool = False) -> None:
    """Run the tool.

    Args:
        argv (Sequence[str], optional): The arguments; by default those of the process.
        prog (str, optional): The command of ``ruas`` that is called, which takes the names of our configs too; by
            default the script is.
        search (bool): Whether to refuse a config that does not search. Defaults to False.

    Raises:
        ValueError: If ``search`` is set and the config has no :class:`ruas_mm.CooperativeSearchHook`, or if the config
            is wrong otherwise.
    """
    args = parse_args(argv, prog, search)
    if prog:
        args.config = find_config(args.config)
    command = [*prog.split(), *(argv or ())] if prog else ['python', *sys.argv]
    config = load_config(args, ('train_dataloader', 'train_cfg', 'optim_wrapper'))
    if search and not has_search(config):
        raise ValueError(
            f'Config {args.config} must have a CooperativeSearchHook in custom_hooks to be searched, but has none; '
            'the configs of searches end in _search.py.'
        )
    remarks = []
    if args.amp:
        if get_device() == 'cpu':
            raise SystemExit('Error: --amp needs an accelerator, and torch finds none here.')
        remarks.append(set_amp(config))
    if args.auto_scale_lr:
        if 'base_batch_size' not in config.get('auto_scale_lr', {}):
            raise SystemExit(f'Error: --auto-scale-lr needs auto_scale_lr.base_batch_size in {args.config}.')
        config.auto_scale_lr.enable = True
    if args.resume:
        remarks.append(set_resume(config, args.resume))
    if config.get('load_from'):
        config.load_from = find_checkpoint(config.load_from)
    try:
        with unmasked_interrupts():
            runner = ToolRunner.from_cfg(config)
            for remark in filter(None, remarks):
                runner.logger.warning(remark)  # now it also reaches the log file
            runner.register_hook(LoadedWeightsHook())
            runner.register_hook(PendingValidationHook())
            runner.train()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(how_to_resume(args, command, config.work_dir)) from None
