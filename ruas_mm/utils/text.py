"""Format values for error messages, on one line of limited length."""

from __future__ import annotations

from typing import Any

_LONGEST = 120


def shorten(text: str) -> str:
    """Return the first line of a text without control characters, cut where it is too long for a message.

    Args:
        text (str): Any text.

    Returns:
        str: At most 120 characters.
    """
    line = text[: 2 * _LONGEST].strip().partition('\n')[0]
    line = ''.join(character if character.isprintable() else '?' for character in line)
    return line if len(line) <= _LONGEST else f'{line[: _LONGEST - 1]}…'


def show(value: Any) -> str:
    """Describe a value from an untrusted file, whose ``repr`` may be endless.

    Args:
        value (Any): Any value.

    Returns:
        str: The value itself if it is a short one of a plain type; otherwise its type.
    """
    if isinstance(value, (str, bytes)):
        return shorten(repr(value[:_LONGEST]))
    if isinstance(value, int) and value.bit_length() > 64:
        return f'an integer of {value.bit_length()} bits'
    if value is None or type(value) in (bool, int, float):
        return repr(value)
    return f'a {type(value).__name__}'
