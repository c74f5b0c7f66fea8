import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import correlate
from torch import nn

from ruas_mm.search import HIGH_LEVEL_SPACE, OPERATIONS, SCENE_SPACE, build_operation

# name -> (taps, distance of the taps, residual), typed in from METHOD §4 ("k-d-DC = kxk kernel, dilation d").
TABLE = {
    'skip': None,
    'conv_1x1': (1, 1, False),
    'conv_3x3': (3, 1, False),
    'conv_5x5': (5, 1, False),
    'conv_7x7': (7, 1, False),
    'res_conv_1x1': (1, 1, True),
    'res_conv_3x3': (3, 1, True),
    'dil_conv_3x3_d2': (3, 2, False),
    'dil_conv_5x5_d2': (5, 2, False),
    'dil_conv_7x7_d2': (7, 2, False),
    'dil_conv_3x3_d6': (3, 6, False),
    'dil_conv_3x3_d12': (3, 12, False),
    'dil_conv_3x3_d18': (3, 18, False),
    'res_dil_conv_3x3_d2': (3, 2, True),
}
ADDS_INPUT = ['skip', *(name for name, what in TABLE.items() if what and what[2])]
PLAIN = [name for name in TABLE if name not in ADDS_INPUT]


def dense_reference(x, weight, bias, dilation, stride):
    """Correlate with the kernel spread out by hand, in scipy, then keep every stride-th pixel."""
    taps = weight.shape[-1]
    side = dilation * (taps - 1) + 1
    dense = np.zeros((*weight.shape[:2], side, side))
    for i in range(taps):
        for j in range(taps):
            dense[:, :, i * dilation, j * dilation] = weight[:, :, i, j]
    images = []
    for image in x:
        padded = np.pad(image, ((0, 0), (side // 2, side // 2), (side // 2, side // 2)))
        maps = [correlate(padded, kernel, mode='valid', method='direct')[0] for kernel in dense]
        images.append((np.stack(maps) + bias[:, None, None])[:, ::stride, ::stride])
    return np.stack(images)


def test_table_is_complete():
    assert set(OPERATIONS) == set(TABLE)


def test_spaces_in_the_order_of_the_method():
    scene = ['SC', '1-C', '3-C', '1-RC', '3-RC', '3-2-DC', '3-2-RDC']
    high_level = ['1-C', '3-C', '5-C', '7-C', '3-2-DC', '5-2-DC', '7-2-DC', '3-6-DC', '3-12-DC', '3-18-DC']

    def notation(name):
        if TABLE[name] is None:
            return 'SC'
        taps, dilation, residual = TABLE[name]
        return f'{taps}-' + (f'{dilation}-' if dilation > 1 else '') + 'R' * residual + 'D' * (dilation > 1) + 'C'

    assert [notation(name) for name in SCENE_SPACE] == scene
    assert [notation(name) for name in HIGH_LEVEL_SPACE] == high_level
    assert (len(SCENE_SPACE), len(HIGH_LEVEL_SPACE)) == (7, 10)


@pytest.mark.parametrize(
    ('name', 'short'),
    [
        ('skip', 'SC'),
        ('conv_3x3', '3-C'),
        ('res_conv_1x1', '1-RC'),
        ('dil_conv_3x3_d12', '3-12-DC'),
        ('dil_conv_7x7_d2', '7-2-DC'),
        ('res_dil_conv_3x3_d2', '3-2-RDC'),
    ],
)
def test_short_name_is_the_notation_of_table_1(name, short):
    assert OPERATIONS[name].short_name == short


def test_short_names_tell_the_operations_apart():
    assert len({operation.short_name for operation in OPERATIONS.values()}) == len(OPERATIONS)


@pytest.mark.parametrize('name', [name for name in TABLE if name != 'skip'])
def test_is_one_convolution_with_bias(name):
    taps, _, residual = TABLE[name]
    out_channels = 3 if residual else 4
    operation = build_operation(name, 3, out_channels)
    parameters = dict(operation.named_parameters())
    assert sorted(value.dim() for value in parameters.values()) == [1, 4]
    assert sum(value.numel() for value in parameters.values()) == out_channels * (3 * taps * taps + 1)
    assert all(value.requires_grad for value in parameters.values())
    inner = [type(module) for module in operation.modules() if not isinstance(module, nn.Conv2d)]
    assert not inner, f'more than a convolution: {inner}'
    assert not list(operation.buffers())


def test_skip_is_the_identity_without_parameters():
    operation = build_operation('skip', 5, 5)
    x = torch.randn(2, 5, 4, 3)
    assert not list(operation.parameters())
    assert torch.equal(operation(x), x)


@pytest.mark.parametrize('size', [(1, 1), (4, 7)])
@pytest.mark.parametrize('name', [name for name in TABLE if name != 'skip'])
def test_values_against_a_direct_computation(name, size):
    torch.manual_seed(0)
    taps, dilation, residual = TABLE[name]
    for stride in (1,) if residual else (1, 2):
        operation = build_operation(name, 2, 2 if residual else 3, stride).double()
        x = torch.randn(2, 2, *size, dtype=torch.float64)
        weight, bias = operation.weight.detach().numpy(), operation.bias.detach().numpy()
        assert weight.shape[-2:] == (taps, taps)
        expected = dense_reference(x.numpy(), weight, bias, dilation, stride)
        if residual:
            expected = expected + x.numpy()
        np.testing.assert_allclose(operation(x).detach().numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('name', ['dil_conv_3x3_d6', 'dil_conv_3x3_d12', 'dil_conv_3x3_d18', 'dil_conv_7x7_d2'])
def test_taps_lie_where_the_dilation_says(name):
    """An impulse in the middle of a map wide enough for all taps comes back as the mirrored kernel, spread out."""
    taps, dilation, _ = TABLE[name]
    reach = dilation * (taps // 2)
    operation = build_operation(name, 1, 1).double()
    x = torch.zeros(1, 1, 2 * reach + 3, 2 * reach + 3, dtype=torch.float64)
    x[..., reach + 1, reach + 1] = 1
    y = operation(x) - operation.bias
    hit = y[0, 0, 1 : 2 * reach + 2 : dilation, 1 : 2 * reach + 2 : dilation]
    torch.testing.assert_close(hit, operation.weight[0, 0].flip(0, 1), rtol=0, atol=1e-15)
    assert (y.abs() > 1e-15).sum() == taps**2


@pytest.mark.parametrize('name', list(TABLE))
def test_output_size(name):
    for stride in (1,) if name in ADDS_INPUT else (1, 2, 3):
        operation = build_operation(name, 1, 1, stride)
        for height, width in [(1, 1), (1, 6), (2, 3), (5, 8), (13, 7)]:
            expected = (1, 1, -(-height // stride), -(-width // stride))
            assert operation(torch.zeros(1, 1, height, width)).shape == expected


def test_residual_adds_the_input_before_anything_else():
    operation = build_operation('res_conv_3x3', 3, 3).double()
    x = torch.randn(1, 3, 5, 4, dtype=torch.float64)
    expected = x + F.conv2d(x, operation.weight, operation.bias, padding=1)
    assert torch.equal(operation(x), expected)
    nn.init.zeros_(operation.weight)
    nn.init.zeros_(operation.bias)
    assert torch.equal(operation(x), x)


def test_a_slot_is_called_alike_in_both_forms():
    """The second argument, the probabilities of a mixed operation, changes nothing here."""
    x = torch.randn(1, 3, 4, 4)
    for name in SCENE_SPACE:
        operation = build_operation(name, 3, 3)
        assert torch.equal(operation(x), operation(x, None))


@pytest.mark.parametrize('name', ['conv_9x9', 'SC', ''])
def test_unknown_name(name):
    with pytest.raises(ValueError, match=f"'{name}'.*skip, conv_1x1"):
        build_operation(name, 3, 3)


@pytest.mark.parametrize(('channels', 'stride'), [((3, 4), 1), ((3, 3), 2), ((3, 4), 2)])
@pytest.mark.parametrize('name', ADDS_INPUT)
def test_adding_the_input_needs_the_same_shape(name, channels, stride):
    with pytest.raises(ValueError, match=rf"'{name}'.*{channels[0]} -> {channels[1]} channels with stride {stride}"):
        build_operation(name, *channels, stride)


@pytest.mark.parametrize('name', PLAIN)
def test_the_others_take_any_channels_and_stride(name):
    assert build_operation(name, 3, 5, 2)(torch.zeros(2, 3, 5, 4)).shape == (2, 5, 3, 2)
