import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('skimage')

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'make_demo_data.py'


def make(*arguments, cwd=None):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('make_demo_data', TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    sys.path.insert(0, str(TOOL.parent))  # as for a script
    spec.loader.exec_module(module)
    sys.path.remove(str(TOOL.parent))
    yield module
    del sys.modules[spec.name], sys.modules['demo_street']


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp('demo')
    done = make('detection', '--out', out, '--train', 6, '--test', 3)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ''
    assert '6 train + 3 test' in done.stdout and str(out) in done.stdout and done.stdout.count('\n') == 1
    return out / 'darkface'


def boxes_of(label):
    count, *lines = label.read_text().splitlines()
    boxes = np.array([[int(number) for number in line.split()] for line in lines])
    assert len(boxes) == int(count) >= 1
    return boxes


def test_layout_of_dark_face(demo):
    for split, count in (('train', 6), ('test', 3)):
        numbers = {str(n) for n in range(1, count + 1)}
        assert {path.name for path in (demo / split / 'image').iterdir()} == {f'{n}.png' for n in numbers}
        assert {path.name for path in (demo / split / 'label').iterdir()} == {f'{n}.txt' for n in numbers}
    assert 'scikit-image' in (demo / 'SOURCE.txt').read_text()
    assert [path.name for path in demo.parent.iterdir()] == ['darkface']  # nothing temporary is left


def test_faces_lie_within_their_image(demo):
    for image in demo.glob('*/image/*.png'):
        height, width = cv2.imread(str(image)).shape[:2]
        assert (width, height) == (320, 240)
        boxes = boxes_of(image.parents[1] / 'label' / f'{image.stem}.txt')
        assert len(boxes) <= 8
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= (width, height)).all()
        sides = boxes[:, 2:] - boxes[:, :2]
        assert (sides >= 8).all() and (sides <= 64).all()


def test_images_are_dark_and_not_black(demo):
    means = [cv2.imread(str(image)).mean() for image in demo.glob('*/image/*.png')]
    assert max(means) < 80 and 3 < np.mean(means) < 40  # DARK FACE: 4 to 40, 19 in the mean


def test_the_seed_decides_everything(demo, tool, tmp_path):
    def again(*arguments):
        assert tool.main(['--out', str(tmp_path), *arguments]) == 0
        return contents(tmp_path / 'darkface')

    first = contents(demo)
    larger = again('--train', '8', '--test', '3')
    assert all(larger[name] == content for name, content in first.items())
    assert again('--train', '6', '--test', '3') == first  # replaced, nothing of the larger set is left
    other = again('--train', '1', '--test', '1', '--seed', '1')
    assert other[Path('train/image/1.png')] != first[Path('train/image/1.png')]


def test_train_and_test_share_no_source(tool):
    train, test = tool.sources('train'), tool.sources('test')
    for kind in ('faces', 'others', 'photographs'):
        mine, theirs = getattr(train, kind), getattr(test, kind)
        assert mine and theirs and len(set(mine)) == len(mine)
        assert not set(mine) & set(theirs)
    assert not set(train.faces) & set(test.photographs) and not set(test.faces) & set(train.photographs)


def test_scenes_read_only_their_own_sources(tool, monkeypatch):
    for split in tool.SPLITS:
        seen = set()
        monkeypatch.setattr(tool, '_crop', lambda name, crop=tool._crop, seen=seen: seen.add(name) or crop(name))
        monkeypatch.setattr(tool, '_read', lambda name, read=tool._read, seen=seen: seen.add(name) or read(name))
        for seed in range(5):
            tool.make_scene(split, (160, 120), np.random.default_rng(seed))
        monkeypatch.undo()
        mine = tool.sources(split)
        assert seen - {'lfw_subset.npy'} <= {*mine.faces, *mine.others, *mine.photographs}


def test_other_sizes(tool):
    for size in ((128, 128), (700, 130)):
        scene, boxes = tool.make_scene('train', size, np.random.default_rng(0))
        assert scene.shape == (size[1], size[0], 3) and 0 <= scene.min() <= scene.max() <= 1
        assert boxes and all(0 <= x1 < x2 <= size[0] and 0 <= y1 < y2 <= size[1] for x1, y1, x2, y2 in boxes)


@pytest.mark.parametrize(
    'arguments', [['--train', '0'], ['--size', '20', '20'], ['--seed', '-1'], ['no_such_task'], ['--test', 'x']]
)
def test_wrong_arguments(tool, arguments, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        tool.main([*arguments, '--out', str(tmp_path / 'out')])
    assert exit_.value.code == 2
    assert 'error:' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_output_that_cannot_be_written(tool, tmp_path, capsys):
    blocker = tmp_path / 'file'
    blocker.write_text('')
    assert tool.main(['--out', str(blocker), '--train', '1', '--test', '1']) == 1
    error = capsys.readouterr().err
    assert str(blocker) in error and error.count('\n') == 1


def test_a_foreign_folder_is_left_alone(tool, tmp_path, capsys):
    precious = tmp_path / 'darkface' / 'train' / 'image' / '1.png'
    precious.parent.mkdir(parents=True)
    precious.write_text('real data')
    assert tool.main(['--out', str(tmp_path), '--train', '1', '--test', '1']) == 1
    assert 'not made by this tool' in capsys.readouterr().err
    assert precious.read_text() == 'real data'


# --- enhancement ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def lol(tool, tmp_path_factory):
    out = tmp_path_factory.mktemp('demo')
    assert tool.main(['enhance', '--out', str(out), '--train', '6', '--test', '3', '--size', '160', '128']) == 0
    return out / 'lol'


def pairs_of(lol):
    for low in sorted(lol.glob('*/low/*.png')):
        yield cv2.imread(str(low)).astype(float), cv2.imread(str(low.parents[1] / 'high' / low.name)).astype(float)


def test_layout_of_lol(lol):
    for folder, count in (('our485', 6), ('eval15', 3)):
        for kind in ('low', 'high'):
            names = {path.name for path in (lol / folder / kind).iterdir()}
            assert names == {f'{number}.png' for number in range(1, count + 1)}
    note = (lol / 'SOURCE.txt').read_text()
    assert 'scikit-image' in note and 'LOL' in note
    assert [path.name for path in lol.parent.iterdir()] == ['lol']


def test_pairs_are_the_same_scene_in_less_light(lol):
    """LOL's own dark images: 0.06 to 0.15 in the mean, a seventh of their ground truth's."""
    means = []
    for dark, bright in pairs_of(lol):
        assert dark.shape == bright.shape == (128, 160, 3)
        means.append((dark.mean() / 255, bright.mean() / 255))
        assert np.corrcoef(dark.ravel(), bright.ravel())[0, 1] > 0.5
    dark, bright = np.mean(means, axis=0)
    assert len(means) == 9
    assert 0.02 < dark < 0.2 and 0.3 < bright < 0.8


def test_the_seed_decides_every_pair(lol, tool, tmp_path):
    first = contents(lol)
    for options, same in ((['--train', '7'], True), (['--train', '6', '--seed', '1'], False)):
        arguments = ['enhance', '--out', str(tmp_path), '--test', '3', '--size', '160', '128', *options]
        assert tool.main(arguments) == 0
        again = contents(tmp_path / 'lol')
        name = Path('our485/low/1.png')
        assert (again[name] == first[name]) == same
        if same:
            assert all(again[name] == first[name] for name in first if name.suffix == '.png')


def test_pairs_of_train_and_test_share_no_photograph(tool, monkeypatch, tmp_path):
    train, test = (set(tool.lit_photographs(split)) for split in tool.SPLITS)
    assert train and test and not train & test
    seen = []
    monkeypatch.setattr(tool, '_read', lambda name, read=tool._read: seen.append(name) or read(name))
    tool.make_enhance(tmp_path, {'train': 9, 'test': 9}, (128, 128), 0)
    assert set(seen[:9]) <= train and set(seen[9:]) <= test and len(seen) == 18


@pytest.mark.parametrize('name', ['lfw_subset.npy', 'astronaut.png'])
def test_damaged_source_is_named(tool, monkeypatch, tmp_path, name):
    (tmp_path / name).write_bytes(b'no image')
    monkeypatch.setattr('skimage.data.data_dir', str(tmp_path))
    tool._read.cache_clear()
    with pytest.raises(OSError, match=rf'{name} cannot be read \('):
        tool._read(name)


# --- segmentation ---------------------------------------------------------------------------------------------------

NAMES = (
    'rgb_anon/night/{}/DEMO/DEMO_frame_{:06}_rgb_anon.png',
    'gt/night/{}/DEMO/DEMO_frame_{:06}_gt_labelTrainIds.png',
)
CLASSES = {0, 1, 2, 5, 6, 7, 8, 9, 10, 11, 13}  # Cityscapes: road, sidewalk, building, pole, light, sign, …


@pytest.fixture(scope='module')
def acdc(tmp_path_factory):
    out = tmp_path_factory.mktemp('demo')
    size = ('--size', 160, 128)
    done = make('segmentation', '--out', 'here', '--train', 8, '--test', 3, *size, cwd=out)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ''
    assert '8 train + 3 test' in done.stdout and done.stdout.count('\n') == 1
    return out / 'here' / 'acdc'


def streets_of(acdc):
    for image in sorted(acdc.glob('rgb_anon/night/*/DEMO/*')):
        labels = acdc / NAMES[1].format(image.parts[-3], int(image.name.split('_')[2]))
        yield cv2.imread(str(image), cv2.IMREAD_UNCHANGED), cv2.imread(str(labels), cv2.IMREAD_UNCHANGED)


def test_layout_of_acdc(acdc):
    expected = {name.format('train', n) for name in NAMES for n in range(1, 9)}
    expected |= {name.format('val', n) for name in NAMES for n in range(1, 4)}
    assert {path.as_posix() for path in contents(acdc)} == {*expected, 'SOURCE.txt'}
    note = (acdc / 'SOURCE.txt').read_text()
    assert 'scikit-image' in note and 'ACDC' in note
    assert [path.name for path in acdc.parent.iterdir()] == ['acdc']


def test_acdc_s_own_reader_reads_it(acdc):
    pytest.importorskip('mmseg.datasets')
    from ruas_mm import ACDCNightDataset

    for split, count in (('train', 8), ('val', 3)):
        folders = dict(img_path=f'rgb_anon/night/{split}', seg_map_path=f'gt/night/{split}')
        dataset = ACDCNightDataset(data_root=str(acdc), data_prefix=folders, pipeline=[])
        assert len(dataset) == count
        assert len(dataset.metainfo['classes']) == 19


def test_labels_are_cityscapes_train_ids(acdc):
    shares = np.zeros(256)
    for image, labels in streets_of(acdc):
        assert image.shape == (128, 160, 3) and image.dtype == np.uint8
        assert labels.shape == (128, 160) and labels.dtype == np.uint8
        shares += np.bincount(labels.ravel(), minlength=256) / labels.size / 11
    assert set(np.flatnonzero(shares)) == {*CLASSES, 255}
    assert 0.2 < shares[0] < 0.5 and 0.05 < shares[10] < 0.3 and shares[255] < 0.15


def test_streets_are_dark_and_their_lamps_are_not(acdc):
    """ACDC by night: 20 to 70 in the mean, and lamps that saturate."""
    images = [image for image, _ in streets_of(acdc)]
    means = [image.mean() for image in images]
    assert max(means) < 80 and 3 < np.mean(means) < 50
    assert np.mean([image.max() for image in images]) > 150


def test_the_seed_decides_every_street(acdc, tool, tmp_path):
    first = contents(acdc)
    for options, same in ((['--train', '9'], True), (['--train', '1', '--seed', '1'], False)):
        size = ('--size', '160', '128')
        assert tool.main(['segmentation', '--out', str(tmp_path), '--test', '3', *size, *options]) == 0
        again = contents(tmp_path / 'acdc')
        if same:
            assert all(again[name] == first[name] for name in first if name.suffix == '.png')
        for name in NAMES:
            assert (again[Path(name.format('train', 1))] == first[Path(name.format('train', 1))]) == same


def test_streets_of_train_and_test_share_no_source(tool, monkeypatch):
    train, test = (set(tool.surface_photographs(split)) for split in tool.SPLITS)
    assert train and test and not train & test
    for split in tool.SPLITS:
        seen = set()
        tool._pieces.cache_clear()
        monkeypatch.setattr(tool, '_crop', lambda name, crop=tool._crop, seen=seen: seen.add(name) or crop(name))
        monkeypatch.setattr(tool, '_read', lambda name, read=tool._read, seen=seen: seen.add(name) or read(name))
        for seed in range(4):
            tool.make_night_street(split, (160, 120), np.random.default_rng(seed))
        monkeypatch.undo()
        photographs, faces = set(tool.surface_photographs(split)), set(tool.sources(split).faces)
        assert seen & photographs and seen & faces
        assert seen <= {*photographs, *faces, 'lfw_subset.npy'}


@pytest.mark.parametrize(('black', 'ids'), [('leaves', (8, 9)), ('sky', (10,))])
def test_labels_are_exact(tool, black, ids):
    """Where a surface is black, so is what bears its label, and nothing else; but for edges and what is very thin."""

    def texture(kind, rng):
        return np.full((32, 32, 3), kind != black, np.float32)

    def face(rng):
        return np.full((9, 9, 3), 0.5, np.float32)

    for seed in range(3):
        street = tool.make_street((200, 150), np.random.default_rng(seed), texture, face)
        mine = np.isin(street.labels, ids).astype(np.uint8)
        inside, outside = (cv2.erode(mask, np.ones((3, 3))) > 0 for mask in (mine, 1 - mine))
        assert inside.sum() > 300
        assert np.mean(street.image[inside] > 0.02) < 0.02 and np.mean(street.lights[inside] > 0.02) < 0.01
        assert np.mean(street.image[outside].max(axis=1) > 0.02) > 0.98


def test_streets_of_other_sizes(tool):
    for size in ((128, 128), (700, 130), (130, 400)):
        dark, labels = tool.make_night_street('test', size, np.random.default_rng(0))
        assert dark.shape == (*size[::-1], 3) and labels.shape == size[::-1]
        assert 0 <= dark.min() <= dark.max() <= 1
        assert {0, 2, 10} <= set(np.unique(labels)) <= {*CLASSES, 255}


def test_streets_come_whole_or_not_at_all(tool, tmp_path, monkeypatch, capsys):
    arguments = ['segmentation', '--out', str(tmp_path), '--train', '2', '--test', '1', '--size', '128', '128']
    assert tool.main(arguments) == 0
    before = contents(tmp_path)

    def full(path, image, write=tool._write_png):
        if 'val' in path.parts:
            raise OSError(28, 'No space left on device', str(path))
        write(path, image)

    monkeypatch.setattr(tool, '_write_png', full)
    assert tool.main([*arguments, '--seed', '1']) == 1
    assert 'No space left' in capsys.readouterr().err
    assert contents(tmp_path) == before
