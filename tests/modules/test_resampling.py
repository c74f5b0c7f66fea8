import itertools

import numpy as np
import pytest
import torch

from ruas_mm.modules.resampling import enlarge, shrink

SIZES = [(1, 1), (1, 2), (5, 1), (6, 8), (7, 9), (13, 4)]


def image(*size, seed=0):
    return torch.rand((2, 3, *size), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mean_of_blocks(x, factor):
    """What lies beyond the image counts as its outermost pixel."""
    height, width = (-(-length // factor) for length in x.shape[-2:])
    result = np.zeros((*x.shape[:2], height, width))
    for i, j, a, b in itertools.product(range(height), range(width), range(factor), range(factor)):
        row, column = min(i * factor + a, x.shape[-2] - 1), min(j * factor + b, x.shape[-1] - 1)
        result[..., i, j] += x[..., row, column] / factor**2
    return result


def between_centres(x, factor, size):
    """Linear between the centres of the blocks along both axes, constant beyond the outermost."""

    def along(values, length):  # of the last axis
        centres = np.arange(values.shape[-1]) * factor + (factor - 1) / 2
        places = np.arange(length)
        return np.apply_along_axis(lambda row: np.interp(places, centres, row), -1, values)

    return along(along(x, size[1]).swapaxes(-1, -2), size[0]).swapaxes(-1, -2)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('factor', [1, 2, 3, 4, 16])
def test_closed_forms(factor, size):
    x = image(*size)
    small = shrink(x, factor)
    np.testing.assert_allclose(small.numpy(), mean_of_blocks(x.numpy(), factor), rtol=0, atol=1e-14)
    large = enlarge(small, factor, size)
    np.testing.assert_allclose(large.numpy(), between_centres(small.numpy(), factor, size), rtol=0, atol=1e-14)


def test_factor_1_is_the_image_itself():
    x = image(3, 4)
    assert shrink(x, 1) is x and enlarge(x, 1, (3, 4)) is x


@pytest.mark.parametrize('size', [(1, 1), (5, 4)])
def test_gradients(size):
    x = image(*size).requires_grad_()
    torch.autograd.gradcheck(lambda x: enlarge(shrink(x, 3), 3, size), x)


def test_no_image():
    assert enlarge(shrink(torch.zeros(0, 3, 5, 6), 4), 4, (5, 6)).shape == (0, 3, 5, 6)
