"""Two processes with half the batch each search as one with the whole batch, and keep one architecture."""

import gc
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.runner import Runner

sys.path.insert(0, str(Path(__file__).parent))
from toy import Paths, Toy, loader

from ruas_mm.engine import CooperativeSearchHook

TRAIN = [0.9, -0.4, 1.3, 0.2, 0.6, -1.1, 0.3, 0.8]
VAL = [0.7, 1.1, -0.6, 0.4]
STRATEGIES = ['cooperative', 'independent', 'global']
DRAWING = ['gumbel', 'sampled']


class Trace(Hook):
    """Keeps the architecture after each iteration."""

    def __init__(self):
        self.alphas = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        model = getattr(runner.model, 'module', runner.model)
        parts = (model.scene_module, model.task_module)
        self.alphas.append(torch.cat([part.slots.alphas.flatten() for part in parts]))


def search(
    strategy, work_dir, batch_size, noise=0.0, epochs=3, resume=None, relaxation='softmax', cost=None, **distributed
):
    """Return the trajectory of the architecture."""
    options = dict(strategy=strategy, beta=0.8, scene_iters=2, task_iters=2, interval=1)
    options.update(relaxation=relaxation, cost=cost)
    hook = CooperativeSearchHook(loader(VAL, batch_size), optimizer=dict(type='Adam', lr=0.05), **options)
    trace = Trace()
    Runner(
        Toy(noise=noise) if relaxation == 'softmax' else Paths(),
        work_dir=str(work_dir),
        train_dataloader=loader(TRAIN, batch_size),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[hook, trace],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        randomness=dict(seed=0, diff_rank_seed=True),
        log_level='WARNING',
        experiment_name=f'{Path(work_dir).name}_{strategy}_{batch_size}_{noise}_{epochs}_{relaxation}',
        load_from=resume,
        resume=resume is not None,
        **distributed,
    ).train()
    return torch.stack(trace.alphas)


def search_on_this_rank(out):
    """What torchrun starts: every search of the tests below, on this rank's half of the batches."""

    def together(strategy, name, find_unused_parameters=True, **options):
        wrapper = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
        wrapper.update(find_unused_parameters=find_unused_parameters)
        return search(strategy, f'{out}/{name}', 1, launcher='pytorch', cfg=dict(model_wrapper_cfg=wrapper), **options)

    found = {strategy: together(strategy, strategy) for strategy in STRATEGIES}
    for relaxation in DRAWING:
        found[relaxation] = together('cooperative', relaxation, relaxation=relaxation)
    latency = dict(type='latency', weight=10.0)  # each rank would measure another one
    found['latency'] = together('global', 'latency', relaxation='gumbel', cost=latency)
    found['noisy'] = together('cooperative', 'noisy', noise=0.2)
    found['resumed'] = together('cooperative', 'resumed', noise=0.2, resume=f'{out}/noisy/epoch_2.pth')
    for name, strategy, relaxation in (('refused', 'cooperative', 'softmax'), ('refused draws', 'global', 'gumbel')):
        try:
            together(strategy, name, find_unused_parameters=False, relaxation=relaxation)
        except ValueError as error:
            found[name] = str(error)
    torch.save(found, f'{out}/{dist.get_rank()}.pt')


@pytest.fixture(scope='module')
def ranks(torchrun, tmp_path_factory):
    out = tmp_path_factory.mktemp('ranks')
    done = torchrun(__file__, out, cwd=out)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(out / f'{rank}.pt') for rank in range(2)]


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_the_trajectory_is_that_of_the_whole_batch(ranks, strategy, tmp_path):
    """Float64: what differs is the order in which two numbers are added, and Adam divides by their size."""
    expected = search(strategy, tmp_path / strategy, 2)
    assert (expected[-1] - expected[0]).abs().max() > 0.1
    torch.testing.assert_close(ranks[0][strategy], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('relaxation', DRAWING)
def test_ranks_draw_the_candidates_that_one_process_draws(ranks, relaxation, tmp_path):
    """Also where each rank has a seed of its own, as here."""
    expected = search('cooperative', tmp_path / relaxation, 2, relaxation=relaxation)
    assert (expected[-1] - expected[0]).abs().max() > 0.1
    torch.testing.assert_close(ranks[0][relaxation], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('run', [*STRATEGIES, *DRAWING, 'latency', 'noisy', 'resumed'])
def test_ranks_hold_one_architecture_bit_by_bit(ranks, run):
    assert torch.equal(ranks[0][run], ranks[1][run])


def test_a_resumed_search_is_the_undisturbed_one(ranks):
    """Also where every rank draws random numbers of its own."""
    assert torch.equal(ranks[0]['resumed'], ranks[0]['noisy'][-len(ranks[0]['resumed']) :])
    assert len(ranks[0]['resumed']) == 4


def test_parts_that_rest_have_to_be_announced(ranks):
    for run in ('refused', 'refused draws'):
        assert all('find_unused_parameters=True' in rank[run] for rank in ranks)


if __name__ == '__main__':
    torch.set_num_threads(1)
    dist.init_process_group('gloo')
    search_on_this_rank(sys.argv[1])
    gc.collect()  # the wrapped models must go first, or their end waits for gloo's threads with the lock that they need
    dist.destroy_process_group()
