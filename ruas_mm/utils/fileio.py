"""Write files atomically, and read only regular files, with errors that name the file."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # not a POSIX system: unfinished files cannot be told from files being written, so they are kept
    fcntl = None

# Names of unfinished files. They are short, so that no result has a name that is allowed while this one is too long.
_PREFIX, _SUFFIX = '.ruas_mm-', '.tmp'

_KINDS = {
    stat.S_IFDIR: 'folder',
    stat.S_IFIFO: 'named pipe',
    stat.S_IFSOCK: 'socket',
    stat.S_IFCHR: 'device',
    stat.S_IFBLK: 'device',
}


def atomic_write(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file under a temporary name in the same folder, then rename it.

    Even if the process is killed, there is either the old file or the complete new file. Missing folders are created.

    Args:
        path (str | os.PathLike): Path of the file.
        content (bytes | str): Its content; a string is encoded as UTF-8.

    Raises:
        OSError: If the folder cannot be created or written, or the content cannot be stored; nothing is left behind
        then.
    """
    with atomic_file(path) as (file, _):
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[tuple[BinaryIO, Path]]:
    """Open a file that appears under its name at the end of the ``with`` block, or not at all if the block raises.

    The content is on the disk before the file is renamed, so that delayed write errors are also raised.

    Args:
        path (str | os.PathLike): Path of the file. Missing folders are created.

    Yields:
        tuple[BinaryIO, Path]: The open file, for reading and writing, and its temporary place.

    Raises:
        OSError: If the folder cannot be created or written, or the content cannot be stored.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    file, temporary = _open_temporary(path.parent)
    try:
        with file:
            yield file, temporary
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)  # while it is locked, see remove_leftovers
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove the unfinished files that killed processes have left in a folder, but none that is being written.

    Args:
        folder (str | os.PathLike): The folder; its sub-folders are not searched.
    """
    if fcntl is None:
        return
    with suppress(OSError):
        for path in Path(folder).glob(f'{_PREFIX}*{_SUFFIX}'):
            with suppress(OSError), open_regular(path) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading, or a link to one.

    Reading other files may never end, and opening a device may have side effects.

    Args:
        path (str | os.PathLike): The file.

    Returns:
        BinaryIO: The open file. Its ``name`` is a number, so no library can open it again by its name.

    Raises:
        OSError: If it cannot be opened, or is no regular file.
    """
    _check_regular(os.stat(path))
    descriptor = os.open(path, os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0) | getattr(os, 'O_BINARY', 0))
    try:
        _check_regular(os.fstat(descriptor))  # it may have been replaced
        return os.fdopen(descriptor, 'rb')
    except BaseException:
        os.close(descriptor)
        raise


def open_file(path: str | os.PathLike[str], what: str) -> BinaryIO:
    """Open a regular file as :func:`open_regular` does, with errors that name it.

    Args:
        path (str | os.PathLike): The file.
        what (str): What the file is, as the beginning of a sentence, such as ``The checkpoint``.

    Returns:
        BinaryIO: The open file.

    Raises:
        FileNotFoundError: If the path does not exist or is a folder.
        OSError: If it is no regular file, or cannot be read; the message names it and says why.
    """
    path = os.path.expanduser(path)
    try:
        return open_regular(path)
    except ValueError as error:  # a null character, or one that the file system cannot encode
        raise FileNotFoundError(f'{what} {path!r} does not exist: {error}.') from None
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise FileNotFoundError(f'{what} {path} does not exist.') from None
        if os.path.isdir(path):
            raise FileNotFoundError(f'{what} {path} is a folder, not a file.') from None
        if error.errno is None:
            raise OSError(f'{what} {path} is not a regular file.') from None
        raise type(error)(f'{what} {path} cannot be read: {error.strerror or error}.') from None


def check_file(path: str | os.PathLike[str], what: str) -> None:
    """Check that a file can be read.

    Args:
        path (str | os.PathLike): The file.
        what (str): What the file is, as in :func:`open_file`.

    Raises:
        OSError: As :func:`open_file` raises it.
    """
    open_file(path, what).close()


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f'it is a {_KINDS.get(stat.S_IFMT(status.st_mode), "special file")}, not a regular file')


def _open_temporary(folder: Path) -> tuple[BinaryIO, Path]:
    """Make and lock an unfinished file."""
    while True:
        path = folder / f'{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}'
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, 'O_BINARY', 0), 0o666)
        file = os.fdopen(descriptor, 'w+b')
        if fcntl is None:
            return file, path
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:  # not removed as a leftover before it was locked
            return file, path
        file.close()
