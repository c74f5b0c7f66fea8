"""The command ``ruas`` as a user runs it, and what it sets for the CPU."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ruas_mm.cli import train
from ruas_mm.cli.main import COMMANDS, main
from ruas_mm.cli.process import limit_spinning
from ruas_mm.cli.shipped_configs import find_config, shipped_configs
from ruas_mm.version import __version__

ROOT = Path(__file__).parents[2]
RUAS = [sys.executable, '-m', 'ruas_mm']

# As with torch and what the package itself requires: no toolbox, and no mmcv.
WITHOUT_HOSTS = """
import runpy, sys
from importlib.abc import MetaPathFinder

class Block(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('mmcv', 'mmdet', 'mmseg', 'mmagic'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)

sys.meta_path.insert(0, Block())
runpy.run_module('ruas_mm', run_name='__main__', alter_sys=True)
"""


def run(command, *arguments, cwd, **environment):
    clean = {key: value for key, value in os.environ.items() if key not in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY')}
    return subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**clean, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', **environment},
    )


def said(capsys, monkeypatch, *arguments):
    """Call ``ruas`` in this process; return its exit status and what it prints."""
    monkeypatch.setattr(sys, 'argv', ['ruas', *arguments])
    try:
        with pytest.raises(SystemExit) as caught:
            main()
    finally:
        torch.set_flush_denormal(False)
    captured = capsys.readouterr()
    return caught.value.code, captured.out + captured.err


# --- Commands ---------------------------------------------------------------------------------------------------------


def test_help_and_version(capsys, monkeypatch):
    status, text = said(capsys, monkeypatch, '--help')
    assert status == 0
    assert (
        set(re.findall(r'^    (\w+) ', text, re.MULTILINE)) == set(COMMANDS) == {'enhance', 'train', 'test', 'search'}
    )
    assert said(capsys, monkeypatch, '--version') == (0, f'ruas_mm {__version__}\n')
    assert said(capsys, monkeypatch, 'trian')[0] == 2
    assert said(capsys, monkeypatch)[0] == 2


@pytest.mark.parametrize('command', ['enhance', 'train', 'test', 'search'])
def test_help_of_a_command(capsys, monkeypatch, command):
    """Its examples are commands that it can read."""
    status, text = said(capsys, monkeypatch, command, '--help')
    assert status == 0
    assert text.startswith(f'usage: ruas {command} ')
    examples = re.findall(r'^  ruas (\w+) (.+?)(?:\s+#.*)?$', text.partition('examples:')[2], re.MULTILINE)
    assert command in {name for name, _ in examples}
    for name, arguments in examples:
        tool = sys.modules[COMMANDS[name].module]
        tool.parse_args(arguments.split(), f'ruas {name}')
        config = arguments.split()[0]
        assert name == 'enhance' or config == 'mine.py' or find_config(config)


def test_enhance_without_a_toolbox(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 60, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'dark.png')
    done = run([sys.executable, '-c', WITHOUT_HOSTS], 'enhance', 'dark.png', 'bright', '--device', 'cpu', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert '1 enhanced, 0 failed.' in done.stdout
    assert np.asarray(Image.open(tmp_path / 'bright/dark.png')).mean() > pixels.mean()


def test_train_by_name(tmp_path):
    """A config of the package, in a folder that holds none; its mistakes in one sentence."""
    pytest.importorskip('mmcv.transforms', reason='the pipeline of the enhancer is made of mmcv transforms')
    for kind in ('low', 'high'):
        (tmp_path / 'our485' / kind).mkdir(parents=True)
        Image.new('RGB', (48, 48), (9, 8, 7) if kind == 'low' else (90, 80, 70)).save(
            tmp_path / 'our485' / kind / '1.png'
        )
    loader = 'train_dataloader'
    done = run(
        RUAS,
        *('train', 'enhance/ruas_s_lol', '--work-dir', 'work', '--cfg-options', 'train_cfg.max_iters=1'),
        *(f'{loader}.dataset.data_root=.', f'{loader}.num_workers=0', f'{loader}.persistent_workers=False'),
        *('val_dataloader=None', 'val_cfg=None', 'val_evaluator=None', 'default_hooks.checkpoint.interval=1'),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / 'work' / 'iter_1.pth').is_file()


def test_search_is_for_configs_of_searches(tmp_path):
    given = ['--work-dir', str(tmp_path)]
    with pytest.raises(ValueError, match=r'ruas_s_lol\.py must have a CooperativeSearchHook .* but has none'):
        train.main(['enhance/ruas_s_lol', *given], 'ruas search', search=True)
    for name, searches in (('enhance/ruas_s_lol', False), ('enhance/ruas_s_lol_search', True)):
        config = train.load_config(train.parse_args([find_config(name), *given], 'ruas train'))
        assert train.has_search(config) == searches


def test_how_to_resume(tmp_path):
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_5.pth'))
    (tmp_path / 'iter_5.pth').write_bytes(b'')
    arguments = ['my config.py', '--amp']
    args = train.parse_args(arguments, 'ruas train')
    text = train.how_to_resume(args, ['ruas', 'train', *arguments], str(tmp_path))
    assert text.endswith(": ruas train 'my config.py' --amp --resume")


# --- Names of configs -------------------------------------------------------------------------------------------------


def test_names_of_configs(tmp_path, monkeypatch):
    names = shipped_configs()
    assert set(names) == {
        str(path.relative_to(ROOT / 'configs').with_suffix(''))
        for path in (ROOT / 'configs').glob('*/*.py')
        if path.parent.name != '_base_'
    }
    path = Path(find_config('detection/ruas_ssd_demo'))
    assert path.samefile(ROOT / 'configs/detection/ruas_ssd_demo.py')
    assert find_config('detection/ruas_ssd_demo.py') == str(path)
    with pytest.raises(FileNotFoundError, match='did you mean detection/ruas_ssd_demo?'):
        find_config('detection/ruas_ssd_dem')
    with pytest.raises(FileNotFoundError, match='mine.py is neither a file nor'):
        find_config('mine.py')
    monkeypatch.chdir(tmp_path)  # a file of one's own comes first
    (tmp_path / 'detection').mkdir()
    (tmp_path / 'detection/ruas_ssd_demo.py').touch()
    assert find_config('detection/ruas_ssd_demo.py') == 'detection/ruas_ssd_demo.py'


# --- The CPU ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('given', [{}, {'GOMP_SPINCOUNT': '7'}, {'OMP_WAIT_POLICY': 'ACTIVE'}])
def test_the_users_environment_wins(monkeypatch, given):
    for name in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY'):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    limit_spinning()
    added = {name: value for name, value in os.environ.items() if before.get(name) != value}
    assert list(added) == ([] if given else ['GOMP_SPINCOUNT'])


@pytest.mark.parametrize('tool', ['ruas_mm', 'enhance.py'])
def test_torch_sees_how_long_its_threads_may_spin(tool, tmp_path):
    """What OpenMP says that it has read when torch loads it."""
    command = [*RUAS, 'train'] if tool == 'ruas_mm' else [sys.executable, ROOT / 'tools' / tool]
    done = run(command, '--help', cwd=tmp_path, OMP_DISPLAY_ENV='VERBOSE')
    if 'GOMP_SPINCOUNT' not in done.stderr:
        pytest.skip('this torch is not built with libgomp')
    assert int(re.search(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)[1]) < 10_000


FLUSHED = """
import sys
import numpy as np
from ruas_mm.cli.process import run

def tool():
    import torch
    from torch.utils.data import DataLoader
    torch.set_num_threads(2)
    tiny = torch.full((2_000_000,), 2e-38)
    smaller = tiny * 0.25  # in two threads
    (worker,) = DataLoader([tiny[:1]], num_workers=1, collate_fn=lambda batch: batch[0] * 0.25)
    print([part.abs().max().item() for part in (*smaller.chunk(2), worker)])
    np.finfo(np.float32).smallest_subnormal, np.finfo(np.float64).smallest_subnormal
    if not torch.set_flush_denormal(True):
        print('unsupported')

run(tool)
"""


def test_denormals_are_flushed_in_all_threads_and_workers(tmp_path):
    done = run([sys.executable, '-W', 'error::UserWarning:numpy', '-c', FLUSHED], cwd=tmp_path, OMP_NUM_THREADS='2')
    assert done.returncode == 0, done.stderr
    if 'unsupported' in done.stdout:
        pytest.skip('this processor cannot flush denormals')
    assert done.stdout.strip() == '[0.0, 0.0, 0.0]'
    assert 'smallest subnormal' not in done.stderr
