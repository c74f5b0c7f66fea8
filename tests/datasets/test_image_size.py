import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ruas_mm.datasets.image_size import ImageHeader, check_image, image_size, read_header


def png_of_size(width, height, header=b'\x08\x00\x00\x00\x00'):
    """The beginning of a gray PNG file, without pixel data."""
    chunks = [(b'IHDR', struct.pack('>II', width, height) + header), (b'IDAT', b'')]
    sealed = [(name + content, len(content)) for name, content in chunks]
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', length) + chunk + struct.pack('>I', zlib.crc32(chunk)) for chunk, length in sealed
    )


HEADERS = {
    'empty': (b'', 'not an image'),
    'text': (b'no image', 'not an image'),
    'bomb': (png_of_size(60000, 60000), 'decompression bomb DOS'),
    'short header': (png_of_size(6, 4, b'\x08'), 'IHDR'),
}


@pytest.mark.parametrize('read', [read_header, image_size, check_image])
@pytest.mark.parametrize('kind', HEADERS)
def test_damaged_header(tmp_path, kind, read):
    content, reason = HEADERS[kind]
    path = tmp_path / 'a.png'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf'^{path}: expected an image, but it cannot be read \(.*{reason}.*\)\.$'):
        read(str(path))


@pytest.mark.parametrize('read', [read_header, image_size, check_image])
def test_no_file(tmp_path, read):
    with pytest.raises(FileNotFoundError, match=r'none\.png: no such file; expected an image\.$'):
        read(str(tmp_path / 'none.png'))
    with pytest.raises(ValueError, match='cannot be read'):
        read(str(tmp_path))


def test_header(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('L', (6, 4)).save(tmp_path / 'a.jpg', exif=exif)
    assert read_header(str(tmp_path / 'a.jpg')) == ImageHeader('L', 4, 6, True)
    assert image_size(str(tmp_path / 'a.jpg')) == (6, 4)


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.bmp', '.tif', '.webp'])
def test_half_an_image(tmp_path, suffix):
    path = tmp_path / f'a{suffix}'
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    check_image(str(path))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r'expected a picture, but it cannot be read \('):
        check_image(str(path), 'a picture')


def test_what_opencv_alone_refuses(tmp_path):
    """Pillow opens more formats than OpenCV, with which mmcv loads images."""
    Image.new('RGB', (6, 4)).save(tmp_path / 'a.png', 'PCX')
    read_header(str(tmp_path / 'a.png'))
    with pytest.raises(ValueError, match=r'a\.png: expected an image, but .*OpenCV'):
        check_image(str(tmp_path / 'a.png'))
