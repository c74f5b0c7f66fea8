"""SSD with slots: equal to mmdet's where it should be, the published architecture where METHOD says so."""

import inspect
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmdet.models')

from mmdet.models import SSDHead as HostHead
from mmdet.models import SSDNeck as HostNeck
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from ruas_mm import SearchableSSDHead, SearchableSSDNeck, SSDHead
from ruas_mm.search import HIGH_LEVEL_SPACE, Genotype, derive_genotype

CONFIG = Path(__file__).parents[3] / 'configs' / 'detection' / 'ruas_ssd_darkface.py'

NECK = dict(
    in_channels=(6, 8), out_channels=(6, 8, 6, 4, 4, 4), level_strides=(2, 2, 1, 1), level_paddings=(1, 1, 0, 0)
)
HEAD = dict(
    num_classes=2,
    in_channels=(6, 8, 6, 4, 4, 4),
    anchor_generator=dict(
        type='mmdet.SSDAnchorGenerator',
        scale_major=False,
        input_size=300,
        strides=[8, 16, 32, 64, 100, 300],
        ratios=([2], [2, 3], [2, 3], [2, 3], [2], [2]),
        basesize_ratio_range=(0.15, 0.9),
    ),
    bbox_coder=dict(
        type='mmdet.DeltaXYWHBBoxCoder', target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[0.1, 0.1, 0.2, 0.2]
    ),
    train_cfg=Config(
        dict(
            assigner=dict(
                type='mmdet.MaxIoUAssigner',
                pos_iou_thr=0.5,
                neg_iou_thr=0.5,
                min_pos_iou=0.0,
                ignore_iof_thr=-1,
                gt_max_assign_all=False,
            ),
            sampler=dict(type='mmdet.PseudoSampler'),
            smoothl1_beta=1.0,
            allowed_border=-1,
            pos_weight=-1,
            neg_pos_ratio=3,
        )
    ),
    test_cfg=Config(
        dict(
            nms_pre=100,
            nms=dict(type='nms', iou_threshold=0.45),
            min_bbox_size=0,
            score_thr=0.0,
            max_per_img=20,
        )
    ),
)


@pytest.fixture(autouse=True)
def scope(seeded):
    init_default_scope('mmdet')


@pytest.fixture
def darkface():
    return Config.fromfile(CONFIG).model


def levels(batch=2, dtype=torch.float32, sizes=(38, 19, 10, 5, 3, 1)):
    return tuple(
        torch.randn(batch, channels, size, size, dtype=dtype)
        for channels, size in zip(HEAD['in_channels'], sizes, strict=True)
    )


def samples(count=2):
    made = []
    for index in range(count):
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(300, 300), ori_shape=(300, 300), pad_shape=(300, 300), scale_factor=(1.0, 1.0), img_id=index
            )
        )
        boxes = torch.tensor([[20.0, 30.0, 90.0, 100.0], [120.0, 110.0, 280.0, 290.0]])
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 1]))
        made.append(sample)
    return made


def copy_in_order(target, source):
    """Give ``target`` the weights of ``source``, both having the same convolutions in the same order."""
    theirs = [m for m in source.modules() if isinstance(m, torch.nn.Conv2d)]
    ours = [m for m in target.modules() if isinstance(m, torch.nn.Conv2d)]
    for mine, other in zip(ours, theirs, strict=True):
        mine.load_state_dict(other.state_dict())


def open_slots(module, choice):
    """Turn the architecture parameters of a searchable module almost into a decision."""
    with torch.no_grad():
        module.slots.alphas.zero_()
        for row, operation in zip(module.slots.alphas, choice, strict=True):
            row[HIGH_LEVEL_SPACE.index(operation)] = 200


def copy_chosen(derived, searchable, choice):
    """Give the derived module's operations the weights of the chosen candidates."""
    for operation, mixed, name in zip(derived, searchable, choice, strict=True):
        operation.load_state_dict(mixed.operations[HIGH_LEVEL_SPACE.index(name)].state_dict())


# --- equality with the host ----------------------------------------------------------------------------------------


@pytest.mark.parametrize('size', [(38, 38), (37, 51)])
def test_plain_neck_is_the_host(size):
    theirs = HostNeck(**NECK).double()
    ours = SearchableSSDNeck(**NECK, genotype='ssd300_plain').double()
    copy_in_order(ours, theirs)
    with torch.no_grad():
        theirs.l2_norm.weight.copy_(torch.rand(6))
        ours.l2_norms[0].weight.copy_(theirs.l2_norm.weight)
    inputs = [
        torch.randn(2, 6, *size, dtype=torch.float64),
        torch.randn(2, 8, *((s + 1) // 2 for s in size), dtype=torch.float64),
    ]
    for mine, other in zip(ours(inputs), theirs(inputs), strict=True):
        torch.testing.assert_close(mine, other)


def test_l2_norm_starts_as_in_the_host():
    theirs = HostNeck(**NECK)
    theirs.init_weights()
    ours = SearchableSSDNeck(**NECK, genotype='ssd300_plain')
    ours.init_weights()
    assert torch.equal(ours.l2_norms[0].weight, theirs.l2_norm.weight)
    ours = SearchableSSDNeck(**NECK, l2_norm_scales=(10.0, 8.0), genotype='ssd300_plain')
    ours.init_weights()
    assert [norm.weight.unique().tolist() for norm in ours.l2_norms] == [[10], [8]]


def test_plain_head_is_the_host():
    theirs = HostHead(**HEAD).double()
    ours = SearchableSSDHead(**HEAD, genotype='ssd300_plain').double()
    copy_in_order(ours.reg_convs, theirs.reg_convs)
    copy_in_order(ours.cls_convs, theirs.cls_convs)
    x = levels(dtype=torch.float64)
    for mine, other in zip(ours(x), theirs(x), strict=True):
        for a, b in zip(mine, other, strict=True):
            torch.testing.assert_close(a, b)
    ours, theirs = ours.float(), theirs.float()
    x = levels()
    mine, other = ours.loss(x, samples()), theirs.loss(x, samples())
    assert mine.keys() == other.keys()
    for name, value in mine.items():
        torch.testing.assert_close(value, other[name])


# --- the published architecture ------------------------------------------------------------------------------------

SEVEN, FIVE, THREE = ('conv', 7, 1), ('conv', 5, 1), ('conv', 3, 1)
D2, FIVE_D2 = ('conv', 3, 2), ('conv', 5, 2)


def shape_of(operation):
    """What one slot is: a convolution's kernel and dilation, with square and same padding checked."""
    (kernel,), (dilation,) = set(operation.kernel_size), set(operation.dilation)
    assert operation.bias is not None
    assert set(operation.padding) == {dilation * (kernel - 1) // 2}
    assert operation.groups == 1
    return ('conv', kernel, dilation)


def test_published_neck(darkface):
    """METHOD §4: 7-C (1024→256), 7-C (256→512, stride 2), 7-C (512→128), 3-C (128→256, stride 2)."""
    neck = MODELS.build(darkface.neck)
    found = [(*shape_of(op), op.in_channels, op.out_channels, op.stride[0]) for op in neck.extra]
    assert found == [
        (*SEVEN, 1024, 256, 1),
        (*SEVEN, 256, 512, 2),
        (*SEVEN, 512, 128, 1),
        (*THREE, 128, 256, 2),
    ]
    assert [norm.weight.unique().tolist() for norm in neck.l2_norms] == [[10], [8], [5]]
    assert [norm.n_dims for norm in neck.l2_norms] == [256, 512, 512]


def test_published_head(darkface):
    """METHOD §4: loc, level 1-6, and conf, level 1-6; each for one anchor and one class beside the background."""
    head = MODELS.build({**darkface.bbox_head, 'train_cfg': darkface.train_cfg, 'test_cfg': darkface.test_cfg})
    assert [shape_of(op) for op in head.reg_convs] == [SEVEN, D2, D2, D2, D2, THREE]
    assert [shape_of(op) for op in head.cls_convs] == [D2, SEVEN, SEVEN, FIVE, FIVE_D2, SEVEN]
    channels = [256, 512, 512, 1024, 512, 256]
    assert [op.in_channels for op in head.reg_convs] == [op.in_channels for op in head.cls_convs] == channels
    assert {op.out_channels for op in head.reg_convs} == {4}
    assert {op.out_channels for op in head.cls_convs} == {2}
    assert {op.stride for op in [*head.reg_convs, *head.cls_convs]} == {(1, 1)}


def test_published_scene_cell(darkface):
    """METHOD §4: SC, 1-C, 1-RC, 1-RC, 1-RC, 1-RC, 3-RC, from u itself as in the detection release."""
    scene = MODELS.build(darkface.data_preprocessor).scene_module
    chosen = ['skip', 'conv_1x1', 'res_conv_1x1', 'res_conv_1x1', 'res_conv_1x1', 'res_conv_1x1', 'res_conv_3x3']
    assert list(scene.slots.derive().values()) == chosen
    assert scene.warm_start == 'feature'
    assert len(scene.cells) == 3


def test_published_protocol(darkface):
    """METHOD §5: NMS 0.3, score 0.05, keep 750; hard-negative ratio 3, match IoU 0.3."""
    test, train = darkface.test_cfg, darkface.train_cfg
    assert (test.nms.iou_threshold, test.score_thr, test.max_per_img) == (0.3, 0.05, 750)
    assert (train.neg_pos_ratio, train.assigner.pos_iou_thr) == (3, 0.3)


def test_strides_and_anchors(darkface):
    """Levels of strides 4 … 128 on 256x256, one square anchor of twice the stride in the middle of each cell."""
    with torch.device('meta'):  # shapes only; mmdet's L2Norm must be told
        backbone, neck = MODELS.build(darkface.backbone), MODELS.build(darkface.neck).to('meta')
        features = neck(backbone(torch.empty(1, 3, 256, 256)))
    strides = [4, 8, 16, 32, 64, 128]
    sizes = [tuple(feature.shape[-2:]) for feature in features]
    assert sizes == [(256 // s, 256 // s) for s in strides]
    assert [feature.shape[1] for feature in features] == list(darkface.bbox_head.in_channels)
    head = MODELS.build(darkface.bbox_head)
    assert head.prior_generator.num_base_priors == [1] * 6
    for stride, priors, size in zip(strides, head.prior_generator.grid_priors(sizes, device='cpu'), sizes, strict=True):
        priors = priors.view(*size, 4)
        assert torch.equal(priors[..., 2:] - priors[..., :2], torch.full((*size, 2), 2.0 * stride))
        centre = (priors[..., :2] + priors[..., 2:]) / 2
        cell = (torch.arange(size[0]) + 0.5) * stride
        assert torch.equal(centre[..., 0], cell.expand(size))
        assert torch.equal(centre[..., 1], cell[:, None].expand(size))


def test_frozen_backbone(darkface):
    """The authors fix the backbone: its weights take no gradient, not even after ``train()``."""
    with torch.device('meta'):
        backbone = MODELS.build({**darkface.backbone, 'frozen': True})
    backbone.train()
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


# --- the searchable form -------------------------------------------------------------------------------------------


@pytest.mark.parametrize('merged', [True, False])
def test_searchable_learns_and_alphas_stay(merged):
    """Search steps move the weights; architecture parameters belong to the search hook alone."""
    neck = SearchableSSDNeck(**NECK, merged=merged)
    head = SearchableSSDHead(**HEAD, merged=merged)
    neck.init_weights(), head.init_weights()
    alphas = [neck.slots.alphas, head.slots.alphas]
    before = [alpha.clone() for alpha in alphas]
    weights = [p for m in (neck, head) for p in m.parameters() if p.requires_grad]
    assert not any(alpha is weight for alpha in alphas for weight in weights)
    optimizer = torch.optim.Adam(weights, lr=3e-3)
    inputs, history = [level.relu() for level in levels(1)[:2]], []
    for _ in range(6):
        losses = head.loss(neck(inputs), samples(1))
        loss = sum(sum(values) for values in losses.values()).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.9 * history[0]
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in weights)
    assert all(alpha.grad is None and torch.equal(alpha, old) for alpha, old in zip(alphas, before, strict=True))


def test_derived_neck_is_the_decided_search():
    names = ['conv_7x7', 'dil_conv_5x5_d2', 'conv_1x1', 'dil_conv_3x3_d6']
    options = dict(
        in_channels=(6, 8), out_channels=(6, 8, 6, 4), level_strides=(2, 2), level_paddings=(1, 1), l2_norm_scales=()
    )
    searchable = SearchableSSDNeck(**options).double()
    open_slots(searchable, names)
    genotype = derive_genotype(searchable)
    assert list(genotype.slots.values()) == names
    derived = SearchableSSDNeck(**options, genotype=genotype).double()
    copy_chosen(derived.extra, searchable.extra, names)
    inputs = [torch.randn(2, 6, 21, 18, dtype=torch.float64), torch.randn(2, 8, 11, 9, dtype=torch.float64)]
    for mine, other in zip(derived(inputs), searchable(inputs), strict=True):
        torch.testing.assert_close(mine, other)


def test_derived_head_is_the_decided_search():
    """Every candidate is the decision of at least one slot."""
    names = [*HIGH_LEVEL_SPACE, 'conv_3x3', 'conv_7x7']
    searchable = SearchableSSDHead(**HEAD).double()
    open_slots(searchable, names)
    genotype = derive_genotype(searchable)
    assert genotype.slots['ssd_head.loc_1'] == names[0] and genotype.slots['ssd_head.conf_1'] == names[6]
    derived = SearchableSSDHead(**HEAD, genotype=genotype).double()
    copy_chosen(derived.reg_convs, searchable.reg_convs, names[:6])
    copy_chosen(derived.cls_convs, searchable.cls_convs, names[6:])
    x = levels(dtype=torch.float64)
    for mine, other in zip(derived(x), searchable(x), strict=True):
        for a, b in zip(mine, other, strict=True):
            torch.testing.assert_close(a, b)


def test_merged_is_the_plain_sum():
    merged = SearchableSSDHead(**HEAD).double()
    plain = SearchableSSDHead(**HEAD, merged=False).double()
    plain.load_state_dict(merged.state_dict())
    x = levels(dtype=torch.float64)
    for mine, other in zip(merged(x), plain(x), strict=True):
        for a, b in zip(mine, other, strict=True):
            torch.testing.assert_close(a, b)


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(in_channels=(6, 7)), r'in_channels \(6, 7\)'),
        (dict(level_strides=(2, 2)), 'level_strides has 2'),
        (dict(level_paddings=(1, 1, 0)), r'level_paddings\s+3'),
        (dict(level_paddings=(1, 1, 0, 2)), 'level_paddings'),
        (dict(l2_norm_scales=(1.0, 2.0, 3.0)), 'l2_norm_scales .* got 3'),
        (dict(out_channels=(6, 8, 6, 4)), 'adds 2 levels'),
    ],
)
def test_lists_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        SearchableSSDNeck(**{**NECK, **change})


def test_a_dropped_border_needs_stride_1():
    """An unpadded 3x3 convolution of stride 2 samples other pixels, so the two lists must not promise it."""
    options = {**NECK, 'level_strides': (2, 2, 2, 1), 'level_paddings': (1, 1, 0, 0)}
    try:
        ours = SearchableSSDNeck(**options, genotype='ssd300_plain')
    except ValueError:
        return  # refusing it is as good as doing what the host does
    theirs = HostNeck(**options)
    copy_in_order(ours, theirs)
    inputs = [torch.randn(1, 6, 76, 76), torch.randn(1, 8, 38, 38)]
    for mine, other in zip(ours(inputs), theirs(inputs), strict=True):
        assert mine.shape == other.shape


@pytest.mark.parametrize('slot', ['extra_5', 'loc_2', 'conf_6'])
def test_genotype_of_another_space_names_the_slot(slot):
    """Residual operations and skip are not in the high-level space."""
    name = f'ssd_neck.{slot}' if slot.startswith('extra') else f'ssd_head.{slot}'
    genotype = {**Genotype.load('ssd300_plain').slots, name: 'res_conv_3x3'}
    build = SearchableSSDNeck if slot.startswith('extra') else SearchableSSDHead
    with pytest.raises(ValueError, match=name):
        build(**(NECK if build is SearchableSSDNeck else HEAD), genotype=genotype)


def test_genotype_of_another_layout_names_the_slot():
    with pytest.raises(ValueError, match=r'ssd_neck\.extra_9'):
        SearchableSSDNeck(**NECK, genotype='ssd512_plain')
    with pytest.raises(ValueError, match=r'ssd_neck\.extra_5'):
        SearchableSSDNeck(**NECK, genotype='ruas_darkface_vgg16')
    with pytest.raises(ValueError, match=r'ssd_head\.loc_7'):
        SearchableSSDHead(**HEAD, genotype='ssd512_plain')
    with pytest.raises(ValueError, match=r'ssd_head\.loc_1'):
        SearchableSSDHead(**HEAD, genotype='ruas_enhance_journal')


# --- mmdet's fault -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('build', [SSDHead, lambda **o: SearchableSSDHead(genotype='ssd300_plain', **o)])
def test_heads_predict(build):
    results = build(**HEAD).predict(levels(), samples())
    assert len(results) == 2
    for result in results:
        assert len(result.bboxes) == len(result.scores) == len(result.labels) > 0


def test_why_the_head_is_derived():
    """mmdet 3.3.0's own SSD head cannot predict; once it can, ruas_mm.SSDHead is not needed any more."""
    try:
        results = HostHead(**HEAD).predict(levels(), samples())
    except AttributeError as error:
        assert 'loss_cls' in str(error)
    else:
        assert len(results) == 2


# --- what the parent takes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'option',
    [
        dict(stacked_convs=1),
        dict(use_depthwise=True),
        dict(conv_cfg=dict(type='Conv2d')),
        dict(norm_cfg=dict(type='BN')),
        dict(act_cfg=dict(type='ReLU6')),
    ],
)
def test_options_of_the_parent_are_not_ignored(option):
    """Those for which our head has no layers are refused by name; their defaults are taken."""
    ((name, _),) = option.items()
    with pytest.raises(ValueError, match=f'{name} of SearchableSSDHead must not be set, got '):
        SearchableSSDHead(**HEAD, **option)
    default = inspect.signature(HostHead).parameters[name].default
    assert SearchableSSDHead(**HEAD, genotype='ssd300_plain', **{name: default})


def test_levels_from_a_generator():
    """As mmdet's head takes them."""
    head, x = SearchableSSDHead(**HEAD, genotype='ssd300_plain'), levels()
    for mine, other in zip(head(level for level in x), head(x), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))
    with pytest.raises(ValueError, match='must be given 6 levels, one for each of in_channels, got 2'):
        head(x[:2])
    with pytest.raises(ValueError, match='must have as many in_channels as anchor_generator has strides, got 5 and 6'):
        SearchableSSDHead(**{**HEAD, 'in_channels': HEAD['in_channels'][:5]})


def test_edges_name_the_levels_and_their_strides(darkface):
    """Drawings then say which slot belongs to which level; neck and head count alike."""
    neck = MODELS.build({**darkface.neck, 'in_channels': (4, 4, 4, 4), 'out_channels': (4,) * 6})
    head = MODELS.build({**darkface.bbox_head, 'train_cfg': darkface.train_cfg, 'test_cfg': darkface.test_cfg})
    assert [target for _, target in neck.slots.edges] == ['extra_1', 'level 5', 'extra_3', 'level 6']
    assert neck.slots.edges[0][0] == 'level 4'
    sources = [f'level {i + 1}, stride {stride}' for i, stride in enumerate((4, 8, 16, 32, 64, 128))]
    assert [source for source, _ in head.slots.edges] == sources * 2
