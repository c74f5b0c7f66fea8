"""RUASInferencer: results, tiles, files of every kind, and mistakes."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mmengine.config import Config
from PIL import Image, ImageCms, ImageOps

sys.path.insert(0, str(Path(__file__).parent))

from enhancer import CONFIG, save_enhancer

from ruas_mm.apis import RUASInferencer
from ruas_mm.apis.enhancer_checkpoint import load_enhancer
from ruas_mm.apis.pictures import PictureError, encode_picture, read_picture
from ruas_mm.apis.tiling import Reach, split
from ruas_mm.modules import cell_slots
from ruas_mm.search import Genotype
from ruas_mm.utils.checkpoint import CheckpointError


def image(height=20, width=30, channels=3, dtype=np.uint8, seed=0):
    shape = (height, width, channels) if channels else (height, width)
    white = {'uint8': 256, 'uint16': 65536}.get(np.dtype(dtype).name)
    random = np.random.default_rng(seed)
    return random.integers(0, white, shape, dtype) if white else random.random(shape).astype(dtype)


def png(pixels, kind, bits):
    """A PNG of any colour type, which neither Pillow nor OpenCV writes."""

    def chunk(name, content):
        return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))

    rows = b''.join(b'\0' + row.astype('>u2' if bits == 16 else 'u1').tobytes() for row in pixels)
    header = struct.pack('>IIBBBBB', pixels.shape[1], pixels.shape[0], bits, kind, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('checkpoint') / 'a.pth'
    save_enhancer(path)
    return path


@pytest.fixture(scope='module')
def enhance(checkpoint):
    return RUASInferencer(checkpoint, device='cpu')


def untiled(model, pixels):
    y = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
    with torch.no_grad():
        return model.enhance(y)


# ------------------------------------------------------------------------------------------------------------- tiles


@pytest.mark.parametrize('size', [(1, 1), (1, 50), (37, 8), (16, 16)])
@pytest.mark.parametrize('side', [1, 7, 16, 100])
@pytest.mark.parametrize('border', [0, 2, 9])
def test_tiles_cover_an_image_once(size, side, border):
    reach, covered = Reach(3, 5), np.zeros(size, int)
    places = np.arange(size[0] * size[1]).reshape(size)
    for tile in split(*size, side, reach, border):
        covered[tile.inner] += 1
        outer = np.ix_(*[np.clip(span, 0, length - 1) for span, length in zip(tile.outer, size, strict=True)])
        assert (places[outer][tile.crop] == places[tile.inner]).all()
        for inner, outer, length in zip(tile.inner, tile.outer, size, strict=True):
            assert outer.start == max(inner.start - reach.before, -border)
            assert outer.stop == min(inner.stop + reach.after, length + border)
    assert (covered == 1).all()


def test_reach_is_that_of_the_operations(tmp_path, enhance):
    """By hand: a cell of the scene sees 2 pixels, its window 1 ahead; noise removal 1 + 3 * 3 + 1.

    Kernels that are padded to run together may see more, with taps of weight 0.
    """
    least = Reach(3 * 2 + 11, 3 * (2 + 1) + 11)
    for seen, needed in zip(enhance.reach, least, strict=True):
        assert needed <= seen <= needed + 8
    assert enhance.reach.after == enhance.reach.before + 3
    save_enhancer(tmp_path / 's.pth', variant='S', scene_module=dict(window=5, stages=2))
    assert RUASInferencer(tmp_path / 's.pth', device='cpu').reach == Reach(2 * (2 + 2), 2 * (2 + 2))
    skips = dict.fromkeys(cell_slots('scene').names, 'skip')
    save_enhancer(tmp_path / 'skip.pth', variant='S', genotype=skips)
    assert RUASInferencer(tmp_path / 'skip.pth', device='cpu').reach == Reach(0, 3)


@pytest.mark.parametrize('size', [(50, 61), (1, 90), (90, 1)])
@pytest.mark.parametrize(('variant', 'border'), [('S', 0), ('full', 0), ('A', 0), ('S', 20), ('full', 30), ('A', 5)])
def test_tiles_give_the_untiled_result(variant, border, size, tmp_path):
    model = save_enhancer(tmp_path / 'x.pth', variant=variant, border=border)
    pixels = 0.3 * image(*size, dtype=np.float32)
    expected = untiled(model, pixels)
    for tile in (17, 32, 1000):
        (result,) = RUASInferencer(tmp_path / 'x.pth', device='cpu', tile=tile)(pixels)
        enhanced = expected.enhanced[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(result['enhanced'], enhanced, rtol=1e-4, atol=2e-6)
        np.testing.assert_allclose(
            result['illumination'], expected.illumination[0].permute(1, 2, 0), rtol=1e-4, atol=2e-6
        )
        if variant == 'A':
            assert result['noise_score'] == pytest.approx(expected.noise_score.item(), rel=1e-4)
        else:
            assert result['noise_score'] is None
    if variant != 'S':
        assert (
            np.abs(expected.feature[0].permute(1, 2, 0).numpy() - enhanced) > 0.01
        ).any()  # the test sees the removal


@pytest.mark.parametrize('size', [(50, 61), (1, 90)])
@pytest.mark.parametrize(('variant', 'border', 'factor'), [('S', 0, 2), ('A', 5, 3), ('full', 20, 4), ('S', 1, 7)])
def test_tiles_at_lower_resolutions(variant, border, factor, size, tmp_path):
    """No tile begins or ends inside a block that is averaged."""
    model = save_enhancer(tmp_path / 'x.pth', variant=variant, border=border, scene_module=dict(resolution=1 / factor))
    pixels = 0.3 * image(*size, dtype=np.float32)
    expected = untiled(model, pixels)
    for tile in (17, 1000):
        (result,) = RUASInferencer(tmp_path / 'x.pth', device='cpu', tile=tile)(pixels)
        for name in ('enhanced', 'illumination'):
            maps = getattr(expected, name)[0].permute(1, 2, 0)
            np.testing.assert_allclose(result[name], maps, rtol=1e-4, atol=2e-6)


def test_a_chosen_resolution(checkpoint, enhance):
    pixels = 0.3 * image(31, 42, dtype=np.float32)
    model = load_enhancer(checkpoint, resolution=0.5)
    assert model.scene_module.resolution == 0.5
    (result,) = RUASInferencer(checkpoint, device='cpu', resolution=0.5)(pixels)
    expected = untiled(model, pixels).enhanced[0].permute(1, 2, 0)
    np.testing.assert_allclose(result['enhanced'], expected, rtol=1e-4, atol=2e-6)
    assert np.abs(result['enhanced'] - enhance(pixels)[0]['enhanced']).max() > 1e-3
    with pytest.raises(ValueError, match='resolution of SceneModule must be'):
        RUASInferencer(checkpoint, resolution=0.7)


@pytest.mark.parametrize(
    'options',
    [
        dict(exposure=0.3),
        dict(exposure='auto', scene_module=dict(resolution=0.5)),
        dict(exposure=0.4, strength=0.5),
        dict(brightness_gate=0.01),
    ],
)
@pytest.mark.parametrize('variant', ['S', 'full', 'A'])
def test_tiles_have_the_exposure_of_the_image(variant, options, tmp_path):
    """The checkpoint's options; one level for the whole image."""
    model = save_enhancer(tmp_path / 'x.pth', variant=variant, border=3, **options)
    pixels = 0.1 * image(70, 91, dtype=np.float32) ** 3
    expected = untiled(model, pixels)
    (result,) = RUASInferencer(tmp_path / 'x.pth', device='cpu', tile=30)(pixels)
    for name in ('enhanced', 'illumination'):
        np.testing.assert_allclose(result[name], getattr(expected, name)[0].permute(1, 2, 0), rtol=1e-3, atol=1e-5)


def test_chosen_exposure_strength_and_gate(checkpoint, enhance):
    dark, bright = image() // 8, 200 + image() // 8
    plain = enhance(dark)[0]['enhanced']
    half, none, gated, same = (
        RUASInferencer(checkpoint, device='cpu', **options)
        for options in (dict(strength=0.5), dict(strength=0), dict(brightness_gate=0.5), dict(exposure=0.2))
    )
    assert np.abs(half(dark)[0]['enhanced'] - (plain / 2 + dark / 2)).max() <= 1
    np.testing.assert_array_equal(none(dark)[0]['enhanced'], dark)
    np.testing.assert_array_equal(gated(bright)[0]['enhanced'], bright)
    assert np.abs(gated(dark)[0]['enhanced'].astype(int) - plain).max() <= 1
    np.testing.assert_array_equal(same(bright)[0]['enhanced'], bright)
    for options in (dict(exposure=2), dict(strength=-1), dict(brightness_gate='x')):
        with pytest.raises(ValueError, match=f'{next(iter(options))} of RUAS must be'):
            RUASInferencer(checkpoint, **options)


def test_searchable_and_odd_windows_in_tiles(tmp_path):
    model = save_enhancer(
        tmp_path / 'x.pth', variant='full', genotype=None, scene_module=dict(window=3, source='illumination')
    )
    pixels = 0.3 * image(60, 40, dtype=np.float32)
    (result,) = RUASInferencer(tmp_path / 'x.pth', device='cpu', tile=20)(pixels)
    np.testing.assert_allclose(
        result['enhanced'], untiled(model, pixels).enhanced[0].permute(1, 2, 0), rtol=1e-4, atol=2e-6
    )


def test_noise_is_decided_for_the_whole_image(tmp_path):
    """One half is noisier than epsilon, the other is not: both get what their mean asks for."""
    pixels = np.full((24, 80, 3), 0.3, np.float32)
    pixels[:, 40:] = image(24, 40, dtype=np.float32)
    scores = [score(tmp_path, part) for part in (pixels[:, :40], pixels[:, 40:], pixels)]
    assert min(scores[:2]) < scores[2] < max(scores[:2])
    for epsilon, removed in (((min(scores[:2]) + scores[2]) / 2, True), ((max(scores[:2]) + scores[2]) / 2, False)):
        model = save_enhancer(tmp_path / 'x.pth', epsilon=epsilon)
        expected = untiled(model, pixels)
        assert torch.equal(expected.enhanced, expected.feature) is not removed
        (result,) = RUASInferencer(tmp_path / 'x.pth', device='cpu', tile=16)(pixels)
        np.testing.assert_allclose(result['enhanced'], expected.enhanced[0].permute(1, 2, 0), rtol=1e-4, atol=2e-6)


def score(tmp_path, pixels):
    save_enhancer(tmp_path / 'x.pth')
    return RUASInferencer(tmp_path / 'x.pth', device='cpu')(pixels)[0]['noise_score']


# ------------------------------------------------------------------------------------------------------------ arrays


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, '>u2', np.float16, np.float64])
@pytest.mark.parametrize('channels', [0, 3, 4])
def test_arrays_of_every_kind(checkpoint, enhance, dtype, channels):
    pixels = image(channels=channels, dtype=np.dtype(dtype).newbyteorder('=')).astype(dtype)
    kept = pixels.copy()
    (result,) = enhance(pixels[::-1])
    assert (pixels == kept).all()
    assert result['enhanced'].shape == pixels.shape
    assert result['enhanced'].dtype == {'f': np.float32}.get(pixels.dtype.kind, pixels.dtype.newbyteorder('='))
    assert result['illumination'].shape == (pixels.shape[:2] if channels == 0 else (*pixels.shape[:2], 3))
    assert result['path'] is result['error'] is result['frame'] is None
    if channels == 4:
        np.testing.assert_array_equal(result['enhanced'][..., 3], pixels[::-1, :, 3].astype(result['enhanced'].dtype))
    white = {'u': np.iinfo(pixels.dtype).max if pixels.dtype.kind == 'u' else 1}.get(pixels.dtype.kind, 1)
    rgb = pixels[::-1, :, :3] if channels else np.stack([pixels[::-1]] * 3, axis=2)
    model = load_enhancer(checkpoint)  # as trained, where the inferencer's is folded
    expected = untiled(model, rgb.astype(np.float32) / np.float32(white)).enhanced[0].permute(1, 2, 0).numpy()
    if not channels:
        expected = expected @ np.array([0.299, 0.587, 0.114], np.float32)
    got = result['enhanced'][..., :3] if channels else result['enhanced']
    assert np.abs(got.astype(float) / white - expected).max() <= 0.5 / max(white, 255) + 1e-5


def test_channel_order(checkpoint, enhance):
    pixels = image()
    rgb = enhance(pixels)[0]
    bgr = RUASInferencer(checkpoint, device='cpu', channel_order='bgr')(np.ascontiguousarray(pixels[..., ::-1]))[0]
    np.testing.assert_array_equal(bgr['enhanced'][..., ::-1], rgb['enhanced'])
    np.testing.assert_array_equal(bgr['illumination'][..., ::-1], rgb['illumination'])


def test_batches_of_equal_sizes_change_nothing(checkpoint, enhance):
    images = [image(seed=0), image(seed=1), image(40, 20), image(seed=2), image(channels=0), image(seed=3)]
    together = RUASInferencer(checkpoint, device='cpu', batch_size=2)
    calls = []
    scene = together._scene
    together._scene = lambda y, *more: calls.append(len(y)) or scene(y, *more)
    results = together(images)
    assert max(calls) == 2
    for pixels, result in zip(images, results, strict=True):
        difference = result['enhanced'].astype(int) - enhance(pixels)[0]['enhanced']
        assert np.abs(difference).max() <= 1


BAD_ARRAYS = {
    'NaN': np.full((4, 4, 3), np.nan, np.float32),
    'float beyond 1': np.full((4, 4, 3), 1.5, np.float32),
    'negative': np.full((4, 4, 3), -0.5, np.float32),
    'int64': np.zeros((4, 4, 3), np.int64),
    'bool': np.zeros((4, 4, 3), bool),
    'object': np.full((4, 4, 3), None),
    'empty': np.zeros((0, 4, 3), np.uint8),
    'two channels': np.zeros((4, 4, 2), np.uint8),
    'a batch': np.zeros((1, 4, 4, 3), np.uint8),
    'a row': np.zeros(4, np.uint8),
}


@pytest.mark.parametrize('kind', BAD_ARRAYS)
def test_bad_arrays(enhance, kind):
    with pytest.raises(ValueError, match=r'^RUASInferencer takes .*\.$'):
        enhance(BAD_ARRAYS[kind])


class OwnArray(np.ndarray):
    def __getitem__(self, index):
        raise RuntimeError('an array of another kind')


ARRAYS = {
    'matrix': lambda pixels: np.asmatrix(pixels[..., 0]),
    'matrix of floats': lambda pixels: np.asmatrix(pixels[..., 0] / 255),
    'subclass': lambda pixels: pixels.view(OwnArray),
    'nothing masked': np.ma.masked_array,
    'read-only': lambda pixels: np.broadcast_to(pixels[:1, :1], pixels.shape),
    'negative strides': lambda pixels: pixels[::-1, ::-1, ::-1],
    'Fortran order': np.asfortranarray,
    'turned': lambda pixels: pixels.swapaxes(0, 1),
}


@pytest.mark.parametrize('kind', ARRAYS)
def test_arrays_of_other_classes_and_layouts(enhance, kind):
    array = ARRAYS[kind](image())
    plain = np.array(array, subok=False, order='C')
    result, expected = enhance(array)[0], enhance(plain)[0]
    for key in ('enhanced', 'illumination'):
        assert type(result[key]) is np.ndarray
        np.testing.assert_array_equal(result[key], expected[key])
    np.testing.assert_array_equal(np.array(array, subok=False), plain)  # the input is not written to


def test_masked_pixels_are_refused(enhance):
    pixels = image()
    with pytest.raises(ValueError, match='without masked pixels'):
        enhance(np.ma.masked_array(pixels, mask=pixels > 200))


@pytest.mark.parametrize('thing', [None, 3, torch.zeros(3, 4, 4), [None], [[image()]]])
def test_what_is_no_input(enhance, thing):
    with pytest.raises(ValueError, match='takes numpy arrays'):
        enhance(thing)


SOME = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SOME
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.float32, np.int16, np.bool_, np.complex64]),
        hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=6)
        | st.tuples(*[st.integers(1, 5)] * 2, st.just(3)),
        fill=st.nothing(),
    )
)
def test_any_array_is_enhanced_or_refused(enhance, array):
    try:
        (result,) = enhance(array)
    except ValueError as error:
        assert str(error).count('\n') == 0
    else:
        assert result['enhanced'].shape == array.shape
        assert np.isfinite(result['enhanced']).all()


# ------------------------------------------------------------------------------------------------------------- files


def saved(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.tif', '.webp'])
def test_orientation(tmp_path, suffix, orientation):
    """The result lies as the original is shown, and no tag turns it again."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, 'camera'
    path = saved(tmp_path / f'a{suffix}', image(6, 9), exif=exif)
    picture = read_picture(path)
    with Image.open(path) as original:
        np.testing.assert_array_equal(picture.pixels, np.asarray(ImageOps.exif_transpose(original).convert('RGB')))
    content = encode_picture(picture.pixels, suffix, metadata=picture.metadata)
    with Image.open(io.BytesIO(content)) as written:
        assert written.getexif().get(0x0112, 1) == 1
        assert written.size == picture.pixels.shape[1::-1]
        if suffix != '.tif':
            assert written.getexif()[0x010F] == 'camera'


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.tiff'])
@pytest.mark.parametrize('channels', [0, 3, 4])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_depth_gray_and_alpha_stay(tmp_path, enhance, suffix, channels, dtype):
    pixels = image(channels=channels, dtype=dtype)
    order = [2, 1, 0, 3][:channels] if channels else slice(None)
    path, result = tmp_path / f'a{suffix}', tmp_path / 'out' / f'a{suffix}'
    if dtype == np.uint8:
        saved(path, pixels)
    else:
        cv2.imwrite(str(path), pixels[..., order])
    assert not enhance.save(path, result.parent).failures
    if dtype == np.uint8:
        with Image.open(result) as file:
            result = np.asarray(file)
    else:
        result = cv2.imread(str(result), cv2.IMREAD_UNCHANGED)[..., order]
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, enhance(pixels)[0]['enhanced'])


@pytest.mark.parametrize('bits', [8, 16])
def test_gray_with_alpha(tmp_path, enhance, bits):
    pixels = image(channels=2, dtype=np.uint16 if bits == 16 else np.uint8)
    (tmp_path / 'a.png').write_bytes(png(pixels, 4, bits))
    picture = read_picture(tmp_path / 'a.png')
    np.testing.assert_array_equal(picture.pixels, pixels[..., 0])
    np.testing.assert_array_equal(picture.alpha, pixels[..., 1])
    assert not enhance.save(tmp_path / 'a.png', tmp_path / 'out').failures
    np.testing.assert_array_equal(read_picture(tmp_path / 'out/a.png').alpha, pixels[..., 1])
    assert enhance(tmp_path / 'a.png')[0]['enhanced'].shape == (20, 30, 4)


def test_palette_and_cmyk(tmp_path):
    with Image.fromarray(image()) as rgb:
        palette = rgb.quantize(8)
        palette.save(tmp_path / 'p.png')
        palette.save(tmp_path / 'transparent.png', transparency=3)
        rgb.convert('CMYK').save(tmp_path / 'cmyk.jpg', quality=100)
        rgb.convert('1').save(tmp_path / 'bits.png')
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
        rgb.convert('CMYK').save(tmp_path / 'odd_profile.jpg', icc_profile=profile)  # of another colour space
        rgb.save(tmp_path / 'rgb.png', icc_profile=profile)
    np.testing.assert_array_equal(read_picture(tmp_path / 'p.png').pixels, np.asarray(palette.convert('RGB')))
    transparent = read_picture(tmp_path / 'transparent.png')
    np.testing.assert_array_equal(transparent.alpha == 0, np.asarray(palette) == 3)
    cmyk = read_picture(tmp_path / 'cmyk.jpg')
    with Image.open(tmp_path / 'cmyk.jpg') as original:
        np.testing.assert_array_equal(cmyk.pixels, np.asarray(original.convert('RGB')))
    assert read_picture(tmp_path / 'bits.png').pixels.shape == (20, 30)
    assert 'icc_profile' not in read_picture(tmp_path / 'odd_profile.jpg').metadata
    assert read_picture(tmp_path / 'rgb.png').metadata == {'icc_profile': profile}


def test_formats_without_a_place_for_it(tmp_path, enhance):
    """16 bits and alpha go where a format has none; gray with alpha becomes colour where it must."""
    deep = image(channels=4, dtype=np.uint16)
    cv2.imwrite(str(tmp_path / 'deep.png'), deep)
    for name in ('deep.jpg', 'deep.bmp', 'deep.webp'):
        report = enhance.save(tmp_path / 'deep.png', tmp_path / name)
        assert report.written == [str(tmp_path / name)], report
        assert read_picture(tmp_path / name).pixels.shape == (20, 30, 3)
        assert read_picture(tmp_path / name).pixels.dtype == np.uint8
    assert Image.open(io.BytesIO(encode_picture(deep[..., 0], '.bmp', deep[..., 3]))).mode in ('RGB', 'RGBA')
    np.testing.assert_array_equal(
        read_picture_of(encode_picture(np.arange(65536, dtype=np.uint16).reshape(256, 256), '.bmp'), tmp_path),
        np.rint(np.arange(65536) / 257).reshape(256, 256),
    )


def read_picture_of(content, tmp_path):
    (tmp_path / 'x').write_bytes(content)
    return read_picture(tmp_path / 'x').pixels


def bad_files():
    pixels = image(64, 64)
    frames = [Image.fromarray(image(seed=seed)) for seed in (0, 1)]
    animation, floats = io.BytesIO(), io.BytesIO()
    frames[0].save(animation, 'WEBP', save_all=True, append_images=frames[1:])
    Image.fromarray(image(channels=0, dtype=np.float32)).save(floats, 'TIFF')
    jpeg = encode_picture(pixels, '.jpg')
    deep = encode_picture(image(64, 64, dtype=np.uint16), '.png')
    return {
        'empty.png': (b'', 'empty'),
        'text.png': (b'not a picture', 'is not a'),
        'truncated.jpg': (jpeg[: len(jpeg) // 2], 'truncated'),
        'truncated_16.png': (deep[: len(deep) // 2], ''),
        'half.tif': (encode_picture(pixels, '.tif')[:2000], ''),
        'animation.webp': (animation.getvalue(), '2 images'),
        'floats.tif': (floats.getvalue(), 'bits'),
        'text.mp4': (b'not a video', 'no video'),
    }


def test_a_folder_full_of_junk(tmp_path, enhance):
    """Every fault is told, and nothing else suffers."""
    source, out = tmp_path / 'in', tmp_path / 'in' / 'sub' / 'out'
    (source / 'sub' / 'folder.png').mkdir(parents=True)
    for name, (content, _) in bad_files().items():
        (source / name).write_bytes(content)
    (source / 'gone.png').symlink_to('nowhere.png')
    (source / 'notes.txt').write_text('x')
    (source / '.hidden.png').write_text('x')
    os.mkfifo(source / 'pipe.png')
    good = {'1x1.png': (1, 1), 'sub/1x5000.png': (1, 5000), 'sub/folder.png/UPPER.PNG': (8, 9), 'ü 10.jpg': (9, 8)}
    for name, size in good.items():
        saved(source / name, image(*size))
    for turn in range(2):  # the second time, the results of the first are there
        report = enhance.save(source, out)
        failures = {Path(path).name: reason for path, reason in report.failures}
        assert failures.keys() == bad_files().keys() | {'gone.png', 'pipe.png'}
        for name, (_, word) in bad_files().items():
            assert word in failures[name]
        assert 'No such file' in failures['gone.png']
        assert report.others == 2
        assert {Path(path) for path in report.written} == {out / name for name in good}
        assert {path for path in out.rglob('*') if path.is_file()} == {out / name for name in good}, turn
        for name, size in good.items():
            assert read_picture(out / name).pixels.shape[:2] == size
    errors = {Path(result['path']).name for result in enhance([source]) if result['error']}
    assert errors == failures.keys()


BYTES = [encode_picture(image(9, 9), suffix) for suffix in ('.png', '.jpg', '.bmp', '.tif', '.webp')]
BYTES.append(encode_picture(image(9, 9, dtype=np.uint16), '.png'))
BYTES.append(encode_picture(image(9, 9, dtype=np.uint16), '.tif'))


@settings(SOME, max_examples=150)
@given(st.sampled_from(BYTES), st.data())
def test_damaged_files_are_read_or_refused(tmp_path, content, data):
    content = bytearray(content)
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / 'x.png').write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        picture = read_picture(tmp_path / 'x.png')
    except PictureError as error:
        assert str(error)
    else:
        assert picture.pixels.ndim in (2, 3)
        assert picture.pixels.dtype in (np.uint8, np.uint16)


def test_results_are_never_written_over_something_else(tmp_path, enhance):
    source = tmp_path / 'a'
    (source / 'a').mkdir(parents=True)
    for name in ('x.png', 'a/x.png', 'x.compare.png'):
        saved(source / name, image(4, 4))
    for out in (source, tmp_path / 'b' / '..' / 'a'):
        (tmp_path / 'b').mkdir(exist_ok=True)
        with pytest.raises(ValueError, match='over the images'):
            enhance.save(source, out)
    for out in (source, source / 'x.png'):
        with pytest.raises(ValueError, match='itself'):
            enhance.save(source / 'x.png', out)
    before = (source / 'x.png').read_bytes()
    failures = enhance.save(source, tmp_path).failures  # a/a/x.png would go to a/x.png
    assert [Path(path) for path, _ in failures] == [source / 'a' / 'x.png']
    assert (source / 'x.png').read_bytes() == before
    failures = enhance.save(source, tmp_path / 'out', compare=True).failures
    assert [Path(path).name for path, _ in failures] == ['x.png']  # x.compare.png is another's


def test_a_place_that_cannot_be_written(tmp_path, enhance):
    source = tmp_path / 'in'
    (source / 'sub').mkdir(parents=True)
    for name in ('x.png', 'sub/y.png', 'z.webp'):
        saved(source / name, image(4, 4))
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match='cannot be made'):
        enhance.save(source, tmp_path / 'file')
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'sub').write_text('')
    report = enhance.save(source, tmp_path / 'out')
    assert [Path(path).name for path, _ in report.failures] == ['y.png']
    assert len(report.written) == 2
    assert not list((tmp_path / 'out').glob('*.tmp'))


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_no_permission(tmp_path, enhance):
    saved(tmp_path / 'x.png', image(4, 4))
    (tmp_path / 'out').mkdir(mode=0o500)
    with pytest.raises(PermissionError, match='no permission'):
        enhance.save(tmp_path / 'x.png', tmp_path / 'out')


def test_an_image_too_large_for_its_format(tmp_path, enhance):
    saved(tmp_path / 'long.png', np.zeros((1, 20000, 3), np.uint8))
    (failure,) = enhance.save(tmp_path / 'long.png', tmp_path / 'long.webp').failures
    assert 'WEBP cannot hold it' in failure.reason


def test_too_little_memory_stops_nothing(checkpoint, tmp_path):
    enhance = RUASInferencer(checkpoint, device='cpu')
    scene = enhance._scene

    def small_gpu(y, *more):
        if y.shape[-1] > 10:
            raise torch.cuda.OutOfMemoryError('CUDA out of memory.')
        return scene(y, *more)

    enhance._scene = small_gpu
    saved(tmp_path / 'a.png', image(8, 20))
    saved(tmp_path / 'b.png', image(8, 8))
    report = enhance.save(tmp_path, tmp_path / 'out')
    assert [Path(path).name for path in report.written] == ['b.png']
    assert 'out of memory' in report.failures[0].reason


@pytest.mark.parametrize('source', ['nowhere', 'notes.txt', 'empty'])
def test_sources_without_images(tmp_path, enhance, source):
    (tmp_path / 'notes.txt').write_text('')
    (tmp_path / 'empty').mkdir()
    with pytest.raises((OSError, ValueError), match=source):
        enhance.save(tmp_path / source, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_no_such_path(enhance):
    with pytest.raises(FileNotFoundError, match=r'nowhere\.png does not exist'):
        enhance('nowhere.png')


# ------------------------------------------------------------------------------------------------------------ videos


@pytest.fixture
def video(tmp_path):
    path = tmp_path / 'in' / 'v.avi'
    path.parent.mkdir()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 12, (32, 16))
    if not writer.isOpened():
        pytest.skip('this OpenCV writes no videos')
    for seed in range(3):
        writer.write(np.full((16, 32, 3), 20 + 30 * seed, np.uint8))
    writer.release()
    return path


def test_video(tmp_path, enhance, video):
    report = enhance.save(video.parent, tmp_path / 'out', compare=True, save_illumination=True)
    assert report.written == [str(tmp_path / 'out' / 'v.avi')]
    results = enhance(video)
    assert [result['frame'] for result in results] == [0, 1, 2]
    for name, width in (('v.avi', 32), ('v.compare.avi', 64), ('v.illumination.avi', 32)):
        written = cv2.VideoCapture(str(tmp_path / 'out' / name))
        assert written.get(cv2.CAP_PROP_FPS) == pytest.approx(12)
        frames = []
        while (frame := written.read()[1]) is not None:
            frames.append(frame)
        assert [frame.shape for frame in frames] == [(16, width, 3)] * 3
        if name == 'v.avi':
            for frame, result in zip(frames, results, strict=True):
                assert np.abs(frame[..., ::-1].astype(int) - result['enhanced']).mean() < 12  # Motion JPEG
    assert len(list((tmp_path / 'out').iterdir())) == 3


# ------------------------------------------------------------------------------------------- checkpoints and options


def test_variants_and_stages_of_one_checkpoint(checkpoint, tmp_path):
    pixels = image(dtype=np.float32)
    model = save_enhancer(tmp_path / 'x.pth')
    with torch.no_grad():
        scene = model.scene_module(torch.from_numpy(pixels).permute(2, 0, 1)[None])
        for stages in (1, 2, 3):
            (result,) = RUASInferencer(checkpoint, 'S', 'cpu', stages)(pixels)
            expected = scene.features[stages - 1][0].permute(1, 2, 0)
            np.testing.assert_allclose(result['enhanced'], expected, rtol=1e-4, atol=1e-6)
    for stages in (0, 4, -1):
        with pytest.raises(ValueError, match='stages must be 1 to 3'):
            RUASInferencer(checkpoint, stages=stages)
    save_enhancer(tmp_path / 'full.pth', variant='full')
    assert RUASInferencer(tmp_path / 'full.pth').model.variant == 'full'
    with pytest.raises(ValueError, match="variant 'full', which lacks a part that 'A' needs"):
        RUASInferencer(tmp_path / 'full.pth', 'A')


def test_checkpoint_of_a_training(checkpoint, tmp_path):
    """It holds its whole config as text, which is read and not run."""
    content = torch.load(checkpoint, weights_only=True)
    mark = tmp_path / 'it_ran'
    config = dict(CONFIG, type='ruas_mm.RUAS', scene_loss=dict(type='open', file=str(mark), mode='w'))
    config['genotype'] = Genotype.load(config['genotype']).slots  # its names are no identifiers
    config['hooks'] = [dict(type='x', at=(1, 2))]
    text = Config(dict(optimizer=dict(lr=1), model=config)).pretty_text
    content['meta'] = {'cfg': f'open({str(mark)!r}, "w")\n{text}'}
    content['state_dict']['scene_loss.window'] = torch.zeros(2)
    torch.save(content, tmp_path / 'trained.pth')
    pixels = image()
    (result,) = RUASInferencer(tmp_path / 'trained.pth', device='cpu')(pixels)
    np.testing.assert_array_equal(result['enhanced'], RUASInferencer(checkpoint, device='cpu')(pixels)[0]['enhanced'])
    assert not mark.exists()


def change(content, kind):
    state, meta = content['state_dict'], content['meta']
    weight = 'noise_estimator.0.weight'
    if kind == 'missing':
        del state[weight]
    elif kind == 'more':
        state['scene_module.cells.3.fuse.weight'] = torch.zeros(1)
    elif kind == 'shape':
        state[weight] = state[weight][:1]
    elif kind == 'NaN':
        state[weight][0] = torch.nan
    elif kind == 'no meta':
        del content['meta']
    elif kind == 'no model':
        meta['model'] = None
    elif kind == 'bad config text':
        content['meta'] = {'cfg': 'model = dict(**x)'}
    elif kind == 'another model':
        meta['model']['type'] = 'mmdet.SSD'
    elif kind == 'option':
        meta['model']['scene_module'] = dict(wings=2)
    elif kind == 'part':
        meta['model']['scene_module'] = dict(type='subprocess.Popen', args=['true'])
    elif kind == 'genotype':
        meta['model']['genotype'] = {'scene.last': 'magic'}
    elif kind == 'variant':
        meta['model']['variant'] = 'B'
    elif kind == 'official':
        content = {'enhance_net.iems.0.weight': torch.zeros(1)}
    elif kind == 'list':
        content = [1]
    return content


@pytest.mark.parametrize(
    ('kind', 'words'),
    [
        ('missing', 'lacks noise_estimator.0.weight'),
        ('more', 'scene_module.cells.3.fuse.weight'),
        ('shape', 'another shape'),
        ('NaN', 'NaN'),
        ('no meta', 'meta'),
        ('no model', 'does not say'),
        ('bad config text', 'does not say'),
        ('another model', 'mmdet.SSD'),
        ('option', 'wings'),
        ('part', 'subprocess.Popen'),
        ('genotype', 'magic'),
        ('variant', "'B'"),
        ('official', 'from_official.py'),
        ('list', 'no model'),
    ],
)
def test_checkpoints_that_do_not_fit(checkpoint, tmp_path, kind, words):
    torch.save(change(torch.load(checkpoint, weights_only=True), kind), tmp_path / 'bad.pth')
    with pytest.raises(ValueError, match=r'bad\.pth') as caught:
        RUASInferencer(tmp_path / 'bad.pth')
    assert words in str(caught.value)
    assert '\n' not in str(caught.value)


def test_files_that_are_no_checkpoints(tmp_path):
    (tmp_path / 'text.pth').write_text('text')
    with pytest.raises(CheckpointError, match=r'text\.pth'):
        RUASInferencer(tmp_path / 'text.pth')
    with pytest.raises(FileNotFoundError, match=r'nowhere\.pth'):
        RUASInferencer(tmp_path / 'nowhere.pth')


def test_without_shipped_weights(monkeypatch, tmp_path):
    monkeypatch.setattr('ruas_mm.apis.enhancer_checkpoint._WEIGHTS', tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"variant 'A'.*name a checkpoint.*tools/model_converters/from_official\.py"
    ):
        RUASInferencer()
    save_enhancer(tmp_path / 'ruas_full.pth', variant='full')
    assert RUASInferencer(variant='full').model.variant == 'full'


@pytest.mark.parametrize(
    'options', [{'device': 'toaster'}, {'batch_size': 0}, {'tile': 0}, {'channel_order': 'xyz'}, {'variant': 'B'}]
)
def test_bad_options(checkpoint, options):
    (value,) = options.values()
    with pytest.raises(ValueError, match=str(value)):
        RUASInferencer(checkpoint, **options)


@pytest.mark.cuda
def test_cuda_gives_the_result_of_the_cpu(checkpoint, enhance):
    pixels = image(200, 300)
    (result,) = RUASInferencer(checkpoint, device='cuda', tile=64)(pixels)
    assert np.abs(result['enhanced'].astype(int) - enhance(pixels)[0]['enhanced']).max() <= 2


def test_needs_no_host(checkpoint):
    """ruas_mm.apis needs torch and mmengine alone."""
    script = (
        'import sys\n'
        "sys.modules.update(dict.fromkeys(('mmcv', 'mmdet', 'mmseg', 'mmagic', 'torchvision')))\n"
        'import ruas_mm.apis\n'
        f'ruas_mm.apis.RUASInferencer({str(checkpoint)!r}, device="cpu")\n'
    )
    environment = {**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
