"""Size, operations and time of an enhancement model, as in Table V: ``complexity.py CONFIG --size 600 400``.

Parameters count all weights. Operations are counted by mmengine's analysis while the model runs: multiply-adds of the
convolutions, each counted as one operation, as apparently in the paper; for variant A including noise removal, which is
the worst case. Time is the median of torch.utils.benchmark over complete runs of one image.
"""

from __future__ import annotations

import argparse
import json
import logging
from typing import NamedTuple

import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from torch.utils.benchmark import Timer

from ruas_mm.apis.run_tool import add_debug_argument, run_tool


class Complexity(NamedTuple):
    """Complexity of a model.

    Attributes:
        params (int): Number of weights.
        gflops (float): Multiply-adds for one image, in units of 10^9.
        ms (float): Time for one image, in milliseconds.
    """

    params: int
    gflops: float
    ms: float


def measure(model: torch.nn.Module, size: tuple[int, int], device: str, min_seconds: float = 2.0) -> Complexity:
    """Measure :class:`ruas_mm.RUAS` on a random image.

    Args:
        model (nn.Module): The model.
        size (tuple[int, int]): Width and height of the image in pixels.
        device (str): Where it runs.
        min_seconds (float): How long the time is measured.

    Returns:
        Complexity: What it costs.
    """
    model = model.to(device).eval()
    model.epsilon = -1.0  # every image counts as noisy
    image = torch.rand(1, 3, size[1], size[0], device=device)
    MMLogger.get_current_instance().setLevel(logging.ERROR)  # it lists what it does not count
    with torch.no_grad():
        info = get_model_complexity_info(model, inputs=(image,), show_table=False, show_arch=False)
        timer = Timer('model(image)', globals={'model': model, 'image': image}, num_threads=torch.get_num_threads())
        seconds = timer.blocked_autorange(min_run_time=min_seconds).median
    return Complexity(sum(p.numel() for p in model.parameters()), info['flops'] / 1e9, 1e3 * seconds)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file of an enhancement model')
    parser.add_argument(
        '--size', type=int, nargs=2, default=(600, 400), metavar=('WIDTH', 'HEIGHT'), help='(default: 600 400)'
    )
    parser.add_argument('--device', default='cpu', help='cpu, cuda:0, … (default: cpu)')
    parser.add_argument('--json', action='store_true', help='print JSON')
    add_debug_argument(parser)
    args = parser.parse_args()
    if min(args.size) < 1:
        parser.error('--size must be at least 1 pixel on each side')
    return args


def main() -> None:
    """Run the tool."""
    args = parse_args()
    found = measure(MODELS.build(Config.fromfile(args.config).model), tuple(args.size), args.device)
    if args.json:
        print(json.dumps(found._asdict()))
    else:
        width, height = args.size
        print(f'{found.params / 1e6:.4f} M parameters')
        print(f'{found.gflops:.3f} GFLOPs (multiply-adds) for {width}×{height}')
        print(f'{found.ms:.1f} ms on {args.device}, {torch.get_num_threads()} threads')


if __name__ == '__main__':
    run_tool(main)
