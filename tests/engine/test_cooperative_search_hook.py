"""The search against hand-derived gradients, and what it must leave alone."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner

sys.path.insert(0, str(Path(__file__).parent))
from toy import COUPLING, SCENE_LOSS_WEIGHT, Numbers, Toy, loader

from ruas_mm.engine import CooperativeSearchHook, SearchError
from ruas_mm.search import Genotype, Phase

TRAIN = [0.9, -0.4, 1.3, 0.2]
VAL = [0.7, 1.1, -0.6]
LR, ALPHA_LR = 0.1, 0.3


def search(tmp_path, model=None, train=TRAIN, val=VAL, epochs=3, batch_size=1, work_dir='run', **options):
    """Run a search of the toy; return the runner, its hook and what the parameters were after each iteration."""
    model = model or Toy()
    options = {'optimizer': dict(type='SGD', lr=ALPHA_LR), 'scene_iters': 2, 'task_iters': 2, **options}
    hook = CooperativeSearchHook(loader(val), **options)
    trace = []

    class Trace(CooperativeSearchHook.__base__):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
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


def by_hand(strategy, order, beta, iterations, warmup=0, scene_end=None):
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
        if searching and phase == 'scene':
            moved = ws - xi * (ws - p * x)
            v = moved - p * y
            g = -v * y * dp - xi * (-x * dp) * v
            if strategy == 'cooperative':
                g += beta * c * ws * dp * wt
            a = step(a, g)
        elif searching and phase == 'task':
            u = ws * p
            moved = wt - xi * (wt - q * x + c * u)
            v = moved - q * y + c * u
            g = -(moved - q * y) * y * dq - xi * (-x * dq) * v
            b = step(b, g)
        elif searching:
            ds, dt = lam * (ws - p * x) + c * p * wt, wt - q * x + c * ws * p
            ms, mt = ws - xi * ds, wt - xi * dt
            vs, vt = lam * (ms - p * y) + c * p * mt, mt - q * y + c * ms * p
            ga = -lam * (ms - p * y) * y * dp + c * ms * mt * dp
            ga -= xi * ((-lam * x * dp + c * wt * dp) * vs + c * ws * dp * vt)
            gb = -(mt - q * y) * y * dq - xi * (-x * dq) * vt
            a, b = step(a, ga), step(b, gb)
        (p, _), (q, _) = prob(a), prob(b)
        if phase == 'scene':
            ws -= LR * (ws - p * x)
        elif phase == 'task':
            wt -= LR * (wt - q * x + c * ws * p)
        else:
            ds, dt = lam * (ws - p * x) + c * p * wt, wt - q * x + c * ws * p
            ws, wt = ws - LR * ds, wt - LR * dt
        trace.append([ws, wt, a, b])
    return trace


@pytest.mark.parametrize('warmup', [0, 2])
@pytest.mark.parametrize('order', [1, 2])
@pytest.mark.parametrize(
    ('strategy', 'beta'), [('cooperative', 0.0), ('cooperative', 0.8), ('independent', 0.8), ('global', 0.8)]
)
def test_every_step_is_the_one_computed_by_hand(tmp_path, strategy, beta, order, warmup):
    runner, _, trace = search(tmp_path, strategy=strategy, beta=beta, order=order, warmup=warmup)
    runner.train()
    expected = by_hand(strategy, order, beta, 12, warmup, scene_end=6)
    assert len(trace) == len(expected) == 12
    for got, wanted in zip(trace, expected, strict=True):
        for part, number in zip(got, wanted, strict=True):
            assert part == pytest.approx(number, rel=1e-9)
    assert trace[-1][2] != [0.2, -0.1]
    assert trace[-1][3] != [-0.3, 0.4]
