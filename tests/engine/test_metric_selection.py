"""The architecture with the best metric is found where it is not the most probable one, and nothing else changes."""

import gc
import itertools
import json
import math
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from toy import loader

from ruas_mm.engine import CooperativeSearchHook
from ruas_mm.engine.metric_selection import (
    MetricSelection,
    SupernetEvaluator,
    chosen,
    coordinate_descent,
    find_metric,
    greater_is_better,
)
from ruas_mm.search import Genotype, SearchSlots

CANDIDATES = ['conv_1x1', 'conv_3x3', 'conv_5x5', 'conv_7x7']
TRAIN, VAL = [1.0, 2.0, 3.0, 6.0], [0.5, 1.5]
# What a candidate of each slot adds to the figure. By probability the first candidate of each slot is chosen.
GAIN = torch.tensor([[0.1, 0.0, 0.4, 9.0], [0.2, 0.1, 0.0, 9.0], [0.0, 0.05, 0.3, 9.0]], dtype=torch.float64)
ALPHAS = [2.0, 1.0, 0.5, -3.0]  # the fourth is never considered: three candidates are


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    """The genotypes that were drawn; drawing takes longer than these searches."""
    genotypes = []
    monkeypatch.setattr('ruas_mm.visualization.architecture.draw_architecture', lambda g, *_: genotypes.append(g))
    monkeypatch.setattr('ruas_mm.visualization.probabilities.plot_probabilities', lambda *_: None)
    return genotypes


class Judged(BaseModel):
    """Its figure is known for every architecture; the input of its normalisation depends on the first slot."""

    def __init__(self):
        super().__init__()
        self.slots = SearchSlots('task', ['a', 'b', 'c'], CANDIDATES)
        self.slots.alphas = nn.Parameter(torch.tensor([ALPHAS] * 3, dtype=torch.float64), requires_grad=False)
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.norm = nn.BatchNorm1d(1).double()
        self.fixed = nn.BatchNorm1d(1).double()
        self.seen = []  # in validation: probabilities, and both running means

    def train(self, mode=True):
        super().train(mode)
        self.fixed.eval()
        return self

    def forward(self, inputs, mode='tensor'):
        x = torch.stack(list(inputs)).double().view(-1, 1)
        probabilities = torch.stack(list(self.slots.probs()))
        x = x * (1 + probabilities[0].argmax())
        if mode == 'loss':
            return {'loss': self.weight * self.fixed(self.norm(x)).square().mean() * 1e-3}
        self.seen.append((probabilities, self.norm.running_mean.item(), self.fixed.running_mean.item()))
        torch.rand(1)
        return [float((GAIN * probabilities).sum())] * len(x)


class Figure(BaseMetric):
    default_prefix = 'toy'

    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        mean = sum(results) / len(results)
        return {'gain': mean, 'mse': 1 - mean}


def search(work_dir, select='metric', model=None, resume=None, **given):
    validation = dict(val_dataloader=loader(VAL), val_evaluator=dict(type=Figure), val_cfg=dict(type='ValLoop'))
    options = dict(strategy='global', order=1, optimizer=dict(type='SGD', lr=0.0), select=select)
    hook = CooperativeSearchHook(loader(TRAIN, batch_size=2), **options)
    return Runner(
        model or Judged(),
        work_dir=str(work_dir),
        train_dataloader=loader(TRAIN, batch_size=2),
        train_cfg=dict(by_epoch=True, max_epochs=1, val_begin=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[hook],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, save_best='toy/gain', rule='greater')),
        randomness=dict(seed=0),
        log_level='WARNING',
        experiment_name=f'{Path(work_dir).name}_{len(list(Path(work_dir).glob("*")))}_{id(hook)}',
        load_from=resume,
        resume=resume is not None,
        **{**validation, **given},
    )


def test_the_best_by_the_metric_is_selected(tmp_path, drawn):
    runner = search(tmp_path)
    runner.train()
    genotype = Genotype.load(tmp_path / 'genotype.json')
    assert genotype.slots == {'task.a': 'conv_5x5', 'task.b': 'conv_1x1', 'task.c': 'conv_5x5'}
    assert genotype.probabilities['task.a']['conv_1x1'] == max(genotype.probabilities['task.a'].values())
    result = json.loads((tmp_path / 'selection.json').read_text())
    assert result['metric'] == 'toy/gain'
    assert result['before'] == pytest.approx(0.3)
    assert result['after'] == pytest.approx(0.9)
    assert result['changed'] == {'task.a': ['conv_1x1', 'conv_5x5'], 'task.c': ['conv_1x1', 'conv_5x5']}
    assert result['importance'] == pytest.approx({'task.a': 0.1, 'task.b': 0.1, 'task.c': 0.05})
    assert len(result['evaluations']) == 1 + 3 + 5  # the start, the slots' importance, and what is not known by then
    assert result['complete']
    summary = genotype.origin['selection']
    assert (summary['metric'], summary['evaluations']) == ('toy/gain', 9)
    assert drawn[-1].slots == genotype.slots
    for probabilities, _, _ in runner.model.seen:
        assert set(probabilities.unique().tolist()) == {0.0, 1.0}  # exactly
    assert not list(tmp_path.glob('best_*')), 'hooks of training ran'


def test_everything_is_left_as_it_was(tmp_path):
    """Compared with the same search selected by probability."""
    states = []
    for select in ('metric', 'probability'):
        runner = search(tmp_path / select, select)
        runner.train()
        modes = {name: module.training for name, module in runner.model.named_modules()}
        states.append((runner.model.state_dict(), torch.get_rng_state(), modes, runner.model.norm.momentum))
    (ours, random, *rest), (theirs, expected, *others) = states
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert torch.equal(random, expected)
    assert rest == others


def test_statistics_are_those_of_the_architecture(tmp_path):
    model = Judged()
    model.fixed.running_mean.fill_(7.0)
    runner = search(tmp_path, dict(type='metric', batches=2), model)
    runner.train()
    for probabilities, mean, fixed in model.seen:
        assert mean == pytest.approx((1 + int(probabilities[0].argmax())) * sum(TRAIN) / len(TRAIN))
        assert fixed == 7.0  # norm_eval


def test_a_killed_selection_is_run_again(tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    evaluations = []
    measure = SupernetEvaluator.__call__

    def killed(self, architecture):
        evaluations.append(architecture)
        if len(evaluations) == 4:
            raise Killed
        return measure(self, architecture)

    monkeypatch.setattr(SupernetEvaluator, '__call__', killed)
    runner = search(tmp_path)
    with pytest.raises(Killed):
        runner.train()
    assert set(Genotype.load(tmp_path / 'genotype.json').slots.values()) == {'conv_1x1'}
    assert torch.equal(runner.model.slots.alphas, Judged().slots.alphas)
    monkeypatch.setattr(SupernetEvaluator, '__call__', measure)
    search(tmp_path, resume=str(tmp_path / 'epoch_1.pth')).train()
    assert Genotype.load(tmp_path / 'genotype.json').slots['task.a'] == 'conv_5x5'
    assert json.loads((tmp_path / 'selection.json').read_text())['after'] == pytest.approx(0.9)


@pytest.mark.parametrize(
    ('options', 'selected', 'evaluations'),
    [
        (dict(metric='mse'), ('conv_5x5', 'conv_1x1', 'conv_5x5'), 9),
        (dict(metric='toy/gain', rule='less'), ('conv_3x3', 'conv_5x5', 'conv_1x1'), 9),
        (dict(candidates=2), ('conv_1x1', 'conv_1x1', 'conv_3x3'), 4),
        (dict(slots=1), ('conv_5x5', 'conv_1x1', 'conv_1x1'), 5),
        (dict(max_evaluations=1), ('conv_1x1', 'conv_1x1', 'conv_1x1'), 1),
        (dict(max_evaluations=5), ('conv_5x5', 'conv_1x1', 'conv_1x1'), 5),
        (dict(candidates=4), ('conv_7x7', 'conv_7x7', 'conv_7x7'), 12),
    ],
)
def test_options(tmp_path, options, selected, evaluations):
    search(tmp_path, dict(type='metric', **options)).train()
    assert tuple(Genotype.load(tmp_path / 'genotype.json').slots.values()) == selected
    result = json.loads((tmp_path / 'selection.json').read_text())
    assert len(result['evaluations']) == evaluations
    assert result['complete'] == ('max_evaluations' not in options)


def test_a_figure_that_is_not_a_number_is_the_worst():
    """Also of the architecture that the descent starts from."""
    figures = {('x', 'x'): math.nan, ('y', 'x'): 1.0, ('y', 'y'): math.nan, ('x', 'y'): math.nan}
    result = coordinate_descent(
        lambda architecture: figures[tuple(architecture.values())], dict(a='x', b='x'), dict(a=['y'], b=['y'])
    )
    assert result.selected == dict(a='y', b='x')
    assert result.after == 1.0
    assert result.importance == dict(a=math.inf, b=0.0)


def test_descent_is_never_below_its_start_and_measures_nothing_twice():
    generator = torch.Generator().manual_seed(0)
    names = ['x', 'y', 'z']
    for _ in range(20):
        table = torch.randn(3, 3, 3, generator=generator)
        asked = []

        def evaluate(architecture, table=table, asked=asked):
            asked.append(tuple(architecture.values()))
            return table[tuple(names.index(name) for name in architecture.values())].item()

        result = coordinate_descent(evaluate, dict.fromkeys('abc', 'x'), dict.fromkeys('abc', names[1:]))
        assert len(set(asked)) == len(asked) == len(result.evaluations)
        assert result.after == max(evaluation['value'] for evaluation in result.evaluations[-1:] + result.evaluations)
        assert result.after >= result.before


def test_one_operation_alone(tmp_path):
    """At any temperature; the parameters come back also after an error."""
    slots = SearchSlots('task', ['a', 'b'], CANDIDATES)
    slots.temperature = 10.0
    before = slots.alphas.clone()
    for names in itertools.product(CANDIDATES, repeat=2):
        with pytest.raises(KeyError), chosen([slots], dict(zip(slots.names, names, strict=True))):
            rows = [row.tolist() for row in slots.probs()]
            assert rows == [[float(name == candidate) for candidate in CANDIDATES] for name in names]
            raise KeyError
        assert torch.equal(slots.alphas, before)
    with pytest.raises(ValueError, match='task.b'), chosen([slots], {'task.a': 'conv_1x1'}):
        pass


def test_names_of_figures():
    figures = {'pascal_voc/mAP': 0.5, 'pascal_voc/AP50': 0.5, 'other/AP50': 0.1, 'mIoU': 3.0}
    assert find_metric(figures, None) == 'pascal_voc/mAP'
    assert find_metric(figures, 'mAP') == 'pascal_voc/mAP'
    assert find_metric(figures, 'other/AP50') == 'other/AP50'
    assert find_metric(figures, 'mIoU') == 'mIoU'
    with pytest.raises(ValueError, match="several metrics 'AP50'"):
        find_metric(figures, 'AP50')
    with pytest.raises(ValueError, match="no metric 'PSNR'; it gives pascal_voc/mAP"):
        find_metric(figures, 'PSNR')
    assert [greater_is_better(name) for name in ('a/PSNR', 'a/niqe', 'val_loss', 'mIoU')] == [True, False, False, True]


def test_several_processes_decide_alike(tmp_path, torchrun):
    """Each sees half of the training and of the validation images."""
    done = torchrun(__file__, tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    ours, theirs = (torch.load(tmp_path / f'{rank}.pt') for rank in range(2))
    assert len(ours) == 9
    assert ours == theirs
    for choices, mean in ours:
        assert mean == pytest.approx((1 + choices[0]) * sum(TRAIN) / len(TRAIN))
    assert Genotype.load(tmp_path / 'run' / 'genotype.json').slots['task.a'] == 'conv_5x5'


def search_on_this_rank(out):
    """What torchrun starts."""
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    model = Judged()
    search(
        f'{out}/run',
        dict(type='metric', batches=1),
        model,
        launcher='pytorch',
        cfg=dict(model_wrapper_cfg=wrapper),
    ).train()
    seen = [(probabilities.argmax(dim=-1).tolist(), mean) for probabilities, mean, _ in model.seen]
    torch.save(seen, f'{out}/{dist.get_rank()}.pt')


# --- Mistakes, one sentence each -----------------------------------------------------------------------------------


def test_a_run_without_validation(tmp_path):
    runner = search(tmp_path, val_dataloader=None, val_evaluator=None, val_cfg=None)
    with pytest.raises(ValueError, match="val_dataloader, val_cfg and val_evaluator .* 'architecture'"):
        runner.train()


def test_a_figure_that_the_validation_does_not_give(tmp_path):
    with pytest.raises(ValueError, match="no metric 'mAP'; it gives toy/gain, toy/mse"):
        search(tmp_path, dict(type='metric', metric='mAP')).train()


@pytest.mark.parametrize(
    ('select', 'words'),
    [
        ('accuracy', "'accuracy'; choose 'probability' or 'metric'"),
        (dict(metric='mAP'), "by None; choose 'probability' or 'metric'"),
        (dict(type='metric', candidate=3), "no option 'candidate'; its options are metric, rule"),
        (dict(type='probability', metric='mAP'), "no option 'metric'"),
        (dict(type='metric', candidates=1), 'candidates >= 2'),
        (dict(type='metric', slots=0), 'slots >= 1'),
        (dict(type='metric', batches=1.5), 'batches >= 1'),
        (dict(type='metric', rule='more'), "'more'; choose 'greater' or 'less'"),
        (dict(type='metric', metric=3), 'metric as a name, not 3'),
    ],
)
def test_options_without_sense(select, words):
    with pytest.raises(ValueError, match=words) as caught:
        CooperativeSearchHook(loader(VAL), select=select)
    assert '\n' not in str(caught.value)


def test_selection_by_probability_is_the_default():
    assert MetricSelection.from_option('probability') is None
    assert MetricSelection.from_option(dict(type='probability')) is None
    assert MetricSelection.from_option('metric') == MetricSelection()


if __name__ == '__main__':
    torch.set_num_threads(1)
    dist.init_process_group('gloo')
    search_on_this_rank(sys.argv[1])
    gc.collect()  # as in test_distributed_search.py
    dist.destroy_process_group()
