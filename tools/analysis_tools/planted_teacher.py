"""Search for an architecture that is known: which options of the search find it?

    python tools/analysis_tools/planted_teacher.py

A teacher of two convolutions with a ReLU between them makes the targets for random images. The student holds a
searchable slot of ten candidates in the place of each convolution. A candidate whose taps include those of the
teacher's operation can compute the same, so it counts as found too. The table shows how often both operations were
found, and the CPU time.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any, NamedTuple

os.environ.setdefault('OMP_NUM_THREADS', '1')

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ruas_mm.engine import Architect
from ruas_mm.engine.phase_schedule import PhaseSchedule
from ruas_mm.engine.validation_stream import ValidationStream
from ruas_mm.search import HIGH_LEVEL_SPACE, OPERATIONS, Phase, SearchSlots, build_operation

CHANNELS, SIZE, BATCHES, BATCH_SIZE = 4, 16, 8, 4
TEACHERS = (('dil_conv_3x3_d6', 'conv_3x3'), ('dil_conv_7x7_d2', 'dil_conv_3x3_d6'))


class Setting(NamedTuple):
    """Options of a search, as those of :class:`ruas_mm.CooperativeSearchHook` and its slots."""

    normalise: bool = True
    lr: float | str = 'auto'
    weight_decay: float = 0.0
    order: int = 1
    warmup: int | float = 0.3
    temperature: tuple[float, float] = (1.0, 0.1)
    relaxation: str = 'softmax'
    exponentiated: bool = False
    iterations: int = 100

    @property
    def optimizer(self) -> dict[str, Any]:
        """Config of the architecture's optimizer."""
        if self.exponentiated:
            return dict(type='ruas_mm.ExponentiatedGradient', lr=self.lr)
        return dict(type='Adam', lr=self.lr, betas=(0.5, 0.999), weight_decay=self.weight_decay)


FULL = Setting()
SETTINGS = {
    'all of them': FULL,
    'kernels not normalised': FULL._replace(normalise=False),
    'learning rate 0.02': FULL._replace(lr=0.02),
    'no annealing': FULL._replace(temperature=(1.0, 1.0)),
    'second order': FULL._replace(order=2),
    'no warm-up': FULL._replace(warmup=0),
    'exponentiated gradient, 0.1': FULL._replace(exponentiated=True, lr=0.1),
    'gumbel, temperature 10 to 0.1, 300 iterations': FULL._replace(
        relaxation='gumbel', temperature=(10.0, 0.1), iterations=300
    ),
    'sampled, temperature 1, 300 iterations': FULL._replace(
        relaxation='sampled', temperature=(1.0, 1.0), iterations=300
    ),
    'short_search of our configs': Setting(False, 0.02, 5e-4, 2, 15, (1.0, 1.0)),
}


class Student(BaseModel):
    """Two searchable slots with a ReLU between them.

    Args:
        normalise (bool): Whether the kernels of the candidates are normalised.
    """

    def __init__(self, normalise: bool) -> None:
        super().__init__()
        self.slots = SearchSlots('student', ['first', 'second'], HIGH_LEVEL_SPACE, normalise=normalise)
        self.operations = nn.ModuleList(self.slots.build(index, CHANNELS, CHANNELS) for index in range(2))

    def forward(self, inputs: Tensor, targets: Tensor, mode: str = 'tensor') -> dict[str, Tensor]:
        """Return the mean squared error of images of shape (N, C, H, W)."""
        first, second = self.slots.probs()
        outputs = self.operations[1](F.relu(self.operations[0](inputs, first)), second)
        return {'loss': (outputs - targets).square().mean()}


def taps(name: str) -> set[tuple[int, int]]:
    """Return the places of an operation's taps, in pixels from the centre."""
    operation = OPERATIONS[name]
    places = [operation.dilation * (tap - operation.kernel // 2) for tap in range(operation.kernel)]
    return {(row, column) for row in places for column in places}


@torch.no_grad()
def make_batches(teacher: list[nn.Module]) -> list[dict[str, Tensor]]:
    """Return random images and what the teacher makes of them."""
    inputs = torch.randn(BATCHES * BATCH_SIZE, CHANNELS, SIZE, SIZE)
    targets = teacher[1](F.relu(teacher[0](inputs)))
    pairs = zip(inputs.split(BATCH_SIZE), (targets / targets.std()).split(BATCH_SIZE), strict=True)
    return [{'inputs': x, 'targets': y} for x, y in pairs]


def finds(teacher: tuple[str, str], setting: Setting, seed: int) -> bool:
    """Search once, and return whether both operations of the teacher were found.

    Args:
        teacher (tuple[str, str]): Names of its operations.
        setting (Setting): Options of the search.
        seed (int): Seed of the teacher's weights, the images and the student.
    """
    torch.manual_seed(seed)
    operations = [build_operation(name, CHANNELS, CHANNELS) for name in teacher]
    for operation in operations:
        nn.init.normal_(operation.weight, std=operation.weight[0].numel() ** -0.5)
        nn.init.zeros_(operation.bias)
    train, validation = make_batches(operations), make_batches(operations)
    student = Student(setting.normalise)
    schedule = PhaseSchedule('global', warmup=setting.warmup)
    schedule.start(False, setting.iterations)
    architect = Architect(
        student,
        ValidationStream(DataLoader(validation, batch_size=None), seed=0),
        setting.optimizer,
        steps={Phase.JOINT: schedule.planned_steps(Phase.JOINT)},
        order=setting.order,
        temperature=setting.temperature,
        relaxation=setting.relaxation,
        seed=seed,
    )
    weights = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], lr=0.02)
    for iteration in range(setting.iterations):
        batch = train[iteration % BATCHES]
        architect.set_progress(Phase.JOINT, schedule.progress(Phase.JOINT))
        if schedule.searches(Phase.JOINT):
            architect.draw(iteration)
            architect.step(Phase.JOINT, batch, weights.param_groups)
        schedule.count(Phase.JOINT)
        architect.draw(iteration, weights=True)
        weights.zero_grad()
        student(**batch)['loss'].backward()
        weights.step()
    found = student.slots.derive().values()
    return all(taps(name) >= taps(wanted) for name, wanted in zip(found, teacher, strict=True))


def main() -> None:
    """Run the tool; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, default=10, metavar='N', help='searches of each teacher (default: 10)')
    args = parser.parse_args()
    torch.set_num_threads(1)
    table = Table('', *(' → '.join(teacher) for teacher in TEACHERS), 'CPU seconds')
    for name, setting in SETTINGS.items():
        start = time.process_time()
        counts = [sum(finds(teacher, setting, seed) for seed in range(args.seeds)) for teacher in TEACHERS]
        table.add_row(name, *(f'{count} of {args.seeds}' for count in counts), f'{time.process_time() - start:.0f}')
    Console(width=120).print(table)


if __name__ == '__main__':
    main()
