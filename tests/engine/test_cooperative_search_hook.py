"""The search against hand-derived gradients, and what it must leave alone."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from toy import COUPLING, SCENE_LOSS_WEIGHT, Part, Toy, loader

from ruas_mm.engine import CooperativeSearchHook, SearchError
from ruas_mm.search import Genotype, Phase

TRAIN = [0.9, -0.4, 1.3, 0.2]
VAL = [0.7, 1.1, -0.6]
LR, ALPHA_LR = 0.1, 0.3
# The format of checkpoints: a change must not keep older searches from resuming.
CHECKPOINT_KEYS = {
    *('strategy', 'optimizer', 'schedulers', 'stream', 'records', 'iterations', 'searched_since', 'scene_ended'),
    *('ended', 'random_states', 'statistics', 'architecture_steps', 'load_from'),
}
# Those that version 0 did not have.
ADDED_KEYS = ['statistics', 'architecture_steps', 'load_from']


@pytest.fixture(autouse=True)
def no_drawings(request, monkeypatch):
    """Drawing takes longer than these searches; one test looks at the drawings."""
    if request.function is not test_what_was_found_is_written_and_shown:
        monkeypatch.setattr('ruas_mm.visualization.architecture.draw_architecture', lambda *_: None)
        monkeypatch.setattr('ruas_mm.visualization.probabilities.plot_probabilities', lambda *_: None)


def search(tmp_path, model=None, train=TRAIN, val=VAL, epochs=3, batch_size=1, work_dir='run', **options):
    """Run a search of the toy; return the runner, its hook and what the parameters were after each iteration."""
    model = model or Toy()
    options = {'optimizer': dict(type='SGD', lr=ALPHA_LR), 'scene_iters': 2, 'task_iters': 2, **options}
    hook = CooperativeSearchHook(loader(val), **options)
    trace = []

    class Trace(CooperativeSearchHook.__base__):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if isinstance(model, Toy):
                trace.append(snapshot(model))

    runner = Runner(
        model,
        work_dir=str(tmp_path / work_dir),
        train_dataloader=loader(train, batch_size),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=LR)),
        custom_hooks=[hook, Trace()],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        randomness=dict(seed=0),
        log_level='WARNING',
        experiment_name=f'{tmp_path.name}_{work_dir}',
    )
    return runner, hook, trace


def snapshot(model):
    parts = (model.scene_module, model.task_module)
    return [part.weight.item() for part in parts] + [part.slots.alphas[0].tolist() for part in parts]


def by_hand(strategy, order, beta, iterations, warmup=0, scene_end=None, scene_weights='scene'):
    """The same search in plain numbers: every derivative below was taken by hand."""
    c, lam = COUPLING, SCENE_LOSS_WEIGHT
    ws, wt = 1.0, -0.5
    a, b = [0.2, -0.1], [-0.3, 0.4]
    trace, steps = [], {'scene': 0, 'task': 0, 'joint': 0}
    stream = 0

    def prob(logits):
        p = 1 / (1 + math.exp(logits[1] - logits[0]))
        return p, p * (1 - p)  # and its derivative by the first logit; by the second it is the negative

    def step(logits, g):
        return [logits[0] - ALPHA_LR * g, logits[1] + ALPHA_LR * g]

    for i in range(iterations):
        x, y = TRAIN[i % len(TRAIN)], VAL[stream % len(VAL)]
        xi = LR if order == 2 else 0.0
        if strategy == 'global':
            phase = 'joint'
        elif strategy == 'cooperative':
            phase = 'scene' if i % 4 < 2 else 'task'
        else:
            phase = 'scene' if i < scene_end else 'task'
        searching = steps[phase] >= warmup
        steps[phase] += 1
        stream += searching
        (p, dp), (q, dq) = prob(a), prob(b)
        joint = scene_weights == 'joint'
        ds, dt = lam * (ws - p * x) + c * p * wt, wt - q * x + c * ws * p
        if searching and phase == 'scene':
            moved = ws - xi * (ds if joint else ws - p * x)
            v = moved - p * y
            g = -v * y * dp - xi * ((-lam * x * dp + c * wt * dp) if joint else -x * dp) * v
            if strategy == 'cooperative':
                g += beta * c * ws * dp * wt
            a = step(a, g)
        elif searching and phase == 'task':
            u = (ws - xi * ds if joint else ws) * p
            moved = wt - xi * dt
            v = moved - q * y + c * u
            g = -(moved - q * y) * y * dq - xi * (-x * dq) * v
            b = step(b, g)
        elif searching:
            ms, mt = ws - xi * ds, wt - xi * dt
            vs, vt = lam * (ms - p * y) + c * p * mt, mt - q * y + c * ms * p
            ga = -lam * (ms - p * y) * y * dp + c * ms * mt * dp
            ga -= xi * ((-lam * x * dp + c * wt * dp) * vs + c * ws * dp * vt)
            gb = -(mt - q * y) * y * dq - xi * (-x * dq) * vt
            a, b = step(a, ga), step(b, gb)
        (p, _), (q, _) = prob(a), prob(b)
        if phase == 'scene' and not joint:
            ws -= LR * (ws - p * x)
        elif phase == 'task' and not joint:
            wt -= LR * (wt - q * x + c * ws * p)
        else:
            ds, dt = lam * (ws - p * x) + c * p * wt, wt - q * x + c * ws * p
            ws, wt = ws - LR * ds, wt - LR * dt
        trace.append([ws, wt, a, b])
    return trace


@pytest.mark.parametrize('warmup', [0, 2])
@pytest.mark.parametrize('order', [1, 2])
@pytest.mark.parametrize(
    ('strategy', 'beta', 'scene_weights'),
    [
        ('cooperative', 0.0, 'scene'),
        ('cooperative', 0.8, 'scene'),
        ('cooperative', 0.8, 'joint'),
        ('independent', 0.8, 'scene'),
        ('independent', 0.8, 'joint'),
        ('global', 0.8, 'scene'),
    ],
)
def test_every_step_is_the_one_computed_by_hand(tmp_path, strategy, beta, scene_weights, order, warmup):
    runner, hook, trace = search(
        tmp_path, strategy=strategy, beta=beta, scene_weights=scene_weights, order=order, warmup=warmup
    )
    runner.train()
    expected = by_hand(strategy, order, beta, 12, warmup, scene_end=6, scene_weights=scene_weights)
    together = strategy == 'global' or scene_weights == 'joint'
    steps = 12 if together else 6
    assert hook.schedule.weight_steps() == {'scene': steps, 'task': steps}
    assert len(trace) == len(expected) == 12
    for got, wanted in zip(trace, expected, strict=True):
        for part, number in zip(got, wanted, strict=True):
            assert part == pytest.approx(number, rel=1e-9)
    assert trace[-1][2] != [0.2, -0.1]
    assert trace[-1][3] != [-0.3, 0.4]


@pytest.mark.parametrize('strategy', ['cooperative', 'independent', 'global'])
def test_weights_train_as_if_the_architecture_never_stepped(tmp_path, strategy):
    """Where the architecture's steps have no size, weights, buffers and random numbers are those of plain training."""
    searched, plain = Toy(noise=0.3), Toy(noise=0.3)
    runner, _, trace = search(tmp_path, searched, strategy=strategy, optimizer=dict(type='SGD', lr=0.0))
    runner.train()
    runner, _, expected = search(tmp_path, plain, strategy=strategy, warmup=1000, work_dir='plain')
    runner.train()
    assert trace == expected  # bit by bit
    assert searched.seen == plain.seen


@pytest.mark.parametrize(('beta', 'coupled'), [(0.0, 0), (0.5, 4)])
def test_the_task_module_rests_in_scene_phases_but_for_the_beta_term(tmp_path, beta, coupled):
    runner, hook, _ = search(tmp_path, beta=beta, epochs=2)
    runner.train()
    runs = runner.model.task_runs
    assert runs.count(Phase.COUPLED) == coupled  # one each of four scene iterations
    assert runs.count(Phase.TASK) == 4 * 5  # four evaluations of the gradient and the weight step
    assert len(runs) == coupled + 20
    assert runner.model.search_phase is Phase.JOINT


def test_architectures_never_require_a_gradient_outside_their_step(tmp_path):
    runner, hook, _ = search(tmp_path)
    runner.train()
    assert [alphas.requires_grad for alphas in hook.architect.alphas(Phase.JOINT)] == [False, False]
    assert all(slots.alphas.grad is None for slots in hook.architect.slots[Phase.JOINT])


def test_the_schedule_is_the_architecture_optimizers(tmp_path):
    steps = dict(type='MultiStepLR', milestones=[1, 2], gamma=0.1, by_epoch=True)
    runner, hook, _ = search(tmp_path, param_scheduler=steps)
    runner.train()
    assert hook.architect.optimizer.param_groups[0]['lr'] == pytest.approx(ALPHA_LR * 0.01)
    assert runner.optim_wrapper.get_lr()['lr'] == [LR]


@pytest.mark.parametrize(('lr', 'warned'), [(0.001, True), ('auto', False), (1.0, False)])
def test_a_rate_too_small_to_decide_is_said(tmp_path, caplog, lr, warned):
    """Two candidates need a margin of ln 9 = 2.20 for a probability of 0.9; 6 steps at 0.001 reach 0.01."""
    runner, _, _ = search(tmp_path, optimizer=dict(type='Adam', lr=lr))
    runner.logger.addHandler(caplog.handler)
    runner.train()
    messages = [record.getMessage() for record in caplog.records if 'apart by at most' in record.getMessage()]
    assert len(messages) == (2 if warned else 0)
    if warned:
        assert '6 architecture steps' in messages[0] and 'scene' in messages[0] and '2.20' in messages[0]


def test_no_rate_of_exponentiated_gradient_is_said_to_be_too_small(tmp_path, caplog):
    """Its steps are not bounded by the rate."""
    runner, hook, _ = search(tmp_path, optimizer=dict(type='ruas_mm.ExponentiatedGradient', lr=0.001))
    runner.logger.addHandler(caplog.handler)
    before = runner.model.task_module.slots.alphas.clone()
    runner.train()
    assert not any('apart by at most' in record.getMessage() for record in caplog.records)
    assert not torch.equal(before, runner.model.task_module.slots.alphas)


def test_schedule_by_iterations(tmp_path):
    cosine = dict(type='CosineAnnealingLR', by_epoch=True, eta_min=0.0, convert_to_iter_based=True)
    runner, hook, _ = search(tmp_path, param_scheduler=cosine)
    runner.train()
    assert hook.architect.optimizer.param_groups[0]['lr'] < 0.05 * ALPHA_LR


def test_what_was_found_is_written_and_shown(tmp_path):
    runner, hook, trace = search(tmp_path, interval=1)
    runner.train()
    folder = tmp_path / 'run'
    genotype = Genotype.load(folder / 'genotype.json')
    assert set(genotype.slots) == {'scene.a', 'task.a'}
    for slot, alphas in (('scene.a', trace[-1][2]), ('task.a', trace[-1][3])):
        assert genotype.slots[slot] == ['skip', 'conv_1x1'][alphas[1] > alphas[0]]
        expected = torch.tensor(alphas, dtype=torch.float64).softmax(0).tolist()
        assert list(genotype.probabilities[slot].values()) == pytest.approx(expected)
    assert genotype.origin['strategy'] == 'cooperative'
    assert (folder / 'architecture.png').stat().st_size > 1000
    assert (folder / 'probabilities.png').stat().st_size > 1000
    assert [record['iter'] for record in hook.report.history.records] == [0, 4, 8, 12]
    lines = [json.loads(line) for line in next(folder.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    recorded = [line for line in lines if 'search/entropy/scene' in line]
    assert [line['step'] for line in recorded] == [0, 4, 8, 12]
    p = recorded[-1]['search/probability/task.a/skip']
    assert p == pytest.approx(genotype.probabilities['task.a']['skip'])
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    assert recorded[-1]['search/entropy/task'] == pytest.approx(entropy)


def test_it_stops_when_nothing_changes_any_more(tmp_path):
    runner, hook, trace = search(
        tmp_path, epochs=50, optimizer=dict(type='SGD', lr=1e-9), interval=1, patience=3, tolerance=1e-3
    )
    runner.train()
    assert len(trace) == 16  # both modules step from the first record on; then three intervals
    assert 'settled after 16' in Genotype.load(tmp_path / 'run' / 'genotype.json').origin['ended']


def test_it_goes_on_while_parameters_move(tmp_path):
    runner, hook, trace = search(tmp_path, epochs=6, interval=1, patience=3, tolerance=1e-3)
    runner.train()
    assert len(trace) == 24


def test_independent_goes_over_when_the_scene_module_has_settled(tmp_path):
    runner, hook, trace = search(
        tmp_path,
        epochs=50,
        strategy='independent',
        optimizer=dict(type='SGD', lr=1e-9),
        interval=1,
        patience=2,
        tolerance=1e-3,
    )
    runner.train()
    scene = [numbers[0] for numbers in trace]
    assert scene[7] != scene[6]
    assert scene[8:] == [scene[7]] * 8  # two intervals of SM, then two in which only TM trains


class Branches(BaseModel):
    """A model of someone else: slots inside, but neither scene module nor phases."""

    def __init__(self):
        super().__init__()
        self.task_module = Part('task', -0.5, [-0.3, 0.4])

    def forward(self, inputs, mode='tensor'):
        t, x = self.task_module, torch.stack(list(inputs)).double()
        return {'loss_task': 0.5 * (t.weight - t.p * x).square().mean()}


class BranchesWithPhases(Branches):
    search_phase = Phase.JOINT
    scene_module = None


def test_without_a_scene_module_every_iteration_is_the_tasks(tmp_path):
    runner, hook, _ = search(tmp_path, BranchesWithPhases(), epochs=2)
    before = runner.model.task_module.slots.alphas.clone()
    runner.train()
    assert hook.schedule.iterations == {'scene': 0, 'task': 8, 'joint': 0, 'coupled': 0}
    assert not torch.equal(before, runner.model.task_module.slots.alphas)


def test_global_takes_any_model_with_slots(tmp_path):
    runner, hook, _ = search(tmp_path, Branches(), strategy='global', epochs=2)
    before = runner.model.task_module.slots.alphas.clone()
    runner.train()
    assert not torch.equal(before, runner.model.task_module.slots.alphas)


# --- Mistakes, one sentence each -----------------------------------------------------------------------------


def refused(tmp_path, error, *words, **options):
    runner, _, _ = search(tmp_path, **options)
    with pytest.raises(error) as caught:
        runner.train()
    message = str(caught.value)
    for word in words:
        assert word in message
    assert '\n' not in message


def test_a_model_without_slots(tmp_path):
    class Fixed(Branches):
        def __init__(self):
            super().__init__()
            self.task_module.slots = nn.Identity()

    refused(tmp_path, ValueError, 'Fixed', 'no searchable slots', 'genotype=None', model=Fixed())


def test_a_model_without_phases(tmp_path):
    refused(tmp_path, ValueError, 'Branches', 'search phases', "strategy='global'", model=Branches())


def test_a_scene_phase_without_a_scene_loss(tmp_path):
    model = Toy()
    model.scene_loss = None
    refused(tmp_path, ValueError, 'scene_loss=None', model=model)


def test_an_empty_validation_set(tmp_path):
    refused(tmp_path, ValueError, 'validation set of the search is empty', val=[])


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'strategy': 'naive'}, ('naive', 'cooperative')),
        ({'scene_weights': 'both'}, ('both', 'joint')),
        ({'order': 3}, ('order 3',)),
        ({'beta': -1}, ('beta', '-1')),
        ({'scene_iters': 0}, ('scene_iters',)),
        ({'patience': 0}, ('patience',)),
        ({'warmup': 1.5}, ('warmup', '1.5')),
        ({'replicas': 0}, ('replicas', '0')),
        ({'replicas': 1.5}, ('replicas', '1.5')),
        ({'temperature': (1.0, 0.0)}, ('temperatures above 0', '(1.0, 0.0)')),
    ],
)
def test_options_that_do_not_exist(options, words):
    with pytest.raises(ValueError, match='CooperativeSearchHook') as caught:
        CooperativeSearchHook({}, **options)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(('train', 'val', 'where'), [(math.nan, 0.5, 'training loss'), (0.9, math.nan, 'gradient')])
def test_a_loss_that_is_not_a_number_ends_the_search(tmp_path, train, val, where):
    """The bad value comes fourth, in the second task iteration; warm-up keeps it from the architecture step."""
    options = dict(train=[0.9, 0.8, 0.7, train], warmup=2) if math.isnan(train) else dict(val=[0.7, 0.6, 0.5, val])
    model = Toy()
    runner, _, trace = search(tmp_path, model, **options)
    with pytest.raises(SearchError, match='not finite in iteration 3') as caught:
        runner.train()
    assert where in str(caught.value)
    genotype = Genotype.load(tmp_path / 'run' / 'genotype.json')
    for slot, alphas in (('scene.a', trace[2][2]), ('task.a', trace[2][3])):
        expected = torch.tensor(alphas, dtype=torch.float64).softmax(0).tolist()
        assert list(genotype.probabilities[slot].values()) == pytest.approx(expected, rel=1e-12)


def test_a_step_that_is_not_a_number_is_taken_back(tmp_path):
    runner, _, _ = search(tmp_path, optimizer=dict(type='Adam', lr=1e308, weight_decay=1e308))
    with pytest.raises(SearchError, match='architecture of the scene phase is not finite'):
        runner.train()
    p = Genotype.load(tmp_path / 'run' / 'genotype.json').probabilities['scene.a']
    assert all(math.isfinite(value) for value in p.values())


# --- Resuming ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('lr', [0.05, 'auto'])
@pytest.mark.parametrize('strategy', ['cooperative', 'independent', 'global'])
def test_a_resumed_search_is_the_undisturbed_one(tmp_path, strategy, lr):
    options = dict(
        strategy=strategy,
        optimizer=dict(type='Adam', lr=lr),
        temperature=(1.0, 1.0) if lr != 'auto' else (1.0, 0.1),
        warmup=0 if lr != 'auto' else 0.3,
        param_scheduler=dict(type='MultiStepLR', milestones=[2], by_epoch=True),
        scene_iters=3,  # rounds of five do not fit epochs of four
        interval=1,
    )
    whole, hook, expected = search(tmp_path, Toy(noise=0.2), epochs=5, **options)
    whole.train()
    model = Toy(noise=0.2)
    resumed, again, trace = search(tmp_path, model, epochs=5, work_dir='resumed', **options)
    resumed._load_from, resumed._resume = str(tmp_path / 'run' / 'epoch_3.pth'), True
    resumed.train()
    assert trace == expected[12:]  # bit by bit
    assert again.report.history.records == hook.report.history.records
    assert model.seen == whole.model.seen


def test_a_checkpoint_of_an_earlier_version_resumes(tmp_path):
    runner, _, expected = search(tmp_path, epochs=2)
    runner.train()
    checkpoint = torch.load(tmp_path / 'run' / 'epoch_1.pth', weights_only=False)
    for key in ADDED_KEYS:
        del checkpoint['ruas_search'][key]
    torch.save(checkpoint, tmp_path / 'old.pth')
    resumed, hook, trace = search(tmp_path, epochs=2, work_dir='resumed')
    resumed._load_from, resumed._resume = str(tmp_path / 'old.pth'), True
    resumed.train()
    assert trace == expected[4:]
    assert hook.architect.statistics.steps('task.a') == 2  # those since


def test_resuming_another_search_or_none_is_refused(tmp_path):
    runner, _, _ = search(tmp_path, epochs=1)
    runner.train()
    other, _, _ = search(tmp_path, epochs=2, strategy='global', work_dir='other')
    other._load_from, other._resume = str(tmp_path / 'run' / 'epoch_1.pth'), True
    with pytest.raises(ValueError, match="'cooperative'.*'global'"):
        other.train()
    checkpoint = torch.load(tmp_path / 'run' / 'epoch_1.pth', weights_only=False)
    assert set(checkpoint['ruas_search']) == CHECKPOINT_KEYS
    del checkpoint['ruas_search']
    torch.save(checkpoint, tmp_path / 'plain.pth')
    other, _, _ = search(tmp_path, epochs=2, work_dir='third')
    other._load_from, other._resume = str(tmp_path / 'plain.pth'), True
    with pytest.raises(ValueError, match='holds no search'):
        other.train()


def test_a_finished_search_stays_finished(tmp_path):
    options = dict(optimizer=dict(type='SGD', lr=1e-9), interval=1, patience=1, tolerance=1e-3)
    runner, _, trace = search(tmp_path, epochs=9, **options)
    runner.train()
    assert len(trace) == 8
    resumed, _, trace = search(tmp_path, epochs=9, work_dir='resumed', **options)
    resumed._load_from, resumed._resume = str(tmp_path / 'run' / 'epoch_2.pth'), True
    resumed.train()
    assert trace == []


def test_load_from_starts_a_search_of_its_own(tmp_path):
    runner, _, _ = search(tmp_path, epochs=2)
    runner.train()
    fresh, hook, trace = search(tmp_path, epochs=1, work_dir='fresh')
    fresh._load_from = str(tmp_path / 'run' / 'epoch_2.pth')
    fresh.train()
    assert len(trace) == 4
    assert [record['iter'] for record in hook.report.history.records] == [0, 4]


@pytest.mark.parametrize(
    ('others', 'advice'),
    [
        (['mine.py'], 'python tools/train.py {folder}/mine.py --genotype {found}'),
        ([], 'give tools/train.py the config of the model without the search, and --genotype {found}'),
    ],
)
def test_the_report_names_no_config_that_does_not_exist(tmp_path, monkeypatch, others, advice):
    for name in others:
        (tmp_path / name).touch()
    runner, *_ = search(tmp_path)
    object.__setattr__(runner.cfg, '_filename', str(tmp_path / 'mine_search.py'))
    messages = []
    monkeypatch.setattr(runner.logger, 'info', lambda message, *_, **__: messages.append(str(message)))
    runner.train()
    expected = advice.format(folder=tmp_path, found=tmp_path / 'run' / 'genotype.json')
    assert any(message.endswith(expected) for message in messages)
