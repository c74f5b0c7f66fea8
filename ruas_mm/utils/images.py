"""Suffixes and sort order of image files."""

from __future__ import annotations

import re

IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')


def natural_key(name: str) -> list[str | int]:
    """Sort key that puts ``2`` before ``10``.

    Args:
        name (str): Any name.

    Returns:
        list[str | int]: Its text and its numbers, in turn.
    """
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r'(\d+)', name))]
