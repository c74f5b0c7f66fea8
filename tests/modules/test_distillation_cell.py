import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ruas_mm.modules import DistillationCell, cell_slots
from ruas_mm.search import SCENE_SPACE, Genotype, MixedOp

NAMES = [slot.removeprefix('scene.') for slot in cell_slots('scene').names]
GENOTYPES = {
    'searchable': None,
    'skips': ['skip'] * 7,
    'every_candidate': list(SCENE_SPACE),
    'reversed': list(reversed(SCENE_SPACE)),
    'one_by_one': ['conv_1x1', 'res_conv_1x1', 'skip', 'conv_1x1', 'res_conv_1x1', 'skip', 'skip'],
    'dilated': ['dil_conv_3x3_d2', 'res_dil_conv_3x3_d2'] * 3 + ['dil_conv_3x3_d2'],
    'mixtures': ['conv_1x1', 'dil_conv_3x3_d2', 'conv_3x3', 'conv_1x1', 'res_dil_conv_3x3_d2', 'conv_3x3', 'skip'],
}


class CountConvolutions(TorchDispatchMode):
    def __enter__(self):
        self.count = 0
        return super().__enter__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 'convolution' in func.name() and 'backward' not in func.name()
        return func(*args, **(kwargs or {}))


def cell_of(genotype, channels, dtype=torch.float64):
    if isinstance(genotype, list):
        genotype = {f'scene.{name}': operation for name, operation in zip(NAMES, genotype, strict=True)}
    torch.manual_seed(0)
    slots = cell_slots('scene', genotype)
    cell = DistillationCell(slots, channels).to(dtype)
    if slots.searchable:
        slots.alphas.data.normal_()
    return cell, slots.to(dtype)


def by_the_book(cell, x, probs):
    """METHOD §3, every candidate by itself, in the layout that ``x`` has."""

    def o(i, x):
        operation = cell.operations[i - 1]
        if isinstance(operation, MixedOp):
            return sum(p * candidate(x) for p, candidate in zip(probs[i - 1], operation.operations, strict=True))
        return operation(x)

    def act(x):
        return torch.where(x > 0, x, 0.05 * x)

    d1, r1 = act(o(1, x)), act(o(2, x) + x)
    d2, r2 = act(o(3, r1)), act(o(4, r1) + r1)
    d3, r3 = act(o(5, r2)), act(o(6, r2) + r2)
    return cell.fuse(torch.cat([d1, d2, d3, act(o(7, r3))], dim=1))


def results(run, cell, slots, x):
    """Output and gradients of one random projection: of the input, the weights and the architecture."""
    x = x.clone().requires_grad_()
    alphas = [slots.alphas.requires_grad_()] if slots.searchable else []
    y = run(x, slots.probs())
    cotangent = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, [x, *cell.parameters(), *alphas], cotangent)]


@pytest.mark.parametrize('channels', [1, 3, 6])
@pytest.mark.parametrize('genotype', GENOTYPES.values(), ids=GENOTYPES)
def test_against_the_plain_form(genotype, channels):
    cell, slots = cell_of(genotype, channels)
    for batch, size in itertools.product((1, 2), [(1, 1), (1, 5), (4, 1), (7, 6)]):
        x = torch.randn(batch, channels, *size, dtype=torch.float64)
        before = x.clone()
        expected = results(lambda x, probs: by_the_book(cell, x, probs), cell, slots, x)
        for layout in (torch.channels_last, torch.contiguous_format):
            cell.cpu_layout = layout
            for merged in (True, False):
                for operation in cell.operations:
                    operation.merged = merged  # means nothing to a derived operation
                for ours, theirs in zip(results(cell, cell, slots, x), expected, strict=True):
                    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
        assert torch.equal(x, before), 'activations in place must not reach the input'


@pytest.mark.parametrize(
    ('name', 'count'),
    [('searchable', 4), ('skips', 0), ('dilated', 4), ('mixtures', 4), ('one_by_one', 3)],
)
def test_one_convolution_a_node(name, count):
    """Stacked are edges of one geometry, and 1x1 kernels with any other; a skip connection runs none."""
    cell, slots = cell_of(GENOTYPES[name], 3)
    x = torch.randn(1, 3, 6, 5, dtype=torch.float64)
    with CountConvolutions() as counter:
        cell(x, slots.probs())
    assert counter.count == count


def test_half_merged():
    """A node whose edges are not both merged runs them one after the other."""
    cell, slots = cell_of(None, 3)
    x = torch.randn(1, 3, 6, 5, dtype=torch.float64)
    expected = cell(x, slots.probs())
    for index in (0, 3):
        cell.operations[index].merged = False
    torch.testing.assert_close(cell(x, slots.probs()), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize('genotype', [None, GENOTYPES['every_candidate']], ids=['searchable', 'derived'])
def test_autocast(genotype):
    cell, slots = cell_of(genotype, 3, torch.float32)
    x = torch.rand(1, 3, 12, 9)
    expected = results(cell, cell, slots, x)
    with torch.autocast('cpu', torch.bfloat16):
        ours = results(cell, cell, slots, x)
        plain = results(lambda x, probs: by_the_book(cell, x, probs), cell, slots, x)
    # Rounding also decides on which side of 0 an activation lies, so the plain form is the measure of what is lost.
    for a, b, c in zip(ours, plain, expected, strict=True):
        assert a.isfinite().all()
        assert (a.float() - c).norm() <= 1.5 * (b.float() - c).norm() + 0.02 * c.norm()


def test_keys_are_those_of_published_checkpoints():
    cell, _ = cell_of(GENOTYPES['every_candidate'], 3)
    convolutions = [f'operations.{i}' for i, name in enumerate(SCENE_SPACE) if name != 'skip'] + ['fuse']
    assert list(cell.state_dict()) == [f'{name}.{kind}' for name in convolutions for kind in ('weight', 'bias')]
    shipped = Genotype.load('ruas_enhance_journal')
    assert DistillationCell(cell_slots('scene', shipped), 3).state_dict()['fuse.weight'].shape == (3, 12, 1, 1)


def test_fused_weights_reach_the_output():
    """The last convolution is run node by node: still the whole of it."""
    cell, slots = cell_of(GENOTYPES['skips'], 2)
    x = torch.rand(2, 2, 3, 4, dtype=torch.float64)
    nodes = [x, 2 * x, 4 * x, 8 * x]  # x > 0: every skip keeps its input, every remaining branch doubles it
    torch.testing.assert_close(
        cell(x, slots.probs()), F.conv2d(torch.cat(nodes, 1), cell.fuse.weight, cell.fuse.bias), rtol=1e-12, atol=1e-12
    )
