"""The cost of an architecture against independent counts, and what it does to a search."""

import sys
from pathlib import Path

import pytest
import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from toy import Paths, loader

from ruas_mm.engine import ArchitectureCost, CooperativeSearchHook
from ruas_mm.modules import SceneModule
from ruas_mm.search import HIGH_LEVEL_SPACE, SCENE_SPACE, Genotype, SearchSlots, derive_genotype, searchable_slots


class Net(nn.Module):
    """Two slots in a row, the second of stride 2."""

    def __init__(self, genotype=None, normalise=False):
        super().__init__()
        self.slots = SearchSlots('net', ['first', 'second'], HIGH_LEVEL_SPACE, genotype, normalise=normalise)
        self.first = self.slots.build(0, 3, 5)
        self.second = self.slots.build(1, 5, 4, stride=2)

    def forward(self, x):
        first, second = self.slots.probs()
        return self.second(self.first(x, first), second)


class Model(BaseModel):
    """Any module as a model with a loss."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, inputs, mode='tensor'):
        found = self.net(torch.stack(list(inputs)))
        return {'loss': (found.features[-1] if isinstance(self.net, SceneModule) else found).mean()}


def images(count=2, size=(11, 8)):
    return {'inputs': torch.rand(count, 3, *size)}


def measured(net, type, batch=None, **options):
    cost = ArchitectureCost(type, options.pop('weight', 1.0), **options)
    cost.measure(Model(net), images() if batch is None else batch)
    return cost


def choose(slots, *names):
    slots.alphas.data.zero_()
    for row, name in zip(slots.alphas.data, names, strict=True):
        row[slots.candidates.index(name)] = 1


ARCHITECTURES = [('conv_1x1', 'conv_7x7'), ('dil_conv_5x5_d2', 'dil_conv_3x3_d18'), ('conv_5x5', 'conv_3x3')]


@pytest.mark.parametrize('relaxation', ['softmax', 'gumbel'])
@pytest.mark.parametrize('names', ARCHITECTURES)
def test_macs_and_parameters_are_those_that_mmengine_counts(names, relaxation):
    net = Net()
    net.slots.relaxation = relaxation
    choose(net.slots, *names)
    derived = Net(dict(zip(net.slots.names, names, strict=True)))
    counted = get_model_complexity_info(derived, (3, 11, 8), show_table=False, show_arch=False)
    assert measured(net, 'macs').derived([net.slots]) == counted['flops']
    assert measured(net, 'params').derived([net.slots]) == counted['params']
    assert net.slots.relaxation == relaxation and net.first.merged


@pytest.mark.parametrize('normalise', [False, True])
def test_all_stages_of_a_shared_slot_count(normalise):
    """Parameters as the derived module holds them; its merged nodes run other convolutions than they are made of."""
    torch.manual_seed(0)
    searched = SceneModule(stages=3, genotype=None, normalise=normalise)
    searched.slots.alphas.data.normal_()
    derived = SceneModule(stages=3, genotype=derive_genotype(searched))
    fused = sum(p.numel() for cell in derived.cells for p in cell.fuse.parameters())
    slots = [searched.slots]
    held = sum(p.numel() for p in derived.parameters())
    assert measured(searched, 'params').derived(slots) == held - fused
    kernels = {'skip': 0, 'conv_1x1': 1, 'res_conv_1x1': 1}
    taps = sum(kernels.get(name, 3) ** 2 for name in derived.slots.choices)
    assert measured(searched, 'macs').derived(slots) == 3 * taps * 3 * 3 * 11 * 8  # stages, taps, channels, pixels
    highest = 3 * 7 * 9 * 3 * 3 * 11 * 8
    assert measured(searched, 'macs').reference == highest
    assert measured(searched, 'macs', reference=5.0).reference == 5.0


def test_the_number_of_images_does_not_matter():
    one, four = measured(Net(), 'macs', images(1)), measured(Net(), 'macs', images(4))
    assert one.table == four.table


def test_measuring_leaves_the_model_as_it_was():
    model = Model(Net())
    model.net.norm = nn.BatchNorm2d(4)
    forward = model.net.forward
    model.net.forward = lambda x: model.net.norm(forward(x))
    before, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    ArchitectureCost('latency', 1.0).measure(model, {'inputs': torch.ones(2, 3, 9, 9)})
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize('temperature', [0.5, 1.0])
def test_the_gradient_of_the_expected_cost(temperature):
    """weight / reference * p_k (c_k - sum_j p_j c_j) / T."""
    net = Net().double()
    net.slots.alphas.data.normal_()
    net.slots.temperature = temperature
    cost = measured(net, 'macs', {'inputs': torch.rand(2, 3, 11, 8).double()}, weight=0.3)
    p = (net.slots.alphas / temperature).softmax(-1)
    c = torch.tensor([cost.table[name] for name in net.slots.names], dtype=torch.float64)
    mean = (p * c).sum(-1, keepdim=True)
    assert cost.expected([net.slots]).item() == pytest.approx(mean.sum().item())
    (gradient,) = cost.gradients([net.slots])
    torch.testing.assert_close(gradient, 0.3 / c.max(-1).values.sum() * p * (c - mean) / temperature)
    assert not net.slots.alphas.requires_grad and net.slots.alphas.grad is None


def test_where_candidates_are_drawn_it_is_the_mean_over_the_draws():
    """At temperature 1, whatever that of the gradient, and over the open candidates alone."""
    net = Net()
    net.slots.alphas.data.normal_()
    net.slots.relaxation, net.slots.temperature = 'sampled', 0.1
    cost = measured(net, 'params')
    net.slots.keep(3)
    open_candidates = net.slots.open_candidates
    p = net.slots.alphas.exp() * open_candidates
    c = torch.tensor([cost.table[name] for name in net.slots.names])
    expected = (p / p.sum(-1, keepdim=True) * c).sum().item()
    assert cost.expected([net.slots]).item() == pytest.approx(expected, rel=1e-5)
    (gradient,) = cost.gradients([net.slots])
    assert gradient[open_candidates].abs().min() > 0 and gradient[~open_candidates].abs().max() == 0
    net.slots.keep(1)
    assert cost.expected([net.slots]).item() == pytest.approx(cost.derived([net.slots]))


def test_latency_is_measured_once_per_candidate_and_shape(monkeypatch):
    searched, runs = SceneModule(stages=3, genotype=None), []

    def latency(candidate, x):
        runs.append(type(candidate).__name__)
        assert x.shape == (1, 3, 11, 8) and x.is_contiguous(memory_format=torch.channels_last)  # as the cell runs it
        return 1.5

    monkeypatch.setattr('ruas_mm.engine.architecture_cost._latency', latency)
    cost = measured(searched, 'latency', images(4))
    assert len(runs) == len(SCENE_SPACE)
    assert cost.table == {name: [3 * 1.5] * 7 for name in searched.slots.names}  # milliseconds of one image


def test_larger_convolutions_take_longer():
    cost = measured(Net(), 'latency', images(1, (96, 96)))
    row = dict(zip(HIGH_LEVEL_SPACE, cost.table['net.first'], strict=True))
    assert 0 < row['conv_1x1'] < row['conv_7x7']


# --- In a search -----------------------------------------------------------------------------------------------------


class Trace(Hook):
    priority = 'LOW'

    def __init__(self):
        self.alphas = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.alphas.append([group.alphas.detach().clone() for group in searchable_slots(runner.model)])


def search(tmp_path, work_dir='run', epochs=5, resume=None, **options):
    options = {'optimizer': dict(type='Adam', lr=0.2), 'scene_iters': 2, 'task_iters': 2, 'interval': 1, **options}
    hook, trace = CooperativeSearchHook(loader([0.7, 1.1, -0.6]), **options), Trace()
    runner = Runner(
        Paths(),
        work_dir=str(tmp_path / work_dir),
        train_dataloader=loader([0.9, -0.4, 1.3, 0.2]),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[hook, trace],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        randomness=dict(seed=0),
        log_level='WARNING',
        experiment_name=f'{tmp_path.name}_{work_dir}',
        load_from=resume,
        resume=resume is not None,
    )
    runner.train()
    return runner, hook, trace


@pytest.fixture(autouse=True)
def no_drawings(monkeypatch):
    monkeypatch.setattr('ruas_mm.visualization.architecture.draw_architecture', lambda *_: None)
    monkeypatch.setattr('ruas_mm.visualization.probabilities.plot_probabilities', lambda *_: None)


def same(one, other):
    return all(
        torch.equal(a, b) for left, right in zip(one, other, strict=True) for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize(('type', 'relaxation'), [('macs', 'softmax'), ('params', 'gumbel')])
def test_a_large_weight_selects_the_cheapest_candidates(tmp_path, type, relaxation):
    cost = dict(type=type, weight=1000.0)
    runner, hook, _ = search(tmp_path, cost=cost, relaxation=relaxation, optimizer=dict(type='SGD', lr=0.1))
    genotype = Genotype.load(tmp_path / 'run' / 'genotype.json')
    assert genotype.slots == {'scene.a': 'skip', 'scene.b': 'skip', 'task.a': 'conv_1x1', 'task.b': 'conv_1x1'}
    assert genotype.origin['cost'] == cost
    cheapest = 2 * (25 if type == 'macs' else 2)
    scalars = next((tmp_path / 'run').glob('*/vis_data/scalars.json')).read_text()
    assert f'"search/cost/derived": {cheapest}' in scalars and '"search/cost/expected": ' in scalars


def test_a_weight_of_none_or_zero_changes_nothing(tmp_path):
    _, _, without = search(tmp_path)
    _, _, zero = search(tmp_path, work_dir='zero', cost=dict(type='latency', weight=0.0))
    _, _, some = search(tmp_path, work_dir='some', cost=dict(type='macs', weight=1.0))
    assert same(without.alphas, zero.alphas)
    assert not same(without.alphas, some.alphas)


def test_a_step_changes_the_slots_of_its_phase_alone(tmp_path):
    _, _, trace = search(tmp_path, epochs=1, cost=dict(type='macs', weight=100.0))
    scene, task = zip(*trace.alphas, strict=True)
    assert torch.equal(task[0], task[1]) and not torch.equal(task[1], task[2])
    assert torch.equal(scene[1], scene[2]) and not torch.equal(scene[0], scene[1])


def test_a_resumed_search_goes_on_with_the_costs_that_were_measured(tmp_path):
    """Latencies would differ a little from one measurement to the next."""
    cost = dict(type='latency', weight=1.0)
    _, hook, expected = search(tmp_path, cost=cost)
    resume = str(tmp_path / 'run' / 'epoch_3.pth')
    _, again, trace = search(tmp_path, work_dir='resumed', resume=resume, cost=cost)
    assert again.architect.cost.table == hook.architect.cost.table
    assert len(trace.alphas) == 8 and same(trace.alphas, expected.alphas[12:])


# --- Mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(type='flops', weight=1), 'type of .* one of macs, params, latency, got .flops.'),
        (dict(type='macs', weight=-1), 'weight of .* got -1'),
        (dict(type='macs', weight=1, reference=0), 'reference of .* above 0 or None, got 0'),
    ],
)
def test_options_that_do_not_exist(options, words):
    with pytest.raises(ValueError, match=words):
        CooperativeSearchHook({}, cost=options)


def test_a_model_that_runs_no_candidate():
    class Idle(Net):
        def forward(self, x):
            return x

    with pytest.raises(ValueError, match='no slot of Model ran a candidate'):
        measured(Idle(), 'macs')
