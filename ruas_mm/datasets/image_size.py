"""Image files of data sets: what their headers say, and whether they can be decoded."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import cv2
import numpy as np
from mmengine import fileio
from PIL import Image, UnidentifiedImageError

_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 are turned by 90 degrees


class ImageHeader(NamedTuple):
    """What the header of an image file says.

    Attributes:
        mode (str): Pillow's name of the kind of pixels.
        height (int): In pixels, as they are stored.
        width (int): The same.
        turned (bool): Whether mmcv turns the image by 90 degrees when it loads it.
    """

    mode: str
    height: int
    width: int
    turned: bool


def read_header(path: str, expected: str = 'an image', backend_args: dict | None = None) -> ImageHeader:
    """Read the header of an image file; the pixels are not decoded.

    Args:
        path (str): The image file.
        expected (str): What it should be, for messages.
        backend_args (dict, optional): mmengine file backend; None for local files.

    Returns:
        ImageHeader: What it says.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read as an image.
    """
    with (
        _named_errors(path, expected),
        fileio.get_local_path(path, backend_args=backend_args) as local,
        Image.open(local) as image,
    ):
        # mmcv turns pictures upright as they say; asking a PNG would decode all of it.
        turned = image.format in ('JPEG', 'MPO') and image.getexif().get(_ORIENTATION, 1) >= 5
        return ImageHeader(image.mode, image.height, image.width, turned)


def image_size(path: str, backend_args: dict | None = None) -> tuple[int, int]:
    """Tell the size that an image has once mmcv has loaded it, without decoding it.

    Args:
        path (str): The image file.
        backend_args (dict, optional): mmengine file backend; None for local files.

    Returns:
        tuple[int, int]: Height and width in pixels.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read as an image.
    """
    _, height, width, turned = read_header(path, backend_args=backend_args)
    return (width, height) if turned else (height, width)


def check_image(path: str, expected: str = 'an image', backend_args: dict | None = None) -> None:
    """Decode an image as a whole, to find out why it cannot be loaded.

    Args:
        path (str): The image file.
        expected (str): What it should be, for messages.
        backend_args (dict, optional): mmengine file backend; None for local files.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be decoded; the message says why.
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
    except UnidentifiedImageError:  # it names the file, or the buffer
        raise ValueError(f'{path}: expected {expected}, but it cannot be read (it is no image).') from None
    except Exception as error:  # what damage breaks in Pillow: OSError, SyntaxError, ValueError, DecompressionBombError
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise ValueError(f'{path}: expected {expected}, but it cannot be read ({reason}).') from None
