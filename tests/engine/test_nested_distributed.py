"""Replicas and random samples in two processes: both take part in each run, and one writes."""

import gc
import json
import sys
from pathlib import Path

import mmengine.runner.runner
import pytest
import torch
import torch.distributed as dist
from mmengine.runner import Runner

sys.path.insert(0, str(Path(__file__).parent))
from nested_toy import config

import ruas_mm.visualization.architecture
import ruas_mm.visualization.probabilities
from ruas_mm.search import Genotype, Phase


def run(out, name, **options):
    """One run on this rank, on its half of the batches; return the runner."""
    settings = config(f'{out}/{name}', f'{Path(out).name}_{name}', epochs=1, **options)
    for loader in (settings.train_dataloader, settings.custom_hooks[0].val_dataloader):
        loader.batch_size = 1
    settings.launcher = 'pytorch'
    settings.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    runner = Runner.from_cfg(settings)
    runner.train()
    return runner


def main(out):
    """What torchrun starts."""
    mmengine.runner.runner.collect_env = dict  # it asks compilers, for the log
    ruas_mm.visualization.architecture.draw_architecture = lambda *_: None
    ruas_mm.visualization.probabilities.plot_probabilities = lambda *_: None
    searched = run(out, 'replicas', replicas=2)
    hook = next(hook for hook in searched._hooks if hasattr(hook, 'report'))
    found = {
        'alphas': torch.cat(hook.architect.alphas(Phase.JOINT)),
        'replicas': hook.report.replicas,
        'seconds': hook._stopwatch.seconds(),
    }
    run(out, 'random', strategy='random', metric='toy/closeness', validation=True, samples=2)
    torch.save(found, f'{out}/{dist.get_rank()}.pt')


@pytest.fixture(scope='module')
def out(torchrun, tmp_path_factory):
    out = tmp_path_factory.mktemp('ranks')
    done = torchrun(__file__, out, cwd=out)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def test_ranks_know_the_same(out):
    first, second = (torch.load(out / f'{rank}.pt') for rank in range(2))
    assert torch.equal(first['alphas'], second['alphas'])
    assert first['replicas'] == second['replicas'] and len(first['replicas']) == 1
    assert first['seconds']['cpu'] > 0


def test_each_run_wrote_its_files_once(out):
    slots = json.loads((out / 'replicas' / 'slots.json').read_text())
    assert slots['agreement']['slots'] == 2
    assert json.loads((out / 'replicas' / 'replica_1' / 'slots.json').read_text())['seed'] == 1
    samples = json.loads((out / 'random' / 'samples.json').read_text())
    assert len(samples['samples']) == 2
    best = max(samples['samples'], key=lambda sample: sample['value'])
    assert Genotype.load(out / 'random' / 'genotype.json').slots == best['slots']
    assert best['weight_steps'] == {'scene': 0, 'task': 2}


if __name__ == '__main__':
    torch.set_num_threads(1)
    dist.init_process_group('gloo')
    main(sys.argv[1])
    gc.collect()  # the wrapped models must go first, or their end waits for gloo's threads with the lock that they need
    dist.destroy_process_group()
