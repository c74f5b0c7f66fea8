"""A search with a known answer: a small teacher whose operations the student has to find.

The student holds two searchable slots of ten candidates each, the teacher one operation in their place. A candidate
whose taps include the teacher's can compute the same, so it counts as found too.
"""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import DataLoader

from ruas_mm.engine import Architect
from ruas_mm.engine.phase_schedule import PhaseSchedule
from ruas_mm.engine.validation_stream import ValidationStream
from ruas_mm.search import HIGH_LEVEL_SPACE, OPERATIONS, Phase, SearchSlots, build_operation

TEACHER = ('dil_conv_7x7_d2', 'dil_conv_3x3_d6')
CHANNELS, SIZE, BATCHES, BATCH_SIZE, STEPS = 4, 16, 8, 4, 100


class Student(BaseModel):
    def __init__(self, normalise):
        super().__init__()
        self.slots = SearchSlots('student', ['first', 'second'], HIGH_LEVEL_SPACE, normalise=normalise)
        self.operations = nn.ModuleList(self.slots.build(index, CHANNELS, CHANNELS) for index in range(2))

    def forward(self, inputs, targets, mode='tensor'):
        first, second = self.slots.probs()
        outputs = self.operations[1](F.relu(self.operations[0](inputs, first)), second)
        return {'loss': (outputs - targets).square().mean()}


def taps(name):
    operation = OPERATIONS[name]
    places = [operation.dilation * (tap - operation.kernel // 2) for tap in range(operation.kernel)]
    return {(row, column) for row in places for column in places}


@torch.no_grad()
def make_batches(teacher):
    inputs = torch.randn(BATCHES * BATCH_SIZE, CHANNELS, SIZE, SIZE)
    targets = teacher[1](F.relu(teacher[0](inputs)))
    pairs = zip(inputs.split(BATCH_SIZE), (targets / targets.std()).split(BATCH_SIZE), strict=True)
    return [{'inputs': x, 'targets': y} for x, y in pairs]


def finds_the_teacher(seed, normalise):
    torch.manual_seed(seed)
    teacher = [build_operation(name, CHANNELS, CHANNELS) for name in TEACHER]
    for operation in teacher:
        nn.init.normal_(operation.weight, std=operation.weight[0].numel() ** -0.5)
        nn.init.zeros_(operation.bias)
    train, validation = make_batches(teacher), make_batches(teacher)
    student = Student(normalise)
    schedule = PhaseSchedule('global', warmup=0.3)
    schedule.start(False, STEPS)
    architect = Architect(
        student,
        ValidationStream(DataLoader(validation, batch_size=None), seed=0),
        dict(type='Adam', lr='auto', betas=(0.5, 0.999)),
        steps={Phase.JOINT: schedule.planned_steps(Phase.JOINT)},
        order=1,
        temperature=(1.0, 0.1),
    )
    weights = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], lr=0.02)
    for step in range(STEPS):
        batch = train[step % len(train)]
        architect.set_progress(Phase.JOINT, schedule.progress(Phase.JOINT))
        if schedule.searches(Phase.JOINT):
            architect.step(Phase.JOINT, batch, weights.param_groups)
        schedule.count(Phase.JOINT)
        weights.zero_grad()
        student(**batch)['loss'].backward()
        weights.step()
    return all(taps(found) >= taps(name) for found, name in zip(student.slots.derive().values(), TEACHER, strict=True))


def test_normalised_kernels_find_the_teacher():
    assert sum(finds_the_teacher(seed, normalise=True) for seed in range(10)) >= 8


def test_the_size_of_the_weights_hides_the_teacher():
    """Without the normalisation: a candidate's weights can make up for its probability."""
    assert sum(finds_the_teacher(seed, normalise=False) for seed in range(5)) <= 2
