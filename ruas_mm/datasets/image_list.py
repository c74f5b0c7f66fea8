"""Lists of images, one a line."""

from __future__ import annotations

from mmengine import fileio


def read_image_list(path: str, backend_args: dict | None = None) -> list[tuple[str, str]]:
    """Read a list as ``tools/dataset_tools/split.py`` writes it; empty lines do not count.

    Args:
        path (str): The list.
        backend_args (dict, optional): mmengine file backend; None for local files.

    Returns:
        list[tuple[str, str]]: Each entry after where it stands (file and line), for messages about it.

    Raises:
        FileNotFoundError: If there is no such list.
        ValueError: If it is no text, or empty.
    """
    try:
        lines = fileio.get_text(path, encoding='utf-8-sig', backend_args=backend_args).splitlines()
    except (FileNotFoundError, IsADirectoryError):
        raise FileNotFoundError(
            f'{path}: no such list of images; tools/dataset_tools/split.py writes one, and ann_file="" takes all '
            'images.'
        ) from None
    except UnicodeDecodeError:
        raise ValueError(f'{path}: expected a text file with one image a line.') from None
    entries = [(f'{path}, line {number}', line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not entries:
        raise ValueError(f'{path}: expected one image a line, found none.')
    return entries
