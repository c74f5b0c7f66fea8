"""Image files as arrays, and back, with what an enhancement has to keep of them."""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin, TiffTags, UnidentifiedImageError
from PIL.ExifTags import Base as Tag

# Not everything that Pillow opens: some of its formats start other programs.
_FORMATS = ('BMP', 'JPEG', 'PNG', 'TIFF', 'WEBP')
_GRAY_MODES = ('1', 'L', 'LA')
_DEEP_FORMATS = ('PNG', 'TIFF')
_SAVE_OPTIONS = {
    'JPEG': {'quality': 95, 'subsampling': 0},
    'WEBP': {'quality': 95},
    'TIFF': {'compression': 'tiff_lzw'},
}

# The first bytes of a TIFF: byte order and version, 42 or, with offsets of 64 bits, 43.
_TIFF_PREFIXES = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR = 0, 1, 2, 6
_PREMULTIPLIED_ALPHA, _ALPHA = 1, 2  # kinds of extra samples
_RAW, _OLD_JPEG, _JPEG = 1, 6, 7  # compressions
_TIFF_DEFAULTS = {
    Tag.PhotometricInterpretation: (_WHITE_IS_ZERO,),
    Tag.BitsPerSample: (1,),
    Tag.SampleFormat: (1,),
    Tag.SamplesPerPixel: (1,),
    Tag.ExtraSamples: (),
    Tag.PlanarConfiguration: (1,),
    Tag.Compression: (_RAW,),
    Tag.Orientation: (1,),
}
# What a decoder needs to know beside the kind of the samples.
_TIFF_LAYOUT = (
    *(Tag.ImageWidth, Tag.ImageLength, Tag.Compression, Tag.FillOrder, Tag.Predictor),
    *(Tag.RowsPerStrip, Tag.TileWidth, Tag.TileLength),
)
_TIFF_PLACES = (Tag.StripOffsets, Tag.StripByteCounts, Tag.TileOffsets, Tag.TileByteCounts)
_PHOTOMETRICS = {number: name for name, number in TiffTags.lookup(Tag.PhotometricInterpretation).enum.items()}
_SAMPLE_FORMATS = {1: 'unsigned integers', 2: 'signed integers', 3: 'floats', 5: 'complex', 6: 'complex'}


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
    16 bits; premultiplied alpha is divided out. The pixels are turned as the EXIF orientation says.

    Args:
        path (str | os.PathLike): A BMP, JPEG, PNG, TIFF or WebP file, whatever its suffix.

    Returns:
        Picture: The image.

    Raises:
        OSError: If the file cannot be read.
        PictureError: If it holds no image, more than one, a damaged one, channels that are neither colours nor alpha,
            samples that are not unsigned integers of at most 16 bits, or a rare kind of TIFF; the message names it.
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
    decode = _decode_tiff if content[:4] in _TIFF_PREFIXES else _decode_any
    pixels, orientation, metadata = decode(content)
    pixels = _turn_upright(np.atleast_3d(pixels), orientation)
    channels = pixels.shape[2]
    alpha = pixels[..., -1] if channels in (2, 4) else None
    return Picture(pixels[..., :3] if channels >= 3 else pixels[..., 0], alpha, metadata=metadata)


def _turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn pixels of shape (H, W, C), channel by channel, since Pillow has no colour images of 16 bits."""
    if orientation == 1:
        return pixels
    channels = [Image.fromarray(np.ascontiguousarray(channel)) for channel in np.moveaxis(pixels, 2, 0)]
    for channel in channels:
        channel.getexif()[Tag.Orientation] = orientation
    return np.dstack([np.asarray(ImageOps.exif_transpose(channel)) for channel in channels])


def _decode_any(content: bytes) -> tuple[np.ndarray, int, dict[str, bytes]]:
    """Decode anything but TIFF to pixels of shape (H, W) or (H, W, C), the orientation and what to keep beside them."""
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        count = getattr(image, 'n_frames', 1)
        if count > 1 and image.format != 'MPO':  # a photograph with previews of itself
            raise PictureError(f'it holds {count} images, where one is expected')
        metadata, orientation = _metadata(image)
        image.load()  # also where OpenCV decodes: unlike that, it notices what is missing
        if image.format == 'PNG':
            return _png_pixels(image, content), orientation, metadata
        return np.asarray(_to_plain(image)), orientation, metadata


def _metadata(image: Image.Image) -> tuple[dict[str, bytes], int]:
    """Return what to keep beside the pixels, and the orientation, which a TIFF does not apply then."""
    metadata: dict[str, bytes] = {}
    profile = image.info.get('icc_profile')
    if profile and image.mode not in ('CMYK', 'LAB'):  # which become RGB
        metadata['icc_profile'] = profile
    try:
        exif = image.getexif()
        orientation = exif.pop(Tag.Orientation, 1)
        if exif and image.format != 'TIFF':  # there it also holds where the pixels are
            metadata['exif'] = exif.tobytes()
    except Exception:  # damaged EXIF data, which do not make it less of a picture
        orientation = 1
    return metadata, orientation


def _to_plain(image: Image.Image) -> Image.Image:
    if image.mode == 'CMYK':
        return _from_cmyk(image)
    gray = image.mode in _GRAY_MODES
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


def _png_pixels(image: Image.Image, content: bytes) -> np.ndarray:
    """Return the pixels of a PNG, where Pillow alone would lose bits or the transparent colour of gray images."""
    bits, kind = content[24], content[25]
    gray, has_alpha = kind in (0, 4), kind in (4, 6)
    if bits == 16:
        pixels = np.atleast_3d(_decode_deep(content))
        colours = pixels[..., :1] if gray else pixels[..., :3]
        pixels = np.dstack([colours, pixels[..., -1]]) if has_alpha else colours
    elif kind in (0, 2):
        pixels = np.atleast_3d(np.asarray(image.convert('L' if gray else 'RGB')))
    else:
        return np.asarray(_to_plain(image))
    if not has_alpha and 'transparency' in image.info:
        white = np.iinfo(pixels.dtype).max
        key = np.array(image.info['transparency']) * (white // (2**bits - 1))  # as the samples are scaled
        opaque = (pixels != key).any(axis=2)
        pixels = np.dstack([pixels, opaque.astype(pixels.dtype) * white])
    return pixels


def _decode_tiff(content: bytes) -> tuple[np.ndarray, int, dict[str, bytes]]:
    """Decode a TIFF; see :func:`_decode_any`.

    Pillow and OpenCV get some kinds wrong, each others: separate planes, orientation, white as zero, alpha. So gray and
    RGB images of 8 and 16 bits reach them in the one form that both read right, and the rest is done here.
    """
    tags = _tiff_tags(content)
    photometric, bits = tags[Tag.PhotometricInterpretation][0], tags[Tag.BitsPerSample][0]
    compression = tags[Tag.Compression][0]
    if photometric > _RGB or bits < 8 or compression in (_OLD_JPEG, _JPEG):
        planes = tags[Tag.SamplesPerPixel][0] if tags[Tag.PlanarConfiguration][0] != 1 else 1
        if bits > 8 or planes > 1 or (photometric == _YCBCR and compression == _RAW):
            raise _unsupported(tags)
        with _open_tiff(content, tags) as image:
            metadata, orientation = _metadata(image)
            image.load()
            return np.asarray(_to_plain(image)), orientation, metadata

    colours = 3 if photometric == _RGB else 1
    pixels = _tiff_pixels(content, tags, colours)
    if pixels.shape[2] > colours and tags[Tag.ExtraSamples] == (_PREMULTIPLIED_ALPHA,):
        pixels = _divide_by_alpha(pixels)
    if photometric == _WHITE_IS_ZERO:
        pixels[..., :colours] = np.iinfo(pixels.dtype).max - pixels[..., :colours]
    metadata = {'icc_profile': tags[Tag.InterColorProfile][0]} if Tag.InterColorProfile in tags else {}
    return pixels, tags[Tag.Orientation][0], metadata


def _tiff_tags(content: bytes) -> dict[int, tuple]:
    """Return the tags of the only image in a TIFF, which is refused if its samples are not those of a picture."""
    if content.startswith(b'MM\0+'):
        raise PictureError('a BigTIFF with the most significant byte first is not supported')
    directory = TiffImagePlugin.ImageFileDirectory_v2(content[:16] if content.startswith(b'II+') else content[:8])
    stream = io.BytesIO(content)
    stream.seek(directory.next)
    directory.load(stream)
    if directory.next:
        raise PictureError('it holds several images, where one is expected')
    found = {tag: value if isinstance(value, tuple) else (value,) for tag, value in directory.items()}
    tags = {**_TIFF_DEFAULTS, **found}

    bits, formats = sorted(set(tags[Tag.BitsPerSample])), sorted(set(tags[Tag.SampleFormat]))
    if len(bits) != 1 or bits[0] not in (1, 2, 4, 8, 16) or formats != [1]:
        raise PictureError(
            'its samples must be unsigned integers of 1, 2, 4, 8 or 16 bits, got '
            f'{" and ".join(_SAMPLE_FORMATS.get(number, "values of an unknown kind") for number in formats)} of '
            f'{" and ".join(map(str, bits))} bits'
        )
    extra = tags[Tag.ExtraSamples]
    if extra not in ((), (_PREMULTIPLIED_ALPHA,), (_ALPHA,)):
        raise PictureError(f'its only channel beside the colours must be alpha, got ExtraSamples {extra}')
    return tags


def _unsupported(tags: dict[int, tuple]) -> PictureError:
    photometric = tags[Tag.PhotometricInterpretation][0]
    planes = '' if tags[Tag.PlanarConfiguration][0] == 1 else ' in separate planes'
    return PictureError(
        f'this kind of TIFF is not supported: {_PHOTOMETRICS.get(photometric, photometric)}, '
        f'{tags[Tag.SamplesPerPixel][0]} samples of {tags[Tag.BitsPerSample][0]} bits{planes}, ExtraSamples '
        f'{tags[Tag.ExtraSamples]}, compression {tags[Tag.Compression][0]}'
    )


def _open_tiff(content: bytes, tags: dict[int, tuple]) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=('TIFF',))
    except UnidentifiedImageError:
        raise _unsupported(tags) from None


def _tiff_pixels(content: bytes, tags: dict[int, tuple], colours: int) -> np.ndarray:
    """Return the samples of a gray or RGB image as they are stored, of shape (H, W, samples)."""
    samples, extra = tags[Tag.SamplesPerPixel][0], len(tags[Tag.ExtraSamples])
    # OpenCV writes RGB images with alpha without saying what the fourth sample is.
    if samples != colours + extra and (samples, colours, extra) != (4, 3, 0):
        raise _unsupported(tags)
    if tags[Tag.PlanarConfiguration][0] == 1:
        return _interleaved_pixels(content, tags, samples)
    planes = []
    for plane in range(samples):  # each is a gray image
        places = {}
        for tag in set(_TIFF_PLACES) & set(tags):
            count = len(tags[tag]) // samples
            places[tag] = tags[tag][plane * count : (plane + 1) * count]
        planes.append(_interleaved_pixels(content, {**tags, **places}, 1))
    return np.dstack(planes)


def _interleaved_pixels(content: bytes, tags: dict[int, tuple], samples: int) -> np.ndarray:
    deep = tags[Tag.BitsPerSample][0] == 16
    if deep and samples == 2:  # which neither Pillow nor OpenCV decodes
        raise _unsupported(tags)
    content = _with_plain_tags(content, tags, samples)
    with _open_tiff(content, tags) as image:
        image.load()  # also where OpenCV decodes: unlike that, it notices what is missing
        pixels = np.atleast_3d(_decode_deep(content) if deep and samples > 1 else np.array(image))
    if pixels.shape[2] != samples:
        raise _unsupported(tags)
    return pixels.astype(pixels.dtype.newbyteorder('='), copy=False)


def _with_plain_tags(content: bytes, tags: dict[int, tuple], samples: int) -> bytes:
    """Put new tags before a TIFF: upright, interleaved, zero is black, and alpha is not premultiplied.

    What is missing at its end stays missing, so decoders notice it.
    """
    plain = {tag: tags[tag] for tag in (*_TIFF_LAYOUT, *_TIFF_PLACES) if tag in tags}
    plain[Tag.PhotometricInterpretation] = (_RGB if samples > 2 else _BLACK_IS_ZERO,)
    plain[Tag.SamplesPerPixel] = (samples,)
    plain[Tag.BitsPerSample] = tags[Tag.BitsPerSample][:1] * samples
    if samples in (2, 4):
        plain[Tag.ExtraSamples] = (_ALPHA,)

    order = '<' if content.startswith(b'I') else '>'
    header = struct.pack(f'{order}2sHI', content[:2], 42, 8)
    start = len(header) + 2 + 12 * len(plain) + 4  # of the values that have no room in their entry
    shift = start + sum(4 * len(values) for values in plain.values() if len(values) > 1)
    entries = arrays = b''
    for tag, values in sorted(plain.items()):
        if tag in (Tag.StripOffsets, Tag.TileOffsets):
            values = [offset + shift for offset in values]
        stored = struct.pack(f'{order}{len(values)}I', *values)
        if len(values) > 1:
            arrays, stored = arrays + stored, struct.pack(f'{order}I', start + len(arrays))
        entries += struct.pack(f'{order}HHI', tag, TiffTags.LONG, len(values)) + stored
    return header + struct.pack(f'{order}H', len(plain)) + entries + bytes(4) + arrays + content


def _divide_by_alpha(pixels: np.ndarray) -> np.ndarray:
    """Undo the multiplication of the colours with alpha, the last channel, as far as rounding allows."""
    white = np.iinfo(pixels.dtype).max
    alpha = pixels[..., -1:].astype(np.float64)
    colours = np.rint(pixels[..., :-1] * (white / np.maximum(alpha, 1))).clip(0, white)
    return np.dstack([colours.astype(pixels.dtype), pixels[..., -1]])


def _decode_deep(content: bytes) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        raise PictureError('OpenCV cannot decode its samples of 16 bits')
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
