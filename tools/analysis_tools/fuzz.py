"""Fuzz everything that reads files from outside, and count the outcomes.

    python tools/analysis_tools/fuzz.py --n 10000

Every case is generated from a seed and runs in a separate process with limited memory and time. There are two correct
outcomes: the input is ``accepted``, or it is ``refused`` with an error that names the file (for a config, with a
one-line message and no traceback). The incorrect outcomes are:

* ``traceback``: an error other than those of this package was raised.
* ``silent loss``: an input was accepted, but the result does not match the file, or is missing.
* ``payload``: code from the file was run.
* ``hang``: the case did not end in time.
* ``crash``: the process was killed, for example by a segmentation fault.

The exit status is 1 if there was an incorrect outcome. ``--keep`` keeps the files of these cases. To repeat one case:
``--kinds KIND --first NUMBER --n 1`` with the same seed.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import importlib
import io
import json
import os
import pickle
import re
import resource
import runpy
import shutil
import signal
import sys
import tempfile
import traceback
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault('OMP_NUM_THREADS', '1')  # thread pools do not work after a fork

import cv2
import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ruas_mm.apis import RUASInferencer
from ruas_mm.apis.enhancer_checkpoint import load_enhancer, shipped_weights
from ruas_mm.apis.pictures import read_picture
from ruas_mm.apis.videos import VideoReader
from ruas_mm.search import Genotype
from ruas_mm.utils.checkpoint import CheckpointError, load_from_local

ROOT = Path(__file__).parents[2]
GOOD = ('accepted', 'refused')
BAD = ('traceback', 'silent loss', 'payload', 'hang', 'crash')
_MEMORY = 4 * 2**30  # bytes that a case may take beyond what the process has already
_INTACT = 0.05  # share of labels, genotypes, checkpoints and configs that are left as they are, and must be accepted
_CANARY = 'payload.txt'  # what hostile files try to write


class SilentLoss(Exception):
    """An input was accepted, but its content was lost or changed."""


class Case(NamedTuple):
    """What became of one input.

    Attributes:
        number (int): Number of the case; with the seed and the kind it determines the input.
        outcome (str): One of ``GOOD`` or ``BAD``.
        detail (str): The error, if there was one.
    """

    number: int
    outcome: str
    detail: str


# --- Mutations of bytes --------------------------------------------------------------------------------------------


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut, overwrite, insert, repeat or remove bytes at random places."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(len(data) + 1))
        length = int(rng.integers(1, 9))
        noise = rng.bytes(length)
        kind = rng.integers(6)
        if kind == 0:
            del data[place:]
        elif kind == 1:
            data[place : place + length] = noise
        elif kind == 2:
            data[place:place] = noise
        elif kind == 3:
            data[place:place] = data[place : place + 64]
        elif kind == 4:
            del data[place : place + length]
        elif place < len(data):
            data[place] ^= 1 << int(rng.integers(8))
    return bytes(data)


def mutate_text(text: str, rng: np.random.Generator) -> bytes:
    """Replace, insert or remove pieces that parsers of text stumble over."""
    pieces = (
        *('', ' ', '\t', '\n', '\r', '\0', '-', '+', '.', ',', '"', "'", '{', '}', '[', ']', ':', 'e', 'E9', '_'),
        *('0', '1', '99999999999999999999', '1e400', 'nan', 'inf', 'NaN', '0x1F', '٣', '½', '\u2028', '\ufeff', 'é'),
        *('null', 'true', '../', '%', '#', '\\', '[' * 3000),
    )
    for _ in range(rng.integers(1, 4)):
        place, length = int(rng.integers(len(text) + 1)), int(rng.integers(0, 4))
        text = text[:place] + str(rng.choice(pieces)) + text[place + length :]
    content = text.encode('utf-16' if rng.random() < 0.03 else 'utf-8')
    return mutate(content, rng) if rng.random() < 0.2 else content


# --- Pictures ------------------------------------------------------------------------------------------------------

_NAMES = ('picture', 'a b', 'új', 'line\nbreak', '-x', '%d', 'a' * 240, 'http:127.0.0.1:9', '\udcff')


def _picture(rng: np.random.Generator) -> tuple[bytes, str]:
    """Return an image file of a random format, mode and size, and its suffix."""
    height, width = rng.integers(1, 40, 2)
    suffix = str(rng.choice(['.png', '.jpg', '.bmp', '.tif', '.webp', '.png16', '.tif16']))
    channels = int(rng.choice([1, 3, 4]))
    if suffix.endswith('16'):
        suffix = suffix[:-2]
        pixels = rng.integers(0, 65536, (height, width, channels), np.uint16)
        return cv2.imencode(suffix, pixels)[1].tobytes(), suffix
    pixels = rng.integers(0, 256, (height, width, channels), np.uint8)
    image = Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels)
    if suffix in ('.png', '.tif') and channels != 4 and rng.random() < 0.3:
        image = image.convert(str(rng.choice(['1', 'P', 'LA'] if suffix == '.png' else ['1', 'P', 'CMYK'])))
    if suffix == '.jpg' and channels == 4:
        image = image.convert('CMYK')
    file = io.BytesIO()
    options = {'exif': _orientation(int(rng.integers(1, 9)))} if suffix in ('.jpg', '.webp') else {}
    image.save(file, Image.registered_extensions()[suffix], **options)
    return file.getvalue(), suffix


def _orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = value
    return exif


@cache
def _inferencer() -> RUASInferencer:
    return RUASInferencer(variant='S', device='cpu', stages=1)


def attack_picture(rng: np.random.Generator, folder: Path) -> str:
    """Enhance a folder with one image file, whole, damaged or misnamed."""
    content, suffix = _picture(rng)
    damage = str(rng.choice(['none', 'cut', 'mutated', 'renamed', 'random', 'empty']))
    attacked = {
        'cut': content[: int(rng.integers(len(content)))],
        'mutated': mutate(content, rng),
        'random': rng.bytes(int(rng.integers(1, 200))),
        'empty': b'',
    }.get(damage, content)
    if damage == 'renamed':
        suffix = str(rng.choice(['.png', '.jpg', '.bmp', '.tif', '.webp', '.mp4', '.avi', '.PNG', '.txt']))
    source, out = folder / 'in', folder / 'out'
    source.mkdir()
    path = source / (str(rng.choice(_NAMES)) + suffix)
    path.write_bytes(attacked)
    try:
        report = _inferencer().save(source, out)
    except ValueError as error:  # nothing to enhance in the folder
        if suffix == '.txt':
            return 'refused'
        raise SilentLoss(str(error)) from error
    if len(report.written) + len(report.failures) + report.others != 1:
        raise SilentLoss(f'{report} does not account for one file')
    if not report.written:
        if damage == 'none' and report.failures:
            raise SilentLoss(f'an undamaged file was refused: {report.failures[0].reason}')
        return 'refused'
    if suffix in ('.mp4', '.avi'):
        raise SilentLoss('an image was taken for a video')
    before, after = read_picture(path), read_picture(report.written[0])
    if before.pixels.shape[:2] != after.pixels.shape[:2]:
        raise SilentLoss(f'the result has the size {after.pixels.shape[:2]}, the input {before.pixels.shape[:2]}')
    if damage == 'cut':
        path.write_bytes(content)
        if not np.array_equal(before.pixels, read_picture(path).pixels):
            raise SilentLoss('a cut file was enhanced')
    return 'accepted'


# --- Videos ---------------------------------------------------------------------------------------------------------


@cache
def _clips() -> dict[str, bytes]:
    """Return a small video of six frames in each container, by suffix."""
    import av

    clips = {}
    for suffix, container, codec in (
        ('.mp4', 'mp4', 'libx264'),
        ('.mkv', 'matroska', 'libx264'),
        ('.avi', 'avi', 'mjpeg'),
    ):
        file = io.BytesIO()
        with av.open(file, 'w', format=container) as output:
            stream = output.add_stream(codec, rate=10)
            stream.width, stream.height = 32, 16
            stream.pix_fmt = 'yuvj420p' if codec == 'mjpeg' else 'yuv420p'
            for number in range(_FRAMES):
                pixels = np.full((16, 32, 3), 20 * number, np.uint8)
                output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format='rgb24')))
            output.mux(stream.encode())
        clips[suffix] = file.getvalue()
    return clips


_FRAMES = 6
_PLAYLIST = b'#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n'


def attack_video(rng: np.random.Generator, folder: Path) -> str:
    """Enhance a folder with one video file, whole, damaged or misnamed."""
    suffix = str(rng.choice(list(_clips())))
    content = _clips()[suffix]
    damage = str(rng.choice(['none', 'cut', 'mutated', 'renamed', 'random', 'playlist']))
    attacked = {
        'cut': content[: int(rng.integers(len(content)))],
        'mutated': mutate(content, rng),
        'random': rng.bytes(int(rng.integers(1, 200))),
        'playlist': _PLAYLIST,
    }.get(damage, content)
    if damage == 'renamed':
        suffix = str(rng.choice(['.mp4', '.mov', '.mkv', '.avi', '.png', '.jpg']))
    source, out = folder / 'in', folder / 'out'
    source.mkdir()
    path = source / (str(rng.choice(_NAMES)) + suffix)
    path.write_bytes(attacked)
    report = _inferencer().save(source, out)
    if len(report.written) + len(report.failures) != 1:
        raise SilentLoss(f'{report} does not account for one file')
    if report.failures:
        if damage == 'none':
            raise SilentLoss(f'an undamaged video was refused: {report.failures[0].reason}')
        return 'refused'
    with VideoReader(report.written[0]) as video:
        count = sum(1 for _ in video)
    if damage in ('none', 'renamed', 'cut', 'random', 'playlist') and count != _FRAMES:
        raise SilentLoss(f'the result has {count} frames, expected {_FRAMES}')
    return 'accepted'


# --- Labels --------------------------------------------------------------------------------------------------------

_NUMBER = re.compile(r'-?[0-9]{1,9}(\.[0-9]*)?')


def attack_label(rng: np.random.Generator, folder: Path) -> str:
    """Read a mutated label file of DARK FACE or ExDark, or a mutated list of images."""
    from ruas_mm.datasets.detection import parse_bbgt, parse_label
    from ruas_mm.datasets.image_list import read_image_list

    kind = str(rng.choice(['dark_face', 'bbgt', 'list']))
    boxes = rng.integers(0, 200, (int(rng.integers(1, 5)), 4))
    path = folder / 'label.txt'
    intact = rng.random() < _INTACT

    def write(text: str) -> None:
        path.write_bytes(text.encode() if intact else mutate_text(text, rng))

    if kind == 'list':
        write(''.join(f'{number}.png\n' for number in boxes.ravel()))
        return _read_label(path, intact, lambda: [name for _, name in read_image_list(str(path))], _expect_list)
    if kind == 'dark_face':
        boxes[:, 2:] += boxes[:, :2] + 1
        write('\n'.join([str(len(boxes)), *(' '.join(map(str, box)) for box in boxes)]) + '\n')
        return _read_label(path, intact, lambda: parse_label(str(path)).tolist(), _expect_dark_face)
    lines = [f'Car {" ".join(map(str, box + 1))} 0 0 0 0 0 0 0' for box in boxes]
    write('\n'.join(['% bbGt version=3', *lines]) + '\n')
    return _read_label(path, intact, lambda: [list(item.bbox) for item in parse_bbgt(str(path))], _expect_bbgt)


def _read_label(path: Path, intact: bool, read: Callable[[], list], expect: Callable[[list[str]], list]) -> str:
    """Compare what was read with a second, strict reading."""
    try:
        result = read()
    except (ValueError, OSError) as error:
        if intact:
            raise SilentLoss(f'an undamaged label was refused: {error}') from error
        _must_name(error, path)
        return 'refused'
    lines = path.read_bytes().decode('utf-8-sig').splitlines()
    try:
        expected = expect([line for line in lines if line.strip()])
    except (ValueError, IndexError) as error:
        raise SilentLoss(f'{path.name} was accepted as {result}, but {error}') from error
    if not np.array_equal(result, expected):
        raise SilentLoss(f'{path.name} was read as {result}, expected {expected}')
    return 'accepted'


def _numbers(text: str) -> list[float]:
    for number in text.split():
        if not _NUMBER.fullmatch(number):
            raise ValueError(f'{number!r} is not a plain number')
    return [float(number) for number in text.split()]


def _expect_list(lines: list[str]) -> list:
    return [line.strip() for line in lines]


def _expect_dark_face(lines: list[str]) -> list:
    boxes = [_numbers(line) for line in lines[1:]]
    if _numbers(lines[0]) != [len(boxes)]:
        raise ValueError(f'{lines[0]!r} is not the number of boxes')
    return np.array(boxes, np.float32).reshape(-1, 4).tolist()


def _expect_bbgt(lines: list[str]) -> list:
    boxes = [_numbers(line.split(None, 1)[1])[:4] for line in lines[1:]]
    return [[x, y, x + w, y + h] for x, y, w, h in boxes]


def _must_name(error: Exception, path: Path) -> None:
    """An error helps only if it says which file it is about."""
    if path.name not in str(error):
        raise RuntimeError(f'the error does not name {path.name}: {type(error).__name__}: {error}') from error


# --- Genotypes -----------------------------------------------------------------------------------------------------


def attack_genotype(rng: np.random.Generator, folder: Path) -> str:
    """Read a mutated genotype file."""
    text = json.dumps(_genotypes()[int(rng.integers(len(_genotypes())))])
    path = folder / 'genotype.json'
    deep = '[' * 50_000 + ']' * 50_000
    attacks = (
        lambda: mutate_text(text, rng),
        lambda: mutate(text.encode(), rng),
        lambda: text.replace('"slots": {', f'"slots": {deep}, "x": {{', 1).encode(),
        lambda: deep.encode(),
        lambda: text.replace('"slots": {', '"slots": {"scene.last": "skip", "scene.last": "conv_1x1", ', 1).encode(),
    )
    path.write_bytes(attacks[int(rng.choice(len(attacks), p=(0.5, 0.35, 0.05, 0.05, 0.05)))]())
    try:
        genotype = Genotype.load(path)
    except (ValueError, OSError) as error:
        _must_name(error, path)
        return 'refused'
    pairs: list[list] = []
    content = json.loads(path.read_bytes().decode('utf-8-sig'), object_pairs_hook=lambda p: pairs.append(p) or dict(p))
    if genotype.slots != content['slots']:
        raise SilentLoss(f'the file says {content["slots"]}, the genotype {genotype.slots}')
    if any(len(dict(pair)) < len(pair) for pair in pairs):
        raise SilentLoss('the file names a key twice')
    return 'accepted'


@cache
def _genotypes() -> list[dict]:
    folder = ROOT / 'ruas_mm/search/genotypes'
    return [json.loads(path.read_text()) for path in sorted(folder.glob('*.json'))]


# --- Checkpoints ---------------------------------------------------------------------------------------------------


class _Call:
    """Pickles as the call of a function."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.reduced


@cache
def _checkpoint() -> dict:
    return load_from_local(shipped_weights('S'), 'cpu')


def _saved(content: Any, legacy: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def _rezipped(content: bytes, compression: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, 'w', compression) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return file.getvalue()


def _hostile(rng: np.random.Generator, canary: Path) -> bytes:
    """Return a checkpoint that runs code, or asks for more than its size justifies."""
    good = _checkpoint()
    doubling: list = []
    for _ in range(40):
        doubling = [doubling, doubling]

    def model(**options: Any) -> dict:
        return {**good, 'meta': {**good['meta'], 'model': {**good['meta']['model'], **options}}}

    def weight(value: Any) -> dict:
        return {**good, 'state_dict': {**good['state_dict'], next(iter(good['state_dict'])): value}}

    call = f'open({str(canary)!r}, "w").close()'
    scene = good['meta']['model'].get('scene_module', {})
    contents = (
        lambda: {**good, 'x': _Call(eval, call)},
        lambda: {**good, 'x': _Call(exec, call)},
        lambda: {**good, 'x': _Call(os.system, f'touch {canary}')},
        lambda: {**good, 'x': _Call(getattr, 'text', '__class__')},
        lambda: _Call(runpy.run_path, str(canary)),
        lambda: {**good, 'x': doubling},
        lambda: model(scene_module={**scene, 'stages': 10**8}),
        lambda: model(scene_module={**scene, 'window': 10**7}),
        lambda: model(scene_module={**scene, 'channels': 10**6}),
        lambda: model(border=10**9),
        lambda: model(border=1.5),
        lambda: model(border=doubling),
        lambda: model(epsilon='x' * 10**6),
        lambda: {'meta': {'cfg': 'model = ' + '-' * 200_000 + '1'}, 'state_dict': good['state_dict']},
        lambda: {'meta': {'cfg': 'model = ' + '(' * 5_000}, 'state_dict': good['state_dict']},
        lambda: weight(torch.zeros(1).expand(10**6, 10**6)),
        lambda: weight(torch.zeros(2, 2).to_sparse()),
        lambda: weight(torch.zeros(3, device='meta')),
        lambda: weight(torch.full((3, 3, 1, 1), torch.nan)),
        lambda: weight(doubling),
        lambda: weight('x'),
        lambda: {**good, 'state_dict': doubling},
        lambda: [],
        lambda: None,
    )
    content = contents[int(rng.integers(len(contents)))]()
    kind = rng.integers(3)
    if kind == 0:
        return pickle.dumps(content, protocol=int(rng.integers(2, 5)))
    return _saved(content, legacy=kind == 1)


def attack_checkpoint(rng: np.random.Generator, folder: Path) -> str:
    """Load a mutated, hostile or oversized checkpoint as an enhancer."""
    path = folder / 'checkpoint.pth'
    legacy = bool(rng.random() < 0.3)
    attacks = (
        lambda: mutate(_saved(_checkpoint(), legacy), rng),
        lambda: _hostile(rng, folder / _CANARY),
        lambda: _rezipped(_saved(_checkpoint()), zipfile.ZIP_DEFLATED),
        lambda: _rezipped(_saved({'state_dict': torch.zeros(2**27), 'meta': {}}), zipfile.ZIP_DEFLATED),
        lambda: rng.bytes(int(rng.integers(0, 200))),
    )
    number = int(rng.choice(len(attacks), p=(0.5, 0.4, 0.02, 0.02, 0.06)))
    intact = rng.random() < _INTACT
    path.write_bytes(_saved(_checkpoint(), legacy) if intact else attacks[number]())
    try:
        model = load_enhancer(path)
    except (CheckpointError, ValueError, OSError) as error:
        if intact:
            raise SilentLoss(f'an undamaged checkpoint was refused: {error}') from error
        _must_name(error, path)
        if len(str(error)) > 2_000:
            raise RuntimeError(f'the error is {len(str(error))} characters long') from error
        return 'refused'
    if intact or (not legacy and number == 0):  # the older format has no checksums
        given, loaded = _checkpoint()['state_dict'], model.state_dict()
        if not all(torch.equal(loaded[name], value) for name, value in given.items() if name in loaded):
            raise SilentLoss('a damaged file was loaded with other weights')
    return 'accepted'


# --- Configs -------------------------------------------------------------------------------------------------------

_VALUES = (
    None,
    -1,
    0,
    1,
    10**12,
    0.5,
    -1e-3,
    float('nan'),
    float('inf'),
    'abc',
    '',
    True,
    (),
    [],
    {},
    [1, 2],
    {'a': 1},
)


def attack_config(rng: np.random.Generator, folder: Path) -> str:
    """Train for one iteration with a config that has a wrong value, key or syntax."""
    from mmengine.config import Config

    config = _small_config(str(rng.choice(list(_SMALL))))
    intact = rng.random() < _INTACT
    if intact:
        content = config.pretty_text.encode()
    elif rng.random() < 0.2:
        content = mutate_text(config.pretty_text, rng)
    else:
        _change_entry(config._cfg_dict, rng)
        content = Config(config.to_dict()).pretty_text.encode()
    path = folder / 'attacked.py'
    path.write_bytes(content)
    work_dir = folder / 'work'
    sys.argv = ['train.py', str(path), '--work-dir', str(work_dir)]
    log, errors = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(errors):
            runpy.run_path(str(ROOT / 'tools/train.py'), run_name='__main__')
    except SystemExit as error:
        if error.code:
            said = errors.getvalue()
            if 'Traceback' in said:
                raise RuntimeError('it printed a traceback') from error
            if not re.search('^Error: .', said, re.MULTILINE):
                raise RuntimeError(f'it ended with {error.code!r} and said {said[-200:]!r}') from error
            if intact:
                raise SilentLoss(f'an undamaged config was refused: {said[-500:]}') from error
            return 'refused'
    if not list(work_dir.glob('*.pth')):
        raise SilentLoss('it ended well, but left no checkpoint')
    return 'accepted'


_LOADER = {'batch_size': 1, 'num_workers': 0, 'persistent_workers': False}
_SMALL_DETECTOR = {
    'model.backbone.base_channels': 8,
    'model.backbone.stem_channels': 8,
    'model.neck.in_channels': (8, 16, 32, 64),
    'model.neck.out_channels': (8, 16, 32, 64, 16, 16),
    'model.bbox_head.in_channels': (8, 16, 32, 64, 16, 16),
    'train_cfg.max_epochs': 1,
}
# Config -> its data set's layout, and what makes it small.
_SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    'detection/ruas_ssd_demo.py': (
        'darkface',
        {**_SMALL_DETECTOR, 'train_dataloader.dataset.pipeline.3.scale': (64, 64)},
    ),
    'detection/ruas_ssd_demo_search.py': (
        'darkface',
        {
            **_SMALL_DETECTOR,
            'train_dataloader.dataset.dataset.pipeline.3.scale': (64, 64),
            'custom_hooks.0.val_dataloader.dataset.dataset.pipeline.3.scale': (64, 64),
            'custom_hooks.0.val_dataloader.batch_size': 1,
            'custom_hooks.0.val_dataloader.num_workers': 0,
        },
    ),
    'enhance/ruas_a_demo.py': ('lol', {'train_cfg.max_iters': 1, 'train_cfg.val_interval': 1}),
}


def _small_config(name: str) -> Any:
    """Return a demo config that trains for one iteration on two tiny images, in the folder of the data."""
    from mmengine.config import Config

    layout, options = _SMALL[name]
    config = Config.fromfile(ROOT / 'configs' / name)
    for split in ('train', 'val', 'test'):
        if config.get(f'{split}_dataloader') is not None:
            options = options | {f'{split}_dataloader.{key}': value for key, value in _LOADER.items()}
    config.merge_from_dict(options)
    _set_data_root(config._cfg_dict, f'{_data()}/{layout}/')
    return config


def _set_data_root(node: Any, root: str) -> None:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if key == 'data_root':
            node[key] = root
        else:
            _set_data_root(value, root)


@cache
def _data() -> Path:
    """Make tiny data sets in the layouts of DARK FACE and LOL; they go when the program ends."""
    folder = Path(tempfile.mkdtemp(prefix='fuzz-data-'))
    parent = os.getpid()
    atexit.register(lambda: os.getpid() == parent and shutil.rmtree(folder, ignore_errors=True))
    rng = np.random.default_rng(0)
    places = [f'darkface/{split}/image' for split in ('train', 'test')]
    places += [f'lol/{split}/{kind}' for split in ('our485', 'eval15') for kind in ('low', 'high')]
    for place in places:
        (folder / place).mkdir(parents=True)
        for number in (1, 2):
            Image.fromarray(rng.integers(0, 60, (64, 64, 3), np.uint8)).save(folder / place / f'{number}.png')
    for split in ('train', 'test'):
        (folder / f'darkface/{split}/label').mkdir()
        for number in (1, 2):
            (folder / f'darkface/{split}/label/{number}.txt').write_text('1\n10 10 30 40\n')
    return folder


def _change_entry(node: Any, rng: np.random.Generator) -> None:
    """Replace, rename or remove one entry somewhere in a config."""
    entries = []

    def collect(node: Any) -> None:
        for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
            entries.append((node, key))
            if isinstance(value, (dict, list)):
                collect(value)

    collect(node)
    parent, key = entries[int(rng.integers(len(entries)))]
    kind = rng.integers(4)
    if kind == 0 and isinstance(parent, dict):
        parent[f'{key}x'] = parent.pop(key)
    elif kind == 1:
        del parent[key]
    else:
        parent[key] = _VALUES[int(rng.integers(len(_VALUES)))]


# --- Running -------------------------------------------------------------------------------------------------------


class Attack(NamedTuple):
    """How one kind of input is attacked.

    Attributes:
        run (Callable): Makes a case in an empty folder and returns how it ended, one of ``GOOD``; errors are bad.
        share (float): Share of all cases; kinds that take long get fewer.
        prepare (Callable): Does once, before the processes of the cases are forked, what all cases need.
    """

    run: Callable[[np.random.Generator, Path], str]
    share: float
    prepare: Callable[[], Any]


ATTACKS = {
    'pictures': Attack(attack_picture, 0.3, _inferencer),
    'videos': Attack(attack_video, 0.02, lambda: [_inferencer(), _clips()]),
    'labels': Attack(attack_label, 0.28, lambda: importlib.import_module('ruas_mm.datasets.detection')),
    'genotypes': Attack(attack_genotype, 0.2, _genotypes),
    'checkpoints': Attack(attack_checkpoint, 0.19, _checkpoint),
    'configs': Attack(attack_config, 0.01, lambda: [_small_config(name) for name in _SMALL]),
}


def run_case(kind: str, seed: int, number: int, folder: Path, seconds: int) -> Case:
    """Run one case in a process of its own.

    Args:
        kind (str): Key of ``ATTACKS``.
        seed (int): Seed of all cases.
        number (int): Number of the case.
        folder (Path): An empty folder for its files.
        seconds (int): Time after which the case counts as hanging.

    Returns:
        Case: What became of it.
    """
    receiver, sender = os.pipe()
    process = os.fork()
    if not process:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)  # ends the process, whatever it is doing
        used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, used + _MEMORY))
        result = _outcome(ATTACKS[kind].run, np.random.default_rng([seed, zlib.crc32(kind.encode()), number]), folder)
        os.write(sender, json.dumps(result).encode())
        os._exit(0)
    os.close(sender)
    with open(receiver, 'rb') as file:
        answer = file.read()
    status = os.waitpid(process, 0)[1]
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return Case(number, 'hang' if name == 'SIGALRM' else 'crash', name)
    return Case(number, *(json.loads(answer) if answer else ('crash', f'exit status {os.WEXITSTATUS(status)}')))


def _outcome(attack: Callable, rng: np.random.Generator, folder: Path) -> tuple[str, str]:
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    try:
        outcome, detail = attack(rng, folder), ''
    except SilentLoss as error:
        outcome, detail = 'silent loss', str(error)
    except BaseException as error:  # whatever escapes is what this program looks for
        place = traceback.extract_tb(error.__traceback__)[-1]
        outcome = 'traceback'
        detail = f'{type(error).__name__}: {str(error)[:300]} ({Path(place.filename).name}:{place.lineno})'
    return ('payload', detail) if (folder / _CANARY).exists() else (outcome, detail[:1000])


def main() -> None:
    """Run the tool; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--n', type=int, default=1000, help='number of cases of all kinds together (default: 1000)')
    parser.add_argument('--kinds', nargs='+', choices=ATTACKS, default=list(ATTACKS), help='default: all')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--first', type=int, default=0, metavar='NUMBER', help='number of the first case (default: 0)')
    parser.add_argument('--seconds', type=int, default=120, help='time after which a case hangs (default: 120)')
    parser.add_argument('--keep', type=Path, metavar='DIR', help='keep the files of bad cases here')
    parser.add_argument('--out', type=Path, metavar='FILE.json', help='write counts and bad cases')
    args = parser.parse_args()
    if not hasattr(os, 'fork'):
        sys.exit('Error: fuzz.py needs os.fork and resource limits, which this system does not have.')

    shares = sum(ATTACKS[kind].share for kind in args.kinds)
    counts, bad = {}, []
    for kind in args.kinds:
        total = max(1, round(args.n * ATTACKS[kind].share / shares))
        counts[kind] = Counter()
        ATTACKS[kind].prepare()
        for number in track(range(args.first, args.first + total), kind, console=Console(stderr=True)):
            with tempfile.TemporaryDirectory(prefix='fuzz-') as folder:
                case = run_case(kind, args.seed, number, Path(folder), args.seconds)
                counts[kind][case.outcome] += 1
                if case.outcome in BAD:
                    bad.append({'kind': kind, **case._asdict()})
                    print(f'{kind} {number}: {case.outcome}: {case.detail}', flush=True)
                    if args.keep:
                        shutil.copytree(folder, args.keep / f'{kind}_{number}', symlinks=True, dirs_exist_ok=True)
    table = Table('', *GOOD, *BAD, 'cases', title=f'seed {args.seed}')
    for kind, count in counts.items():
        table.add_row(kind, *(str(count[outcome]) for outcome in (*GOOD, *BAD)), str(count.total()))
    Console(width=120).print(table)
    if args.out:
        args.out.write_text(json.dumps({'seed': args.seed, 'counts': counts, 'bad': bad}, indent=2))
    sys.exit(bool(bad))


if __name__ == '__main__':
    main()
