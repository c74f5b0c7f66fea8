"""Text files of data sets: their lines, and the numbers in them."""

from __future__ import annotations

import re

from mmengine import fileio

# At most seven digits before the point: float32 holds these exactly, and no image is larger.
_NUMBER = re.compile(r'-?[0-9]{1,7}(\.[0-9]{1,20})?')


def read_lines(path: str, expected: str, backend_args: dict | None = None) -> list[str]:
    """Read a text file.

    Args:
        path (str): The file.
        expected (str): What it should hold, for messages: ``a bbGt label file``.
        backend_args (dict, optional): mmengine file backend; None for local files.

    Returns:
        list[str]: Its lines, without empty ones at its end.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or is no text in UTF-8.
    """
    try:
        text = fileio.get_text(path, encoding='utf-8-sig', backend_args=backend_args)
    except FileNotFoundError:
        raise FileNotFoundError(f'{path}: no such file; expected {expected}.') from None
    except UnicodeDecodeError:
        raise ValueError(f'{path}: expected {expected}, but it is no text in UTF-8.') from None
    except OSError as error:
        raise ValueError(f'{path}: expected {expected}, but it cannot be read ({error.strerror or error}).') from None
    lines = text.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def parse_numbers(texts: list[str]) -> list[float]:
    """Parse decimal numbers such as ``12``, ``-3`` and ``0.5``.

    ``float`` takes more than a label file means: ``41e90``, ``nan``, ``1_000`` and digits of any script.

    Args:
        texts (list[str]): The numbers, as they are written.

    Returns:
        list[float]: Their values.

    Raises:
        ValueError: If one of them is no decimal number, or has more than seven digits before the point.
    """
    if not all(map(_NUMBER.fullmatch, texts)):
        raise ValueError(f'expected decimal numbers, found {texts}')
    return [float(text) for text in texts]
