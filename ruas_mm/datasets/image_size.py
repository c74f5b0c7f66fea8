"""Sizes of image files, from their headers alone."""

from __future__ import annotations

from mmengine import fileio
from PIL import Image

_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 are turned by 90 degrees


def image_size(path: str, backend_args: dict | None = None) -> tuple[int, int]:
    """Tell the size that an image has once mmcv has loaded it, without decoding it.

    Args:
        path (str): The image file.
        backend_args (dict, optional): mmengine file backend; None for local files.

    Returns:
        tuple[int, int]: Height and width in pixels.

    Raises:
        ValueError: If the file cannot be read as an image.
    """
    try:
        with fileio.get_local_path(path, backend_args=backend_args) as local, Image.open(local) as image:
            size = image.size
            # mmcv turns pictures upright as they say; asking a PNG would decode all of it.
            turned = image.format in ('JPEG', 'MPO') and image.getexif().get(_ORIENTATION, 1) >= 5
    except OSError as error:
        raise ValueError(f'{path}: expected an image, but it cannot be read ({error}).') from None
    return size if turned else size[::-1]
