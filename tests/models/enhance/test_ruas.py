"""The low-level model without any host: its variants, modes, losses and phases, and a search of it."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from mmengine.runner import Runner, load_checkpoint
from mmengine.structures import BaseDataElement

import ruas_mm
from ruas_mm.models.enhance import RUAS, RUASDataPreprocessor
from ruas_mm.search import Genotype, Phase

VARIANTS = ['S', 'full', 'A']
SCENE = {'loss_scene_fidelity', 'loss_scene_smooth'}
TASK = {'loss_denoise_fidelity', 'loss_denoise_smooth'}
LOSSES = {'S': set(), 'full': TASK, 'A': {*TASK, 'loss_noise_estimate'}}
SIZES = [(12, 16), (9, 7), (12, 16), (1, 1), (1, 5)]


def build(variant='A', noisy=False, **options):
    """A model; ``noisy``: whose noise removal and estimator are far from their start."""
    torch.manual_seed(0)
    model = MODELS.build(dict(type='ruas_mm.RUAS', variant=variant, **options))
    if noisy:
        with torch.no_grad():
            model.noise_removal.to_noise.weight.mul_(30)
            if variant == 'A':
                model.noise_estimator[-1].weight.mul_(30)
    return model


def make_batch(sizes=SIZES, seed=0):
    """As mmengine's data loaders give it: BGR, 8 bits."""
    generator = torch.Generator().manual_seed(seed)
    images = [torch.randint(80, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    samples = [BaseDataElement(metainfo=dict(img_path=f'{index}.png')) for index in range(len(sizes))]
    return {'inputs': images, 'data_samples': samples}


def one_of(batch, index):
    return {key: values[index : index + 1] for key, values in batch.items()}


def losses_of(model, batch, phase=Phase.JOINT):
    model.search_phase = phase
    torch.manual_seed(1)
    return model(**model.data_preprocessor(batch, True), mode='loss')


# --- what it is ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('variant', 'genotype', 'count'),
    [
        ('S', 'ruas_enhance_journal', 1161),
        ('full', 'ruas_enhance_conference', 1161 + 2277),
        ('full', 'ruas_enhance_journal', 1161 + 5985),
        ('A', 'ruas_enhance_journal', 1161 + 5985 + 29507),
    ],
)
def test_size(variant, genotype, count):
    """METHOD §5; Table V's 0.001, 0.003 and 0.037 M."""
    assert sum(p.numel() for p in RUAS(variant, genotype).parameters()) == count


def test_lazy_name():
    assert ruas_mm.RUAS is RUAS and ruas_mm.RUASDataPreprocessor is RUASDataPreprocessor
    for name in ('NoiseRemoval', 'NoiseEstimator', 'DenoisingLoss', 'NoiseEstimationLoss'):
        assert type(MODELS.build(dict(type=f'ruas_mm.{name}'))) is getattr(ruas_mm, name)


def test_it_needs_no_host():
    """Neither to be imported nor to be built by its type."""
    code = """
import sys
import ruas_mm.version
from mmengine.registry import MODELS
MODELS.build(dict(type='ruas_mm.RUAS', variant='A'))
print(sorted({'mmcv', 'mmdet', 'mmseg', 'mmagic'} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == '[]', done.stderr


def test_genotypes():
    model = build(genotype='ruas_enhance_conference')
    slots = Genotype.load('ruas_enhance_conference').slots
    assert {**model.scene_module.slots.derive(), **model.noise_removal.slots.derive()} == slots
    assert all(
        part.slots.searchable for part in (build(genotype=None).scene_module, build(genotype=None).noise_removal)
    )
    model = build(noise_removal=dict(genotype=None, channels=4))
    assert model.noise_removal.slots.searchable and not model.scene_module.slots.searchable


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'variant': 'B'}, "variant 'B'; choose from S, full, A"),
        ({'scene_loss_weight': -1.0}, 'scene_loss_weight .* at least 0, got -1.0'),
        ({'scene_loss_weight': 'abc'}, "scene_loss_weight .* number .*got 'abc'"),
        ({'border': -1}, 'border .* at least 0, got -1'),
        ({'border': 1.5}, 'border .* integer .*got 1.5'),
        ({'epsilon': None}, 'epsilon .* number, got None'),
        ({'epsilon': float('nan')}, 'epsilon .* number, got nan'),
        ({'genotype': 'ssd_plain'}, r'scene\.distill_1'),
        ({'genotype': {'scene.distill_1': 'skip'}}, r'scene\.remain_1'),
    ],
)
def test_option_errors(options, words):
    with pytest.raises(ValueError, match=words):
        RUAS(**options)


# --- prediction ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('variant', VARIANTS)
@torch.no_grad()
def test_predict(variant):
    """Formulas of METHOD §2 and §5, image by image, for a batch of many sizes."""
    model, batch = build(variant, noisy=variant != 'S', genotype='ruas_enhance_conference').eval(), make_batch()
    if variant == 'A':
        scores = [sample.noise_score for sample in model.test_step(make_batch())]
        model.epsilon = sorted(scores)[2]  # two images above it
    results = model.test_step(batch)
    removed = 0
    for image, sample, given in zip(batch['inputs'], results, batch['data_samples'], strict=True):
        assert sample.img_path == given.img_path
        y = image.flip(0)[None] / 255  # BGR of 8 bits to RGB in [0, 1]
        scene = model.scene_module(y)
        u = scene.features[-1]
        torch.testing.assert_close(sample.feature, u[0])
        torch.testing.assert_close(sample.illumination, scene.illuminations[-1][0])
        x = u
        if variant == 'full' or variant == 'A' and model.noise_estimator(u).abs().mean() > model.epsilon:
            x = model.noise_removal(u).clamp(0, 1)
            removed += 1
        torch.testing.assert_close(sample.enhanced, x[0])
        assert sample.enhanced.shape == image.shape and 0 <= sample.enhanced.min() <= sample.enhanced.max() <= 1
        assert ('noise_score' in sample) == (variant == 'A')
        if variant == 'A':
            assert sample.noise_score == pytest.approx(model.noise_estimator(u).abs().mean().item(), rel=1e-4)
    assert removed == {'S': 0, 'full': len(SIZES), 'A': 2}[variant]


@pytest.mark.parametrize('variant', VARIANTS)
@torch.no_grad()
def test_an_image_does_not_depend_on_its_batch_mates(variant):
    model, batch = build(variant, noisy=variant != 'S').eval(), make_batch()
    together = model.test_step(copy.deepcopy(batch))
    for index, sample in enumerate(together):
        (alone,) = model.test_step(one_of(copy.deepcopy(batch), index))
        for name in ('enhanced', 'feature', 'illumination'):
            torch.testing.assert_close(sample.get(name), alone.get(name), rtol=1e-5, atol=1e-6)
        assert sample.get('noise_score') == pytest.approx(alone.get('noise_score'))


@torch.no_grad()
def test_the_decision_is_for_each_image():
    """Of two images of one size, the noise of one is removed."""
    model = build('A', noisy=True).eval()
    y = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3)) * torch.tensor([0.1, 0.6]).view(2, 1, 1, 1)
    scores = model.enhance(y).noise_score
    for epsilon, expected in (
        (0, [True, True]),
        (scores.mean().item(), (scores > scores.mean()).tolist()),
        (9, [False] * 2),
    ):
        model.epsilon = epsilon
        result = model.enhance(y)
        changed = (result.enhanced != result.feature).flatten(1).any(dim=1).tolist()
        assert changed == expected
    model.epsilon = model.enhance(y[:1]).noise_score.item()  # alone: a batch may round otherwise
    assert not (model.enhance(y[:1]).enhanced != model.enhance(y[:1]).feature).any(), 'above, not at the threshold'


@pytest.mark.parametrize('variant', VARIANTS)
@torch.no_grad()
def test_a_constant_image_stays_constant_up_to_its_border(variant):
    """Extended by as much as the model sees, whatever the size of the image."""
    model = build(variant, noisy=variant != 'S', epsilon=0.0).eval()
    for parameter in model.scene_module.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    colour = torch.tensor([0.15, 0.1, 0.05]).view(1, 3, 1, 1)
    results = {}
    for border, size in ((0, (30, 44)), (20, (30, 44)), (20, (1, 1)), (20, (1, 9))):
        model.border = border
        results[border, size] = model.enhance(colour.expand(1, 3, *size))
    for place in range(3):  # enhanced, feature, illumination
        line, same, *others = [result[place] for result in results.values()]
        assert (line - line[..., 15:16, 20:21]).abs().max() > 1e-3, 'without it there is a line'
        for maps in (same, *others):
            torch.testing.assert_close(maps, same[..., :1, :1].expand_as(maps), rtol=0, atol=1e-5)
    assert [tuple(result.enhanced.shape[2:]) for result in results.values()] == [size for _, size in results]


@pytest.mark.parametrize('variant', VARIANTS)
@torch.no_grad()
def test_border_is_that_of_an_image_extended_by_hand(variant):
    model, batch = build(variant, noisy=variant != 'S', border=3).eval(), make_batch()
    results = model.test_step(batch)
    if variant == 'A':
        model.epsilon = sorted(sample.noise_score for sample in results)[2]
        results = model.test_step(batch)
    model.border = 0
    for image, sample in zip(batch['inputs'], results, strict=True):
        by_hand = np.pad(image.numpy(), ((0, 0), (3, 3), (3, 3)), mode='edge')
        if variant == 'A':
            y = torch.from_numpy(by_hand).flip(0)[None] / 255
            theta = model.noise_estimator(model.scene_module(y).features[-1])[..., 3:-3, 3:-3]
            assert sample.noise_score == pytest.approx(theta.abs().mean().item(), rel=1e-4)
            model.epsilon = -1 if (sample.enhanced != sample.feature).any() else 1e9
        (expected,) = model.test_step({'inputs': [torch.from_numpy(by_hand)]})
        for name in ('enhanced', 'feature', 'illumination'):
            torch.testing.assert_close(sample.get(name), expected.get(name)[:, 3:-3, 3:-3], rtol=1e-5, atol=1e-6)


def test_border_changes_no_training():
    plain, extended = build('A'), build('A', border=9)
    for phase in Phase:
        assert losses_of(plain, make_batch(), phase) == losses_of(extended, make_batch(), phase)


@torch.no_grad()
def test_tensor_mode():
    model = build(noisy=True).eval()
    y = torch.rand(2, 3, 6, 5) / 4
    enhanced = model(y)
    assert isinstance(enhanced, torch.Tensor) and enhanced.shape == y.shape
    assert torch.equal(enhanced, model.enhance(y).enhanced)
    images = model([y[0], torch.rand(3, 2, 2), y[1]])
    assert [tuple(image.shape) for image in images] == [(3, 6, 5), (3, 2, 2), (3, 6, 5)]
    assert torch.equal(torch.stack([images[0], images[2]]), enhanced)
    for sample in model(y, mode='predict'):
        assert isinstance(sample, BaseDataElement) and 'enhanced' in sample
    with pytest.raises(ValueError, match="mode 'fit'.*'loss'"):
        model(y, mode='fit')


@pytest.mark.parametrize('variant', VARIANTS)
def test_save_and_load(tmp_path, variant):
    first, batch = build(variant, genotype=None), make_batch()
    torch.save({'state_dict': first.state_dict(), 'meta': {}}, tmp_path / 'model.pth')
    torch.manual_seed(1)
    second = RUAS(variant, genotype=None)
    load_checkpoint(second, str(tmp_path / 'model.pth'), strict=True)
    with torch.no_grad():
        for one, other in zip(first.test_step(batch), second.test_step(make_batch()), strict=True):
            assert torch.equal(one.enhanced, other.enhanced)


# --- data preprocessor ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize('stacked', [False, True])
@pytest.mark.parametrize('bgr_to_rgb', [True, False])
@pytest.mark.parametrize(
    ('dtype', 'white'),
    [(torch.uint8, 255), (torch.uint16, 65535), (torch.float16, 1), (torch.float32, 1), (torch.float64, 1)],
)
def test_preprocessor(dtype, white, bgr_to_rgb, stacked):
    values = torch.tensor([0, 0.25, 1]).view(3, 1, 1).expand(3, 2, 5)
    images = [(values * white).round().to(dtype) if white > 1 else values.to(dtype)] * 2
    batch = {'inputs': torch.stack(images) if stacked else images, 'data_samples': None}
    data = RUASDataPreprocessor(bgr_to_rgb)(batch)
    assert data['data_samples'] is None and isinstance(data['inputs'], list) and len(data['inputs']) == 2
    for image in data['inputs']:
        assert image.dtype == torch.float32 and image.shape == (3, 2, 5)
        torch.testing.assert_close(
            image, values.flip(0) if bgr_to_rgb else values, rtol=0, atol=0.51 / white if white > 1 else 0
        )
    assert batch['inputs'][0].dtype == dtype


@pytest.mark.parametrize(
    ('image', 'error', 'words'),
    [
        (torch.zeros(3, 4, 4, dtype=torch.int64), TypeError, 'not torch.int64'),
        (np.zeros((4, 4, 3), np.uint8), TypeError, 'not ndarray'),
        (torch.zeros(4, 4, 3), ValueError, r'not \(4, 4, 3\)'),
        (torch.zeros(1, 4, 4), ValueError, r'not \(1, 4, 4\)'),
        (torch.zeros(4, 4), ValueError, r'not \(4, 4\)'),
        (torch.zeros(3, 0, 4), ValueError, r'not \(3, 0, 4\)'),
        (torch.full((3, 4, 4), 200.0), ValueError, r'in \[0, 1\]'),
        (torch.full((3, 4, 4), torch.nan), ValueError, 'NaN'),
        (torch.full((3, 4, 4), -0.1), ValueError, r'in \[0, 1\]'),
    ],
)
def test_preprocessor_errors(image, error, words):
    with pytest.raises(error, match=words):
        RUASDataPreprocessor()({'inputs': [torch.zeros(3, 2, 2), image]})


# --- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('phase', Phase)
def test_losses_of_each_phase(variant, phase):
    model, batch = build(variant, scene_loss_weight=5.0), make_batch()
    if variant == 'S' and phase in (Phase.TASK, Phase.COUPLED):
        with pytest.raises(ValueError, match="'S' has no task module.*strategy='global'"):
            losses_of(model, batch, phase)
        return
    losses = losses_of(model, batch, phase)
    expected = {Phase.SCENE: SCENE, Phase.JOINT: SCENE | LOSSES[variant]}.get(phase, LOSSES[variant])
    assert set(losses) == expected
    plain = losses_of(build(variant), batch, phase)
    for name, loss in losses.items():
        weight = 5 if phase is Phase.JOINT and variant != 'S' and name in SCENE else 1
        torch.testing.assert_close(loss, weight * plain[name])


def test_losses_are_the_formulas():
    model, batch = build('full', scene_loss_weight=0.5), make_batch([(6, 5)])
    y = batch['inputs'][0].flip(0)[None] / 255
    scene = model.scene_module(y)
    u, t = scene.features[-1], scene.illuminations[-1]
    expected = {name: 0.5 * loss for name, loss in ruas_mm.SceneLoss()(t, y).items()}
    expected |= ruas_mm.DenoisingLoss()(model.noise_removal, u)
    for name, loss in losses_of(model, batch).items():
        torch.testing.assert_close(loss, expected[name])


def test_losses_are_means_over_images():
    model, batch = build('full'), make_batch([(12, 16), (9, 7), (12, 16)])
    together = losses_of(model, batch)
    alone = [losses_of(model, one_of(batch, index)) for index in range(3)]
    for name, loss in together.items():
        torch.testing.assert_close(loss, sum(losses[name] for losses in alone) / 3)


def moved(model, batch, phase=Phase.JOINT, names=None):
    """Which parts of the model the losses (of these names) reach."""
    model.zero_grad()
    losses = losses_of(model, batch, phase)
    sum(loss for name, loss in losses.items() if names is None or name in names).backward()
    return {
        name.partition('.')[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }


@pytest.mark.parametrize('genotype', ['ruas_enhance_journal', None])
def test_who_learns_from_what(genotype):
    model, batch = build(genotype=genotype), make_batch([(12, 16), (9, 7)])
    assert moved(model, batch) == {'scene_module', 'noise_removal', 'noise_estimator'}
    assert moved(model, batch, Phase.SCENE) == {'scene_module'}
    assert moved(model, batch, Phase.TASK) == {'noise_removal', 'noise_estimator'}
    assert moved(model, batch, Phase.COUPLED) == {'scene_module', 'noise_removal', 'noise_estimator'}
    assert moved(model, batch, Phase.JOINT, TASK) == {'scene_module', 'noise_removal'}
    assert moved(model, batch, Phase.JOINT, {'loss_noise_estimate'}) == {'noise_estimator'}
    apart = build(genotype=genotype, end_to_end=False)
    assert moved(apart, batch, Phase.JOINT, TASK) == {'noise_removal'}
    assert moved(apart, batch, Phase.JOINT, SCENE) == {'scene_module'}
    assert moved(apart, batch, Phase.COUPLED, TASK) == {'scene_module', 'noise_removal'}


@pytest.mark.parametrize('variant', VARIANTS)
def test_it_learns(variant):
    model, batch = build(variant).train(), make_batch([(24, 32), (24, 32), (20, 20)])
    optimizer = OptimWrapper(torch.optim.Adam(model.parameters(), lr=3e-3))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    history = [model.train_step(batch, optimizer)['loss'].item() for _ in range(12)]
    assert history[-1] < 0.9 * history[0]
    assert not any(torch.equal(before[name], p) for name, p in model.named_parameters())


@pytest.mark.parametrize('variant', VARIANTS)
def test_autocast(variant):
    model = build(variant).train()
    with torch.autocast('cpu', torch.bfloat16):
        losses = losses_of(model, make_batch())
        results = model.eval().test_step(make_batch())
    assert all(sample.enhanced.dtype == torch.float32 for sample in results)
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.cuda
@pytest.mark.parametrize('variant', VARIANTS)
def test_cuda(variant):
    """The same as on the CPU, and half precision trains."""
    model = build(variant, noisy=variant != 'S')
    with torch.no_grad():
        expected = model.eval().test_step(make_batch())
        results = model.cuda().test_step(make_batch())
    for ours, sample in zip(results, expected, strict=True):
        torch.testing.assert_close(ours.enhanced.cpu(), sample.enhanced, rtol=1e-3, atol=1e-3)
    with torch.autocast('cuda', torch.float16):
        losses = losses_of(model.train(), make_batch())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


# --- search --------------------------------------------------------------------------------------------------------


class Pictures(BaseDataset):
    """Small dark pictures."""

    def load_data_list(self):
        return [{'seed': seed} for seed in range(2)]

    def __getitem__(self, index):
        return {'inputs': make_batch([(10, 12)], self.get_data_info(index)['seed'])['inputs'][0]}


LOADER = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dict(type=Pictures)
)


@pytest.mark.parametrize(('variant', 'strategy'), [('A', 'cooperative'), ('S', 'global')])
def test_search(tmp_path, variant, strategy):
    """Two iterations: one of the scene's phase, one of the task's. The hook needs nothing that is not there."""
    from ruas_mm.engine import CooperativeSearchHook

    model = build(variant, genotype=None)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen = []

    class Trace(CooperativeSearchHook.__base__):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            seen.append({name for name, value in model.state_dict().items() if not torch.equal(value, before[name])})
            before.update({name: value.clone() for name, value in model.state_dict().items()})

    hook = CooperativeSearchHook(copy.deepcopy(LOADER), strategy=strategy, scene_iters=1, task_iters=1, order=2)
    runner = Runner(
        model,
        work_dir=str(tmp_path),
        train_dataloader=copy.deepcopy(LOADER),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[hook, Trace()],
        randomness=dict(seed=0),
        log_level='WARNING',
        experiment_name=tmp_path.name,
    )
    runner.train()
    parts = [{name.partition('.')[0] for name in names} for names in seen]
    assert parts == [{'scene_module'}, {'noise_removal', 'noise_estimator'} if variant == 'A' else {'scene_module'}]
    alphas = {name for names in seen for name in names if name.endswith('alphas')}
    assert alphas == {name for name in before if name.endswith('alphas')}
    assert all(value.isfinite().all() for value in model.state_dict().values())
    found = Genotype.load(tmp_path / 'genotype.json')
    assert {slot.partition('.')[0] for slot in found.slots} == {'scene', *(['noise_removal'] if variant != 'S' else [])}
    RUAS(variant, tmp_path / 'genotype.json')
    assert model.search_phase is Phase.JOINT
