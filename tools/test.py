"""Test a model: ``tools/test.py CONFIG CHECKPOINT``."""

from __future__ import annotations

import argparse
import os

from mmengine.config import ConfigDict
from mmengine.runner import Runner

from ruas_mm.apis.tools import add_common_arguments, find_checkpoint, load_all_weights, load_config, run_tool


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Test a model.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file, or a work directory: its last checkpoint')
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions')
    parser.add_argument('--show-dir', help='folder for pictures: input, enhanced, illumination, result, ground truth')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    add_common_arguments(parser)
    args = parser.parse_args()
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out writes a pickle file, so its name must end in .pkl, not {args.out}')
    return args


def main() -> None:
    """Run the tool."""
    args = parse_args()
    config = load_config(args)
    checkpoint = find_checkpoint(args.checkpoint)
    config.load_from = None  # loaded below: every weight, or none
    evaluators = config.test_evaluator
    evaluators = list(evaluators) if isinstance(evaluators, (list, tuple)) else [evaluators]
    if args.show_dir:
        # Absolute, or mmdet's hook would put it below the work directory's time stamp.
        show_dir = os.path.abspath(args.show_dir)
        config.default_hooks.visualization.update(draw=True, test_out_dir=show_dir)
        for evaluator in evaluators:
            if evaluator['type'] == 'ruas_mm.DarkFaceMetric':
                evaluator.setdefault('pr_curve', show_dir)
    if args.tta:
        if 'tta_model' not in config or 'tta_pipeline' not in config:
            raise SystemExit(f'Error: --tta needs tta_model and tta_pipeline in {args.config}.')
        config.model = ConfigDict(**config.tta_model, module=config.model)
        config.test_dataloader.dataset.pipeline = config.tta_pipeline
    if args.out:
        evaluators.append({'type': 'ruas_mm.DumpPredictions', 'out_file_path': args.out})
    config.test_evaluator = evaluators
    runner = Runner.from_cfg(config)
    load_all_weights(runner, checkpoint)
    runner.test()
    if args.show_dir:
        print(f'Pictures are in {args.show_dir}')


if __name__ == '__main__':
    run_tool(main)
