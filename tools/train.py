"""Train or search a model: ``tools/train.py CONFIG``."""

from __future__ import annotations

import argparse
import shlex
import sys

from mmengine.device import get_device

from ruas_mm.apis.run_tool import run_tool
from ruas_mm.apis.tool_runner import ToolRunner
from ruas_mm.apis.tools import add_common_arguments, find_checkpoint, load_config, set_resume
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


def how_to_resume(work_dir: str, resumes: bool) -> str:
    """Say how to go on after Ctrl-C.

    Args:
        work_dir (str): The work directory.
        resumes (bool): Whether the command that was given ends with all that it takes.

    Returns:
        str: The command, or that there is no checkpoint yet.
    """
    if not named_checkpoint(work_dir):
        return f'There is no checkpoint in {work_dir} yet.'
    command = ['python', *sys.argv, *([] if resumes else ['--resume'])]
    return f'To go on from {named_checkpoint(work_dir)}: {shlex.join(command)}'


def main() -> None:
    """Run the tool."""
    args = parse_args()
    config = load_config(args)
    if args.amp:
        if get_device() == 'cpu':
            raise SystemExit('Error: --amp needs an accelerator, and torch finds none here.')
        config.optim_wrapper.type = 'mmengine.AmpOptimWrapper'
        config.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in config.get('auto_scale_lr', {}):
            raise SystemExit(f'Error: --auto-scale-lr needs auto_scale_lr.base_batch_size in {args.config}.')
        config.auto_scale_lr.enable = True
    remark = set_resume(config, args.resume) if args.resume else ''
    if config.get('load_from'):
        config.load_from = find_checkpoint(config.load_from)
    try:
        runner = ToolRunner.from_cfg(config)
        if remark:
            runner.logger.warning(remark)  # now it also reaches the log file
        runner.register_hook(PendingValidationHook())
        runner.train()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(how_to_resume(config.work_dir, args.resume == 'auto')) from None


if __name__ == '__main__':
    run_tool(main)
