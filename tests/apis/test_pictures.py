"""read_picture: files that independent writers made, against what they were made from."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ruas_mm.apis.pictures import PictureError, encode_picture, read_picture

tifffile = pytest.importorskip('tifffile', reason='comes with scikit-image')


def image(height, width, channels, dtype=np.uint8):
    shape = (height, width, channels) if channels else (height, width)
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def png(samples, kind, bits, **chunks):
    """A PNG of any colour type and depth from samples of shape (H, W, C), with more chunks before them."""

    def chunk(name, content):
        return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))

    height, width = samples.shape[:2]
    bytes_of_samples = samples.reshape(height, -1, 1).astype('>u2').view(np.uint8)
    bits_of_rows = np.unpackbits(bytes_of_samples, axis=2)[..., -bits:].reshape(height, -1)
    rows = b''.join(b'\0' + row.tobytes() for row in np.packbits(bits_of_rows, axis=1))
    header = struct.pack('>IIBBBBB', width, height, bits, kind, 0, 0, 0)
    body = [(b'IHDR', header), *((name.encode(), content) for name, content in chunks.items())]
    body += [(b'IDAT', zlib.compress(rows)), (b'IEND', b'')]
    return b'\x89PNG\r\n\x1a\n' + b''.join(chunk(*part) for part in body)


def saved_tiff(path, samples, *, orientation=1, **options):
    """A TIFF as tifffile writes it; samples have shape (H, W) or (H, W, C)."""
    tags = [(274, 'H', 1, orientation, True)]
    if options.get('planarconfig') == 'separate':
        samples = np.moveaxis(samples, -1, 0)
    tifffile.imwrite(path, samples, metadata=None, extratags=tags, **options)
    return path


def turned(pixels, orientation):
    """Pixels as they are shown, by an implementation that is not Pillow's."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}
    return np.flip(pixels, flips.get(orientation, ()))


def check(path, colours, alpha=None):
    picture = read_picture(path)
    assert picture.pixels.dtype == colours.dtype
    np.testing.assert_array_equal(picture.pixels, colours)
    if alpha is None:
        assert picture.alpha is None
    else:
        assert picture.alpha.dtype == alpha.dtype
        np.testing.assert_array_equal(picture.alpha, alpha)


STORAGES = [{}, {'tile': (16, 16)}, {'rowsperstrip': 5, 'compression': 'zlib', 'predictor': True}]
KINDS = [('gray', None), ('white', None)]
KINDS += [(kind, planar) for kind in ('rgb', 'gray+alpha', 'rgb+alpha') for planar in ('contig', 'separate')]


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize(('kind', 'planar'), KINDS)
def test_tiff(tmp_path, kind, dtype, order, planar, storage):
    channels = {'gray': 0, 'white': 0, 'gray+alpha': 2, 'rgb': 3, 'rgb+alpha': 4}[kind]
    samples = image(33, 20, channels, dtype)
    photometric = {'g': 'minisblack', 'w': 'miniswhite', 'r': 'rgb'}[kind[0]]
    options = dict(storage, byteorder=order, photometric=photometric)
    if planar:
        options['planarconfig'] = planar
    if 'alpha' in kind:
        options['extrasamples'] = ['unassalpha']
    for orientation in (1, 6):
        path = saved_tiff(tmp_path / 'a.tif', samples, orientation=orientation, **options)
        if kind == 'gray+alpha' and dtype == np.uint16 and planar == 'contig':
            with pytest.raises(PictureError, match='2 samples of 16 bits'):
                read_picture(path)
            continue
        pixels = turned(samples, orientation)
        if kind == 'white':
            pixels = np.iinfo(dtype).max - pixels
        if 'alpha' in kind:
            check(path, pixels[..., :-1].squeeze(), pixels[..., -1])
        else:
            check(path, pixels)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('channels', [0, 3, 4])
@pytest.mark.parametrize('suffix', ['.tif', '.png'])
def test_orientation_of_16_bits(tmp_path, suffix, channels, orientation):
    samples = image(6, 9, channels, np.uint16)
    if suffix == '.tif':
        extra = {'extrasamples': ['unassalpha']} if channels == 4 else {}
        photometric = 'rgb' if channels else 'minisblack'
        path = saved_tiff(tmp_path / 'a.tif', samples, orientation=orientation, photometric=photometric, **extra)
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / 'a.png'
        path.write_bytes(png(np.atleast_3d(samples), {0: 0, 3: 2, 4: 6}[channels], 16, eXIf=exif.tobytes()[6:]))
    pixels = turned(samples, orientation)
    check(path, pixels[..., :3] if channels else pixels, pixels[..., 3] if channels == 4 else None)


@pytest.mark.parametrize('planar', ['contig', 'separate'])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_premultiplied_alpha_is_divided_out(tmp_path, dtype, planar):
    white = np.iinfo(dtype).max
    colours, alpha = image(16, 16, 3, dtype), np.full((16, 16), white // 3, dtype)
    alpha[0], alpha[1] = 0, white
    stored = np.rint(colours * (alpha[..., None] / white)).astype(dtype)
    path = saved_tiff(
        *(tmp_path / 'a.tif', np.dstack([stored, alpha])),
        **dict(photometric='rgb', extrasamples=['assocalpha'], planarconfig=planar),
    )
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.alpha, alpha)
    assert not picture.pixels[0].any()
    np.testing.assert_array_equal(picture.pixels[1], colours[1])
    assert np.abs(picture.pixels[2:].astype(int) - colours[2:]).max() <= 2  # half a step of the stored values


def test_alpha_that_is_not_named(tmp_path):
    """OpenCV, and so this package, writes RGB with alpha without saying what the fourth sample is."""
    pixels = image(9, 8, 4, np.uint16)
    (tmp_path / 'a.tif').write_bytes(encode_picture(pixels[..., :3], '.tif', pixels[..., 3]))
    with tifffile.TiffFile(tmp_path / 'a.tif') as file:
        assert 'ExtraSamples' not in file.pages[0].tags
    check(tmp_path / 'a.tif', pixels[..., :3], pixels[..., 3])


RGB, CMYK = image(32, 32, 3), image(32, 32, 4)
REFUSED = {
    'an unspecified channel': (CMYK, dict(photometric='rgb', extrasamples=['unspecified']), 'must be alpha'),
    'one of 16 bits': (CMYK.astype('u2'), dict(photometric='rgb', extrasamples=['unspecified']), 'must be alpha'),
    'several channels': (np.dstack([RGB, RGB]), dict(photometric='rgb', extrasamples=[2, 0, 0]), 'must be alpha'),
    'ink': (np.dstack([CMYK, CMYK[..., 0]]), dict(photometric='separated', extrasamples=[0]), 'must be alpha'),
    'signed, 8 bits': (RGB.astype('i1'), dict(photometric='rgb'), 'got signed integers of 8 bits'),
    'signed, 16 bits': (RGB[..., 0].astype('i2'), dict(photometric='minisblack'), 'got signed integers of 16 bits'),
    'floats': (RGB.astype('f4'), dict(photometric='rgb'), 'got floats of 32 bits'),
    'half floats': (RGB.astype('f2'), dict(photometric='rgb'), 'got floats of 16 bits'),
    '32 bits': (RGB.astype('u4'), dict(photometric='rgb'), 'got unsigned integers of 32 bits'),
    'CMYK, 16 bits': (CMYK.astype('u2'), dict(photometric='separated'), 'CMYK, 4 samples of 16 bits'),
    'CMYK planes': (CMYK, dict(photometric='separated', planarconfig='separate'), 'CMYK, .* in separate planes'),
    'Lab, 16 bits': (RGB.astype('u2'), dict(photometric='cielab'), 'CieLAB, 3 samples of 16 bits'),
    'a colour filter': (RGB[..., 0], dict(photometric='cfa'), 'CFA'),
    'two gray channels': (RGB[..., :2], dict(photometric='minisblack', extrasamples=[0]), 'must be alpha'),
    'YCbCr, uncompressed': (RGB, dict(photometric='ycbcr'), 'YCbCr'),
    'pages': (RGB[None].repeat(2, axis=0), dict(photometric='rgb'), 'several images'),
    'big-endian BigTIFF': (RGB, dict(photometric='rgb', bigtiff=True, byteorder='>'), 'BigTIFF'),
}


@pytest.mark.parametrize('kind', REFUSED)
def test_tiff_that_is_refused(tmp_path, kind):
    samples, options, words = REFUSED[kind]
    with pytest.raises(PictureError, match=words) as caught:
        read_picture(saved_tiff(tmp_path / 'a.tif', samples, **options))
    assert '\n' not in str(caught.value)


def test_bits_that_are_no_whole_number_of_bytes(tmp_path):
    content = bytearray(saved_tiff(tmp_path / 'a.tif', RGB[..., 0].astype('u2')).read_bytes())
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        place = file.pages[0].tags['BitsPerSample'].valueoffset
    content[place : place + 2] = struct.pack('<H', 12)
    (tmp_path / 'a.tif').write_bytes(content)
    with pytest.raises(PictureError, match='unsigned integers of 12 bits'):
        read_picture(tmp_path / 'a.tif')


@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('compression', [None, 'zlib'])
def test_other_kinds_of_tiff(tmp_path, compression, order):
    options = dict(compression=compression, byteorder=order)
    palette = image(3, 256, 0).astype('u2') * 257
    path = tmp_path / 'a.tif'
    for orientation in (1, 6):
        saved_tiff(path, RGB[..., 0], photometric='palette', colormap=palette, orientation=orientation, **options)
        check(path, turned(np.moveaxis(palette[:, RGB[..., 0]] // 257, 0, 2).astype('u1'), orientation))
        bits = RGB[..., 0] > 128
        for photometric, white in (('minisblack', bits), ('miniswhite', ~bits)):
            saved_tiff(path, bits, photometric=photometric, orientation=orientation, **options)
            check(path, turned(white * np.uint8(255), orientation))
    saved_tiff(path, CMYK, photometric='separated', **options)
    check(
        path, np.asarray(Image.merge('CMYK', [Image.fromarray(ink) for ink in np.moveaxis(CMYK, 2, 0)]).convert('RGB'))
    )
    if order == '<':
        saved_tiff(path, RGB.astype('u2') * 257, photometric='rgb', bigtiff=True, **options)
        check(path, RGB.astype('u2') * 257)


def test_lab(tmp_path):
    """A mid gray without a and b."""
    samples = np.zeros((16, 16, 3), np.uint8)
    samples[..., 0] = 128
    pixels = read_picture(saved_tiff(tmp_path / 'a.tif', samples, photometric='cielab')).pixels
    assert np.abs(pixels.astype(int) - 119).max() <= 2  # 255 * sRGB's curve of L* = 50.2


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize('planar', ['contig', 'separate'])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_tiff_that_is_cut(tmp_path, dtype, planar, storage):
    path = saved_tiff(tmp_path / 'a.tif', image(24, 20, 3, dtype), photometric='rgb', planarconfig=planar, **storage)
    content, pixels = path.read_bytes(), read_picture(path).pixels
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        try:
            picture = read_picture(path)
        except PictureError:
            continue
        np.testing.assert_array_equal(picture.pixels, pixels)  # what is missing is no part of the picture
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(PictureError, match='cannot be decoded'):
        read_picture(path)


@pytest.mark.parametrize(
    ('bits', 'colour'), [(1, False), (2, False), (4, False), (8, False), (16, False), (8, True), (16, True)]
)
def test_transparent_colour_of_png(tmp_path, bits, colour):
    """A key in chunk tRNS; a colour that differs from it in the last bit alone is opaque."""
    dtype, most = (np.uint16 if bits == 16 else np.uint8), 2**bits - 1
    samples = np.random.default_rng(0).integers(0, most + 1, (8, 16, 3 if colour else 1)).astype(dtype)
    key = samples[3, 3].copy()
    samples[4, 4] = key
    samples[5, 5] = key ^ 1
    content = png(samples, 2 if colour else 0, bits, tRNS=key.astype('>u2').tobytes())
    (tmp_path / 'a.png').write_bytes(content)
    white = np.iinfo(dtype).max
    pixels = samples * (white // most)
    alpha = np.where((samples == key).all(axis=2), 0, white).astype(dtype)
    assert alpha[4, 4] == 0
    assert alpha[5, 5] == white
    check(tmp_path / 'a.png', pixels if colour else pixels[..., 0], alpha)


MODES = {
    'BMP': ['1', 'L', 'P', 'RGB', 'RGBA'],
    'JPEG': ['1', 'L', 'RGB', 'CMYK', 'YCbCr'],
    'PNG': ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16'],
    'WEBP': ['L', 'LA', 'P', 'RGB', 'RGBA'],
    'TIFF': ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'I;16'],
    'TIFF packbits': ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'I;16'],
    'TIFF tiff_lzw': ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'I;16'],
    'TIFF tiff_adobe_deflate': ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'I;16'],
    'TIFF jpeg': ['L', 'LA', 'RGB', 'RGBA', 'CMYK', 'YCbCr'],
    'TIFF group4': ['1'],
}


@pytest.mark.parametrize(('kind', 'mode'), [(kind, mode) for kind in MODES for mode in MODES[kind]])
def test_what_pillow_writes(tmp_path, kind, mode):
    """Its own reader agrees."""
    original = Image.fromarray(image(40, 24, 0, np.uint16)) if mode == 'I;16' else Image.fromarray(RGB).convert(mode)
    kind, _, compression = kind.partition(' ')
    original.save(tmp_path / 'a', kind, **({'compression': compression} if compression else {}))
    with Image.open(tmp_path / 'a') as reread:
        gray = reread.mode in ('1', 'L', 'LA', 'I;16')
        if reread.mode != 'I;16':
            reread = reread.convert(('L' if gray else 'RGB') + ('A' if reread.has_transparency_data else ''))
        expected = np.atleast_3d(np.asarray(reread))
    alpha = expected[..., -1] if expected.shape[2] in (2, 4) else None
    check(tmp_path / 'a', expected[..., 0] if gray else expected[..., :3], alpha)
