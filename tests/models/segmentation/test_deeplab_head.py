"""The searchable head is DeepLab's wherever nothing is searched, and a genotype builds what it names."""

import pytest
import torch

pytest.importorskip('mmseg.models')

from mmengine.registry import init_default_scope
from mmseg.models import ASPPHead, DepthwiseSeparableASPPHead

from ruas_mm import SearchableDeepLabHead
from ruas_mm.search import HIGH_LEVEL_SPACE, Genotype, derive_genotype

BN = dict(type='BN')
GN = dict(type='GN', num_groups=2)
OPTIONS = dict(in_channels=12, in_index=1, channels=8, num_classes=5, norm_cfg=BN)
DECODER = dict(c1_in_channels=6, c1_channels=4)
FORMS = [{}, DECODER]
MIXED = {
    'deeplab_head.branch_1': 'conv_7x7',
    'deeplab_head.branch_2': 'dil_conv_7x7_d2',
    'deeplab_head.branch_3': 'dil_conv_3x3_d6',
    'deeplab_head.branch_4': 'conv_1x1',
}


@pytest.fixture(autouse=True)
def scope():
    """Where heads find their default loss."""
    init_default_scope('mmseg')


def build(**options):
    torch.manual_seed(0)
    head = SearchableDeepLabHead(**{**OPTIONS, **options})
    head.init_weights()
    return head


def levels(count=2, size=(9, 11)):
    """Two levels of a backbone, strides 1 and 2."""
    height, width = size
    half = (height + 1) // 2, (width + 1) // 2
    return torch.randn(count, 6, height, width), torch.randn(count, 12, *half)


def shake_norms(module):
    """Give batch norms statistics of their own, or they would change nothing."""
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)


def test_plain_genotype_is_deeplabv3(seeded):
    ours = build(genotype='deeplab_plain', reduced_channels=None).double().eval()
    theirs = ASPPHead(dilations=(1, 6, 12, 18), **OPTIONS).double().eval()
    shake_norms(theirs)
    state = theirs.state_dict()
    for index in range(4):
        prefix = f'aspp_modules.{index}'
        state[f'aspp_modules.operations.{index}.weight'] = state.pop(f'{prefix}.conv.weight')
        state[f'aspp_modules.operations.{index}.bias'] = torch.zeros(8)
        for key in [key for key in state if key.startswith(f'{prefix}.bn.')]:
            state[key.replace(f'{prefix}.bn', f'aspp_modules.norms.{index}')] = state.pop(key)
    ours.load_state_dict(state)
    x = [level.double() for level in levels(size=(41, 43))]
    torch.testing.assert_close(ours(x), theirs(x))


def test_all_but_the_branches_is_deeplabv3plus(seeded):
    """Image pooling, fusion and decoder are mmseg's: given our branches, its head computes what ours does."""
    ours = build(genotype=MIXED, **DECODER).eval()
    theirs = DepthwiseSeparableASPPHead(dilations=(1, 6, 12, 18), **OPTIONS, **DECODER).eval()
    theirs.aspp_modules = ours.aspp_modules
    shake_norms(ours)
    theirs.load_state_dict(ours.state_dict())
    x = levels()
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
    assert ours(x).shape == (2, 5, 9, 11)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('genotype', [None, MIXED])
def test_gradient_in_every_weight(form, genotype):
    head = build(genotype=genotype, **form).train()
    head(levels(size=(40, 40))).square().mean().backward()
    weights = {name: parameter for name, parameter in head.named_parameters() if parameter.requires_grad}
    assert not [name for name, weight in weights.items() if weight.grad is None or not weight.grad.isfinite().all()]
    assert not any('alphas' in name for name in weights)


def test_merged_equals_plain():
    merged, plain = (build(norm_cfg=GN, merged=flag).double().eval() for flag in (True, False))
    alphas = torch.randn(4, len(HIGH_LEVEL_SPACE), dtype=torch.double)
    for head in (merged, plain):
        head.aspp_modules.slots.alphas.data.copy_(alphas)
    x = [level.double() for level in levels(size=(40, 42))]
    torch.testing.assert_close(merged(x), plain(x))


def test_alphas_reach_the_output():
    head = build(norm_cfg=GN).eval()
    alphas = head.aspp_modules.slots.alphas.requires_grad_()
    (gradient,) = torch.autograd.grad(head(levels()).square().sum(), alphas)
    assert gradient.shape == (4, 10) and (gradient.abs().sum(dim=1) > 0).all()


def test_genotype_builds_the_chosen_operations_only():
    searched = build()
    assert list(derive_genotype(searched).slots) == list(MIXED)
    for row, operation in enumerate(MIXED.values()):
        searched.aspp_modules.slots.alphas.data[row, HIGH_LEVEL_SPACE.index(operation)] = 5.0
    found = derive_genotype(searched)
    assert found.slots == MIXED
    derived = build(genotype=found)
    assert [tuple(op.weight.shape[-2:]) for op in derived.aspp_modules.operations] == [(7, 7), (7, 7), (3, 3), (1, 1)]
    assert [op.dilation[0] for op in derived.aspp_modules.operations] == [1, 2, 6, 1]
    assert derive_genotype(derived).slots == MIXED


@pytest.mark.parametrize('size', [(1, 1), (1, 7), (3, 2)])
@pytest.mark.parametrize('form', FORMS)
def test_any_size(size, form):
    out = build(genotype=MIXED, **form).eval()(levels(1, size))
    assert out.shape[:2] == (1, 5) and out.isfinite().all()


def test_number_of_branches():
    names = [f'deeplab_head.branch_{index}' for index in range(1, 7)]
    assert list(derive_genotype(build(branches=6)).slots) == names
    with pytest.raises(ValueError, match='branches of SearchableDeepLabHead must be at least 1, got 0'):
        build(branches=0)


@pytest.mark.parametrize(
    ('genotype', 'message'),
    [
        ({**MIXED, 'deeplab_head.branch_2': 'skip'}, 'deeplab_head.branch_2'),
        ({key: value for key, value in MIXED.items() if not key.endswith('3')}, 'deeplab_head.branch_3'),
        ('ruas_enhance_journal', 'deeplab_head.branch_1'),
    ],
)
def test_genotype_that_does_not_fit(genotype, message):
    with pytest.raises(ValueError, match=message):
        build(genotype=genotype)


def test_shipped_genotype_has_rates_1_6_12_18():
    assert list(Genotype.load('deeplab_plain').slots.values()) == [
        'conv_1x1',
        'dil_conv_3x3_d6',
        'dil_conv_3x3_d12',
        'dil_conv_3x3_d18',
    ]


def test_batch_of_one():
    """Torch's own message speaks of a size that no user knows."""
    x = levels(1)
    with pytest.raises(ValueError, match='batch_size to at least 2'):
        build().train()(x)
    assert build(norm_cfg=GN).train()(x).isfinite().all()
    assert build().eval()(x).isfinite().all()


def test_reduction_is_what_makes_the_search_affordable():
    """The figures of the docstring."""
    sizes = dict(in_channels=2048, in_index=3, num_classes=19, norm_cfg=BN)
    with torch.device('meta'):
        reduced = SearchableDeepLabHead(channels=256, **sizes)
        whole = SearchableDeepLabHead(channels=512, reduced_channels=None, **sizes)
    weights = [sum(op.numel() for op in head.aspp_modules.operations.parameters()) / 1e6 for head in (reduced, whole)]
    assert [round(count) for count in weights] == [51, 814]


@pytest.mark.parametrize('option', [dict(dilations=(1, 6, 12, 18)), dict(conv_cfg=dict(type='Conv2d'))])
def test_options_of_the_parent_are_not_ignored(option):
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=f'{name} of SearchableDeepLabHead must not be set, got '):
        build(**option)
    assert build(**{name: None})


@pytest.mark.parametrize('genotype', ['deeplab_plain', None])
def test_branches_are_indexed_as_in_the_host(genotype):
    head = build(genotype=genotype, reduced_channels=None)
    assert len(head.aspp_modules) == len(ASPPHead(**OPTIONS).aspp_modules) == 4
    assert [head.aspp_modules[index].in_channels for index in range(4)] == [12] * 4
    assert list(head.aspp_modules) == list(head.aspp_modules.operations)
