"""A search that draws candidates: what it draws when, what is left at the end, and that it can be resumed."""

import sys
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

sys.path.insert(0, str(Path(__file__).parent))
from toy import Paths, loader

from ruas_mm.engine import CooperativeSearchHook
from ruas_mm.search import Genotype

DRAWING = ['gumbel', 'sampled']
TRAIN = [0.9, -0.4, 1.3, 0.2]


@pytest.fixture(autouse=True)
def no_drawings(monkeypatch):
    monkeypatch.setattr('ruas_mm.visualization.architecture.draw_architecture', lambda *_: None)
    monkeypatch.setattr('ruas_mm.visualization.probabilities.plot_probabilities', lambda *_: None)


class Trace(Hook):
    """Keeps all parameters after each iteration, and how many candidates of each module are open before it."""

    priority = 'LOW'

    def __init__(self):
        self.values, self.open, self.random = [], [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        parts = (runner.model.scene_module, runner.model.task_module)
        self.open.append([part.slots.open_candidates.sum(-1).tolist() for part in parts])

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.values.append(torch.cat([p.detach().flatten() for p in runner.model.parameters()]))
        self.random.append(torch.get_rng_state())


def search(tmp_path, epochs=4, work_dir='run', resume=None, **options):
    options = {'optimizer': dict(type='Adam', lr=0.05), 'scene_iters': 2, 'task_iters': 2, 'interval': 1, **options}
    hook, trace = CooperativeSearchHook(loader([0.7, 1.1, -0.6]), **options), Trace()
    runner = Runner(
        Paths(),
        work_dir=str(tmp_path / work_dir),
        train_dataloader=loader(TRAIN),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
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


@pytest.mark.parametrize(
    ('relaxation', 'strategy'), [('gumbel', 'cooperative'), ('sampled', 'cooperative'), ('sampled', 'global')]
)
def test_a_resumed_search_is_the_undisturbed_one(tmp_path, relaxation, strategy):
    options = dict(relaxation=relaxation, strategy=strategy, temperature=(10, 0.1), warmup=1)
    whole, hook, expected = search(tmp_path, **options)
    resume = str(tmp_path / 'run' / 'epoch_2.pth')
    resumed, again, trace = search(tmp_path, work_dir='resumed', resume=resume, **options)
    assert len(trace.values) == 8
    assert all(map(torch.equal, trace.values, expected.values[8:]))  # bit by bit
    assert trace.open == expected.open[8:]
    assert resumed.model.draws == whole.model.draws[-len(resumed.model.draws) :]
    assert again.report.history.records == hook.report.history.records


@pytest.mark.parametrize(('order', 'evaluations'), [(1, 1), (2, 4)])
@pytest.mark.parametrize('relaxation', DRAWING)
def test_each_step_draws_one_architecture(tmp_path, relaxation, order, evaluations):
    """All evaluations of an architecture step run the same candidates, the weight step others."""
    runner, _, _ = search(tmp_path, relaxation=relaxation, strategy='global', order=order, epochs=2)
    draws, seen = runner.model.draws, set()
    assert len(draws) == 8 * (evaluations + 1)
    for first in range(0, len(draws), evaluations + 1):
        step = draws[first : first + evaluations]
        assert all(draw == step[0] for draw in step)
        seen |= {(*step[0],), (*draws[first + evaluations],)}
    assert len(seen) > 4


def test_sampling_drops_candidates_at_equally_spaced_steps(tmp_path):
    """Three and four candidates over seven architecture steps, after one of warm-up, of each module."""
    runner, hook, trace = search(tmp_path, relaxation='sampled', warmup=1)
    scene, task = zip(*trace.open, strict=True)
    in_scene = [i for i in range(16) if i % 4 < 2]
    assert [scene[i][0] for i in in_scene] == [3, 3, 3, 3, 2, 2, 2, 1]
    assert [task[i][0] for i in range(16) if i not in in_scene] == [4, 4, 4, 3, 3, 2, 2, 1]
    assert all(a == b for a, b in (*scene, *task))
    genotype = Genotype.load(tmp_path / 'run' / 'genotype.json')
    assert genotype.origin['relaxation'] == 'sampled'
    for slot, row in genotype.probabilities.items():
        assert row[genotype.slots[slot]] == 1 and sum(row.values()) == 1
    last = runner.model.draws[-1]
    assert [part.slots.candidates[i] for part, i in zip(_parts(runner), last, strict=True)] == [
        *genotype.slots.values()
    ]


def _parts(runner):
    return [part for part in (runner.model.scene_module, runner.model.task_module) for _ in range(2)]


def test_a_search_with_drawn_candidates_takes_no_random_numbers_of_training(tmp_path):
    """Nor do its architecture steps move weights: without a size, they leave what training alone would give."""
    still = dict(type='SGD', lr=0.0)
    _, _, searched = search(tmp_path, relaxation='gumbel', optimizer=still)
    _, _, trained = search(tmp_path, relaxation='gumbel', optimizer=still, warmup=1000, work_dir='plain')
    _, _, mixed = search(tmp_path, optimizer=still, work_dir='mixed')
    assert all(map(torch.equal, searched.values, trained.values))
    assert all(map(torch.equal, searched.random, mixed.random))


def test_the_state_of_a_search_without_draws_is_as_ever(tmp_path):
    search(tmp_path, epochs=1)
    search(tmp_path, epochs=1, relaxation='sampled', work_dir='sampled')
    states = [
        torch.load(tmp_path / run / 'epoch_1.pth', weights_only=False)['ruas_search'] for run in ('run', 'sampled')
    ]
    assert states[1].keys() - states[0].keys() == {'open_candidates'}


def test_patience_counts_a_dropped_candidate_as_a_change(tmp_path):
    """An architecture that does not move settles after three records; not where its candidates are still dropped."""
    options = dict(optimizer=dict(type='SGD', lr=1e-9), patience=2, tolerance=0.01, epochs=8)
    runner, _, _ = search(tmp_path, relaxation='gumbel', **options)
    assert runner.iter == 12
    runner, _, _ = search(tmp_path, relaxation='sampled', work_dir='sampled', **options)
    assert runner.iter > 20


def test_a_relaxation_that_does_not_exist():
    with pytest.raises(ValueError, match="has no relaxation 'darts'; choose from softmax, gumbel, sampled"):
        CooperativeSearchHook({}, relaxation='darts')
