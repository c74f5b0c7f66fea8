import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / 'tools/dataset_tools/split.py'


def run(*args):
    return subprocess.run([sys.executable, TOOL, *map(str, args)], capture_output=True, text=True)


@pytest.fixture
def root(tmp_path):
    (tmp_path / 'image').mkdir()
    for number in range(1, 31):
        (tmp_path / f'image/{number}.png').touch()
    (tmp_path / 'image/readme.txt').touch()
    return tmp_path


def read(path):
    return path.read_text().splitlines()


def test_disjoint_sorted_and_the_same_for_the_same_seed(root):
    done = run(root, '--train', 20, '--val', 4, '--test', 5, '--seed', 0)
    assert done.returncode == 0, done.stderr
    parts = [read(root / f'splits/{part}.txt') for part in ('train', 'val', 'test')]
    assert [len(part) for part in parts] == [20, 4, 5]
    assert len(set().union(*parts)) == 29
    assert all(part == sorted(part, key=int) for part in parts)
    assert 'train.txt: 20 images' in done.stdout
    assert '1 of 30 images left over, seed 0' in done.stdout
    assert sorted(path.name for path in (root / 'splits').iterdir()) == ['test.txt', 'train.txt', 'val.txt']

    out = root / 'elsewhere'
    run(root, '--train', 20, '--val', 4, '--test', 5, '--out', out)
    assert [read(out / f'{part}.txt') for part in ('train', 'val', 'test')] == parts
    run(root, '--train', 20, '--val', 4, '--test', 5, '--out', out, '--seed', 1)
    assert read(out / 'train.txt') != parts[0]


def test_the_draw_is_pinned(root):
    # The split belongs to every published figure: no version of the tool may change it.
    assert run(root, '--test', 5).returncode == 0
    assert read(root / 'splits/test.txt') == ['4', '10', '16', '26', '28']
    assert not (root / 'splits/train.txt').exists()


def test_other_layouts(tmp_path):
    for name in ('images/Bicycle/2015_2.jpg', 'images/Bicycle/2015_10.JPEG', 'images/Dog/2015_3.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    done = run(tmp_path, '--train', 3, '--glob', 'images/*/*')
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / 'splits/train.txt') == ['Bicycle/2015_2', 'Bicycle/2015_10', 'Dog/2015_3']
    assert run(tmp_path, '--train', 3, '--glob', 'images/**/*').returncode == 0
    assert read(tmp_path / 'splits/train.txt') == ['Bicycle/2015_2', 'Bicycle/2015_10', 'Dog/2015_3']


def test_the_paper_s_split_of_exdark(tmp_path):
    """All 7363 images; pinned, for the figures' sake."""
    for number in range(7363):
        path = tmp_path / 'ExDark' / ('Bicycle', 'Motorbike', 'Table')[number // 3000] / f'2015_{number + 1:05}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    done = run(tmp_path, '--glob', 'ExDark/*/*', '--train', 5200, '--test', 1200, '--seed', 0)
    assert done.returncode == 0, done.stderr
    train, test = (read(tmp_path / f'splits/{part}.txt') for part in ('train', 'test'))
    assert (len(set(train)), len(set(test)), len({*train, *test})) == (5200, 1200, 6400)
    assert [train[0], train[-1]] == ['Bicycle/2015_00001', 'Table/2015_07363']
    assert [test[0], test[-1]] == ['Bicycle/2015_00002', 'Table/2015_07361']
    assert '963 of 7363 images left over, seed 0' in done.stdout


def test_the_paper_s_split_of_acdc(tmp_path):
    """All labelled night images, and others; pinned, for the figures' sake."""
    for part, total in dict(train=400, val=106, test=500, train_ref=400).items():
        for number in range(total):
            drive = f'GOPR035{number % 7}'
            path = tmp_path / f'rgb_anon/night/{part}/{drive}/{drive}_frame_{number:06}_rgb_anon.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    globs = [f'--glob=rgb_anon/night/{part}/*/*_rgb_anon.png' for part in ('train', 'val')]
    done = run(tmp_path, *globs, '--train', 400, '--val', 106, '--seed', 0)
    assert done.returncode == 0, done.stderr
    train, val = (read(tmp_path / f'splits/{part}.txt') for part in ('train', 'val'))
    assert (len(set(train)), len(set(val)), len({*train, *val})) == (400, 106, 506)
    assert {image_id.split('/')[0] for image_id in train} == {'train', 'val'}
    assert val[0] == 'train/GOPR0350/GOPR0350_frame_000000_rgb_anon'
    assert val[-1] == 'val/GOPR0356/GOPR0356_frame_000083_rgb_anon'


def test_several_patterns(root):
    (root / 'image2').mkdir()
    (root / 'image2/7.png').touch()
    assert run(root, '--glob', 'image/1?.*', '--glob', 'image/*5.png', '--train', 12).returncode == 0
    assert read(root / 'splits/train.txt') == ['5', *map(str, range(10, 20)), '25']
    assert run(root, '--glob', 'image/1.*', '--glob', 'image2/*', '--train', 2).returncode == 0
    assert read(root / 'splits/train.txt') == ['image2/7', 'image/1']


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['--train', 25, '--test', 6], 'must have at least 31 images (25 train + 6 test), got 30'),
        (['--train', 0], "the number of images must be at least 1, got '0'"),
        (['--train', 'all'], "the number of images must be at least 1, got 'all'"),
        ([], 'expected at least one of --train, --val and --test'),
        (['--train', 1, '--glob', 'images/*'], "no image matches 'images/*'"),
        (['--train', 1, '--glob', 'image/*', '--glob', 'images/*'], "no image matches 'images/*'"),
        (['--train', 1, '--glob', '/*'], '--glob must be a pattern relative to'),
    ],
)
def test_errors(root, args, message):
    done = run(root, *args)
    assert done.returncode != 0
    assert message in done.stderr
    assert 'Traceback' not in done.stderr
    assert not (root / 'splits').exists()


def test_errors_of_the_folder(root):
    assert 'no such folder' in run(root / 'none', '--train', 1).stderr
    (root / 'image/1.jpg').touch()
    assert "have the same id '1'" in run(root, '--train', 1).stderr
    (root / 'image/1.jpg').unlink()
    (root / 'file').touch()
    done = run(root, '--train', 1, '--out', root / 'file')
    assert done.returncode == 1 and 'Traceback' not in done.stderr
