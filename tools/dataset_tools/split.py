r"""Draw random, disjoint lists of images from a folder, reproducibly for a given seed.

The paper's split of DARK FACE, 5000 images to train and 1000 to test:

    python tools/dataset_tools/split.py data/darkface --train 5000 --test 1000 --seed 0

writes ``data/darkface/splits/train.txt`` and ``test.txt``, one image id per line. Use them in a data set as
``ann_file='splits/train.txt'``. For other layouts, give a pattern. The paper's split of ExDark, 5200 and 1200:

    python tools/dataset_tools/split.py data/exdark --glob 'ExDark/*/*' --train 5200 --test 1200 --seed 0

The paper's split of the night images of ACDC, 400 and 106 of all images with labels (those in ``test`` have none):

    python tools/dataset_tools/split.py data/acdc --glob 'rgb_anon/night/train/*/*_rgb_anon.png' \
        --glob 'rgb_anon/night/val/*/*_rgb_anon.png' --train 400 --val 106 --seed 0
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
from pathlib import Path

from ruas_mm.utils.fileio import atomic_write
from ruas_mm.utils.images import IMAGE_SUFFIXES, natural_key

PARTS = ('train', 'val', 'test')


def fixed_part(pattern: str) -> Path:
    """Return the folders of a pattern before its first wildcard."""
    folders = Path(pattern).parts[:-1]
    wild = (number for number, part in enumerate(folders) if any(sign in part for sign in '*?['))
    return Path(*folders[: next(wild, len(folders))])


def find_images(folder: Path, patterns: list[str]) -> list[str]:
    """List the ids of the images that match patterns.

    Args:
        folder (Path): Folder to search.
        patterns (list[str]): Globs relative to ``folder``; ``**`` includes sub-folders.

    Returns:
        list[str]: Paths below the fixed part that all patterns have in common, without suffix, in numerical order.

    Raises:
        ValueError: If the folder does not exist, a pattern matches nothing, or two images have the same id.
    """
    if not folder.is_dir():
        raise ValueError(f'{folder}: no such folder.')
    for pattern in patterns:
        if Path(pattern).is_absolute():
            raise ValueError(f'--glob must be a pattern relative to {folder}, got {pattern}.')
    common = folder / os.path.commonpath([fixed_part(pattern) for pattern in patterns])
    found: dict[str, Path] = {}
    for pattern in patterns:
        images = [p for p in folder.glob(pattern) if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith('.')]
        if not images:
            raise ValueError(f'{folder}: no image matches {pattern!r}; --glob says where they are.')
        for path in images:
            image_id = path.relative_to(common).with_suffix('').as_posix()
            if found.setdefault(image_id, path) != path:
                raise ValueError(f'{found[image_id]} and {path} have the same id {image_id!r}; keep one of them.')
    return sorted(found, key=natural_key)


def split(ids: list[str], sizes: dict[str, int], seed: int) -> dict[str, list[str]]:
    """Draw disjoint parts at random.

    The order of the draw is that of a hash of seed and id: the same on every machine and version, and independent of
    the order of ``ids``.

    Args:
        ids (list[str]): What to draw from.
        sizes (dict[str, int]): Name and size of each part.
        seed (int): Another seed, another draw.

    Returns:
        dict[str, list[str]]: The ids of each part, in numerical order.

    Raises:
        ValueError: If there are fewer ids than asked for.
    """
    wanted = sum(sizes.values())
    if wanted > len(ids):
        parts = ' + '.join(f'{size} {name}' for name, size in sizes.items())
        raise ValueError(f'The folder must have at least {wanted} images ({parts}), got {len(ids)}.')
    drawn = iter(sorted(ids, key=lambda image_id: hashlib.sha256(f'{seed}/{image_id}'.encode()).digest()))
    return {name: sorted((next(drawn) for _ in range(size)), key=natural_key) for name, size in sizes.items()}


def size(text: str) -> int:
    """Parse the size of a part, at least one image."""
    if not re.fullmatch('[0-9]+', text) or int(text) == 0:
        raise argparse.ArgumentTypeError(f'the number of images must be at least 1, got {text!r}')
    return int(text)


def main() -> None:
    """Run the tool; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='root of the data set')
    for part in PARTS:
        parser.add_argument(f'--{part}', type=size, metavar='N', help=f'images of {part}.txt; left out: no such list')
    parser.add_argument('--seed', type=int, default=0, help='another seed, another draw (default: %(default)s)')
    parser.add_argument(
        '--glob', action='append', metavar='PATTERN', help='the images (default: image/*); may be given several times'
    )
    parser.add_argument('--out', type=Path, metavar='DIR', help='where the lists go (default: FOLDER/splits)')
    args = parser.parse_args()

    sizes = {part: getattr(args, part) for part in PARTS if getattr(args, part)}
    if not sizes:
        parser.error('expected at least one of --train, --val and --test')
    out = args.out or args.folder / 'splits'
    try:
        ids = find_images(args.folder, args.glob or ['image/*'])
        parts = split(ids, sizes, args.seed)
        for name, chosen in parts.items():
            atomic_write(out / f'{name}.txt', ''.join(f'{image_id}\n' for image_id in chosen))
            print(f'{out / name}.txt: {len(chosen)} images')
    except (OSError, ValueError) as error:
        raise SystemExit(f'split.py: {error}') from None
    print(f'{len(ids) - sum(sizes.values())} of {len(ids)} images left over, seed {args.seed}')


if __name__ == '__main__':
    main()
