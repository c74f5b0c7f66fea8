"""What lies in a folder, and lists of images, one a line."""

from __future__ import annotations

from mmengine import fileio

from ruas_mm.datasets.text_files import read_lines
from ruas_mm.utils.images import natural_key


def list_files(folder: str, recursive: bool = True, backend_args: dict | None = None) -> list[str]:
    """List the files below a folder.

    Args:
        folder (str): The folder.
        recursive (bool): Whether those of its sub-folders count.
        backend_args (dict, optional): mmengine file backend; None for local files.

    Returns:
        list[str]: Their names relative to the folder, in numerical order.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    try:
        names = fileio.list_dir_or_file(folder, list_dir=False, recursive=recursive, backend_args=backend_args)
        return sorted(names, key=natural_key)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f'{folder}: no such folder; check data_root and data_prefix.') from None


def read_image_list(path: str, backend_args: dict | None = None) -> list[tuple[str, str]]:
    """Read a list as ``tools/dataset_tools/split.py`` writes it; empty lines do not count.

    Args:
        path (str): The list.
        backend_args (dict, optional): mmengine file backend; None for local files.

    Returns:
        list[tuple[str, str]]: Each entry after where it stands (file and line), for messages about it.

    Raises:
        FileNotFoundError: If there is no such list.
        ValueError: If it cannot be read, is no text, or empty.
    """
    expected = 'one image a line, as tools/dataset_tools/split.py writes; ann_file="" takes all images'
    lines = read_lines(path, expected, backend_args)
    entries = [(f'{path}, line {number}', line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not entries:
        raise ValueError(f'{path}: expected one image a line, found none.')
    return entries
