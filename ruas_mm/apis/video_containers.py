"""Whether a video file is there from its first byte to its last.

FFmpeg plays what it finds: it stops without a word where a file was cut, and in Matroska and AVI it passes over a hole.
The parts that a container is made of say how long they are, so both can be found by going from one to the next.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from ruas_mm.apis.pictures import PictureError

_BOXES = (b'ftyp', b'moov', b'mdat', b'wide', b'free', b'skip', b'pnot')  # what an MP4 or QuickTime file begins with
_EBML = b'\x1a\x45\xdf\xa3'

# Identifiers of Matroska elements. Those that hold others are entered, so that they follow one another in a flat list.
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_LEAVES = {
    *(0x1A45DFA3, 0xEC, 0xBF),  # the head of the file, and what may stand anywhere
    *(0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367),  # in a segment
    *(0xE7, 0xA3, 0xA0, 0xA7, 0xAB, 0xAF, 0x5854),  # in a cluster
}


def find_container(file: BinaryIO) -> str:
    """Tell the container format of a file by its content, and check that no end or part is missing.

    Args:
        file (BinaryIO): The open file; its position changes.

    Returns:
        str: FFmpeg's name of the format: ``mov``, ``matroska`` or ``avi``.

    Raises:
        PictureError: If it is none of these, or its end or a part is missing.
    """
    size = os.fstat(file.fileno()).st_size
    if not size:
        raise PictureError('the file is empty')
    head = _read(file, 0, 12)
    if head[4:8] in _BOXES:
        name, end = 'mov', _end_of_boxes(file, size)
    elif head.startswith(_EBML):
        name, end = 'matroska', _end_of_elements(file, size)
    elif head.startswith(b'RIFF') and head[8:] == b'AVI ':
        name, end = 'avi', _end_of_chunks(file)
    else:
        raise PictureError('it is no video in MP4, QuickTime, Matroska or AVI format')
    if end > size:
        raise PictureError(f'it is cut off: the last {end - size} bytes or more are missing')
    return name


def _read(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


def _damaged(position: int) -> PictureError:
    return PictureError(f'it is damaged: at byte {position} no part of a video begins')


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Return where the last box of an MP4 or QuickTime file ends."""
    position = 0
    while position < size:
        head = _read(file, position, 16)
        length, kind = int.from_bytes(head[:4], 'big'), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16], 'big')
        elif length == 0 and kind.strip(b'\0'):  # it goes on to the end
            length = size - position
        elif length == 0 and _only_zeros(file, position):  # padding
            return size
        if length < 8:
            raise _damaged(position)
        position += length
    return position


def _only_zeros(file: BinaryIO, position: int) -> bool:
    file.seek(position)
    return not any(block.strip(b'\0') for block in iter(lambda: file.read(1 << 20), b''))


def _end_of_chunks(file: BinaryIO) -> int:
    """Return where the last RIFF chunk of an AVI file ends; what follows them is no part of the video."""
    position = end = 0
    while True:
        head = _read(file, position, 12)
        kind, length = head[:4], int.from_bytes(head[4:8], 'little')
        if position >= end:
            if kind != b'RIFF':
                return end
            end = position + 8 + length
        elif not (len(kind) == 4 and kind.isascii() and kind.decode().isprintable()):
            raise _damaged(position)
        if kind == b'RIFF' or (kind == b'LIST' and head[8:] in (b'movi', b'rec ')):  # the chunks in it follow
            position += 12
        else:
            position += 8 + length + length % 2


def _end_of_elements(file: BinaryIO, size: int) -> int:
    """Return where the last element of a Matroska file ends."""
    position, end = 0, size
    while position < end:
        head = _read(file, position, 12)
        identifier, used = _number(head, keep_marker=True)
        length, more = _number(head[used:])
        used += more
        if identifier == _SEGMENT and length is not None:
            end = position + used + length
            if end > size:
                return end
        elif identifier in _LEAVES and length is not None:
            used += length
        elif identifier not in (_SEGMENT, _CLUSTER):
            raise _damaged(position)
        position += used
    return position


def _number(data: bytes, keep_marker: bool = False) -> tuple[int | None, int]:
    """Decode a number of Matroska's and return it with its length in bytes; None if it says "unknown" or is none."""
    if not data or not data[0]:
        return None, 1
    count = 9 - data[0].bit_length()
    value = int.from_bytes(data[:count], 'big')
    if keep_marker:
        return value, count
    value -= 1 << (7 * count)
    return (None if value == (1 << (7 * count)) - 1 else value), count
