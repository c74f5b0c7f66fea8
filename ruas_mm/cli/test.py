"""Test a model: ``tools/test.py CONFIG CHECKPOINT``."""

from __future__ import annotations

import argparse
import copy
import inspect
import os
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config

from ruas_mm.apis.config_check import find_class
from ruas_mm.apis.tool_runner import ToolRunner
from ruas_mm.apis.tools import add_common_arguments, find_checkpoint, load_config
from ruas_mm.cli.shipped_configs import find_config
from ruas_mm.evaluation import DarkFaceMetric

_EXAMPLES = """examples:
  ruas test detection/ruas_ssd_darkface work_dirs/ruas_ssd_darkface   # the last checkpoint of that folder
  ruas test detection/ruas_ssd_darkface weights.pth --show-dir pictures/ --out predictions.pkl"""


def parse_args(argv: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """Read the command line.

    Args:
        argv (Sequence[str], optional): The arguments; by default those of the process.
        prog (str, optional): The command of ``ruas`` that is called; by default the script is.

    Returns:
        argparse.Namespace: The options.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Test a model.',
        epilog=_EXAMPLES if prog else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help=f'config file{", or the name of a config of the package" if prog else ""}')
    parser.add_argument('checkpoint', help='checkpoint file, or a work directory: its last checkpoint')
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions')
    parser.add_argument('--show-dir', help='folder for pictures: input, enhanced, illumination, result, ground truth')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    add_common_arguments(parser)
    args = parser.parse_args(argv)
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out writes a pickle file, so its name must end in .pkl, not {args.out}')
    return args


def open_metrics(holder: Any, key: str | int) -> list[list[dict]]:
    """Make the metrics of an evaluator lists that can be extended.

    Args:
        holder (Any): Config or list that the evaluator is in. That is a metric, a list of them, a dict with ``metrics``
            or, for mmagic's loops, a list of evaluators, one for each test set.
        key (str | int): Where it is.

    Returns:
        list[list[dict]]: The lists, one for each test set.
    """
    evaluator = holder[key]
    if isinstance(evaluator, dict) and 'metrics' in evaluator:
        return open_metrics(evaluator, 'metrics')
    holder[key] = list(evaluator) if isinstance(evaluator, (list, tuple)) else [evaluator]
    items = holder[key]  # configs keep a copy
    if items and all(isinstance(item, (list, tuple)) or 'metrics' in item for item in items):
        return [metrics for index in range(len(items)) for metrics in open_metrics(items, index)]
    return [items]


def draw_pictures(config: Config, folder: str) -> None:
    """Let the hooks that draw write to a folder.

    Hooks like mmdet's take the folder themselves; others draw through the visualizer, whose backends then get it.

    Args:
        config (Config): The config to run.
        folder (str): Absolute path, or both kinds would put it below the work directory's time stamp.
    """
    drawing = False
    for hook in filter(None, [*config.default_hooks.values(), *(config.get('custom_hooks') or [])]):
        options = _options(config, 'hooks.0', hook)
        switches = options & {'draw', 'on_test'}
        if not switches:
            continue
        drawing = True
        hook.update(dict.fromkeys(switches, True))
        if 'test_out_dir' in options:
            hook.test_out_dir = folder
            continue
        for backend in config.visualizer.get('vis_backends') or []:
            if 'img_save_dir' in _options(config, 'vis_backends.0', backend):
                backend.img_save_dir = folder
    if not drawing:
        raise SystemExit('Error: --show-dir needs a visualization hook in default_hooks or custom_hooks of the config.')


def _options(config: Config, path: str, part: dict) -> set[str]:
    """Return the names of the options that a part of a config takes."""
    cls = find_class(config, path, part['type'])[1]
    return set(inspect.signature(cls).parameters) if cls else set()


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the tool.

    Args:
        argv (Sequence[str], optional): The arguments; by default those of the process.
        prog (str, optional): The command of ``ruas`` that is called, which takes the names of our configs too; by
            default the script is.
    """
    args = parse_args(argv, prog)
    if prog:
        args.config = find_config(args.config)
    config = load_config(args, ('test_dataloader', 'test_cfg', 'test_evaluator'))
    config.load_from, config.resume = find_checkpoint(args.checkpoint), False
    metrics = open_metrics(config, 'test_evaluator')
    if args.show_dir:
        show_dir = os.path.abspath(args.show_dir)
        draw_pictures(config, show_dir)
        for metric in sum(metrics, []):
            if find_class(config, 'test_evaluator', metric['type'])[1] is DarkFaceMetric:
                metric.setdefault('pr_curve', show_dir)
    if args.tta:
        if 'tta_model' not in config or 'tta_pipeline' not in config:
            raise SystemExit(f'Error: --tta needs tta_model and tta_pipeline in {args.config}.')
        model = copy.deepcopy(config.tta_model)  # not unpacked, or types that are imported lazily become classes
        model.module = config.model
        config.model = model
        config.test_dataloader.dataset.pipeline = config.tta_pipeline
    if args.out:
        if len(metrics) != 1:
            raise SystemExit(
                f'Error: --out takes the predictions of one test set, but {args.config} has {len(metrics)}.'
            )
        metrics[0].append({'type': 'ruas_mm.DumpPredictions', 'out_file_path': args.out})
    ToolRunner.from_cfg(config).test()
    if args.show_dir:
        print(f'Pictures are in {args.show_dir}')
