"""Makes small dark data sets from the photographs that scikit-image ships, in the layouts of the real data sets.

``detection``: street-like scenes with real faces, darkened, in the layout of DARK FACE:
``darkface/{train,test}/image/N.png`` and ``darkface/{train,test}/label/N.txt`` (the count, then ``x1 y1 x2 y2`` lines).
The faces, the other things that look a little like faces, and the photographs are disjoint between train and test.

``enhance``: parts of photographs and the same darkened, in the layout of LOL: ``lol/our485/{low,high}/N.png`` to train,
``lol/eval15/{low,high}/N.png`` to test. The photographs are disjoint.

``segmentation``: streets with a label for each pixel, darkened, in the layout of ACDC's part by night:
``acdc/rgb_anon/night/{train,val}/DEMO/DEMO_frame_N_rgb_anon.png`` and
``acdc/gt/night/{train,val}/DEMO/DEMO_frame_N_gt_labelTrainIds.png`` (Cityscapes' train ids, 255 where there is none);
``val`` is the test part. The photographs that surfaces are cut from, and the faces, are disjoint.

Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from demo_street import make_street

from ruas_mm.datasets.transforms import darken

PHOTOGRAPHS = {
    'train': (
        'astronaut.png',
        'brick.png',
        'chelsea.png',
        'gravel.png',
        'hubble_deep_field.jpg',
        'motorcycle_left.png',
        'motorcycle_right.png',
        'page.png',
    ),
    'test': ('camera.png', 'coffee.png', 'grass.png', 'rocket.jpg'),
}
# The people in them are cut off, since nobody would label them.
WITHOUT_PEOPLE = {'astronaut.png': np.s_[200:], 'camera.png': np.s_[:, 300:]}
SPLITS = tuple(PHOTOGRAPHS)
LFW_FACES, LFW_CROPS = 100, 200  # lfw_subset.npy: first the faces, then as many other crops
LFW_PARTIAL_FACES = {125, 130, 142, 155, 164, 193, 196}  # other crops that show enough of a face to be ambiguous
COLOUR_FACE, COLOUR_FACE_CROP = 'astronaut.png', np.s_[58:188, 159:289]

FACE_AXES = (0.38, 0.48)  # semi-axes of a face in its square crop
FACE_HEIGHT = (14, 60)  # pixels in an image 240 high, drawn uniformly in the logarithm
MIN_SIDE, MAX_SIDE = 128, 2048  # pixels; so that the largest face fits, and that photographs are not blown up absurdly


SOURCE = 'SOURCE.txt'
SOURCE_NOTE = """Made by tools/make_demo_data.py of ruas_mm (seed {seed}); running it again replaces this folder.

Composed from files that ship inside scikit-image and darkened with ruas_mm's LowLightSynthesis; nothing here is an
image of {model}, only the layout is its own.
{sources}
Licences and origins: README.txt and the documentation of skimage.data.
"""
FACES_NOTE = """Faces and other crops: lfw_subset.npy (from Labeled Faces in the Wild) and astronaut.png (NASA).
{photographs}
No face crop and no photograph is used on both sides. Two crops may still show the same person."""

LOL_FOLDERS = {'train': 'our485', 'test': 'eval15'}
# Dim as LOL's images: indoors, one light at most, and the noise of a higher gain. The scene module brightens all images
# about alike and takes out casts of colour: pairs that differ more in either would be over- or underexposed, or lose
# their colour, however it was trained.
LOL_LIGHT = dict(
    exposure=(0.03, 0.05),
    falloff=(0.0, 0.3),
    lamps=(0, 1),
    lamp_gain=(0.5, 2.0),
    lamp_radius=(0.2, 0.5),
    read_noise=(5e-5, 2e-4),
)

# What the surfaces of a street are cut from.
SURFACES = {
    'train': {
        'ground': ('gravel.png',),
        'wall': ('brick.png', 'page.png'),
        'leaves': ('ihc.png', 'gravel.png'),
        'cloth': ('astronaut.png', 'motorcycle_right.png'),
        'sky': ('hubble_deep_field.jpg', 'retina.jpg'),
    },
    'test': {
        'ground': ('moon.png', 'grass.png'),
        'wall': ('coffee.png', 'text.png'),
        'leaves': ('grass.png',),
        'cloth': ('coffee.png', 'rocket.jpg'),
        'sky': ('rocket.jpg', 'cell.png'),
    },
}
STREET_LIGHT = dict(exposure=(0.01, 0.04), lamps=(2, 5), lamp_gain=(4.0, 25.0))
ACDC_FOLDERS = {'train': 'train', 'test': 'val'}


@dataclass(frozen=True)
class Sources:
    """What the scenes of a split are made from.

    Args:
        faces (tuple[str, ...]): Names of the face crops, as ``file[index]`` or ``file``.
        others (tuple[str, ...]): Names of the crops of other things.
        photographs (tuple[str, ...]): File names of the backgrounds.
    """

    faces: tuple[str, ...]
    others: tuple[str, ...]
    photographs: tuple[str, ...]


def sources(split: str) -> Sources:
    """Tell what the scenes of a split are made from.

    Args:
        split (str): ``train`` or ``test``.

    Returns:
        Sources: Its faces, other things and photographs; the two splits share none.
    """

    def crops(start: int, stop: int) -> tuple[str, ...]:
        mine = [i for i in range(start, stop) if (i % 5 == 0) == (split == 'test') and i not in LFW_PARTIAL_FACES]
        return tuple(f'lfw_subset.npy[{i}]' for i in mine)

    faces = crops(0, LFW_FACES) + ((COLOUR_FACE,) if split == 'train' else ())
    return Sources(faces, crops(LFW_FACES, LFW_CROPS), PHOTOGRAPHS[split])


@functools.cache
def _read(name: str) -> np.ndarray:
    """A file of scikit-image's, float32 in [0, 1], BGR or crops × H × W."""
    from skimage.data import data_dir
    from skimage.io import imread

    path = Path(data_dir) / name
    if not path.is_file():
        raise FileNotFoundError(f'scikit-image is installed without {name}; install "scikit-image<0.26"')
    if path.suffix == '.npy':
        return np.load(path).astype(np.float32)
    image = imread(path)  # not cv2, which complains about the files' colour profiles
    image = np.dstack([image] * 3) if image.ndim == 2 else image[..., 2::-1]
    return image.astype(np.float32) / 255


def _crop(name: str) -> np.ndarray:
    if name == COLOUR_FACE:
        return _read(name)[COLOUR_FACE_CROP]
    file, index = name.rstrip(']').split('[')
    return np.dstack([_read(file)[int(index)]] * 3)


def _resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    shrinks = width * height < image.shape[0] * image.shape[1]
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return np.clip(resized, 0, 1)


def _backdrop(
    names: Sequence[str],
    width: int,
    height: int,
    rng: np.random.Generator,
    brightness: tuple[float, float] = (0.5, 1.1),
    tint: tuple[float, float] = (0.85, 1.15),
) -> np.ndarray:
    """A random part of one of the photographs, H×W×3, in slightly other colours."""
    name = names[rng.integers(len(names))]
    photograph = _read(name)[WITHOUT_PEOPLE.get(name, np.s_[:])]
    full_height, full_width = photograph.shape[:2]
    zoom = rng.uniform(0.45, 1) * min(full_height / height, full_width / width)
    crop_height, crop_width = int(height * zoom), int(width * zoom)
    top = rng.integers(full_height - crop_height + 1)
    left = rng.integers(full_width - crop_width + 1)
    crop = _resize(photograph[top : top + crop_height, left : left + crop_width], width, height)
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return np.clip(crop * rng.uniform(*brightness) * rng.uniform(*tint, 3), 0, 1).astype(np.float32)


def _paint(
    scene: np.ndarray,
    colour: np.ndarray,
    centre: tuple[float, float],
    axes: tuple[float, float],
    angle: float = 0.0,
    power: float = 2.0,
) -> None:
    """Blend a colour (3) or a picture (scene's shape) into a soft-edged superellipse of a scene, in place."""
    height, width = scene.shape[:2]
    reach = 1.2 * float(np.hypot(*axes))
    top, bottom = np.clip([int(centre[1] - reach), int(centre[1] + reach) + 2], 0, height)
    left, right = np.clip([int(centre[0] - reach), int(centre[0] + reach) + 2], 0, width)
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
    x, y = x - centre[0], y - centre[1]
    cos, sin = np.cos(angle), np.sin(angle)
    distance = np.abs((x * cos + y * sin) / axes[0]) ** power + np.abs((y * cos - x * sin) / axes[1]) ** power
    softness = max(0.12, 0.8 / min(axes))  # an edge of about a pixel at least
    alpha = np.clip((1 - distance ** (1 / power)) / softness + 0.5, 0, 1)[..., None]
    window = np.s_[top:bottom, left:right]
    source = colour[window] if colour.ndim == 3 else colour
    scene[window] += alpha * (source - scene[window])


def _warp(
    crop: np.ndarray, centre: tuple[float, float], side: float, angle: float, size: tuple[int, int]
) -> np.ndarray:
    """Place a square crop, scaled to ``side`` and turned, in an otherwise meaningless picture of ``size``."""
    pixels = max(round(side), 4)
    crop = _resize(crop, pixels, pixels)
    cos, sin = np.cos(angle), np.sin(angle)
    middle = (pixels - 1) / 2
    turn = np.array([[cos, -sin], [sin, cos]])
    shift = np.asarray(centre) - turn @ (middle, middle)
    matrix = np.column_stack([turn, shift])
    warped = cv2.warpAffine(crop, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return np.clip(warped, 0, 1)


def _skin(crop: np.ndarray, target: float, rng: np.random.Generator) -> np.ndarray:
    """Bring a crop to a mean brightness, and a gray one to the colours of skin."""
    if np.ptp(crop, axis=2).max() < 1e-6:
        tint = np.array([rng.uniform(0.55, 0.8), rng.uniform(0.72, 0.86), 1.0], np.float32)  # BGR
        crop = crop ** (2 - tint)  # shadows are more saturated than highlights
        crop = crop * tint
    contrast = rng.uniform(0.85, 1.15)
    return np.clip((crop - crop.mean()) * contrast + target, 0, 1).astype(np.float32)


def _places(width: int, height: int, count: int, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Centres (x, y) and heights of up to ``count`` heads, apart from each other, the smallest first."""
    unit = min(width / 320, height / 240)
    low, high = np.log(FACE_HEIGHT)
    places: list[tuple[float, float, float]] = []
    for _ in range(40 * count):
        tall = unit * float(np.exp(rng.uniform(low, high)))
        x, y = rng.uniform(0.75 * tall, width - 0.75 * tall), rng.uniform(0.75 * tall, height - 0.75 * tall)
        if all(max(abs(x - u), abs(y - v)) > 0.62 * (tall + t) for u, v, t in places):
            places.append((x, y, tall))
        if len(places) == count:
            break
    return sorted(places, key=lambda place: place[2])


def make_scene(
    split: str, size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
    """Compose one normally lit scene with faces.

    Args:
        split (str): ``train`` or ``test``; says what it is made from, see :func:`sources`.
        size (tuple[int, int]): Width and height in pixels.
        rng (np.random.Generator): Where every random number comes from.

    Returns:
        tuple[np.ndarray, list[tuple[int, int, int, int]]]: The scene (float32, H×W×3, BGR, sRGB encoded, in [0, 1])
        and the faces' boxes (x1, y1, x2, y2) in pixels.
    """
    width, height = size
    mine = sources(split)
    scene = _backdrop(mine.photographs, width, height, rng)
    if rng.random() < 0.5:  # another ground below a horizon
        horizon = round(height * rng.uniform(0.4, 0.75))
        scene[horizon:] = _backdrop(mine.photographs, width, height - horizon, rng)

    faces, decoys = rng.integers(1, 9), rng.integers(1, 4)
    places = _places(width, height, faces + decoys, rng)
    is_face = rng.permutation(np.arange(len(places)) < min(faces, len(places)))
    cloth = _backdrop(mine.photographs, width, height, rng)
    for x, y, tall in places:  # first all bodies, so that none hides a face
        if rng.random() < 0.8:
            colour = (0.35 * cloth + rng.uniform(0, 0.25) + rng.uniform(0, 0.15, 3)).astype(np.float32)
            _paint(scene, colour, (x, y + 3.7 * tall), (rng.uniform(0.8, 1.0) * tall, 3.1 * tall), power=4)

    boxes = []
    for (x, y, tall), face in zip(places, is_face, strict=True):
        side = tall / (2 * FACE_AXES[1])
        angle = rng.uniform(-0.25, 0.25)
        axes = FACE_AXES[0] * side, FACE_AXES[1] * side
        if face or rng.random() < 0.5:
            names = mine.faces if face else mine.others
            crop = _crop(names[rng.integers(len(names))])
        else:
            crop = _backdrop(mine.photographs, 64, 64, rng)
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        around = scene[max(int(y - tall), 0) : int(y + tall), max(int(x - tall), 0) : int(x + tall)]
        crop = _skin(crop, float(np.clip(around.mean() * rng.uniform(0.8, 1.6), 0.3, 0.7)), rng)
        hair = rng.uniform(0.02, 0.25) * np.array([0.6, 0.8, 1.0], np.float32)
        _paint(scene, hair, (x, y - 0.06 * tall), (axes[0] * 1.18, axes[1] * 1.12), angle)
        _paint(scene, _warp(crop, (x, y), side, angle, size), (x, y), axes, angle)
        if face:
            cos, sin = np.cos(angle), np.sin(angle)
            half = np.hypot(axes[0] * cos, axes[1] * sin), np.hypot(axes[0] * sin, axes[1] * cos)
            boxes.append((round(x - half[0]), round(y - half[1]), round(x + half[0]), round(y + half[1])))
    return scene, boxes


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder that takes the place of ``folder`` at the end, if nothing went wrong until then.

    Args:
        folder (Path): The folder to write; an older one is replaced if this tool has made it.

    Yields:
        Path: The empty folder to write into.

    Raises:
        FileExistsError: If something else is there.
    """
    if folder.exists() and not (folder / SOURCE).is_file():
        raise FileExistsError(f'{folder} exists and was not made by this tool; move it away or choose another --out')
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f'.{folder.name}-') as temporary:
        new, old = Path(temporary, 'new'), Path(temporary, 'old')
        new.mkdir()
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)


def _write_png(path: Path, image: np.ndarray) -> None:
    _, png = cv2.imencode('.png', np.round(image * 255).astype(np.uint8))
    path.write_bytes(png)


def _used(title: str, photographs: Callable[[str], Sequence[str]]) -> str:
    return '\n'.join(f'{title} of {split}: {", ".join(photographs(split))}.' for split in SPLITS)


def make_detection(out: Path, counts: dict[str, int], size: tuple[int, int], seed: int) -> str:
    """Write the detection set as ``out/darkface``, whole or not at all.

    Args:
        out (Path): The output folder; made if missing.
        counts (dict[str, int]): Number of images of each split.
        size (tuple[int, int]): Width and height of the images in pixels.
        seed (int): The same seed gives the same files; image N of a split does not depend on the counts.

    Returns:
        str: One line that says what was made.
    """
    faces = 0
    with whole_folder(out / 'darkface') as folder:
        for side, split in enumerate(SPLITS):
            for kind in ('image', 'label'):
                (folder / split / kind).mkdir(parents=True)
            for number in range(1, counts[split] + 1):
                rng = np.random.default_rng([seed, side, number])
                scene, boxes = make_scene(split, size, rng)
                dark, _ = darken(scene, rng)
                _write_png(folder / split / 'image' / f'{number}.png', dark)
                lines = [str(len(boxes)), *(' '.join(map(str, box)) for box in boxes)]
                (folder / split / 'label' / f'{number}.txt').write_text('\n'.join(lines) + '\n')
                faces += len(boxes)
        used = FACES_NOTE.format(photographs=_used('Backgrounds', lambda split: sources(split).photographs))
        (folder / SOURCE).write_text(SOURCE_NOTE.format(seed=seed, model='DARK FACE', sources=used))
    images = ' + '.join(f'{counts[split]} {split}' for split in SPLITS)
    return f'detection: {images} images with {faces} faces in {out / "darkface"}'


def lit_photographs(split: str) -> tuple[str, ...]:
    """Tell what the pairs of a split are made from.

    Args:
        split (str): ``train`` or ``test``.

    Returns:
        tuple[str, ...]: File names of photographs, without those of the night sky; the two splits share none.
    """
    return tuple(name for name in PHOTOGRAPHS[split] if name != 'hubble_deep_field.jpg')


def make_enhance(out: Path, counts: dict[str, int], size: tuple[int, int], seed: int) -> str:
    """Write the enhancement set as ``out/lol``, whole or not at all.

    Args:
        out (Path): The output folder; made if missing.
        counts (dict[str, int]): Number of pairs of each split.
        size (tuple[int, int]): Width and height of the images in pixels.
        seed (int): The same seed gives the same files; pair N of a split does not depend on the counts.

    Returns:
        str: One line that says what was made.
    """
    with whole_folder(out / 'lol') as folder:
        for side, split in enumerate(SPLITS):
            low, high = (folder / LOL_FOLDERS[split] / kind for kind in ('low', 'high'))
            low.mkdir(parents=True)
            high.mkdir()
            for number in range(1, counts[split] + 1):
                rng = np.random.default_rng([seed, side, number])
                bright = _backdrop(lit_photographs(split), *size, rng, brightness=(0.9, 1.1), tint=(0.97, 1.03))
                dark, _ = darken(bright, rng, **LOL_LIGHT)
                _write_png(high / f'{number}.png', bright)
                _write_png(low / f'{number}.png', dark)
        used = f'{_used("Photographs", lit_photographs)}\nNo photograph is used on both sides.'
        (folder / SOURCE).write_text(SOURCE_NOTE.format(seed=seed, model='LOL', sources=used))
    pairs = ' + '.join(f'{counts[split]} {split}' for split in SPLITS)
    return f'enhance: {pairs} pairs in {out / "lol"}'


@functools.cache
def _pieces(names: tuple[str, ...], count: int = 32, side: int = 96) -> list[np.ndarray]:
    """Random parts of photographs, side×side×3, without colours, of mean 0 and standard deviation 1."""
    rng = np.random.default_rng(0)
    pieces = []
    for _ in range(count):
        top, left = rng.integers(side, size=2)
        gray = _backdrop(names, 2 * side, 2 * side, rng)[top : top + side, left : left + side].mean(axis=2)
        pieces.append(np.dstack([(gray - gray.mean()) / max(float(gray.std()), 1e-3)] * 3))
    return pieces


def make_night_street(split: str, size: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Compose one street by night.

    Args:
        split (str): ``train`` or ``test``; says what it is made from, see :data:`SURFACES` and :func:`sources`.
        size (tuple[int, int]): Width and height in pixels.
        rng (np.random.Generator): Where every random number comes from.

    Returns:
        tuple[np.ndarray, np.ndarray]: The dark street (float32, H×W×3, BGR, sRGB encoded, in [0, 1]) and the labels
        (uint8, H×W, Cityscapes' train ids, 255 where there is none).
    """
    faces = sources(split).faces

    def texture(kind: str, rng: np.random.Generator) -> np.ndarray:
        pieces = _pieces(SURFACES[split][kind])
        return np.clip(1 + rng.uniform(0.12, 0.3) * pieces[rng.integers(len(pieces))], 0, 2)

    def face(rng: np.random.Generator) -> np.ndarray:
        return _skin(_crop(faces[rng.integers(len(faces))]), rng.uniform(0.3, 0.7), rng)

    street = make_street(size, rng, texture, face)
    dark, _ = darken(street.image, rng, **STREET_LIGHT)
    halo = cv2.GaussianBlur(street.lights, (0, 0), 0.012 * float(np.hypot(*size)))
    shine = np.clip(0.7 * street.lights + 0.6 * halo, 0, 1)
    return 1 - (1 - dark) * (1 - shine), street.labels


def make_segmentation(out: Path, counts: dict[str, int], size: tuple[int, int], seed: int) -> str:
    """Write the segmentation set as ``out/acdc``, whole or not at all.

    Args:
        out (Path): The output folder; made if missing.
        counts (dict[str, int]): Number of images of each split.
        size (tuple[int, int]): Width and height of the images in pixels.
        seed (int): The same seed gives the same files; image N of a split does not depend on the counts.

    Returns:
        str: One line that says what was made.
    """
    with whole_folder(out / 'acdc') as folder:
        for side, split in enumerate(SPLITS):
            images, labels = (folder / kind / 'night' / ACDC_FOLDERS[split] / 'DEMO' for kind in ('rgb_anon', 'gt'))
            images.mkdir(parents=True)
            labels.mkdir(parents=True)
            for number in range(1, counts[split] + 1):
                rng = np.random.default_rng([seed, side, number])
                dark, ids = make_night_street(split, size, rng)
                _write_png(images / f'DEMO_frame_{number:06}_rgb_anon.png', dark)
                _write_png(labels / f'DEMO_frame_{number:06}_gt_labelTrainIds.png', ids / 255)
        used = FACES_NOTE.format(photographs=_used('Surfaces', surface_photographs))
        (folder / SOURCE).write_text(SOURCE_NOTE.format(seed=seed, model='ACDC', sources=used))
    images = ' + '.join(f'{counts[split]} {split}' for split in SPLITS)
    return f'segmentation: {images} images in {out / "acdc"}'


def surface_photographs(split: str) -> tuple[str, ...]:
    """Tell what the surfaces of a split's streets are cut from.

    Args:
        split (str): ``train`` or ``test``.

    Returns:
        tuple[str, ...]: File names of photographs; the two splits share none.
    """
    return tuple(sorted({name for names in SURFACES[split].values() for name in names}))


TASKS = {'detection': make_detection, 'enhance': make_enhance, 'segmentation': make_segmentation}


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('task', nargs='?', choices=[*TASKS, 'all'], default='all', help='what to make (default: all)')
    parser.add_argument('--out', type=Path, default=Path('data/demo'), help='folder to write into (default: data/demo)')
    parser.add_argument('--train', type=int, default=240, metavar='N', help='training images (default: 240)')
    parser.add_argument('--test', type=int, default=60, metavar='N', help='test images (default: 60)')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=(320, 240),
        metavar=('WIDTH', 'HEIGHT'),
        help='in pixels (default: 320 240)',
    )
    parser.add_argument('--seed', type=int, default=0, help='the same seed gives the same files (default: 0)')
    args = parser.parse_args(argv)
    if min(args.train, args.test) < 1:
        parser.error('--train and --test must be at least 1')
    if min(args.size) < MIN_SIDE or max(args.size) > MAX_SIDE:
        parser.error(f'--size must be from {MIN_SIDE} to {MAX_SIDE} pixels on each side')
    if args.seed < 0:
        parser.error('--seed must be at least 0')
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the command line; see ``--help``.

    Args:
        argv (list[str], optional): The arguments; None takes them from ``sys.argv``.

    Returns:
        int: Exit status, 0 or 1.
    """
    args = _parse(argv)
    counts = {'train': args.train, 'test': args.test}
    for task in TASKS if args.task == 'all' else [args.task]:
        start = time.perf_counter()
        try:
            summary = TASKS[task](args.out, counts, tuple(args.size), args.seed)
        except ModuleNotFoundError as error:
            print(f'{task}: this needs {error.name}; install "scikit-image<0.26".', file=sys.stderr)
            return 1
        except OSError as error:
            reason = f'{error.strerror}: {error.filename}' if error.filename else error
            print(f'{task}: {reason}.', file=sys.stderr)
            return 1
        print(f'{summary} ({time.perf_counter() - start:.0f} s)')
    return 0


if __name__ == '__main__':
    sys.exit(main())
