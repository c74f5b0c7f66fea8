"""Files appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


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
