"""The architect without a runner: its groups, its step, its state."""

import copy
import math
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parent))
from toy import Toy

from ruas_mm.engine import Architect, SearchError
from ruas_mm.engine.validation_stream import ValidationStream
from ruas_mm.search import Phase

SGD = dict(type='SGD', lr=0.3)


def batches(*values):
    return [{'inputs': [torch.tensor(value, dtype=torch.float64)]} for value in values]


def architect(model, *values, **options):
    loader = DataLoader(batches(*values), batch_size=None, shuffle=False)
    return Architect(model, ValidationStream(loader, seed=0), options.pop('optimizer', SGD), **options)


def groups(lr=0.1, *parameters):
    return [{'lr': lr, 'params': list(parameters)}]


def test_each_phase_owns_its_parameters():
    model = Toy()
    built = architect(model, 1.0)
    assert built.alphas(Phase.SCENE) == [model.scene_module.slots.alphas]
    assert built.alphas(Phase.TASK) == [model.task_module.slots.alphas]
    assert built.weights[Phase.SCENE] == [model.scene_module.weight]
    assert built.weights[Phase.TASK] == [model.task_module.weight]
    assert {id(p) for p in built.weights[Phase.JOINT]} == {id(p) for p in model.parameters() if p.requires_grad}


@pytest.mark.parametrize('phase', [Phase.SCENE, Phase.TASK])
def test_a_step_is_the_gradient_of_its_phase_alone(phase):
    """First order, no virtual step: a - 0.3 dL/da with the losses of the toy, by hand."""
    model = Toy()
    part, other = model.scene_module, model.task_module
    if phase is Phase.TASK:
        part, other = other, part
    before, kept = part.slots.alphas.clone(), other.slots.alphas.clone()
    p, y = part.p.item(), 0.7
    slope = -(part.weight.item() - p * y) * y * p * (1 - p)
    values = architect(model, y, order=1).step(phase, batches(0.9)[0], groups())
    expected = before - 0.3 * torch.tensor([[slope, -slope]], dtype=torch.float64)
    torch.testing.assert_close(part.slots.alphas.data, expected, rtol=1e-12, atol=0)
    assert torch.equal(other.slots.alphas, kept)
    assert set(values) == {phase.value}
    assert part.slots.alphas.grad is None and not part.slots.alphas.requires_grad
    assert model.search_phase is Phase.JOINT


def test_the_virtual_step_is_that_of_the_phase_s_weights():
    """Two groups: the rate of the scene module's own group counts."""
    results = []
    for rates in ((0.1, 99.0), (0.1, 0.0)):
        model = Toy()
        param_groups = groups(rates[0], model.scene_module.weight) + groups(rates[1], model.task_module.weight)
        architect(model, 0.7).step(Phase.SCENE, batches(0.9)[0], param_groups)
        results.append(model.scene_module.slots.alphas.tolist())
    assert results[0] == results[1]


def test_a_loss_that_is_not_finite_changes_nothing():
    model = Toy()
    built = architect(model, math.nan, order=1)
    before = model.task_module.slots.alphas.clone()
    with pytest.raises(SearchError, match='architecture gradient of the task phase is not finite'):
        built.step(Phase.TASK, batches(0.9)[0], groups())
    assert torch.equal(model.task_module.slots.alphas, before)


def test_state_is_restored():
    """Optimizer and place in the stream: the third step of two architects is the same."""
    adam = dict(type='Adam', lr=0.05)
    first, second = Toy(), Toy()
    whole, resumed = architect(first, 0.7, 1.1, -0.6, optimizer=adam), architect(second, 0.7, 1.1, -0.6, optimizer=adam)
    for _ in range(2):
        whole.step(Phase.JOINT, batches(0.9)[0], groups())
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))  # as a checkpoint does; the tensors are live
    for built in (whole, resumed):
        built.step(Phase.JOINT, batches(0.9)[0], groups())
    assert torch.equal(first.task_module.slots.alphas, second.task_module.slots.alphas)


def test_automatic_rate_lets_each_phase_travel_equally_far():
    model = Toy()
    adam = dict(type='Adam', lr='auto')
    built = architect(model, 1.0, optimizer=adam, steps={Phase.SCENE: 10, Phase.TASK: 50, Phase.JOINT: 0})
    rates = {id(p): group['lr'] for group in built.optimizer.param_groups for p in group['params']}
    assert rates == {
        id(model.scene_module.slots.alphas): pytest.approx(0.5),
        id(model.task_module.slots.alphas): pytest.approx(0.1),
    }
    with pytest.raises(ValueError, match="lr='auto' needs at least one planned architecture step"):
        architect(Toy(), 1.0, optimizer=adam)


def test_exponentiated_gradient_steps_the_probabilities_and_has_no_automatic_rate():
    """First order: p <- p exp(-lr g) / Z, where the loss of the toy depends on p alone with gradient g."""
    model = Toy()
    part, y = model.scene_module, 0.7
    p, g = part.p.item(), -(part.weight.item() - part.p.item() * y) * y
    gaea = dict(type='ruas_mm.ExponentiatedGradient', lr=0.4)
    architect(model, y, order=1, optimizer=gaea).step(Phase.SCENE, batches(0.9)[0], groups())
    assert part.p.item() == pytest.approx(p * math.exp(-0.4 * g) / (p * math.exp(-0.4 * g) + 1 - p), rel=1e-12)
    with pytest.raises(ValueError, match="lr='auto'.*ExponentiatedGradient must be a number") as caught:
        architect(Toy(), 1.0, optimizer={**gaea, 'lr': 'auto'}, steps={Phase.SCENE: 10})
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(('progress', 'expected'), [(0, 2.0), (0.5, 1.0), (1, 0.5)])
def test_temperature_is_geometric(progress, expected):
    model = Toy()
    built = architect(model, 1.0, temperature=(2.0, 0.5))
    built.set_progress(Phase.SCENE, progress)
    slots = model.scene_module.slots
    assert slots.temperature == pytest.approx(expected)
    assert model.task_module.slots.temperature == 1
    logits = [alpha / expected for alpha in slots.alphas[0].tolist()]
    assert model.scene_module.p.item() == pytest.approx(1 / (1 + math.exp(logits[1] - logits[0])))
    reported = slots.probabilities()['scene.a']  # at temperature 1, whatever the mixture uses
    assert reported['skip'] == pytest.approx(1 / (1 + math.exp(-0.3)))
