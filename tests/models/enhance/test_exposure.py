"""How bright results become: the scale, its bounds, and what the model does with it."""

import math

import numpy as np
import pytest
import skimage.data
import torch

from ruas_mm.apis.enhancer_checkpoint import load_enhancer
from ruas_mm.models.enhance import RUAS
from ruas_mm.models.enhance.exposure import Level, brightness, find_level, small_copy


@pytest.fixture(scope='module')
def shipped():
    return load_enhancer(variant='S')


def dark(height=48, width=60, scale=0.1, seed=0):
    """A smooth dark image with some texture."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.linspace(0.2, 1, height), torch.linspace(0.3, 1, width), indexing='ij')
    return scale * (rows * columns)[None, None] * (0.8 + 0.2 * torch.rand(1, 3, height, width, generator=generator))


@torch.no_grad()
def enhance(model, y, **options):
    for option in ('exposure', 'strength', 'brightness_gate'):
        setattr(model, option, options.get(option, 1.0 if option == 'strength' else None))
    return model.enhance(y)


def root(y):
    """An enhancer in closed form: brightens all but black and white."""
    return y.sqrt()


# --- the scale -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('value', 'target', 'gain', 'strength'),
    [
        (0.04, 0.01, 1, 0),  # as bright as asked for already
        (0.04, 0.04, 1, 0),
        (0.04, 0.12, 1, 0.5),  # midway between 0.04 and its root
        (0.04, 0.2, 1, 1),
        (0.04, 0.4, 4, 1),  # sqrt(4 * 0.04)
        (0.0004, 0.08, 16, 1),  # the most there is
        (0.0, 0.5, 16, 1),
        (1.0, 0.5, 1, 0),
    ],
)
def test_closed_form(value, target, gain, strength):
    level = find_level(root, torch.full((1, 3, 5, 7), value, dtype=torch.float64), target)
    assert level.gain.item() == pytest.approx(gain, rel=1e-6)
    assert level.strength.item() == pytest.approx(strength, abs=1e-6)


def test_highlights_bound_the_gain():
    """A tenth of the image at 0.5 becomes white at twice the exposure: the gain stays below that."""
    copy = torch.full((1, 3, 10, 10), 0.01, dtype=torch.float64)
    copy[:, :, 0] = 0.5
    assert math.sqrt(2) <= find_level(root, copy, 0.9).gain.item() < 2
    copy[:, :, 0] = 0.01
    assert find_level(root, copy, 0.9).gain.item() == 16


def test_places_between_the_tried_gains_are_continuous():
    copy = dark().double()
    targets = torch.linspace(0.02, 0.6, 200).tolist()
    levels = [find_level(root, copy, target) for target in targets]
    means = [brightness(level.blend(copy, root(level.expose(copy)))).item() for level in levels]
    assert (np.diff(means) > -1e-9).all()
    assert np.diff(means).max() < 0.01


def test_level_and_illumination_agree():
    y = dark().double()
    t = y + 0.3
    level = Level(torch.tensor([3.0]).double(), torch.tensor([0.4]).double())
    result = level.blend(y, level.expose(y) / t)
    torch.testing.assert_close(y / level.weaken(t), result)


@pytest.mark.parametrize('exposure', ['auto', 0.4])
def test_batch_mates_are_independent(exposure):
    copies = torch.cat([dark(), torch.ones(1, 3, 48, 60), torch.zeros(1, 3, 48, 60), dark(scale=0.5)])
    together = find_level(root, copies, exposure)
    for index, copy in enumerate(copies):
        alone = find_level(root, copy[None], exposure)
        torch.testing.assert_close(together.gain[index : index + 1], alone.gain)
        torch.testing.assert_close(together.strength[index : index + 1], alone.strength)


def test_copies_are_small_and_as_bright():
    for size in ((1, 1), (1, 900), (64, 64), (400, 600)):
        y = torch.rand(1, 3, *size, dtype=torch.float64)
        copy = small_copy(y)
        assert max(copy.shape[-2:]) <= 64
        assert brightness(copy).item() == pytest.approx(brightness(y).item(), abs=0.02)


# --- the model -----------------------------------------------------------------------------------------------------


def test_results_meet_the_target(shipped):
    y = dark(96, 120)
    means = [brightness(enhance(shipped, y, exposure=target).enhanced).item() for target in (0.1, 0.25, 0.35, 0.45)]
    assert (np.diff(means) > 0.05).all()
    np.testing.assert_allclose(means, (0.1, 0.25, 0.35, 0.45), atol=0.02)


def test_darker_copies_of_an_image_become_as_bright(shipped):
    """Twice as dark: about the same brightness, where without exposure much of the difference stays."""
    bright, half = dark(scale=0.2), dark(scale=0.1)
    for exposure, most in ((0.45, 0.03), ('auto', 0.04)):
        means = [brightness(enhance(shipped, y, exposure=exposure).enhanced).item() for y in (bright, half)]
        assert abs(means[0] - means[1]) < most
    plain = [brightness(enhance(shipped, y).enhanced).item() for y in (bright, half)]
    assert plain[0] - plain[1] > 0.1


@pytest.mark.parametrize('exposure', ['auto', 0.45])
@pytest.mark.parametrize('value', [0.0, 1.0])
def test_black_stays_black_and_white_stays_white(shipped, value, exposure):
    result = enhance(shipped, torch.full((1, 3, 20, 30), value), exposure=exposure)
    assert (result.enhanced == value).all()
    assert result.illumination.isfinite().all() and result.illumination.min() > 0


def test_a_lamp_in_the_dark_leaves_it_night(shipped):
    y = dark(64, 64, scale=0.02)
    lamp = y.clone()
    lamp[..., 10:14, 40:44] = 1
    plain, auto = (enhance(shipped, lamp, exposure=exposure).enhanced for exposure in (None, 'auto'))
    assert brightness(auto) <= brightness(plain) + 1e-6
    assert brightness(auto) < 0.2
    assert brightness(enhance(shipped, y, exposure='auto').enhanced) > 0.25, 'without the lamp it is exposed too little'


@pytest.mark.parametrize('name', ['astronaut', 'chelsea', 'coffee', 'stereo_motorcycle'])
def test_photographs_by_day_pass(shipped, name):
    try:
        photograph = getattr(skimage.data, name)()
    except Exception as error:  # scikit-image fetches some of them
        pytest.skip(f'{name} is not here: {error}')
    photograph = photograph[0] if isinstance(photograph, tuple) else photograph
    y = torch.from_numpy(photograph[::3, ::3].copy()).permute(2, 0, 1)[None] / 255
    error = (enhance(shipped, y, exposure='auto').enhanced - y).square().mean().item()
    assert -10 * math.log10(max(error, 1e-12)) >= 35
    assert (enhance(shipped, y).enhanced - y).square().mean() > 0.01, 'without exposure it burns out'


@pytest.mark.parametrize('variant', ['S', 'full', 'A'])
def test_defaults_change_nothing(variant):
    torch.manual_seed(0)
    model = RUAS(variant).eval()
    y = dark()
    assert not model.adjusts
    expected = enhance(model, y)
    scene = model.scene_module(y)
    assert torch.equal(expected.feature, scene.features[-1])
    assert torch.equal(expected.illumination, scene.illuminations[-1])


@pytest.mark.parametrize('variant', ['S', 'full', 'A'])
def test_strength(variant):
    torch.manual_seed(0)
    model, y = RUAS(variant, epsilon=-1.0).eval(), dark()
    full = enhance(model, y)
    assert torch.equal(enhance(model, y, strength=0).enhanced, y)
    for strength in (0.25, 0.5):
        result = enhance(model, y, strength=strength)
        torch.testing.assert_close(result.enhanced, y + strength * (full.enhanced - y))
        torch.testing.assert_close(result.feature, y / result.illumination)


def test_brightness_gate():
    """Image by image: above it nothing changes, below it all is as without."""
    torch.manual_seed(0)
    model, y = RUAS('full').eval(), torch.cat([dark(), dark(scale=0.9)])
    assert brightness(y)[0] < 0.2 < brightness(y)[1]
    expected, result = enhance(model, y), enhance(model, y, brightness_gate=0.2)
    torch.testing.assert_close(result.enhanced[0], expected.enhanced[0])
    assert torch.equal(result.enhanced[1], y[1])
    assert (result.illumination[1] == 1).all()


def test_training_does_not_know_it():
    torch.manual_seed(0)
    model, y = RUAS('S'), dark()
    expected = model.loss(y)
    model.exposure, model.strength, model.brightness_gate = 'auto', 0.5, 0.01
    assert model.loss(y) == expected


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'exposure': 'bright'}, "exposure of RUAS must be None, 'auto' or a number in .0, 1., got 'bright'"),
        ({'exposure': 0}, 'exposure.*got 0'),
        ({'exposure': 1.0}, 'exposure.*got 1.0'),
        ({'exposure': math.nan}, 'exposure.*got nan'),
        ({'strength': 1.5}, r'strength of RUAS must be a number in \[0, 1\], got 1.5'),
        ({'strength': 'all'}, "strength.*got 'all'"),
        ({'brightness_gate': 'day'}, "brightness_gate of RUAS must be None or a number, got 'day'"),
    ],
)
def test_errors(options, words):
    with pytest.raises(ValueError, match=words):
        RUAS('S', **options)
