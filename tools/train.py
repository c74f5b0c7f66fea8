"""Train or search a model: ``tools/train.py CONFIG``."""

from __future__ import annotations

import argparse
import shlex
import sys

from mmengine.device import get_device

from ruas_mm.apis.run_tool import run_tool, unmasked_interrupts
from ruas_mm.apis.tool_runner import ToolRunner
from ruas_mm.apis.tools import add_common_arguments, find_checkpoint, load_config, set_amp, set_resume
from ruas_mm.engine import LoadedWeightsHook
from ruas_mm.engine.pending_validation_hook import PendingValidationHook
from ruas_mm.utils.checkpoint import named_checkpoint


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Train or search a model.')
    parser.add_argument('config', help='config file')
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
    return parser.parse_args()


def how_to_resume(args: argparse.Namespace, work_dir: str) -> str:
    """Say how to go on after Ctrl-C.

    Args:
        args (argparse.Namespace): What :func:`parse_args` returned.
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
    return f'To go on from {checkpoint}: {shlex.join(["python", *sys.argv, *more])}'


def main() -> None:
    """Run the tool."""
    args = parse_args()
    config = load_config(args, ('train_dataloader', 'train_cfg', 'optim_wrapper'))
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
        raise KeyboardInterrupt(how_to_resume(args, config.work_dir)) from None


if __name__ == '__main__':
    run_tool(main)
