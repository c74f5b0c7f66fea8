"""List the files of a folder and read text files with one image per line."""

from __future__ import annotations

from mmengine import fileio

from ruas_mm.datasets.text_files import read_lines
from ruas_mm.utils.images import natural_key


def list_files(folder: str, recursive: bool = True, backend_args: dict | None = None) -> list[str]:
    """List the files below a folder.

    Args:
        folder (str): The folder.
        recursive (bool): Whether to include the files of its sub-folders.
        backend_args (dict, optional): mmengine file backend; None for local files.

    Returns:
        list[str]: Paths of the files relative to the folder, in numerical order.

    Raises:
        FileNotFoundError: If the folder does not exist.
    """
    try:
        names = fileio.list_dir_or_file(folder, list_dir=False, recursive=recursive, backend_args=backend_args)
        return sorted(names, key=natural_key)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f'{folder}: no such folder; check data_root and data_prefix.') from None


def read_image_list(path: str, backend_args: dict | None = None) -> list[tuple[str, str]]:
    """Read a list as written by ``tools/dataset_tools/split.py``; empty lines are skipped.

    Args:
        path (str): The list.
        backend_args (dict, optional): mmengine file backend; None for local files.

    Returns:
        list[tuple[str, str]]: The location (file and line, for error messages) and the text of each entry.

    Raises:
        FileNotFoundError: If the list does not exist.
        ValueError: If it cannot be read, is not text, or is empty.
    """
    expected = 'one image per line, as written by tools/dataset_tools/split.py; ann_file="" uses all images'
    lines = read_lines(path, expected, backend_args)
    entries = [(f'{path}, line {number}', line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not entries:
        raise ValueError(f'{path} is empty; expected one image per line.')
    return entries
