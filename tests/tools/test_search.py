"""The search as a user runs it: started, looked at, killed, resumed, and with a user's mistakes."""

import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import mmcv
import pytest
import torch
from mmengine.config import Config

pytest.importorskip('mmdet.models')
pytest.importorskip('skimage')

sys.path.insert(0, str(Path(__file__).parent))
from test_train_test import CONFIG as TRAINED_CONFIG
from test_train_test import ROOT, one_sentence, run
from test_train_test import options as training_options
from tiny_search import CONFIG, EPOCHS, ITERATIONS, kill_training, make_data, options, small_model

from ruas_mm.search import Genotype
from ruas_mm.utils.checkpoint import load_from_local

LAST = f'epoch_{EPOCHS}.pth'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp('data'))


def arguments(data, work, *flags, **more):
    """What follows ``tools/train.py``: everything that has a state of its own is in use."""
    given = {
        **small_model(),
        'custom_hooks.0.val_dataloader.num_workers': 1,  # and training without: both ways to load
        'custom_hooks.0.param_scheduler.type': 'mmengine.CosineAnnealingLR',
        'custom_hooks.0.param_scheduler.T_max': EPOCHS,
        **more,
    }
    return [CONFIG, '--work-dir', work, *flags, *options(data, **given)]


@pytest.fixture(scope='module')
def searched(data, tmp_path_factory):
    """The work directory and the output of an undisturbed search."""
    work = tmp_path_factory.mktemp('searched')
    done = run('train.py', *arguments(data, work), cwd=work)
    assert done.returncode == 0, done.stderr[-3000:]
    return work, done.stdout + done.stderr


# --- What it leaves ---------------------------------------------------------------------------------------------------


def test_search_leaves_what_is_needed(searched):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    work, output = searched
    genotype = Genotype.load(work / 'genotype.json')
    assert {slot.partition('.')[0] for slot in genotype.slots} == {'scene', 'ssd_neck', 'ssd_head'}
    assert genotype.origin['iterations'] == EPOCHS * ITERATIONS
    for slot, operation in genotype.slots.items():
        believed = genotype.probabilities[slot]
        assert operation == max(believed, key=believed.get)
        assert sum(believed.values()) == pytest.approx(1)
        # The log shows the same.
        assert f'{slot.partition(".")[2]} {operation} {believed[operation]:.3f}' in output
    for name in ('architecture.png', 'probabilities.png'):
        assert mmcv.imread(str(work / name)).std() > 0

    events = EventAccumulator(str(next(work.glob('*/vis_data'))))
    events.Reload()
    tags = events.Tags()['scalars']
    assert {f'search/entropy/{part}' for part in ('scene', 'ssd_neck', 'ssd_head')} <= set(tags)
    assert {f'search/probability/{slot}/{operation}' for slot, operation in genotype.slots.items()} <= set(tags)
    shown = events.Scalars(f'search/probability/scene.last/{genotype.slots["scene.last"]}')
    assert [point.step for point in shown] == list(range(0, EPOCHS * ITERATIONS + 1, 2))
    assert shown[-1].value == pytest.approx(max(genotype.probabilities['scene.last'].values()))


def test_printed_command_trains_what_was_found(data, searched, tmp_path):
    """Search, train, test, compare: the guide's chain."""
    work, output = searched
    (command,) = re.findall(r'^ +python (tools/train\.py .*)$', output, re.MULTILINE)
    tool, *printed = shlex.split(command)
    small = training_options(data, **{'train_cfg.val_begin': 2})
    found = tmp_path / 'found'
    done = run(Path(tool).name, *printed, '--work-dir', found, *small, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    (kept,) = found.glob('*.py')
    assert Config.fromfile(kept).model.neck.genotype == Genotype.load(work / 'genotype.json').slots

    flags = ['--work-dir', found, '--genotype', work / 'genotype.json']
    done = run('test.py', TRAINED_CONFIG, found, *flags, *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    precision = re.search(r'darkface/voc_area_ap50: ([0-9.]+)', done.stdout + done.stderr)[1]

    shutil.copytree(found, tmp_path / 'published')
    done = run('analysis_tools/compare_results.py', found, tmp_path / 'published', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for row in ('found', 'published'):
        assert re.search(rf'{row}\b.*\b{re.escape(precision)}\b', done.stdout)


# --- Killed and resumed -----------------------------------------------------------------------------------------------


def kill(data, work, moment, delay=0.0, resume=True):
    """Search until ``moment`` holds of what the run has printed, wait a little, and kill it."""
    flags = ['--resume'] if resume else []
    kill_training(arguments(data, work, *flags), work.with_name('log.txt'), moment, delay)


def finish(data, work):
    """Resume and let the search end; return what it printed."""
    done = run('train.py', *arguments(data, work, '--resume'), cwd=work.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'The search has ended' in done.stdout + done.stderr
    return done.stdout + done.stderr


def flat(value, name=''):
    """Every leaf of nested containers by its path, tensors bit by bit."""
    if isinstance(value, dict):
        return {k: v for key in value for k, v in flat(value[key], f'{name}.{key}').items()}
    if isinstance(value, (list, tuple)):
        return {k: v for index, item in enumerate(value) for k, v in flat(item, f'{name}.{index}').items()}
    return {name: value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value)}


def ended_alike(work, undisturbed):
    """Weights, architecture, both optimizers, and all of the search's own state are equal bit for bit."""
    ours, theirs = (load_from_local(folder / LAST) for folder in (work, undisturbed))
    assert sum(name.endswith('.slots.alphas') for name in ours['state_dict']) == 3
    assert ours['ruas_search']['optimizer']['state'], 'the architecture took no step'
    for part in ('state_dict', 'optimizer', 'param_schedulers', 'ruas_search'):
        ours_flat, theirs_flat = flat(ours[part]), flat(theirs[part])
        assert ours_flat.keys() == theirs_flat.keys()
        assert [name for name in ours_flat if ours_flat[name] != theirs_flat[name]] == [], part
    ours, theirs = (json.loads((folder / 'genotype.json').read_text()) for folder in (work, undisturbed))
    assert ours == theirs
    assert mmcv.imread(str(work / 'architecture.png')) is not None
    assert mmcv.imread(str(work / 'probabilities.png')) is not None


def after(epoch, iteration):
    """The moment at which an iteration has been logged."""
    return lambda printed: re.search(rf'Epoch\(train\) +\[{epoch}\]\[{iteration}/{ITERATIONS}\]', printed)


class HalfWritten:
    """The moment at which the disk has taken part of a file: a pipe in its place takes no more than we read."""

    def __init__(self, path):
        self.path = path
        os.mkfifo(path)
        self.pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.content = b''

    def __call__(self, printed):
        with suppress(BlockingIOError):  # it is being written, and there is nothing to read just now
            self.content += os.read(self.pipe, 1 << 16)
        return len(self.content) > 1_000_000

    def leave(self):
        """Leave the part in the place of the pipe."""
        os.close(self.pipe)
        self.path.unlink()
        self.path.write_bytes(self.content)


def test_killed_in_each_phase_and_while_writing(data, searched, tmp_path):
    """Iterations 0, 2, 4, … are scene phases, 1, 3, 5, … task phases."""
    work = tmp_path / 'work'
    kill(data, work, after(2, 1), delay=0.05, resume=False)  # in iteration 4
    kill(data, work, after(2, 2), delay=0.05)  # in iteration 5
    writing = HalfWritten(work / 'epoch_3.pth.tmp')
    kill(data, work, writing)
    writing.leave()
    assert (work / 'last_checkpoint').read_text().endswith('epoch_2.pth')
    finish(data, work)
    ended_alike(work, searched[0])
    assert not list(work.rglob('*.tmp'))


def test_killed_at_random_moments(data, searched, tmp_path):
    """In any of the iterations up to the first of the next epoch."""
    chosen = random.Random(38)
    work = tmp_path / 'work'
    for _ in range(3):
        iterations, delay = chosen.randint(1, ITERATIONS + 1), chosen.uniform(0, 0.4)
        kill(data, work, lambda printed, n=iterations: printed.count('Epoch(train)') >= n, delay)
    finish(data, work)
    ended_alike(work, searched[0])


def copy(searched, tmp_path):
    """The work directory of a search that was killed before it left results."""
    work = tmp_path / 'work'
    shutil.copytree(searched[0], work)
    (work / 'last_checkpoint').write_text(str(work / LAST))
    for name in ('genotype.json', 'architecture.png', 'probabilities.png'):
        (work / name).unlink()
    return work


def test_killed_while_drawing(data, searched, tmp_path):
    """After the last checkpoint there is nothing left to search."""
    work = copy(searched, tmp_path)
    kill(data, work, lambda printed: 'Checkpoints will be saved' in printed, delay=0.3)
    finish(data, work)
    ended_alike(work, searched[0])


def test_damaged_last_checkpoint(data, searched, tmp_path):
    """As a disk leaves it that was full."""
    work = copy(searched, tmp_path)
    content = (work / LAST).read_bytes()
    (work / LAST).write_bytes(content[: len(content) // 2])
    printed = finish(data, work)
    (message,) = [line for line in printed.splitlines() if 'is damaged' in line]
    assert LAST in message
    assert f'goes on from {work}/epoch_{EPOCHS - 1}.pth' in message
    ended_alike(work, searched[0])


# --- Mistakes ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def mistakes(data, searched, tmp_path_factory):
    """What the tool says of each mistake."""
    folder = tmp_path_factory.mktemp('mistakes')
    found = Genotype.load(searched[0] / 'genotype.json').slots
    Genotype({**found, 'scene.last': 'conv_7x7'}).save(folder / 'other.json')
    checkpoint = torch.load(searched[0] / LAST, weights_only=False)
    del checkpoint['ruas_search']
    torch.save(checkpoint, folder / 'plain.pth')

    def search(name, *flags, **more):
        return arguments(data, folder / name, *flags, **more)

    val = 'custom_hooks.0.val_dataloader'
    commands = {
        'rate': search('rate', **{'optim_wrapper.optimizer.lr': 1e20}),
        'split': search('split', **{f'{val}.dataset.fraction': 0.99}),
        'batch': search('batch', **{f'{val}.batch_size': 5, f'{val}.drop_last': True}),
        'slots': search('slots', '--genotype', 'ruas_darkface_vgg16'),
        'space': [TRAINED_CONFIG, '--genotype', folder / 'other.json', *training_options(data)],
        'checkpoint': search('checkpoint', '--resume', folder / 'plain.pth'),
        'training': [
            TRAINED_CONFIG,
            '--work-dir',
            folder / 'training',
            '--resume',
            searched[0] / LAST,
            *training_options(data),
        ],
    }
    return {name: run('train.py', *given, cwd=folder) for name, given in commands.items()}, folder


MISTAKES = {
    'rate': ('phase is not finite in iteration', 'rate/genotype.json', 'learning rate'),
    'split': ('architecture', 'empty', 'fraction=0.99'),
    'batch': ('validation set of the search is empty', '4 images'),
    'slots': ('no searchable slots', 'genotype=None'),
    'space': ('scene.last', 'conv_7x7', 'not in its space'),
    'checkpoint': ('holds no search', 'load_from'),
    'training': ('Training cannot go on from', LAST, 'it is a checkpoint of a search'),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_mistake(mistakes, mistake):
    done, _ = mistakes
    one_sentence(done[mistake], *MISTAKES[mistake])


def test_architecture_before_the_loss_was_not_finite(mistakes):
    """The last good one is kept, and says what it is."""
    _, folder = mistakes
    kept = Genotype.load(folder / 'rate' / 'genotype.json')
    assert 'not finite' in kept.origin['ended']
    assert all(sum(believed.values()) == pytest.approx(1) for believed in kept.probabilities.values())


# --- Launchers --------------------------------------------------------------------------------------------------------


@pytest.fixture
def launch(tmp_path):
    """Run a launcher with programs in the place of python and srun that print their arguments, one a line."""
    for name in ('python', 'srun'):
        program = tmp_path / name
        program.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$(basename "$0")" "$@"\n')
        program.chmod(0o755)

    def run_launcher(name, *given, **environment):
        path = f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'
        return subprocess.run(
            [ROOT / 'tools' / name, *given],
            capture_output=True,
            text=True,
            env={'PATH': path, **environment},
            cwd=tmp_path,
        )

    return run_launcher


@pytest.mark.parametrize('name', ['dist_train.sh', 'slurm_train.sh'])
@pytest.mark.parametrize('given', [(), ('one',)])
def test_launcher_without_its_arguments(launch, name, given):
    done = launch(name, *given)
    assert done.returncode == 2
    assert done.stdout == ''
    (message,) = done.stderr.splitlines()
    assert message.startswith('usage: ') and name in message and 'CONFIG' in message


def test_dist_train(launch):
    done = launch('dist_train.sh', 'my config.py', '4', '--resume', '--cfg-options', 'a=b c')
    program, *given = done.stdout.splitlines()
    assert (program, given[:2]) == ('python', ['-m', 'torch.distributed.run'])
    pairs = dict(zip(given[2:-7:2], given[3:-6:2], strict=True))
    assert pairs['--nproc_per_node'] == '4'
    assert pairs['--nnodes'] == '1'
    script, *rest = given[-7:]
    assert (ROOT / 'tools' / 'train.py').samefile(script)
    assert rest == ['my config.py', '--launcher', 'pytorch', '--resume', '--cfg-options', 'a=b c']

    done = launch('dist_train.sh', 'config.py', '8', NNODES='2', NODE_RANK='1', MASTER_ADDR='10.0.0.1', PORT='29501')
    given = ' '.join(done.stdout.splitlines())
    for part in ('--nnodes 2', '--node_rank 1', '--master_addr 10.0.0.1', '--master_port 29501'):
        assert part in given


def test_slurm_train(launch):
    done = launch('slurm_train.sh', 'gpu', 'my job', 'my config.py', '--resume', SRUN_ARGS='--exclusive --qos=high')
    program, *given = done.stdout.splitlines()
    assert program == 'srun'
    assert given[:2] == ['-p', 'gpu']
    command = given.index('python')
    wanted = {'--job-name=my job', '--gres=gpu:8', '--ntasks=8', '--ntasks-per-node=8', '--exclusive', '--qos=high'}
    assert wanted <= set(given[:command])
    _, unbuffered, script, *rest = given[command:]
    assert unbuffered == '-u'
    assert (ROOT / 'tools' / 'train.py').samefile(script)
    assert rest == ['my config.py', '--launcher', 'slurm', '--resume']


@pytest.mark.parametrize(('gpus', 'a_node', 'wanted'), [('2', '8', '2'), ('16', '8', '8'), ('4', '1', '1')])
def test_slurm_train_divides_its_gpus(launch, gpus, a_node, wanted):
    done = launch('slurm_train.sh', 'gpu', 'job', 'config.py', GPUS=gpus, GPUS_PER_NODE=a_node)
    assert {f'--ntasks={gpus}', f'--gres=gpu:{wanted}', f'--ntasks-per-node={wanted}'} <= set(done.stdout.splitlines())
