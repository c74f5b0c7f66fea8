"""Which slots a search may claim to have decided, and what the others become."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner

sys.path.insert(0, str(Path(__file__).parent))
from toy import Part, Toy, loader

from ruas_mm.engine import CooperativeSearchHook
from ruas_mm.engine.slot_decisions import agreement, decide, load_fallback, merge_replicas, table
from ruas_mm.engine.slot_statistics import SlotStatistics
from ruas_mm.search import Genotype, SearchSlots

CANDIDATES = ['conv_1x1', 'conv_3x3', 'conv_7x7']
FIRST = dict.fromkeys(CANDIDATES, 1 / 3)


def decided(margins, costs, spread, fallback=None, steps=50):
    """The decision on one slot whose parameters end at ``margins``.

    Each step said ``costs`` of its candidates, plus or minus ``spread`` for the first one.
    """
    group = SearchSlots('head', ['a'], CANDIDATES)
    statistics = SlotStatistics([group])
    group.alphas.data = torch.zeros(1, 3, dtype=torch.float64)
    for index in range(steps):
        g = torch.tensor(costs, dtype=torch.float64)
        g[0] += spread if index % 2 else -spread
        statistics.add([group], [(g - g.mean())[None] / 3])  # uniform probabilities
    group.alphas.data = torch.tensor([margins], dtype=torch.float64)
    fallback = {} if fallback is None else {'head.a': fallback}
    return decide([group], statistics, {'head.a': FIRST}, fallback)['head.a']


def test_a_margin_beyond_its_error_is_a_decision():
    """Fifty steps of -0.2 ± 0.4: the standard error is 0.4 / 7."""
    decision = decided([1.5, 0.5, 0.0], [-0.2, 0.0, 0.1], 0.4, fallback='conv_7x7')
    assert (decision.status, decision.choice, decision.reason) == ('decided', 'conv_1x1', '')
    assert (decision.best, decision.runner_up, decision.against) == ('conv_1x1', 'conv_3x3', 'conv_7x7')
    assert decision.z == pytest.approx(-0.3 / (0.4 / 7))
    assert decision.margin == pytest.approx(1.0)
    total = math.exp(1.5) + math.exp(0.5) + 1
    assert decision.probability == pytest.approx(math.exp(1.5) / total)
    assert decision.travel == pytest.approx(abs(math.log(3 / total)))
    assert decision.steps == 50


@pytest.mark.parametrize('fallback', [None, 'conv_3x3', 'conv_1x1'])
def test_a_margin_within_its_error_is_not(fallback):
    """-0.1 ± 0.4: 1.75 standard errors from the runner-up, however probable the best became."""
    decision = decided([5.0, 0.5, 0.0], [-0.1, 0.0, 0.5], 0.4, fallback)
    assert (decision.status, decision.best, decision.against) == ('undecided', 'conv_1x1', 'conv_3x3')
    assert decision.choice == (fallback or 'conv_1x1')
    assert 'favoured conv_1x1 over conv_3x3 by 1.7 standard errors' in decision.reason
    assert decision.reason.endswith('.')


def test_nine_steps_are_no_evidence():
    decision = decided([1.5, 0.5, 0.0], [-0.2, 0.0, 0.1], 0.01, steps=9)
    assert decision.z < -10
    assert (decision.status, decision.reason[:20]) == ('undecided', '9 architecture steps')


def test_a_margin_against_the_gradients_is_not():
    decision = decided([1.5, 0.5, 0.0], [0.5, 0.0, 0.5], 0.1)
    assert decision.z > 2.5
    assert decision.status == 'undecided'


@pytest.mark.parametrize(
    ('margins', 'costs', 'steps', 'words'),
    [
        ([1.5, 0.5, 0.0], [-1e-9, 0.0, 0.0], 50, 'never had a gradient above 1e-08'),
        ([0.05, 0.0, 0.0], [-0.2, 0.0, 0.1], 50, 'moved by at most 0.033, less than 0.1'),
        ([0.0, 0.0, 0.0], [], 0, 'has not taken a step'),
    ],
)
def test_what_ends_where_it_began_is_dead(margins, costs, steps, words):
    decision = decided(margins, costs, 0.0, 'conv_7x7', steps)
    assert (decision.status, decision.best, decision.choice) == ('dead', 'conv_1x1', 'conv_7x7')
    assert words in decision.reason


def test_replicas_that_disagree_leave_a_slot_open():
    decision = decided([1.5, 0.5, 0.0], [-0.2, 0.0, 0.1], 0.1)
    decisions = {'a': decision, 'b': decision, 'c': decided([0.0, 0.0, 0.0], [], 0.0, steps=0)}
    best = [dict(a='conv_1x1', b='conv_7x7', c='conv_3x3'), dict(a='conv_1x1', b='conv_1x1', c='conv_3x3')]
    merged = merge_replicas(decisions, best, {'b': 'conv_3x3'})
    assert merged['a'] == decision
    assert (merged['b'].status, merged['b'].choice) == ('undecided', 'conv_3x3')
    assert merged['b'].reason == 'The replicas disagree: conv_1x1, conv_7x7.'
    assert merged['c'].status == 'dead'
    found = agreement([{slot: decision.best for slot, decision in decisions.items()}, *best], {'a': 3, 'b': 10, 'c': 3})
    assert (found['slots'], found['agreeing']) == (3, 1)
    assert found['by_chance'] == pytest.approx(1 / 9 + 1 / 100 + 1 / 9)
    assert merge_replicas(decisions, [], {}) == decisions


def test_table_has_a_line_for_each_slot():
    clear, idle = decided([1.5, 0.5, 0.0], [-0.2, 0.0, 0.1], 0.4), decided([0.0, 0.0, 0.0], [], 0.0, steps=0)
    lines = table({'head.a': clear, 'b': idle})
    header, first, second = lines.splitlines()
    assert header.split() == ['slot', 'status', 'choice', 'best', 'p', 'runner-up', 'margin', 'travel', 'z']
    assert first.split()[:4] == ['head.a', 'decided', 'conv_1x1', 'conv_1x1'] and first.split()[-3] == '1.000'
    assert second.split()[:2] == ['b', 'dead']


@pytest.mark.parametrize(
    ('fallback', 'words'),
    [
        ({'head.b': 'conv_3x3'}, ("'head.b'", 'head.a')),
        ({'head.a': 'skip'}, ("'head.a'", "'skip'", 'conv_1x1, conv_3x3')),
        ({'neck.a': 'skip'}, ('neck.a', 'head')),
        ('no_such_file', ('no_such_file', 'ssd_plain')),
    ],
)
def test_a_fallback_that_does_not_fit_is_named(fallback, words):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load_fallback(fallback, [SearchSlots('head', ['a'], CANDIDATES)])
    assert '\n' not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_fallback_may_name_other_modules_and_not_all_slots():
    groups = [SearchSlots('ssd_neck', ['extra_1', 'extra_2', 'extra_3', 'extra_4'], CANDIDATES)]
    found = load_fallback('ssd_plain', groups)
    assert found == {f'ssd_neck.extra_{i}': 'conv_1x1' if i % 2 else 'conv_3x3' for i in range(1, 5)}
    assert load_fallback({'ssd_neck.extra_2': 'conv_7x7', 'scene.last': 'skip'}, groups) == {
        'ssd_neck.extra_2': 'conv_7x7'
    }
    assert load_fallback(None, groups) == {}


class ToyWithDeadSlot(Toy):
    """One more slot, which no loss depends on; its start is on the side of skip."""

    def __init__(self):
        super().__init__()
        self.idle = Part('idle', 1.0, [0.001, 0.0])


@pytest.mark.parametrize('fallback', [None, {'idle.a': 'conv_1x1', 'scene.a': 'skip'}])
def test_a_search_says_what_it_did_not_decide(tmp_path, monkeypatch, fallback):
    """The scene's gradient always has one sign here, the task's depends on the image, the idle slot has none."""
    drawn = []
    monkeypatch.setattr('ruas_mm.visualization.architecture.draw_architecture', lambda *given: drawn.append(given[0]))
    monkeypatch.setattr('ruas_mm.visualization.probabilities.plot_probabilities', lambda *_: None)
    options = dict(scene_iters=4, task_iters=2, beta=0.0, optimizer=dict(type='SGD', lr=0.5), interval=1)
    model = ToyWithDeadSlot()
    runner = Runner(
        model,
        work_dir=str(tmp_path),
        train_dataloader=loader([0.9, -0.4, 1.3, 0.2]),
        train_cfg=dict(by_epoch=True, max_epochs=6),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.02)),
        custom_hooks=[CooperativeSearchHook(loader([0.9, 0.8, 1.0]), fallback=fallback, **options)],
        randomness=dict(seed=3),
        log_level='WARNING',
        experiment_name=tmp_path.name,
    )
    messages = []
    monkeypatch.setattr(runner.logger, 'info', lambda message, *_, **__: messages.append(str(message)))
    runner.train()

    genotype = Genotype.load(tmp_path / 'genotype.json')
    assert 'idle.a' in genotype.undecided and 'scene.a' not in genotype.undecided
    assert genotype.slots['idle.a'] == ('skip' if fallback is None else 'conv_1x1')
    for slot in ('scene.a', 'task.a'):  # what was decided, and what the fallback does not name
        believed = genotype.probabilities[slot]
        assert genotype.slots[slot] == max(believed, key=believed.get)
    assert drawn[0].undecided == genotype.undecided
    assert genotype.origin['weight_steps'] == {'scene': 16, 'task': 8}

    content = json.loads((tmp_path / 'slots.json').read_text())
    assert content['weight_steps'] == {'scene': 16, 'task': 8}
    assert content['architecture_steps'] == {'scene': 16, 'task': 8}
    assert content['seed'] == 3 and 'agreement' not in content
    assert content['seconds']['cpu'] > 0 and content['seconds']['wall'] > 0
    slots = content['slots']
    assert list(slots) == ['scene.a', 'task.a', 'idle.a']
    assert [slots[slot]['steps'] for slot in slots] == [16, 8, 8]
    assert (slots['scene.a']['status'], slots['idle.a']['status']) == ('decided', 'dead')
    assert slots['scene.a']['z'] < -2.5
    assert slots['idle.a']['reason'] == genotype.undecided['idle.a']
    alphas = model.scene_module.slots.alphas[0].tolist()
    assert slots['scene.a']['margin'] == pytest.approx(abs(alphas[0] - alphas[1]))
    log = '\n'.join(messages)
    assert 'a skip 0.500 (dead)' in log
    assert '3 slots are decided' in log and 'idle.a   dead' in log
