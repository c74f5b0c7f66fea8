"""Say what memory the search of a detector or segmentor needs: ``search_memory.py CONFIG --size 640 640``.

One architecture step and one weight step of each phase, on random images and labels, as
CooperativeSearchHook and the runner take them. Memory counts from before the model is built: weights, their gradients
and momentum, and whatever the steps add (CPU: resident set; CUDA: allocated).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from rich.console import Console
from rich.table import Table

from ruas_mm.engine.objective import objective, undisturbed
from ruas_mm.search import Phase, architecture_gradient, searchable_slots


def random_sample(host: str, width: int, height: int) -> BaseDataElement:
    """Return a data sample of mmdet with a few boxes, or of mmseg with a label map, all of the first class."""
    metainfo = dict(img_shape=(height, width), ori_shape=(height, width), scale_factor=(1, 1))
    if host == 'mmseg':
        from mmseg.structures import SegDataSample

        return SegDataSample(
            metainfo=metainfo, gt_sem_seg=PixelData(data=torch.zeros(1, height, width, dtype=torch.long))
        )
    from mmdet.structures import DetDataSample

    corners = torch.rand(8, 2) * torch.tensor([width / 2, height / 2])
    boxes = InstanceData(bboxes=torch.cat([corners, corners + 24], 1), labels=torch.zeros(8).long())
    return DetDataSample(metainfo=metainfo, gt_instances=boxes)


def random_batch(args: argparse.Namespace) -> dict[str, list]:
    """Return a batch as the host's data loader yields it."""
    width, height = args.size
    sample = random_sample(args.host, width, height)
    image = torch.randint(0, 60, (3, height, width), dtype=torch.uint8)
    return dict(inputs=[image] * args.batch_size, data_samples=[sample.clone() for _ in range(args.batch_size)])


def step(model: Any, phase: Phase, weight_optimizer: torch.optim.Optimizer, args: argparse.Namespace) -> None:
    """One architecture step and one weight step of a phase."""
    scene = {id(p) for p in model.scene_module.parameters()}
    mine = [p for p in model.parameters() if (id(p) in scene) == (phase is Phase.SCENE)]
    alphas = [slots.alphas for slots in searchable_slots(model) if any(slots.alphas is p for p in mine)]
    train, val = random_batch(args), random_batch(args)
    with undisturbed(model):
        architecture_gradient(
            objective(model, train, phase),
            objective(model, val, phase),
            [p for p in mine if p.requires_grad],
            alphas,
            virtual_lr=1e-6,
            order=args.order,
            extra_loss=objective(model, val, Phase.COUPLED) if phase is Phase.SCENE else None,
            beta=1.0,
        )
    weight_optimizer.zero_grad()
    objective(model, train, phase)().backward()
    weight_optimizer.step()


def used(device: str) -> float:
    """Return the most memory that this process has held so far, in GiB."""
    if device == 'cuda':
        return torch.cuda.max_memory_allocated() / 2**30
    # Linux. Not getrusage, whose peak begins at what the process that started this one held.
    status = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines())
    return int(status['VmHWM'].split()[0]) / 2**20


def main() -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='search config of a detector or segmentor')
    parser.add_argument('--size', nargs=2, type=int, default=[640, 640], metavar=('WIDTH', 'HEIGHT'))
    parser.add_argument('--batch-size', type=int, default=1)
    parser.add_argument('--order', type=int, choices=[1, 2], default=2)
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE')
    args = parser.parse_args()
    config = Config.fromfile(args.config)
    config.merge_from_dict(args.cfg_options)
    args.host = config.default_scope
    init_default_scope(args.host)
    before = used(args.device)
    model = MODELS.build(config.model).to(args.device).train()
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=1e-6, momentum=0.9)
    count = sum(p.numel() for p in model.parameters()) / 1e6
    table = Table('', 'GiB', title=f'{args.config}, {args.batch_size}x{args.size[0]}x{args.size[1]}, {args.device}')
    measured: list[tuple[str, Callable[[], None]]] = [
        (f'built: {count:.0f} million weights', lambda: None),
        ('and after a scene phase step', lambda: step(model, Phase.SCENE, optimizer, args)),
        ('and after a task phase step', lambda: step(model, Phase.TASK, optimizer, args)),
        ('and after one more of each', lambda: [step(model, p, optimizer, args) for p in (Phase.SCENE, Phase.TASK)]),
    ]
    for name, run in measured:
        run()
        table.add_row(name, f'{used(args.device) - before:.2f}')
    Console().print(table)


if __name__ == '__main__':
    main()
