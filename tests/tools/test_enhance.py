"""tools/enhance.py as a user runs it."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / 'apis'))

from clips import save_clip

from ruas_mm.models.enhance import RUAS

ROOT = Path(__file__).parents[2]
OFFICIAL = ROOT.parent / 'shared' / 'data' / 'official_ruas'


def run(tool, *arguments, cwd, preexec_fn=None, **environment):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', **environment}
    command = [sys.executable, str(ROOT / 'tools' / tool), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, preexec_fn=preexec_fn)


def one_sentence(done, *words):
    """The tool ended with a message that a person can read, and nothing of the library's inside."""
    assert done.returncode == 1
    assert 'Traceback' not in done.stdout + done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith('Error: ')]
    for word in words:
        assert str(word) in error


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('checkpoint') / 'a.pth'
    config = dict(type='ruas_mm.RUAS', variant='A', noise_estimator=dict(channels=4))
    model = RUAS(**{key: value for key, value in config.items() if key != 'type'})
    torch.save({'meta': {'model': config}, 'state_dict': model.state_dict()}, path)
    return path


@pytest.fixture
def photos(tmp_path):
    """A folder with three dark images, one of them in a sub-folder."""
    folder = tmp_path / 'photos'
    (folder / 'more').mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ('1.png', '10.png', 'more/2.png'):
        Image.fromarray(random.integers(0, 60, (20, 30, 3), np.uint8)).save(folder / name)
    return folder


def test_folder(checkpoint, photos, tmp_path):
    flags = ['--checkpoint', checkpoint, '--variant', 'full', '--stages', 2, '--device', 'cpu', '--batch-size', 2]
    done = run('enhance.py', 'photos', 'out', *flags, '--tile', 16, '--compare', '--save-illumination', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert '3 enhanced, 0 failed.' in done.stdout
    assert '3/3' in done.stderr  # the progress bar
    for name in ('1', '10', 'more/2'):
        dark = np.asarray(Image.open(photos / f'{name}.png'))
        bright = np.asarray(Image.open(tmp_path / 'out' / f'{name}.png'))
        assert bright.shape == dark.shape
        assert bright.mean() > dark.mean()
        np.testing.assert_array_equal(
            np.asarray(Image.open(tmp_path / 'out' / f'{name}.compare.png')), np.hstack([dark, bright])
        )
        assert Image.open(tmp_path / 'out' / f'{name}.illumination.png').size == (30, 20)
    assert len([path for path in (tmp_path / 'out').rglob('*') if path.is_file()]) == 9


def test_strength_and_exposure(checkpoint, photos, tmp_path):
    given = ['--checkpoint', checkpoint, '--variant', 'S', '--device', 'cpu', '--resolution', 0.5]
    for out, flags in (('none', ['--strength', 0]), ('mean', ['--exposure', 0.3]), ('gate', ['--brightness-gate', 0])):
        done = run('enhance.py', photos / '1.png', out, *given, *flags, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    dark, none, mean, gate = (
        np.asarray(Image.open(folder / '1.png'))
        for folder in (photos, *(tmp_path / n for n in ('none', 'mean', 'gate')))
    )
    np.testing.assert_array_equal(none, dark)
    np.testing.assert_array_equal(gate, dark)
    assert mean.mean() / 255 == pytest.approx(0.3, abs=0.05)


def test_bad_files_are_reported_at_the_end(checkpoint, photos, tmp_path):
    (photos / '2.png').write_text('text')
    (photos / 'notes.txt').write_text('text')
    done = run('enhance.py', photos, photos / 'out', '--checkpoint', checkpoint, '--device', 'cpu', cwd=tmp_path)
    assert done.returncode == 1
    assert '3 enhanced, 1 failed.' in done.stdout
    assert '1 other files' in done.stdout
    assert done.stderr.splitlines()[-1].startswith(f'Failed: {photos / "2.png"}: it is not a')
    assert 'Traceback' not in done.stderr
    assert len(list((photos / 'out').rglob('*.png'))) == 3


def test_names_that_no_terminal_shows(checkpoint, photos, tmp_path):
    """Each is told on one line, in any locale."""
    for name in (b'line\nbreak.png', b'\x1b[31m.png', b'\xff.png', 'ü.png'.encode()):
        Path(os.fsdecode(os.path.join(os.fsencode(photos), name))).write_text('text')
    (photos / 'l\nink').symlink_to('nowhere')
    plain = {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}
    for locale, letter in (({'PYTHONIOENCODING': 'utf-8'}, 'ü'), (plain, r'\xc3\xbc')):
        done = run('enhance.py', photos, 'out', '--checkpoint', checkpoint, '--device', 'cpu', cwd=tmp_path, **locale)
        assert done.returncode == 1
        assert '3 enhanced, 4 failed.' in done.stdout
        failed = [line for line in done.stderr.splitlines() if line.startswith('Failed: ')]
        names = sorted(line.partition(': it is not')[0].rpartition('/')[2] for line in failed)
        assert names == sorted([r'line\nbreak.png', r'\x1b[31m.png', r'\xff.png', f'{letter}.png'])
        (note,) = [line for line in done.stderr.splitlines() if line.startswith('Note: ')]
        assert note.endswith(r'l\nink: this link was not followed: it leads nowhere.')


@pytest.mark.parametrize('size', [1_000, 20_000])
def test_a_limit_to_the_size_of_files(checkpoint, photos, tmp_path, size):
    """As a full disk: what does not fit is reported, and no part of it stays."""
    pytest.importorskip('av', reason='videos need PyAV')
    save_clip(photos / 'v.mp4', count=30)
    save_clip(photos / 'w.avi', 'mjpeg', count=30)
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))  # noqa: E731
    given = ['--checkpoint', checkpoint, '--device', 'cpu', '--variant', 'S']
    done = run('enhance.py', photos, 'out', *given, cwd=tmp_path, preexec_fn=limit)
    assert done.returncode == 1
    written = {path.name: path for path in (tmp_path / 'out').rglob('*') if path.is_file()}
    assert f'{len(written)} enhanced, {5 - len(written)} failed.' in done.stdout
    assert not any(name.endswith('.tmp') for name in written)
    failed = [line for line in done.stderr.splitlines() if line.startswith('Failed: ')]
    assert len(failed) == 5 - len(written)
    assert all('File too large' in line for line in failed)
    assert 'w.avi' not in written
    assert ('10.png' in written) == (size > 1_000)


def test_ctrl_c(checkpoint, photos, tmp_path):
    """What was enhanced stays and is reported; nothing half-done does."""
    pytest.importorskip('av', reason='videos need PyAV')
    save_clip(photos / 'v.mp4', count=100, size=(640, 480))
    command = [sys.executable, ROOT / 'tools/enhance.py', photos, 'out', '--checkpoint', checkpoint, '--device', 'cpu']
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    tool = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    )
    try:
        until = time.monotonic() + 200
        while not list((tmp_path / 'out').glob('.ruas_mm-*.tmp')) or not (tmp_path / 'out/more/2.png').exists():
            assert tool.poll() is None, tool.communicate()
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(0.5)  # some frames are written
        tool.send_signal(signal.SIGINT)
        output, _ = tool.communicate()
    finally:
        tool.kill()
        tool.wait()
    assert tool.returncode != 0
    assert '3 enhanced, 0 failed, 1 not begun or not finished.' in output
    files = {str(path.relative_to(tmp_path / 'out')) for path in (tmp_path / 'out').rglob('*') if path.is_file()}
    assert files == {'1.png', '10.png', 'more/2.png'}


@pytest.mark.skipif((ROOT / 'ruas_mm/weights/ruas_a.pth').exists(), reason='weights are shipped')
def test_without_weights(photos, tmp_path):
    done = run('enhance.py', photos, 'out', cwd=tmp_path)
    one_sentence(done, '--checkpoint', 'tools/model_converters/from_official.py')
    assert not (tmp_path / 'out').exists()


def test_mistakes(checkpoint, photos, tmp_path):
    given = ['--checkpoint', checkpoint]
    one_sentence(run('enhance.py', 'nowhere', 'out', *given, cwd=tmp_path), 'nowhere')
    one_sentence(run('enhance.py', photos, photos, *given, cwd=tmp_path), photos)
    one_sentence(run('enhance.py', photos, 'out', '--checkpoint', 'nowhere.pth', cwd=tmp_path), 'nowhere.pth')
    one_sentence(run('enhance.py', photos, 'out', *given, '--stages', 4, cwd=tmp_path), 'stages', '1 to 3')
    one_sentence(run('enhance.py', photos, 'out', *given, '--exposure', 3, cwd=tmp_path), 'exposure', 'got 3.0')


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason=f'{OFFICIAL} is not here')
def test_the_published_pictures_of_the_authors(tmp_path):
    """They cut off what is below a grey level, where we round."""
    done = run('model_converters/from_official.py', OFFICIAL / 'lol.pt', 'lol.pth', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run('enhance.py', OFFICIAL / 'lol' / 'input', 'out', '--checkpoint', 'lol.pth', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    published = sorted((OFFICIAL / 'lol' / 'published_result').glob('*.png'))
    assert len(published) == 2
    for path in published:
        ours = np.asarray(Image.open(tmp_path / 'out' / path.name)).astype(int)
        assert np.abs(ours - np.asarray(Image.open(path))).max() <= 1
