"""List the frames of CamVid for a test at dusk.

Sequence 0001TP was filmed at dusk, all others by day; in SegNet's version of CamVid, it is part of ``train`` only:

    python tools/dataset_tools/camvid_dusk.py data/camvid

writes ``data/camvid/splits/dusk.txt``, the last third of that sequence in time, for testing, and ``train.txt``, all
other frames of ``train``. Use both as ``ann_file`` of ``CamVidDataset`` with its default folders; ``val`` is not
changed. The two lists are adjacent in time, so only the first test frames show the same places as training frames.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ruas_mm.utils.fileio import atomic_write
from ruas_mm.utils.images import IMAGE_SUFFIXES, natural_key

SEQUENCE = '0001TP_'


def find_frames(folder: Path) -> list[str]:
    """List the frames of ``train``.

    Args:
        folder (Path): Root of CamVid.

    Returns:
        list[str]: Their names without suffix, ordered by sequence and time.

    Raises:
        ValueError: If there is no such folder.
    """
    train = folder / 'train'
    if not train.is_dir():
        raise ValueError(f'{train}: no such folder; expected CamVid with its images in train, val and test.')
    names = {p.stem for p in train.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith('.')}
    return sorted(names, key=natural_key)


def divide(frames: list[str]) -> dict[str, list[str]]:
    """Put the end of the sequence aside.

    Args:
        frames (list[str]): The frames of ``train``, in order.

    Returns:
        dict[str, list[str]]: ``dusk``, the last third of the sequence, rounded up, and ``train``, the rest.

    Raises:
        ValueError: If the sequence is too short for that, or missing.
    """
    sequence = [frame for frame in frames if frame.startswith(SEQUENCE)]
    if len(sequence) < 3:
        raise ValueError(
            f'CamVid must have at least 3 frames {SEQUENCE}*, got {len(sequence)} among {len(frames)} images.'
        )
    dusk = sequence[len(sequence) * 2 // 3 :]
    return dict(train=[frame for frame in frames if frame not in dusk], dusk=dusk)


def main() -> None:
    """Run the tool; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='root of CamVid')
    parser.add_argument('--out', type=Path, metavar='DIR', help='where the lists go (default: FOLDER/splits)')
    args = parser.parse_args()

    out = args.out or args.folder / 'splits'
    try:
        parts = divide(find_frames(args.folder))
        for name, frames in parts.items():
            atomic_write(out / f'{name}.txt', ''.join(f'{frame}\n' for frame in frames))
            print(f'{out / name}.txt: {len(frames)} images')
    except (OSError, ValueError) as error:
        raise SystemExit(f'camvid_dusk.py: {error}') from None


if __name__ == '__main__':
    main()
