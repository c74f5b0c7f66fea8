import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / 'tools/dataset_tools/camvid_dusk.py'
DATA = Path(__file__).resolve().parents[3] / 'shared/data/camvid'


def run(*args):
    return subprocess.run([sys.executable, TOOL, *map(str, args)], capture_output=True, text=True)


def make(root, *names):
    (root / 'train').mkdir(exist_ok=True)
    for name in names:
        (root / 'train' / name).touch()


def read(path):
    return path.read_text().splitlines()


def test_last_third_in_time(tmp_path):
    make(tmp_path, *(f'0001TP_{time}.png' for time in (30, 5, 90, 120, 60, 150, 1000)))
    make(tmp_path, '0006R0_f00930.jpg', '0016E5_00390.jpg', 'readme.txt')
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / 'splits/dusk.txt') == ['0001TP_120', '0001TP_150', '0001TP_1000']
    assert read(tmp_path / 'splits/train.txt') == [
        *('0001TP_5', '0001TP_30', '0001TP_60', '0001TP_90'),
        *('0006R0_f00930', '0016E5_00390'),
    ]
    assert 'train.txt: 6 images' in done.stdout
    assert 'dusk.txt: 3 images' in done.stdout


@pytest.mark.skipif(not DATA.is_dir(), reason='needs CamVid in ../shared/data/camvid')
def test_real_frames(tmp_path):
    done = run(DATA, '--out', tmp_path / 'lists')
    assert done.returncode == 0, done.stderr
    dusk, train = (read(tmp_path / f'lists/{name}.txt') for name in ('dusk', 'train'))
    assert (len(dusk), len(train), len({*dusk, *train})) == (21, 346, 367)
    assert [dusk[0], dusk[-1]] == ['0001TP_007920', '0001TP_008520']
    assert sum(frame.startswith('0001TP') for frame in train) == 41


def test_errors(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 1 and 'train: no such folder' in done.stderr
    make(tmp_path, '0006R0_f00930.png', '0001TP_30.png')
    done = run(tmp_path)
    assert done.returncode == 1
    assert 'CamVid must have at least 3 frames 0001TP_*, got 1 among 2 images' in done.stderr
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'splits').exists()
