"""Which files there are to enhance, and what is in them."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ruas_mm.apis.pictures import Picture, PictureError, read_picture
from ruas_mm.apis.videos import VIDEO_SUFFIXES, VideoReader
from ruas_mm.utils.fileio import open_regular
from ruas_mm.utils.images import IMAGE_SUFFIXES, natural_key

_MAX_BYTES = 1 << 31  # of an image file: the largest that Pillow takes has 1.4 GB, uncompressed


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
        links (list[Failure]): Links that were not followed, and why: they lead nowhere, or to a folder that is
            searched already.
    """

    files: list[Path]
    others: int
    failures: list[Failure]
    links: list[Failure]


def reason_of(error: BaseException) -> str:
    """Say what an error was about, without the file's name that the system adds to it."""
    strerror = error.strerror if isinstance(error, OSError) else None
    return strerror or str(error).partition('\n')[0] or type(error).__name__


def printable(text: str) -> str:
    """Escape what does not show as a character, such as line breaks, or bytes that are no text in a file's name."""
    return ''.join(map(_show, text))


def _show(character: str) -> str:
    if character.isprintable():
        return character
    if '\udc80' <= character <= '\udcff':  # how Python keeps such a byte
        return f'\\x{ord(character) - 0xDC00:02x}'
    return character.encode('unicode_escape').decode()


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Tell a folder from a file.

    Raises:
        OSError: If there is nothing of this name, or it cannot be looked at; the message is a sentence.
    """
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        raise FileNotFoundError(f'{os.fspath(path) or "A file without a name"} does not exist.') from None
    except OSError as error:
        raise OSError(f'{os.fspath(path)} cannot be read: {reason_of(error)}.') from error


def find_files(folder: Path, leave_out: Path | None = None) -> FoundFiles:
    """Find the images and videos in a folder and its sub-folders, those behind links among them.

    Each folder is searched once, however many links lead to it.

    Args:
        folder (Path): The folder.
        leave_out (Path, optional): A folder in it that is not searched.

    Returns:
        FoundFiles: What is there, in natural order, the files of a folder before those of its sub-folders, and what is
        behind links to folders after all else.
    """
    files, others, failures, links = [], 0, [], []
    left_out = _identity(leave_out) if leave_out else None
    searched, places = set(), deque([folder])

    def fail(error: OSError) -> None:
        failures.append(Failure(os.fspath(error.filename), f'the folder cannot be read: {reason_of(error)}'))

    def is_new(path: Path, identity: tuple[int, int] | None) -> bool:
        if identity in searched:
            links.append(Failure(str(path), 'it leads to a folder that is searched already'))
        return identity not in searched

    while places:
        place = places.popleft()
        if not is_new(place, _identity(place)):
            continue
        for parent, folders, names in os.walk(place, onerror=fail):
            searched.add(_identity(parent))
            inside = []
            for name in sorted(folders, key=natural_key):
                path = Path(parent, name)
                identity = _identity(path)
                if left_out and identity == left_out:
                    continue
                if path.is_symlink():
                    places.append(path)
                elif is_new(path, identity):
                    inside.append(name)
            folders[:] = inside
            for name in sorted(names, key=natural_key):
                path = Path(parent, name)
                hidden = name.startswith('.')
                if path.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES and not hidden:
                    files.append(path)
                elif path.is_symlink() and not os.path.exists(path) and not hidden:
                    links.append(Failure(str(path), 'it leads nowhere'))
                else:
                    others += 1
    return FoundFiles(files, others, failures, links)


def is_video(path: Path) -> bool:
    """Tell a video from an image by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def read_files(paths: Iterable[Path]) -> Iterator[Picture | Failure]:
    """Read images and videos.

    Args:
        paths (Iterable[Path]): The files.

    Yields:
        Picture | Failure: Images and frames, in order; a failure in the place of a file that cannot be read, or behind
        the frames of a video that turns out to be damaged.
    """
    for path in paths:
        try:
            if is_video(path):
                with VideoReader(path) as video:
                    yield from video
            else:
                yield _read_image(path)
        except (OSError, PictureError, MemoryError) as error:
            yield Failure(str(path), reason_of(error))


def _read_image(path: Path) -> Picture:
    with open_regular(path) as file:
        before = os.fstat(file.fileno())
        if before.st_size > _MAX_BYTES:
            raise PictureError(f'the file has {before.st_size} bytes, more than any image that can be enhanced')
        picture = read_picture(path)
        after = os.stat(path)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise PictureError('the file changed while it was read')
        return picture


def _identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return what two names of one folder have in common; None if it cannot be looked at."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
