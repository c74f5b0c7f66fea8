"""Which files there are to enhance, and what is in them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ruas_mm.apis.pictures import Picture, PictureError, read_picture
from ruas_mm.apis.videos import VIDEO_SUFFIXES, read_frames
from ruas_mm.utils.images import IMAGE_SUFFIXES, natural_key


class Failure(NamedTuple):
    """A file that could not be enhanced.

    Attributes:
        path (str): The file.
        reason (str): Why, without the file's name.
    """

    path: str
    reason: str


class FoundFiles(NamedTuple):
    """What a folder holds.

    Attributes:
        files (list[Path]): Images and videos, by their suffix.
        others (int): Number of other files, hidden ones among them.
        failures (list[Failure]): Folders that could not be read.
    """

    files: list[Path]
    others: int
    failures: list[Failure]


def reason_of(error: BaseException) -> str:
    """Say what an error was about, without the file's name that the system adds to it."""
    strerror = error.strerror if isinstance(error, OSError) else None
    return strerror or str(error).partition('\n')[0] or type(error).__name__


def find_files(folder: Path, leave_out: Path | None = None) -> FoundFiles:
    """Find the images and videos in a folder and its sub-folders; links to folders are not followed.

    Args:
        folder (Path): The folder.
        leave_out (Path, optional): A folder in it that is not searched.

    Returns:
        FoundFiles: What is there, in natural order, the files of a folder before those of its sub-folders.
    """
    left_out = leave_out.resolve() if leave_out else None
    files, others, failures = [], 0, []

    def fail(error: OSError) -> None:
        failures.append(Failure(error.filename, f'the folder cannot be read: {reason_of(error)}'))

    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = sorted((name for name in folders if Path(parent, name).resolve() != left_out), key=natural_key)
        for name in sorted(names, key=natural_key):
            path = Path(parent, name)
            if path.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES and not name.startswith('.'):
                files.append(path)
            else:
                others += 1
    return FoundFiles(files, others, failures)


def is_video(path: Path) -> bool:
    """Tell a video from an image by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def read_files(paths: Iterable[Path]) -> Iterator[Picture | Failure]:
    """Read images and videos.

    Args:
        paths (Iterable[Path]): The files.

    Yields:
        Picture | Failure: Images and frames, in order; a failure in the place of a file that cannot be read.
    """
    for path in paths:
        try:
            if path.exists() and not path.is_file():
                yield Failure(str(path), 'it is no regular file')  # reading from a pipe might never end
            elif is_video(path):
                yield from read_frames(path)
            else:
                yield read_picture(path)
        except (OSError, PictureError, MemoryError) as error:
            yield Failure(str(path), reason_of(error))
