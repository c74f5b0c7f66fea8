"""Image files as arrays, and back, with what an enhancement has to keep of them."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

# Not everything that Pillow opens: some of its formats start other programs.
_FORMATS = ('BMP', 'JPEG', 'PNG', 'TIFF', 'WEBP')
_GRAY_MODES = ('1', 'L', 'LA', 'La', 'I', 'I;16', 'I;16B', 'I;16L')
_DEEP_FORMATS = ('PNG', 'TIFF')
_SAVE_OPTIONS = {
    'JPEG': {'quality': 95, 'subsampling': 0},
    'WEBP': {'quality': 95},
    'TIFF': {'compression': 'tiff_lzw'},
}

# EXIF orientation -> what shows the stored pixels upright.
_UPRIGHT = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels.swapaxes(0, 1)[::-1],
}


class PictureError(ValueError):
    """A file is no image that can be enhanced; the message is a reason without the file's name."""


@dataclass
class Picture:
    """An image as it is looked at: upright, gray or RGB.

    Attributes:
        pixels (np.ndarray): Shape (H, W), gray, or (H, W, 3), RGB; uint8, uint16, or floats in [0, 1].
        alpha (np.ndarray, optional): Opacity of shape (H, W) and the same dtype.
        path (str, optional): File that it is from.
        frame (int, optional): Its number in a video.
        metadata (dict): ``exif`` without the orientation, and ``icc_profile``, as far as the file has them: bytes.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    path: str | None = None
    frame: int | None = None
    metadata: dict[str, bytes] = field(default_factory=dict)


def read_picture(path: str | os.PathLike[str]) -> Picture:
    """Read an image file.

    Palettes, CMYK (by its profile, where it has one) and other colour spaces become RGB; gray stays gray; 16 bits stay
    16 bits. The pixels are turned as the EXIF orientation says.

    Args:
        path (str | os.PathLike): A BMP, JPEG, PNG, TIFF or WebP file, whatever its suffix.

    Returns:
        Picture: The image.

    Raises:
        OSError: If the file cannot be read.
        PictureError: If it holds no image, more than one, a damaged one, or samples of more than 16 bits.
    """
    content = Path(path).read_bytes()
    if not content:
        raise PictureError('the file is empty')
    try:
        picture = _decode(content)
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError('it is not a BMP, JPEG, PNG, TIFF or WebP image') from None
    except Exception as error:  # whatever a damaged file breaks in the decoders: OSError, SyntaxError, struct.error, …
        raise PictureError(f'it cannot be decoded: {str(error) or type(error).__name__}') from error
    picture.path = str(path)
    return picture


def encode_picture(
    pixels: np.ndarray, suffix: str, alpha: np.ndarray | None = None, metadata: dict[str, bytes] | None = None
) -> bytes:
    """Make the content of an image file.

    Args:
        pixels (np.ndarray): Shape (H, W), gray, or (H, W, 3), RGB; uint8 or uint16. PNG and TIFF keep 16 bits, without
            the metadata; the others get 8 bits.
        suffix (str): Suffix of the file, such as ``.png``.
        alpha (np.ndarray, optional): Opacity of shape (H, W) and the same dtype; JPEG has no place for it.
        metadata (dict, optional): As in :class:`Picture`.

    Returns:
        bytes: The file's content.

    Raises:
        OSError: If the format cannot hold the image, for its size.
    """
    kind = Image.registered_extensions()[suffix.lower()]
    deep = pixels.dtype == np.uint16
    if kind == 'JPEG':
        alpha = None
    if alpha is not None:
        if pixels.ndim == 2 and (deep or kind == 'BMP'):  # neither has gray with alpha
            pixels = np.stack([pixels] * 3, axis=2)
        pixels = np.dstack([pixels, alpha])
    if deep and kind in _DEEP_FORMATS:
        return _encode_deep(pixels, suffix)
    if deep:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    buffer = io.BytesIO()
    options = {**_SAVE_OPTIONS.get(kind, {}), **(metadata or {})}
    try:
        Image.fromarray(pixels).save(buffer, kind, **options)
    except Exception as error:  # each encoder has its own way to say "too large"
        raise OSError(f'{kind} cannot hold it: {error}') from error
    return buffer.getvalue()


def _decode(content: bytes) -> Picture:
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        count = getattr(image, 'n_frames', 1)
        if count > 1 and image.format != 'MPO':  # a photograph with previews of itself
            raise PictureError(f'it holds {count} images, where one is expected')
        bits = _bits(image, content)
        gray = image.mode in _GRAY_MODES or (image.format == 'PNG' and content[25] == 4)  # gray with alpha of 16 bits
        metadata, orientation = _metadata(image)
        image.load()  # also where OpenCV decodes: unlike that, it notices what is missing
        if bits > 8 or image.mode in ('I', 'F'):
            pixels = _decode_deep(content)
            if gray and pixels.ndim == 3:
                pixels = pixels[..., [0, 3]] if pixels.shape[2] == 4 else pixels[..., 0]
        else:
            pixels = np.asarray(_to_plain(image, gray))
    pixels = np.ascontiguousarray(_UPRIGHT.get(orientation, np.asarray)(pixels))
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        alpha = pixels[..., -1]
        return Picture(pixels[..., 0] if gray else pixels[..., :3], alpha, metadata=metadata)
    return Picture(pixels, metadata=metadata)


def _bits(image: Image.Image, content: bytes) -> int:
    """Return the bits of a sample: Pillow says only what it makes of them."""
    if image.format == 'PNG':
        return content[24]
    if image.format == 'TIFF':
        return max(np.atleast_1d(image.tag_v2.get(ExifTags.Base.BitsPerSample, 1)))
    return 8


def _metadata(image: Image.Image) -> tuple[dict[str, bytes], int]:
    """Return what to keep beside the pixels, and the orientation."""
    metadata: dict[str, bytes] = {}
    profile = image.info.get('icc_profile')
    if profile and image.mode != 'CMYK':  # becomes RGB
        metadata['icc_profile'] = profile
    try:
        exif = image.getexif()
        orientation = exif.pop(ExifTags.Base.Orientation, 1)
        if exif and image.format != 'TIFF':  # there it also holds where the pixels are
            metadata['exif'] = exif.tobytes()
    except Exception:  # damaged EXIF data, which do not make it less of a picture
        orientation = 1
    return metadata, orientation


def _to_plain(image: Image.Image, gray: bool) -> Image.Image:
    if image.mode == 'CMYK':
        return _from_cmyk(image)
    return image.convert(('L' if gray else 'RGB') + ('A' if image.has_transparency_data else ''))


def _from_cmyk(image: Image.Image) -> Image.Image:
    profile = image.info.get('icc_profile')
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return ImageCms.profileToProfile(image, source, ImageCms.createProfile('sRGB'), outputMode='RGB')
        except (ImageCms.PyCMSError, OSError):
            pass  # a damaged profile: as without one
    return image.convert('RGB')


def _decode_deep(content: bytes) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        raise PictureError('its samples are neither of 8 nor of 16 bits, or OpenCV cannot decode them')
    if pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    return pixels


def _encode_deep(pixels: np.ndarray, suffix: str) -> bytes:
    if pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    done, content = cv2.imencode(suffix, np.ascontiguousarray(pixels))
    if not done:
        raise OSError('OpenCV cannot encode the image')
    return content.tobytes()
