"""Measure time and memory against the plain implementation in the same run: ``benchmark.py scene``.

``scene`` runs the scene module forward, or forward and backward; ``search`` one whole second-order step of the scene
module's search, as its phase of the cooperative search takes it: architecture gradient, step of the architecture
parameters, step of the weights; ``enhance`` the whole enhancer of every variant at inference.

"Plain eager" is the derived model as it is written on paper: images in their ordinary layout, one convolution an edge,
nothing merged and nothing in place. "Folded" is :func:`ruas_mm.modules.fold`.

Times are medians of torch.utils.benchmark; every ratio is against the row named as its reference. Peak memory is what
a step adds to a process of its own (CPU: resident set; CUDA: allocated), beyond what a step on a tiny image adds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.benchmark import Timer

from ruas_mm.losses import SceneLoss
from ruas_mm.models.enhance import RUAS
from ruas_mm.models.enhance.ruas import VARIANTS
from ruas_mm.modules import DistillationCell, SceneModule, fold
from ruas_mm.search import MixedOp, architecture_gradient
from ruas_mm.utils.fileio import atomic_write


@dataclass
class Row:
    """One measured case."""

    case: str
    median_ms: float
    peak_mib: float
    reference: str
    speedup: float
    memory_ratio: float


def scene_step(searchable: bool, merged: bool, train: bool, args: argparse.Namespace) -> Callable[[], None]:
    """Return one step of the scene module on a random image of the benchmark's size."""
    torch.manual_seed(0)
    module = SceneModule(genotype=None if searchable else 'ruas_enhance_journal').to(args.device)
    for operation in module.modules():
        if isinstance(operation, MixedOp):
            operation.merged = merged
    y = torch.rand(1, 3, args.size[1], args.size[0], device=args.device) * 0.2
    if train:
        return lambda: module(y).features[-1].mean().backward()
    return torch.no_grad()(lambda: module(y))


def plain_cell(cell: DistillationCell, x: Tensor) -> Tensor:
    """Run a derived cell as METHOD §3 writes it."""
    nodes = []
    for distill, remain in zip(cell.operations[0:6:2], cell.operations[1:6:2], strict=True):
        nodes.append(F.leaky_relu(distill(x), 0.05))
        x = F.leaky_relu(remain(x) + x, 0.05)
    nodes.append(F.leaky_relu(cell.operations[6](x), 0.05))
    return cell.fuse(torch.cat(nodes, dim=1))


def plain_scene(module: SceneModule, y: Tensor) -> tuple[Tensor, Tensor]:
    """Run a derived scene module with its default options as METHOD §2 writes it; return the last u and t."""

    def local_max(x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 2, stride=1)

    guess = local_max(y)
    for index, cell in enumerate(module.cells):
        if index:
            guess = local_max(u) - module.gamma * (u - y)  # noqa: F821
        t = torch.clamp(torch.sigmoid(plain_cell(cell, guess)), module.t_min, 1)
        u = torch.clamp(y / t, 0, 1)
    return u, t


def plain_enhance(model: RUAS, y: Tensor) -> Tensor:
    """Run a derived enhancer as METHOD §5 writes it."""
    u, _ = plain_scene(model.scene_module, y)
    if model.noise_estimator is not None and not model.noise_estimator(u).abs().mean() > model.epsilon:
        return u
    if model.noise_removal is None:
        return u
    features = model.noise_removal.stem(u)
    for cell in model.noise_removal.cells:
        features = plain_cell(cell, features)
    return torch.clamp(u - model.noise_removal.to_noise(features), 0, 1)


def derived_step(form: str, args: argparse.Namespace) -> Callable[[], None]:
    """Return one inference of the derived scene module, in the form ``plain eager`` or ``folded``."""
    torch.manual_seed(0)
    module = SceneModule().to(args.device).eval()
    y = torch.rand(1, 3, args.size[1], args.size[0], device=args.device) * 0.2
    if form == 'plain eager':
        return torch.no_grad()(lambda: plain_scene(module, y))
    module = fold(module)
    return torch.no_grad()(lambda: module(y))


def enhance_step(variant: str, form: str, options: dict, args: argparse.Namespace) -> Callable[[], None]:
    """Return one inference of an enhancer; the noise of the image is always removed, if the variant can."""
    torch.manual_seed(0)
    model = RUAS(variant, epsilon=-1.0, **options).to(args.device).eval()
    y = torch.rand(1, 3, args.size[1], args.size[0], device=args.device) * 0.2
    if form == 'plain eager':
        return torch.no_grad()(lambda: plain_enhance(model, y))
    if form == 'folded':
        model = fold(model)
    return torch.no_grad()(lambda: model.enhance(y))


def search_step(
    merged: bool, with_cp: bool, layout: torch.memory_format, args: argparse.Namespace
) -> Callable[[], None]:
    """Return one second-order search step on a random training and a random validation image (METHOD §7)."""
    torch.manual_seed(0)
    module = SceneModule(genotype=None, with_cp=with_cp).to(args.device)
    for part in module.modules():
        if isinstance(part, MixedOp):
            part.merged = merged
        elif isinstance(part, DistillationCell):
            part.cpu_layout = layout
    criterion = SceneLoss().to(args.device)
    train, val = torch.rand(2, 1, 3, args.size[1], args.size[0], device=args.device) * 0.2
    weights, alphas = list(module.cells.parameters()), [module.slots.alphas]
    weight_optimizer = torch.optim.SGD(weights, lr=5e-3, momentum=0.9)
    alpha_optimizer = torch.optim.Adam(alphas, lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)

    def loss(y: torch.Tensor) -> torch.Tensor:
        return sum(criterion(module(y).illuminations[-1], y).values())

    def step() -> None:
        gradients = architecture_gradient(
            lambda: loss(train), lambda: loss(val), weights, alphas, virtual_lr=5e-3, order=2
        )
        for alpha, gradient in zip(alphas, gradients, strict=True):
            alpha.grad = gradient
        alpha_optimizer.step()
        weight_optimizer.zero_grad()
        loss(train).backward()
        weight_optimizer.step()

    return step


# benchmark -> case -> (its reference, builder of the step)
CASES: dict[str, dict[str, tuple[str, Callable[[argparse.Namespace], Callable[[], None]]]]] = {
    'scene': {
        'searchable, plain, training': (
            'searchable, plain, training',
            lambda args: scene_step(True, False, True, args),
        ),
        'searchable, merged, training': (
            'searchable, plain, training',
            lambda args: scene_step(True, True, True, args),
        ),
        'searchable, plain, inference': (
            'searchable, plain, inference',
            lambda args: scene_step(True, False, False, args),
        ),
        'searchable, merged, inference': (
            'searchable, plain, inference',
            lambda args: scene_step(True, True, False, args),
        ),
        'derived, training': ('searchable, plain, training', lambda args: scene_step(False, True, True, args)),
        'derived, plain eager, inference': (
            'derived, plain eager, inference',
            lambda args: derived_step('plain eager', args),
        ),
        'derived, inference': ('derived, plain eager, inference', lambda args: scene_step(False, True, False, args)),
        'derived, folded, inference': ('derived, plain eager, inference', lambda args: derived_step('folded', args)),
    },
    'search': {
        'plain, ordinary layout': (
            'plain, ordinary layout',
            lambda args: search_step(False, False, torch.contiguous_format, args),
        ),
        'plain': ('plain, ordinary layout', lambda args: search_step(False, False, torch.channels_last, args)),
        'merged': ('plain, ordinary layout', lambda args: search_step(True, False, torch.channels_last, args)),
        'merged, with_cp': (
            'plain, ordinary layout',
            lambda args: search_step(True, True, torch.channels_last, args),
        ),
    },
    'enhance': {
        f'{variant}, {form}{name}': (f'{variant}, plain eager', partial(enhance_step, variant, form, options))
        for variant in VARIANTS
        for form, name, options in (
            ('plain eager', '', {}),
            ('as trained', '', {}),
            ('folded', '', {}),
            ('folded', ', 1/2', {'scene_module': {'resolution': 1 / 2}}),
            ('folded', ', 1/4', {'scene_module': {'resolution': 1 / 4}}),
            ('folded', ', auto', {'exposure': 'auto'}),
        )
    },
}


def peak_memory(case: str, args: argparse.Namespace) -> float:
    """Return what three steps add to this process at most, in MiB; meant for a fresh process."""
    torch.set_num_threads(args.threads)
    build = CASES[args.benchmark][case][1]
    build(argparse.Namespace(**{**vars(args), 'size': (16, 16)}))()  # loads what every case needs: code and caches
    step = build(args)
    if args.device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        for _ in range(3):
            step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10


def chosen_cases(args: argparse.Namespace) -> dict[str, tuple[str, Callable[[argparse.Namespace], Callable[[], None]]]]:
    """Return the cases whose names contain ``--only``, and their references."""
    cases = CASES[args.benchmark]
    wanted = {name for case, (reference, _) in cases.items() if args.only in case for name in (case, reference)}
    return {case: entry for case, entry in cases.items() if case in wanted}


def measure(args: argparse.Namespace) -> list[Row]:
    """Measure the chosen cases of a benchmark."""
    cases = chosen_cases(args)
    torch.set_num_threads(args.threads)
    # glibc keeps freed blocks below a threshold, which it raises as it goes, and the holes between them count as
    # resident. With a fixed one the children give every map back at once, and their peak is what a step needs.
    os.environ.setdefault('MALLOC_MMAP_THRESHOLD_', '1048576')
    # Memory first: a child's peak begins at what its parent held when it was started.
    with multiprocessing.get_context('spawn').Pool(1, maxtasksperchild=1) as pool:
        peaks = {case: pool.apply(peak_memory, (case, args)) for case in cases}
    times = {}
    for case, (_, build) in cases.items():
        clock = {'timer': time.process_time} if args.process_time else {}
        timer = Timer('step()', globals={'step': build(args)}, num_threads=args.threads, **clock)
        times[case] = timer.blocked_autorange(min_run_time=args.min_run_time).median
    return [
        Row(
            case,
            1e3 * times[case],
            peaks[case],
            reference,
            times[reference] / times[case],
            peaks[case] / max(peaks[reference], 1e-9),
        )
        for case, (reference, _) in cases.items()
    ]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('benchmark', choices=list(CASES))
    parser.add_argument('--only', default='', metavar='TEXT', help='cases whose names contain it, and their references')
    parser.add_argument('--size', nargs=2, type=int, default=[600, 400], metavar=('WIDTH', 'HEIGHT'))
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='CPU threads')
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument(
        '--process-time', action='store_true', help="the process's own time, for a busy machine: CPU, one thread"
    )
    parser.add_argument('--min-run-time', type=float, default=2.0, help='seconds spent on each case')
    parser.add_argument('--out', metavar='FILE.json', help='write the rows')
    args = parser.parse_args()
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: torch finds no CUDA device here')
    if args.process_time and (args.device == 'cuda' or args.threads != 1):
        parser.error('--process-time adds up threads and knows no GPU: it goes with --device cpu --threads 1')
    if not chosen_cases(args):
        parser.error(f'--only {args.only}: choose from the cases {"; ".join(CASES[args.benchmark])}')
    return args


def main() -> None:
    """Run the tool."""
    args = parse_args()
    rows = measure(args)
    machine = torch.cuda.get_device_name() if args.device == 'cuda' else f'CPU, {args.threads} threads'
    title = f'{args.benchmark}, {args.size[0]}x{args.size[1]}, {machine}, torch {torch.__version__}'
    table = Table(title=title)
    for column in ('case', 'median ms', 'peak MiB', 'speed-up', 'memory', 'against'):
        table.add_column(column, justify='left' if column in ('case', 'against') else 'right', no_wrap=True)
    for row in rows:
        figures = (f'{row.median_ms:.1f}', f'{row.peak_mib:.0f}', f'{row.speedup:.2f}x', f'{row.memory_ratio:.2f}x')
        table.add_row(row.case, *figures, row.reference)
    Console(width=140).print(table)
    if args.out:
        atomic_write(args.out, json.dumps({'title': title, 'rows': [asdict(row) for row in rows]}, indent=2) + '\n')


if __name__ == '__main__':
    main()
