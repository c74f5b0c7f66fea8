import copy

import pytest
import torch
import torch.nn.functional as F

from ruas_mm.modules import NoiseRemoval, cell_slots
from ruas_mm.search import SCENE_SPACE, derive_genotype

GENOTYPES = ['ruas_enhance_journal', 'ruas_enhance_conference', None]
SIZES = [(1, 1), (1, 5), (4, 1), (7, 6)]


def images(*shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def build(genotype='ruas_enhance_journal', scale=0.3, **options):
    """A module far from its start, so that every weight shows."""
    torch.manual_seed(0)
    module = NoiseRemoval(genotype, **options).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=scale)
    return module


def by_the_book(module, u):
    """METHOD §5 and, with the journal genotype, §3: 1-RC, 3-RC, 3-2-DC, 1-RC, 3-RC, 3-C, 3-RC."""
    weights = module.state_dict()

    def conv(x, name, padding=0, dilation=1):
        return F.conv2d(x, weights[name + '.weight'], weights[name + '.bias'], padding=padding, dilation=dilation)

    def act(x):
        return torch.where(x > 0, x, 0.05 * x)

    x = conv(u, 'stem', 1)
    for k in range(3):
        o = f'cells.{k}.operations.'
        d1 = act(x + conv(x, o + '0'))
        r1 = act(x + conv(x, o + '1', 1) + x)
        d2 = act(conv(r1, o + '2', 2, 2))
        r2 = act(r1 + conv(r1, o + '3') + r1)
        d3 = act(r2 + conv(r2, o + '4', 1))
        r3 = act(conv(r2, o + '5', 1) + r2)
        d4 = act(r3 + conv(r3, o + '6', 1))
        x = conv(torch.cat([d1, d2, d3, d4], 1), f'cells.{k}.fuse')
    return u - conv(x, 'to_noise', 1)


@pytest.mark.parametrize('size', SIZES)
def test_against_the_formulas(size):
    module, u = build(), images(2, 3, *size)
    expected = by_the_book(module, u)
    assert (expected - u).abs().max() > 0.1
    torch.testing.assert_close(module(u), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ('genotype', 'count'), [('ruas_enhance_journal', 5985), ('ruas_enhance_conference', 2277)]
)  # METHOD §5
def test_size(genotype, count):
    assert sum(p.numel() for p in NoiseRemoval(genotype).parameters()) == count


@pytest.mark.parametrize('genotype', [*GENOTYPES, *SCENE_SPACE])
@torch.no_grad()
def test_it_starts_near_the_identity(genotype):
    if genotype in SCENE_SPACE:
        genotype = dict.fromkeys(cell_slots('noise_removal').names, genotype)
    u = images(2, 3, 12, 9, dtype=torch.float32)
    for seed in range(3):
        torch.manual_seed(seed)
        noise = u - NoiseRemoval(genotype)(u)
        assert 0 < noise.abs().max() < 0.03


@pytest.mark.parametrize('genotype', GENOTYPES)
def test_it_learns_from_its_start(genotype):
    """Every weight has a gradient, and a few steps towards a cleaner image lower the error."""
    torch.manual_seed(0)
    module = NoiseRemoval(genotype)
    clean = torch.full((1, 3, 16, 16), 0.5)
    noisy = clean + 0.1 * torch.randn(clean.shape)
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], 3e-3)
    losses = []
    for _ in range(40):
        loss = F.mse_loss(module(noisy), clean)
        optimizer.zero_grad()
        loss.backward()
        for name, parameter in module.named_parameters():
            assert name == 'slots.alphas' or parameter.grad.abs().sum() > 0, name
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_cells_share_one_architecture():
    module, u = build(genotype=None, scale=0.1), images(1, 3, 6, 5)
    assert module.slots.names[0] == 'noise_removal.distill_1' and len(module.slots.names) == 7
    assert [name for name, p in module.named_parameters() if not p.requires_grad] == ['slots.alphas']
    module.slots.alphas.requires_grad_()
    (gradient,) = torch.autograd.grad(module(u).square().mean(), module.slots.alphas)
    assert (gradient.abs().sum(dim=1) > 0).all()
    derived = NoiseRemoval(derive_genotype(module))
    assert derive_genotype(derived).slots == module.slots.derive()


@pytest.mark.parametrize('genotype', GENOTYPES)
def test_an_image_is_the_same_alone_and_in_a_batch(genotype):
    module, u = build(genotype, scale=0.1), images(3, 3, 6, 5)
    together = module(u)
    for index in range(3):
        torch.testing.assert_close(module(u[index : index + 1])[0], together[index], rtol=1e-12, atol=1e-12)


def test_the_input_is_left_alone():
    module, u = build(), images(1, 3, 6, 5)
    before = u.clone()
    module(u)
    assert torch.equal(u, before)


def test_options():
    module = build(channels=4, cells=1)
    assert len(module.cells) == 1 and module.stem.out_channels == 4
    assert module(images(1, 3, 3, 3)).shape == (1, 3, 3, 3)


@pytest.mark.parametrize('genotype', GENOTYPES)
def test_autocast(genotype):
    module = build(genotype, scale=0.1).float()
    u = images(1, 3, 12, 9, dtype=torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        x = module(u)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, module(u), rtol=0.05, atol=0.02)


def test_state_dict_round_trip_and_copy():
    first, u = build(), images(1, 3, 5, 4)
    second = NoiseRemoval().double()
    second.load_state_dict(first.state_dict(), strict=True)
    assert torch.equal(second(u), first(u))
    assert torch.equal(copy.deepcopy(first)(u), first(u))


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'channels': 0}, 'channels .* at least 1, got 0'),
        ({'cells': 1.5}, 'cells .* integer .*got 1.5'),
        ({'cells': 0}, 'cells .* at least 1, got 0'),
        ({'genotype': 'ruas_darkface_vgg16'}, r'noise_removal\.distill_1'),
    ],
)
def test_option_errors(options, words):
    with pytest.raises(ValueError, match=words):
        NoiseRemoval(**options)
