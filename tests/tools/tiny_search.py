"""The demo search, small: twelve iterations on seven images."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from test_train_test import ROOT, run

CONFIG = ROOT / 'configs' / 'detection' / 'ruas_ssd_demo_search.py'
EPOCHS, ITERATIONS = 4, 3  # in each epoch


def make_data(folder):
    """Make demo images: three train the weights and four the architecture; two are for the test."""
    flags = ['--train', ITERATIONS + 4, '--test', 2, '--size', 128, 128]
    done = run('make_demo_data.py', 'detection', '--out', folder, *flags, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / 'darkface'


def options(data, **more):
    """``--cfg-options`` that make a search on demo data small; scene and task phases take turns at each iteration."""
    given = {'train_cfg.max_epochs': EPOCHS, 'default_hooks.logger.interval': 1}
    for loader in ('train_dataloader', 'custom_hooks.0.val_dataloader'):
        given[f'{loader}.batch_size'] = 1
        given[f'{loader}.num_workers'] = 0
        given[f'{loader}.dataset.fraction'] = ITERATIONS / (ITERATIONS + 4)
        given[f'{loader}.dataset.dataset.data_root'] = f'{data}/'
        given[f'{loader}.dataset.dataset.pipeline.3.scale'] = '(96,64)'
    given |= {f'custom_hooks.0.{option}': 1 for option in ('scene_iters', 'task_iters', 'warmup')}
    given.update(more)
    return ['--cfg-options', *(f'{key}={value}' for key, value in given.items())]


def small_model():
    """More options, for our own search config: a narrow backbone."""
    return {
        'model.backbone.base_channels': 8,
        'model.backbone.stem_channels': 8,
        'model.neck.in_channels': '(8,16,32,64)',
        'model.neck.out_channels': '(8,16,32,64,16,16)',
        'model.bbox_head.in_channels': '(8,16,32,64,16,16)',
    }


def kill_training(arguments, log, moment, delay=0.0):
    """Run ``tools/train.py`` until ``moment`` holds of what it has printed to ``log``, wait a little, and kill it."""
    with open(log, 'w') as file:
        process = subprocess.Popen(
            [*map(str, [sys.executable, ROOT / 'tools' / 'train.py', *arguments])],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
            cwd=log.parent,
        )
    try:
        while not moment(log.read_text()):
            assert process.poll() is None, log.read_text()[-3000:]
            time.sleep(0.005)
        time.sleep(delay)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
