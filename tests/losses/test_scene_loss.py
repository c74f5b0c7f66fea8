import itertools
import math

import numpy as np
import pytest
import torch

from ruas_mm.losses import NeighbourhoodSmoothLoss, RTVLoss, SceneLoss

SIZES = [(1, 1), (1, 5), (4, 1), (6, 7)]
OFFSETS = [(dy, dx) for dy, dx in itertools.product(range(-2, 3), repeat=2) if (dy, dx) != (0, 0)]


def maps(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rtv_reference(t, sigma=3.0, eps=1e-3):
    """METHOD §6 in loops: the ratio of every pixel, both directions added. The window is cut at 2.5 sigma, sums to 1
    and counts what lies beyond the border as 0; the last difference of a row or column is 0."""
    radius = max(1, int(2.5 * sigma))
    gaussian = [math.exp(-(d**2) / (2 * sigma**2)) for d in range(-radius, radius + 1)]
    total = sum(a * b for a in gaussian for b in gaussian)
    height, width = t.shape[-2:]
    result = np.zeros(t.shape)
    for n, c, i, j in np.ndindex(*t.shape):
        for direction in ((0, 1), (1, 0)):
            windowed_total = windowed_inherent = 0.0
            for a, b in itertools.product(range(-radius, radius + 1), repeat=2):
                y, x = i + a, j + b
                if not (0 <= y < height and 0 <= x < width):
                    continue
                y2, x2 = min(y + direction[0], height - 1), min(x + direction[1], width - 1)
                g = gaussian[a + radius] * gaussian[b + radius] / total
                difference = t[n, c, y2, x2] - t[n, c, y, x]
                windowed_total += g * abs(difference)
                windowed_inherent += g * difference
            result[n, c, i, j] += windowed_total / (abs(windowed_inherent) + eps)
    return result


def neighbourhood_reference(t, y, sharpness=0.005):
    """METHOD §6 in loops over the 24 offsets; YCbCr by ITU-R BT.601 in its studio range, as fractions of 255."""
    height, width = t.shape[-2:]
    r, g, b = y[:, 0], y[:, 1], y[:, 2]
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    colour = np.stack([219 * luma, 224 * (b - luma) / 1.772, 224 * (r - luma) / 1.402], 1) / 255
    loss = 0.0
    for dy, dx in OFFSETS:
        terms = []
        for n, i, j in np.ndindex(len(t), height, width):
            if 0 <= i + dy < height and 0 <= j + dx < width:
                distance = ((colour[n, :, i, j] - colour[n, :, i + dy, j + dx]) ** 2).sum()
                terms.extend(math.exp(-sharpness * distance) * abs(t[n, :, i, j] - t[n, :, i + dy, j + dx]))
        loss += np.mean(terms) if terms else 0.0
    return loss


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize(('sigma', 'eps'), [(0.3, 1e-3), (0.9, 1e-2), (3.0, 1e-3)])
def test_rtv_against_loops(sigma, eps, size):
    t = maps(2, 2, *size)
    expected = rtv_reference(t.numpy(), sigma, eps)
    assert RTVLoss(sigma, eps, 'mean')(t).item() == pytest.approx(expected.mean(), rel=1e-11, abs=1e-14)
    assert RTVLoss(sigma, eps, 'sum')(t).item() == pytest.approx(expected.sum() / 2, rel=1e-11, abs=1e-14)


def test_rtv_defaults():
    t = maps(1, 3, 5, 4)
    assert RTVLoss()(t).item() == pytest.approx(rtv_reference(t.numpy()).mean(), rel=1e-11)


@pytest.mark.parametrize('reduction', ['mean', 'sum'])
def test_rtv_of_a_constant_map(reduction):
    for size in SIZES:
        t = torch.full((2, 3, *size), 0.7, dtype=torch.float64, requires_grad=True)
        loss = RTVLoss(reduction=reduction)(t)
        loss.backward()
        assert loss.item() == 0
        assert t.grad.isfinite().all(), 'a flat map must not break a training'


@pytest.mark.parametrize('axis', [-1, -2])
def test_rtv_of_a_ramp(axis):
    """All differences have one sign, so D = L: each pixel gives L / (L + eps), L = slope * (window's mass inside)."""
    slope, eps, n = 0.02, 1e-3, 9
    loss = RTVLoss(sigma=1.0, eps=eps)
    gaussian = np.exp(-(np.arange(-2, 3) ** 2) / 2)
    gaussian /= gaussian.sum()

    def mass(count):
        """Window's mass over the first ``count`` of n positions, as seen from each of them."""
        return np.array([sum(gaussian[q - p + 2] for q in range(count) if abs(q - p) <= 2) for p in range(n)])

    inherent = slope * np.outer(mass(n), mass(n - 1))  # the last difference along the ramp is 0
    expected = (inherent / (inherent + eps)).mean()
    t = slope * torch.arange(n, dtype=torch.float64).expand(1, 1, n, n)
    t = t if axis == -1 else t.transpose(-1, -2)
    assert loss(t).item() == pytest.approx(expected, rel=1e-11)
    assert loss(t.flip(axis)).item() == pytest.approx(expected, rel=0.1), 'only the border knows the direction'
    assert loss(1e6 * t).item() == pytest.approx(1, abs=1e-4), 'without eps each ratio is one'


def test_rtv_tells_texture_from_structure():
    """The same total variation, once in one step and once in small ripples (Xu et al., Figure 2)."""
    width = 20
    step = torch.zeros(width, dtype=torch.float64)
    step[width // 2 :] = 1
    ripple = torch.arange(width, dtype=torch.float64) % 2 / (width - 1)
    assert step.diff().abs().sum().item() == pytest.approx(ripple.diff().abs().sum().item())
    loss = RTVLoss()
    assert loss(ripple.expand(1, 1, width, width)) > 2 * loss(step.expand(1, 1, width, width))


def test_rtv_is_even_and_forgets_the_level():
    t = maps(1, 2, 6, 5)
    loss = RTVLoss()
    assert loss(1 - t).item() == pytest.approx(loss(t).item(), rel=1e-10)
    assert loss(t.transpose(-1, -2)).item() == pytest.approx(loss(t).item(), rel=1e-10)


def test_rtv_mean_and_sum_differ_by_the_size_of_an_image():
    t = maps(3, 2, 4, 5)
    assert RTVLoss(reduction='sum')(t).item() == pytest.approx(RTVLoss()(t).item() * 2 * 4 * 5, rel=1e-12)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('sharpness', [0.005, 40.0])
def test_neighbourhood_against_loops(sharpness, size):
    t, y = maps(2, 3, *size), maps(2, 3, *size, seed=1)
    expected = neighbourhood_reference(t.numpy(), y.numpy(), sharpness)
    ours = NeighbourhoodSmoothLoss(sharpness=sharpness)(t, y)
    assert ours.shape == ()
    assert ours.item() == pytest.approx(expected, rel=1e-5, abs=1e-14)  # the matrix is published with three decimals


@pytest.mark.parametrize('size', [*SIZES, (2, 3), (9, 8)])
@pytest.mark.parametrize('sharpness', [0.005, 40.0])
def test_neighbourhood_gradient_is_that_of_autograd(sharpness, size):
    """Also where neighbours are equal: no gradient, as of the absolute value at 0; and in another memory layout."""
    loss = NeighbourhoodSmoothLoss(sharpness=sharpness)
    t = (torch.randint(0, 4, (2, 3, *size), generator=torch.Generator().manual_seed(0)) / 4).double()
    y = maps(2, 3, *size, seed=1)
    reference = t.clone().requires_grad_()
    colour = torch.einsum('ij,njhw->nihw', loss.ycbcr, y)
    value = reference.sum() * 0
    for dy, dx in OFFSETS:
        here = (..., *(slice(max(0, -d), n - max(0, d)) for d, n in zip((dy, dx), size, strict=True)))
        there = (..., *(slice(max(0, d), n - max(0, -d)) for d, n in zip((dy, dx), size, strict=True)))
        if all(abs(d) < n for d, n in zip((dy, dx), size, strict=True)):
            distance = (colour[here] - colour[there]).square().sum(1, keepdim=True)
            difference = (reference[here] - reference[there]).abs()
            value = value + ((-sharpness * distance).exp() * difference).mean()
    (expected,) = torch.autograd.grad(3 * value, reference)
    for layout in (torch.contiguous_format, torch.channels_last):
        ours = t.clone(memory_format=layout).requires_grad_()
        (gradient,) = torch.autograd.grad(3 * loss(ours, y), ours)
        torch.testing.assert_close(gradient, expected, rtol=1e-11, atol=1e-13)


def test_neighbourhood_keeps_one_map():
    kept = []
    t = maps(1, 3, 30, 30).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()), lambda x: x):
        NeighbourhoodSmoothLoss()(t, maps(1, 3, 30, 30, seed=1))
    assert sum(kept) <= t.numel()


def test_neighbourhood_defaults_are_those_of_the_release():
    t, y = maps(1, 3, 6, 5), maps(1, 3, 6, 5, seed=1)
    expected = neighbourhood_reference(t.numpy(), y.numpy())
    assert NeighbourhoodSmoothLoss()(t, y).item() == pytest.approx(expected, rel=1e-7)


def test_neighbourhood_of_constant_and_tiny_maps():
    loss = NeighbourhoodSmoothLoss()
    for size in SIZES:
        assert loss(torch.full((1, 3, *size), 0.4), torch.rand(1, 3, *size)).item() == 0
    assert loss(torch.rand(2, 3, 1, 1), torch.rand(2, 3, 1, 1)).item() == 0, 'one pixel has no neighbours'


def test_neighbourhood_of_a_ramp():
    """On an image of one colour w = 1: every offset costs slope * |dx|, 24 of them: 5 * (2 * 1 + 2 * 2) * slope."""
    t = 0.1 * torch.arange(8, dtype=torch.float64).expand(1, 3, 6, 8)
    y = torch.full_like(t, 0.3)
    assert NeighbourhoodSmoothLoss()(t, y).item() == pytest.approx(30 * 0.1, rel=1e-12)


def test_release_weights_are_near_one():
    """On images in [0, 1] the default sharpness hardly sees the colours (METHOD §6)."""
    t = maps(1, 3, 6, 7)
    flat = NeighbourhoodSmoothLoss()(t, torch.zeros_like(t)).item()
    extreme = (maps(1, 3, 6, 7, seed=1) > 0.5).double()
    assert 0.985 * flat < NeighbourhoodSmoothLoss()(t, extreme).item() < flat


@pytest.mark.parametrize('colours', [((1, 0, 0), (0, 1, 0)), ((0, 0, 0), (1, 1, 1)), ((0, 0, 1), (0, 0.2, 0.9))])
def test_sharp_weights_let_the_map_jump_at_colour_edges(colours):
    """A jump of t costs nothing where the image jumps too, and its full price where the image does not."""
    t, y = torch.zeros(1, 3, 6, 8, dtype=torch.float64), torch.zeros(1, 3, 6, 8, dtype=torch.float64)
    t[..., 4:] = 0.5
    for columns, colour in zip((slice(0, 4), slice(4, 8)), colours, strict=True):
        y[..., columns] = torch.tensor(colour, dtype=torch.float64).view(3, 1, 1)
    loss = NeighbourhoodSmoothLoss(sharpness=1e4)
    price = loss(t, torch.zeros_like(y)).item()
    assert price > 0.1
    assert loss(t, y).item() < 1e-9 * price
    assert loss(t, y.roll(2, -1)).item() > 0.1 * price


@pytest.mark.parametrize('loss', [RTVLoss(), RTVLoss(0.9, reduction='sum'), NeighbourhoodSmoothLoss()])
def test_mirrored_images_cost_the_same(loss):
    """Up to RTV's forward difference at the border: none for the neighbourhood, little in the middle of a map."""
    t, y = torch.zeros(1, 3, 30, 30, dtype=torch.float64), torch.zeros(1, 3, 30, 30, dtype=torch.float64)
    t[..., 12:18, 12:18], y[..., 12:18, 12:18] = maps(1, 3, 6, 6), maps(1, 3, 6, 6, seed=1)
    arguments = (t,) if isinstance(loss, RTVLoss) else (t, y)
    for axis in (-1, -2):
        mirrored = loss(*(x.flip(axis) for x in arguments)).item()
        assert mirrored == pytest.approx(loss(*arguments).item(), rel=1e-10)


@pytest.mark.parametrize('smoothness', ['neighbourhood', 'rtv'])
def test_scene_loss_is_the_weighted_sum(smoothness):
    t, y = maps(2, 3, 5, 6), maps(2, 3, 5, 6, seed=1)
    smooth = neighbourhood_reference(t.numpy(), y.numpy()) if smoothness == 'neighbourhood' else None
    smooth = rtv_reference(t.numpy()).mean() if smooth is None else smooth
    fidelity = ((t - y) ** 2).mean().item()
    for weights in ({}, {'fidelity_weight': 2.0, 'smooth_weight': 0.25}, {'smooth_weight': 0.0}):
        terms = SceneLoss(smoothness, **weights)(t, y)
        assert set(terms) == {'loss_scene_fidelity', 'loss_scene_smooth'}
        assert all(term.shape == () for term in terms.values())
        expected = weights.get('fidelity_weight', 0.5) * fidelity
        assert terms['loss_scene_fidelity'].item() == pytest.approx(expected, rel=1e-12)
        expected = weights.get('smooth_weight', 1.0) * smooth
        assert terms['loss_scene_smooth'].item() == pytest.approx(expected, rel=1e-7)


def test_scene_loss_default_is_the_release():
    t, y = maps(1, 3, 4, 5), maps(1, 3, 4, 5, seed=1)
    expected = 0.5 * ((t - y) ** 2).mean().item() + neighbourhood_reference(t.numpy(), y.numpy())
    assert sum(SceneLoss()(t, y).values()).item() == pytest.approx(expected, rel=1e-7)


def test_ambient_light():
    """t is drawn to (y + a) / (1 + a): there the fidelity is 0, and u is the curve (1 + a) y / (y + a)."""
    y, a = maps(1, 3, 4, 5), 0.25
    loss = SceneLoss(ambient=a)
    t = (y + a) / (1 + a)
    assert loss(t, y)['loss_scene_fidelity'].item() == pytest.approx(0, abs=1e-30)
    assert loss(t + 0.1, y)['loss_scene_fidelity'].item() == pytest.approx(0.5 * 0.1**2, rel=1e-12)


@pytest.mark.parametrize('size', [(1, 1), (2, 9), (7, 8)])
def test_local_mean(size):
    """Of what lies inside the image, as in loops."""
    t, y = maps(2, 3, *size), maps(2, 3, *size, seed=1)
    light = np.zeros_like(y)
    for i, j in np.ndindex(*size):
        light[..., i, j] = y.numpy()[..., max(i - 2, 0) : i + 3, max(j - 2, 0) : j + 3].mean(axis=(-2, -1))
    expected = 0.5 * ((t.numpy() - light) ** 2).mean()
    assert SceneLoss(window=5)(t, y)['loss_scene_fidelity'].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('smoothness', ['neighbourhood', 'rtv'])
def test_gradcheck(smoothness):
    loss = SceneLoss(smoothness)
    y = maps(1, 3, 4, 5, seed=1)
    for size in [(1, 1), (4, 5)]:
        t = maps(1, 3, *size).requires_grad_()
        assert torch.autograd.gradcheck(lambda t, y=y[..., : size[0], : size[1]]: sum(loss(t, y).values()), t)
    # the bilevel search differentiates the loss twice where the finite difference is not used
    assert torch.autograd.gradgradcheck(lambda t: sum(loss(t, y).values()), maps(1, 3, 4, 5).requires_grad_())


@pytest.mark.parametrize('smoothness', ['neighbourhood', 'rtv'])
def test_a_step_against_the_gradient_smooths(smoothness):
    y = maps(1, 3, 8, 8, seed=1)
    t = maps(1, 3, 8, 8).requires_grad_()
    loss = SceneLoss(smoothness, fidelity_weight=0.0)
    before = sum(loss(t, y).values())
    (gradient,) = torch.autograd.grad(before, t)
    assert sum(loss(t - 1e-4 * gradient, y).values()) < before


@pytest.mark.parametrize('smoothness', ['neighbourhood', 'rtv'])
def test_autocast(smoothness):
    """In a training with --amp the losses are computed under autocast: they keep the value and gradient of float32.
    The inherent variation is a sum that cancels, so half-precision inputs of the window are not enough."""
    torch.manual_seed(0)
    t = (0.5 + 0.05 * torch.randn(1, 3, 24, 24)).requires_grad_()
    y = torch.rand(1, 3, 24, 24)
    loss = SceneLoss(smoothness)
    expected = sum(loss(t, y).values())
    (expected_gradient,) = torch.autograd.grad(expected, t)
    with torch.autocast('cpu', torch.bfloat16):
        ours = sum(loss(t, y).values())
    (gradient,) = torch.autograd.grad(ours, t)
    torch.testing.assert_close(ours, expected, rtol=0.01, atol=0, check_dtype=False)
    assert (gradient - expected_gradient).norm() < 0.03 * expected_gradient.norm()
    assert ours.dtype == torch.float32


@pytest.mark.parametrize('smoothness', ['neighbourhood', 'rtv'])
def test_nothing_to_store(smoothness):
    """No parameter, and nothing in checkpoints: a loss may be changed between two runs."""
    loss = SceneLoss(smoothness)
    assert not list(loss.parameters())
    assert not loss.state_dict()


def test_errors():
    with pytest.raises(ValueError, match="must be 'neighbourhood' or 'rtv', got 'tv'"):
        SceneLoss('tv')
    with pytest.raises(ValueError, match='ambient of SceneLoss must be at least 0, got -0.1'):
        SceneLoss(ambient=-0.1)
    with pytest.raises(ValueError, match='window of SceneLoss must be a positive odd number, got 4'):
        SceneLoss(window=4)
    with pytest.raises(ValueError, match="must be 'mean' or 'sum', got 'none'"):
        RTVLoss(reduction='none')
