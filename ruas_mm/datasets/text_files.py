"""Read the lines of text files and the numbers in them."""

from __future__ import annotations

import re

from mmengine import fileio

# At most seven digits before the decimal point: float32 represents these exactly, and no image is larger.
_NUMBER = re.compile(r'-?[0-9]{1,7}(\.[0-9]{1,20})?')


def read_lines(path: str, expected: str, backend_args: dict | None = None) -> list[str]:
    """Read a text file.

    Args:
        path (str): The file.
        expected (str): What the file should be, for error messages, such as ``a bbGt label file``.
        backend_args (dict, optional): mmengine file backend; None for local files.

    Returns:
        list[str]: The lines of the file, without empty lines at the end.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it cannot be read, or is not UTF-8 text.
    """
    try:
        text = fileio.get_text(path, encoding='utf-8-sig', backend_args=backend_args)
    except FileNotFoundError:
        raise FileNotFoundError(f'{path}: no such file; expected {expected}.') from None
    except UnicodeDecodeError:
        raise ValueError(f'{path}: expected {expected}, but it is not UTF-8 text.') from None
    except OSError as error:
        raise ValueError(f'{path}: expected {expected}, but it cannot be read ({error.strerror or error}).') from None
    lines = text.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def parse_numbers(texts: list[str]) -> list[float]:
    """Parse decimal numbers such as ``12``, ``-3`` and ``0.5``.

    ``float`` also accepts text that is an error in a label file: ``41e90``, ``nan``, ``1_000`` and non-ASCII digits.

    Args:
        texts (list[str]): The numbers as text.

    Returns:
        list[float]: Their values.

    Raises:
        ValueError: If a text is not a decimal number, or has more than seven digits before the decimal point.
    """
    if not all(map(_NUMBER.fullmatch, texts)):
        raise ValueError(f'The texts must be decimal numbers, got {texts}.')
    return [float(text) for text in texts]
