"""Tests of each metric against a second library or against its definition."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import METRICS
from mmengine.structures import BaseDataElement

pytest.importorskip('skimage')

from ruas_mm.evaluation import image_quality
from ruas_mm.evaluation.image_quality import ImageQuality

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / 'shared/data'


def make_sample(seed=0, size=(40, 56), truth=True):
    """A smooth picture with noise, as an enhanced image, and the picture itself as ground truth."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 7, generator=generator)
    picture = torch.nn.functional.interpolate(coarse, size, mode='bilinear')[0]
    sample = BaseDataElement(metainfo=dict(img_path=f'{seed}.png'))
    sample.enhanced = (0.8 * picture + 0.1 * torch.randn(3, *size, generator=generator)).clamp(0, 1)
    if truth:
        sample.gt = (picture * 255).round().byte()
    return sample


def measure(samples, **options):
    """As a runner does it: the means, by name."""
    evaluator = Evaluator([METRICS.build(dict(type='ruas_mm.ImageQuality', **options))])
    for sample in samples:
        evaluator.process([sample])
    figures = evaluator.evaluate(len(samples))
    assert all(name.startswith('enhance/') for name in figures)
    return {name.removeprefix('enhance/'): value for name, value in figures.items()}


def eight_bits(sample):
    """The result as 8 bits leave it, and the ground truth, in [0, 1], as batches of one."""
    return (sample.enhanced * 255).round()[None] / 255, sample.gt[None] / 255


# --- against other libraries ---------------------------------------------------------------------------------------


def test_psnr_is_that_of_torchmetrics():
    from torchmetrics.functional.image import peak_signal_noise_ratio

    samples = [make_sample(seed) for seed in range(3)]
    expected = [peak_signal_noise_ratio(*eight_bits(sample), data_range=1.0).item() for sample in samples]
    assert measure(samples, metric='psnr') == {'psnr': pytest.approx(np.mean(expected), abs=1e-4)}


def test_ssim_is_that_of_its_definition():
    """Uniform 7×7 windows inside the image and sample covariance, here with torch's pooling."""
    from torch.nn.functional import avg_pool2d

    sample = make_sample()
    x, y = (image.double() for image in eight_bits(sample))
    mean_x, mean_y = avg_pool2d(x, 7, 1), avg_pool2d(y, 7, 1)
    unbiased = 49 / 48
    var_x = unbiased * (avg_pool2d(x * x, 7, 1) - mean_x**2)
    var_y = unbiased * (avg_pool2d(y * y, 7, 1) - mean_y**2)
    covariance = unbiased * (avg_pool2d(x * y, 7, 1) - mean_x * mean_y)
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    assert measure([sample], metric='ssim') == {'ssim': pytest.approx(similarity.mean().item(), abs=1e-6)}


def test_ssim_is_near_that_of_torchmetrics():
    """… whose windows are Gaussian and whose covariance is that of the population."""
    from skimage.data import astronaut
    from torchmetrics.functional.image import structural_similarity_index_measure

    torch.manual_seed(0)
    sample = BaseDataElement()
    sample.gt = torch.from_numpy(astronaut()[:200, 100:300].copy()).permute(2, 0, 1)
    sample.enhanced = (0.8 * sample.gt / 255 + 0.05 * torch.randn(3, 200, 200)).clamp(0, 1)
    other = structural_similarity_index_measure(*eight_bits(sample), data_range=1.0).item()
    assert 0.2 < other < 0.8
    assert measure([sample], metric='ssim') == {'ssim': pytest.approx(other, abs=0.05)}


def test_lpips_is_that_of_torchmetrics(tmp_path):
    """Both with the same random backbone: the published one comes from the network."""
    pytest.importorskip('lpips')
    torchvision = pytest.importorskip('torchvision')
    from torchmetrics.functional.image.lpips import _LPIPS

    torch.manual_seed(1)
    backbone = torchvision.models.alexnet(weights=None).state_dict()
    torch.save(backbone, tmp_path / 'alexnet.pth')
    state = torch.get_rng_state()
    samples = [make_sample(seed) for seed in range(2)]
    found = measure(samples, metric='lpips', lpips_backbone=str(tmp_path / 'alexnet.pth'))
    assert (torch.get_rng_state() == state).all()  # training goes on as it would have

    other = _LPIPS(net='alex', pnet_rand=True).eval()
    for part in other.net.children():
        part.load_state_dict({key: backbone[f'features.{key}'] for key in part.state_dict()})
    with torch.no_grad():
        expected = [other(*eight_bits(sample), normalize=True).item() for sample in samples]
    assert min(expected) > 1e-4
    assert found == {'lpips': pytest.approx(np.mean(expected), rel=1e-4)}


# --- NIQE against its definition (Mittal et al., IEEE SPL 2013), literally and in float64 -----------------------------


def bicubic_half(image):
    """MATLAB's imresize(image, 0.5): cubic kernel of a = -0.5, stretched by 2, mirrored at the border."""

    def weight(x):
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    def rows(image):
        length = len(image)
        half = np.zeros((length // 2, length))
        for i in range(length // 2):
            centre = 2 * i + 0.5
            for j in range(2 * i - 4, 2 * i + 6):
                half[i, min(max(j, -1 - j), 2 * length - 1 - j)] += weight((j - centre) / 2)
        return (half / half.sum(1, keepdims=True)) @ image

    return rows(rows(image).T).T


def asymmetric_gaussian(values):
    """Shape and the two scales, by moments."""
    shapes = np.arange(0.2, 10.001, 0.001)
    ratios = np.array([math.gamma(2 / a) ** 2 / (math.gamma(1 / a) * math.gamma(3 / a)) for a in shapes])
    left, right = (math.sqrt((values[side] ** 2).mean()) for side in (values < 0, values > 0))
    g = left / right
    ratio = np.abs(values).mean() ** 2 / (values**2).mean() * (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2
    shape = shapes[np.argmin((ratios - ratio) ** 2)]
    scale = math.sqrt(math.gamma(1 / shape) / math.gamma(3 / shape))
    return shape, left * scale, right * scale


def block_features(block):
    shape, left, right = asymmetric_gaussian(block)
    features = [shape, (left + right) / 2]
    for down, across in ((0, 1), (1, 0), (1, 1), (1, -1)):
        neighbour = np.roll(np.roll(block, down, 0), across, 1)
        shape, left, right = asymmetric_gaussian(block * neighbour)
        features += [shape, (right - left) * math.gamma(2 / shape) / math.gamma(1 / shape), left, right]
    return features


def literal_niqe(rgb, mean, covariance):
    """``rgb``: uint8 of shape (H, W, 3) with whole blocks of 96×96."""
    gray = np.round(rgb.astype(float) @ [0.299, 0.587, 0.114])
    kernel = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    kernel /= kernel.sum()

    def blur(image):
        padded = np.pad(image, 3, mode='edge')
        lines = np.apply_along_axis(np.convolve, 0, padded, kernel, 'valid')
        return np.apply_along_axis(np.convolve, 1, lines, kernel, 'valid')

    features = []
    for side in (96, 48):
        mu = blur(gray)
        normal = (gray - mu) / (np.sqrt(np.abs(blur(gray**2) - mu**2)) + 1)
        blocks = [
            normal[top : top + side, left : left + side]
            for left in range(0, normal.shape[1], side)
            for top in range(0, normal.shape[0], side)
        ]
        features.append([block_features(block) for block in blocks])
        gray = bicubic_half(gray)
    features = np.hstack(features)
    away = features.mean(0) - mean
    return math.sqrt(away @ np.linalg.pinv((covariance + np.cov(features.T)) / 2) @ away)


@pytest.fixture(scope='module')
def niqe_module():
    return pytest.importorskip('mmagic.evaluation.metrics.niqe', reason='mmagic is missing', exc_type=ImportError)


def test_niqe_is_that_of_its_definition(niqe_module):
    from skimage.data import astronaut

    parameters = np.load(Path(niqe_module.__file__).with_name('niqe_pris_params.npz'))
    rgb = astronaut()[:192, 100:388]
    sample = BaseDataElement()
    sample.enhanced = torch.from_numpy(rgb.copy()).permute(2, 0, 1) / 255
    found = measure([sample], metric='niqe')['niqe']  # without ground truth
    expected = literal_niqe(rgb, parameters['mu_pris_param'][0], parameters['cov_pris_param'])
    assert found == pytest.approx(expected, rel=2e-3)  # mmagic computes in float32
    noisy = sample.clone()
    noisy.enhanced = (sample.enhanced + 0.2 * torch.randn(3, *rgb.shape[:2])).clamp(0, 1)
    assert measure([noisy], metric='niqe')['niqe'] > 1.5 * found


# --- the protocol --------------------------------------------------------------------------------------------------


def test_equal_images():
    sample = make_sample()
    sample.enhanced = sample.gt / 255
    assert measure([sample]) == {'psnr': math.inf, 'ssim': pytest.approx(1)}


def test_one_grey_level_is_48_decibels():
    """… of error everywhere; fractions are rounded, or cut off as the authors do."""
    sample = make_sample()
    sample.gt = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    sample.enhanced = torch.full((3, 8, 8), 100.6 / 255)
    one_level = {'psnr': pytest.approx(20 * math.log10(255), abs=1e-9)}
    assert measure([sample], metric='psnr') == one_level
    assert measure([sample], metric='psnr', rounding='down') == {'psnr': math.inf}
    sample.enhanced = torch.full((3, 8, 8), 101.4 / 255)
    assert measure([sample], metric='psnr') == measure([sample], metric='psnr', rounding='down') == one_level


def test_brightness_is_not_fitted():
    sample = make_sample()
    darker = sample.clone()
    darker.enhanced = sample.enhanced / 2
    assert measure([darker])['psnr'] < measure([sample])['psnr'] - 3


def test_each_image_counts_once():
    """Whatever its size and batch."""
    samples = [make_sample(0), make_sample(1, (20, 30)), make_sample(2)]
    single = [measure([sample]) for sample in samples]
    metric = ImageQuality()
    metric.process(None, [sample.to_dict() for sample in samples[:2]])
    metric.process(None, [samples[2].to_dict()])
    together = metric.evaluate(3)
    for name in ('psnr', 'ssim'):
        assert together[f'enhance/{name}'] == pytest.approx(np.mean([figures[name] for figures in single]))


@pytest.mark.skipif(not DATA.is_dir(), reason='needs ../shared/data')
@pytest.mark.parametrize(
    ('folder', 'cut_off', 'rounded'),
    [('lol/train', (14.524, 0.6119), (14.576, 0.6152)), ('fivek', (15.465, 0.8795), (15.392, 0.8789))],
)
def test_the_authors_weights(folder, cut_off, rounded, tmp_path):
    """The class's text: their published weights on the pairs at hand."""
    pytest.importorskip('mmcv.transforms')
    from ruas_mm.datasets.enhance import LowLightDataset
    from ruas_mm.models.enhance import RUAS

    tool = ROOT / 'tools/model_converters/from_official.py'
    command = [sys.executable, tool, DATA / 'official_ruas/lol.pt', tmp_path / 'lol.pth']
    subprocess.run(command, check=True, capture_output=True, env={'PYTHONPATH': str(ROOT)})
    model = RUAS()
    model.load_state_dict(torch.load(tmp_path / 'lol.pth', weights_only=False)['state_dict'])
    pipeline = [dict(type=f'{kind}') for kind in ('LoadImageFromFile', 'ruas_mm.LoadGroundTruth')]
    dataset = LowLightDataset(
        data_root=str(DATA / folder),
        data_prefix=dict(img_path='low', gt_path='high'),
        pipeline=[*pipeline, dict(type='ruas_mm.PackEnhanceInputs')],
        test_mode=True,
    )
    metrics = {rounding: ImageQuality(rounding=rounding) for rounding in ('down', 'nearest')}
    model.eval()
    for index in range(len(dataset)):
        with torch.no_grad():
            (sample,) = model.test_step({key: [value] for key, value in dataset[index].items()})
        for metric in metrics.values():
            metric.process(None, [sample.to_dict()])
    for rounding, (psnr, ssim) in (('down', cut_off), ('nearest', rounded)):
        figures = metrics[rounding].evaluate(len(dataset))
        assert figures['enhance/psnr'] == pytest.approx(psnr, abs=0.01)
        assert figures['enhance/ssim'] == pytest.approx(ssim, abs=5e-4)


# --- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda sample: delattr(sample, 'gt'), r"0\.png has no ground truth, which psnr needs; .*metric='niqe'"),
        (
            lambda sample: setattr(sample, 'gt', sample.gt[:, 1:]),
            r'0\.png: the ground truth must have shape \(3, 40, 56\), got \(3, 39, 56\)',
        ),
        (lambda sample: sample.enhanced.fill_(math.nan), r'0\.png: the result must be finite'),
        (
            lambda sample: [setattr(sample, key, sample.get(key)[:, :6]) for key in ('gt', 'enhanced')],
            r'0\.png is too small for ssim, got 56×6',
        ),
    ],
)
def test_images_that_cannot_be_measured(change, message):
    sample = make_sample()
    change(sample)
    with pytest.raises(ValueError, match=message):
        measure([sample])


def test_niqe_needs_two_blocks(niqe_module):
    with pytest.raises(ValueError, match=r'0\.png is too small for niqe, got 191×100'):
        measure([make_sample(size=(100, 191))], metric='niqe')
    assert measure([make_sample(size=(100, 192))], metric='niqe')['niqe'] > 0


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(metric=('psnr', 'mos')), 'psnr, ssim, lpips, niqe.*mos'),
        (dict(metric=()), 'metric of ImageQuality must be among'),
        (dict(rounding='up'), "rounding of ImageQuality must be 'nearest' or 'down', got 'up'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        ImageQuality(**options)


@pytest.mark.parametrize(('figure', 'package'), [('psnr', 'scikit-image'), ('lpips', 'lpips'), ('niqe', 'mmagic')])
def test_missing_package(figure, package, monkeypatch):
    """Asked for by name when the metric is built, before anything is trained; the others do without it."""

    def missing(module):
        raise ModuleNotFoundError(f'No module named {module!r}')

    monkeypatch.setattr(image_quality.importlib, 'import_module', missing)
    with pytest.raises(ImportError, match=f'{figure} needs {package}, .*No module named') as error:
        ImageQuality(metric=figure)
    assert '\n' not in str(error.value)


def test_backbone_that_is_not_there(tmp_path, monkeypatch):
    pytest.importorskip('lpips')

    def no_network(*arguments, **options):
        raise OSError('no route to host')

    monkeypatch.setattr(torch.hub, 'load_state_dict_from_url', no_network)
    with pytest.raises(FileNotFoundError, match=r'no route to host.*save that file as .*alexnet-owt-7be5be79\.pth'):
        ImageQuality(metric='lpips')
    with pytest.raises(FileNotFoundError, match=r'lpips_backbone none\.pth cannot be read'):
        ImageQuality(metric='lpips', lpips_backbone='none.pth')
    torch.save({'features.0.weight': torch.zeros(1)}, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match=r"other\.pth must contain torchvision's weights of AlexNet"):
        ImageQuality(metric='lpips', lpips_backbone=str(tmp_path / 'other.pth'))
