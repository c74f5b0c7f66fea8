"""A model with two weights and two architectures, small enough to differentiate by hand; shared by the tests here.

The scene loss is (ws - p x)^2 / 2, the task's (wt - q x)^2 / 2 + c u wt with the feature u = ws p; p and q are the
probabilities of the first of two candidates.
"""

import torch
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from torch import nn

from ruas_mm.search import Phase, SearchSlots

COUPLING = 0.5
SCENE_LOSS_WEIGHT = 0.7


class Part(nn.Module):
    def __init__(self, prefix, weight, alphas):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))
        self.slots = SearchSlots(prefix, ['a'], ['skip', 'conv_1x1'])
        self.slots.alphas = nn.Parameter(torch.tensor([alphas], dtype=torch.float64), requires_grad=False)

    @property
    def p(self):
        return self.slots.probs()[0][0]


class Toy(BaseModel):
    """Follows the search phases; counts how often its task module ran."""

    scene_loss = 'there is one'

    def __init__(self, scene_loss_weight=SCENE_LOSS_WEIGHT, noise=0.0):
        super().__init__()
        self.scene_module = Part('scene', 1.0, [0.2, -0.1])
        self.task_module = Part('task', -0.5, [-0.3, 0.4])
        self.scene_loss_weight = scene_loss_weight
        self.noise = noise
        self.search_phase = Phase.JOINT
        self.register_buffer('seen', torch.zeros((), dtype=torch.float64))
        self.task_runs = []  # the phase of each

    def forward(self, inputs, mode='tensor'):
        x = torch.stack(list(inputs)).double()
        if self.noise:  # draws from training's random numbers, as dropout and augmentation do
            x = x + self.noise * torch.randn(x.shape)
        if self.training:
            self.seen += x.sum()
        scene = 0.5 * (self.scene_module.weight - self.scene_module.p * x).square().mean()
        if self.search_phase is Phase.SCENE:
            return {'loss_scene': scene}
        self.task_runs.append(self.search_phase)
        u = self.scene_module.weight * self.scene_module.p
        if self.search_phase is Phase.TASK:
            u = u.detach()
        t = self.task_module
        task = 0.5 * (t.weight - t.p * x).square().mean() + COUPLING * u * t.weight
        losses = {'loss_task': task}
        if self.search_phase is Phase.JOINT:
            losses['loss_scene'] = self.scene_loss_weight * scene
        return losses


class PathPart(nn.Module):
    """Two convolutions of one channel in a row, each a slot."""

    def __init__(self, prefix, candidates):
        super().__init__()
        self.slots = SearchSlots(prefix, ['a', 'b'], candidates, normalise=True)
        self.operations = nn.ModuleList(self.slots.build(index, 1, 1) for index in range(2))
        self.double()

    def forward(self, x):
        for operation, probs in zip(self.operations, self.slots.probs(), strict=True):
            x = torch.tanh(operation(x, probs))
        return x


class Paths(BaseModel):
    """Scene and task module of mixed operations, which can run a drawn candidate; follows the search phases."""

    scene_loss = 'there is one'

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.scene_module = PathPart('scene', ['skip', 'conv_1x1', 'conv_3x3'])
            self.task_module = PathPart('task', ['conv_1x1', 'conv_3x3', 'conv_5x5', 'dil_conv_3x3_d2'])
        self.search_phase = Phase.JOINT
        self.draws = []  # candidates of all four slots at each forward pass, where they are drawn

    def forward(self, inputs, mode='tensor'):
        x = torch.stack(list(inputs)).double().view(-1, 1, 1, 1) * torch.linspace(-1, 1, 25).double().view(1, 1, 5, 5)
        probs = [*self.scene_module.slots.probs(), *self.task_module.slots.probs()]
        self.draws.append([getattr(candidate, 'index', None) for candidate in probs])
        u = self.scene_module(x)
        losses = {'loss_scene': (u - 0.3).square().mean()}
        if self.search_phase is Phase.SCENE:
            return losses
        task = {
            'loss_task': (self.task_module(u.detach() if self.search_phase is Phase.TASK else u) - x).square().mean()
        }
        return {**losses, **task} if self.search_phase is Phase.JOINT else task


class Numbers(BaseDataset):
    """Samples are numbers."""

    def __init__(self, values):
        self.values = values
        super().__init__()

    def load_data_list(self):
        return [{'value': value} for value in self.values]

    def __getitem__(self, index):
        return {'inputs': torch.tensor(self.get_data_info(index)['value'], dtype=torch.float64)}


def loader(values, batch_size=1, shuffle=False):
    return dict(
        batch_size=batch_size,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=shuffle),
        dataset=values if isinstance(values, dict) else dict(type=Numbers, values=values),
    )
