"""Files appear whole or not at all, and what cannot be read is named."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_file(path: str | os.PathLike[str], what: str) -> BinaryIO:
    """Open a regular file for reading; never wait for a pipe or a device.

    Args:
        path (str | os.PathLike): The file.
        what (str): What the file is, as the beginning of a sentence, such as ``The checkpoint``.

    Returns:
        BinaryIO: The open file.

    Raises:
        FileNotFoundError: If nothing is there, or a folder.
        OSError: If it is no regular file, or cannot be read; the message names it and says why.
    """
    path = os.path.expanduser(path)

    def open_without_waiting(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, 'O_NONBLOCK', 0))

    try:
        if stat.S_ISREG(os.stat(path).st_mode):  # before it is opened, which has an effect on some devices
            return open(path, 'rb', opener=open_without_waiting)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f'{what} {path} does not exist.') from None
    except ValueError as error:  # a null character, or one that the file system cannot encode
        raise FileNotFoundError(f'{what} {path!r} does not exist: {error}.') from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise FileNotFoundError(f'{what} {path} does not exist.') from None
        raise type(error)(f'{what} {path} cannot be read: {error.strerror or error}.') from None
    if os.path.isdir(path):
        raise FileNotFoundError(f'{what} {path} is a folder, not a file.')
    raise OSError(f'{what} {path} is not a regular file.')


def check_file(path: str | os.PathLike[str], what: str) -> None:
    """Check that a file can be read.

    Args:
        path (str | os.PathLike): The file.
        what (str): What the file is, as in :func:`open_file`.

    Raises:
        OSError: As :func:`open_file` raises it.
    """
    open_file(path, what).close()


def atomic_write(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file under a temporary name beside its place, then rename it.

    A reader, or whoever kills the process half-way, finds the old file or the new one, never a part. Missing folders
    are made.

    Args:
        path (str | os.PathLike): Where the file goes.
        content (bytes | str): What it holds; a string is encoded as UTF-8.

    Raises:
        OSError: If the folder cannot be made or written; nothing is left behind then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
