"""Read the headers of image files and check whether the files can be decoded."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import cv2
import numpy as np
from mmengine import fileio
from PIL import Image, UnidentifiedImageError

_ORIENTATION = 0x0112  # EXIF tag; the values 5 to 8 mean a rotation by 90 degrees


class ImageHeader(NamedTuple):
    """Contents of the header of an image file.

    Attributes:
        mode (str): Pillow's name of the pixel format.
        height (int): Height in pixels, as stored in the file.
        width (int): Width in pixels, as stored in the file.
        rotated (bool): Whether mmcv rotates the image by 90 degrees when it loads it.
    """

    mode: str
    height: int
    width: int
    rotated: bool


def read_header(path: str, expected: str = 'an image', backend_args: dict | None = None) -> ImageHeader:
    """Read the header of an image file; the pixels are not decoded.

    Args:
        path (str): The image file.
        expected (str): What the file should be, for error messages.
        backend_args (dict, optional): mmengine file backend; None for local files.

    Returns:
        ImageHeader: The header.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file cannot be read as an image.
    """
    with (
        _named_errors(path, expected),
        fileio.get_local_path(path, backend_args=backend_args) as local,
        Image.open(local) as image,
    ):
        # mmcv applies the EXIF orientation. Reading the EXIF data of a PNG would decode the whole image.
        rotated = image.format in ('JPEG', 'MPO') and image.getexif().get(_ORIENTATION, 1) >= 5
        return ImageHeader(image.mode, image.height, image.width, rotated)


def image_size(path: str, backend_args: dict | None = None) -> tuple[int, int]:
    """Return the size that an image will have when mmcv loads it, without decoding it.

    Args:
        path (str): The image file.
        backend_args (dict, optional): mmengine file backend; None for local files.

    Returns:
        tuple[int, int]: Height and width in pixels.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file cannot be read as an image.
    """
    _, height, width, rotated = read_header(path, backend_args=backend_args)
    return (width, height) if rotated else (height, width)


def check_image(path: str, expected: str = 'an image', backend_args: dict | None = None) -> None:
    """Decode an image completely, to find out why it cannot be loaded.

    Args:
        path (str): The image file.
        expected (str): What the file should be, for error messages.
        backend_args (dict, optional): mmengine file backend; None for local files.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file cannot be decoded; the message gives the reason.
    """
    with _named_errors(path, expected):
        content = fileio.get(path, backend_args=backend_args)
        with Image.open(io.BytesIO(content)) as image:
            image.load()
        if cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) is None:
            raise ValueError('OpenCV cannot decode it')


@contextmanager
def _named_errors(path: str, expected: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f'{path}: no such file; expected {expected}.') from None
    except UnidentifiedImageError:  # its message contains a path that may be temporary, or the buffer
        raise ValueError(f'{path}: expected {expected}, but it cannot be read (it is not an image).') from None
    except Exception as error:  # Pillow on damaged files: OSError, SyntaxError, ValueError, DecompressionBombError
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise ValueError(f'{path}: expected {expected}, but it cannot be read ({reason}).') from None
