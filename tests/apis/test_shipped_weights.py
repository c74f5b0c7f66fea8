"""The weights that come with the package."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.data import astronaut, coffee
from skimage.metrics import peak_signal_noise_ratio

from ruas_mm.apis import RUASInferencer
from ruas_mm.apis.enhancer_checkpoint import load_enhancer, shipped_weights
from ruas_mm.models.enhance.ruas import VARIANTS

TOOL = Path(__file__).parents[2] / 'tools' / 'model_converters' / 'publish.py'
PARAMETERS = {'S': 1161, 'full': 7146, 'A': 36653}  # METHOD §5


def test_size():
    assert sum(shipped_weights(variant).stat().st_size for variant in VARIANTS) < 500_000
    for variant, count in PARAMETERS.items():
        assert sum(p.numel() for p in load_enhancer(variant=variant).parameters()) == count


@pytest.mark.parametrize('variant', [None, *VARIANTS])
@pytest.mark.parametrize('photograph', [astronaut, coffee])
def test_dark_photographs_come_back(variant, photograph):
    """Far nearer to the photograph than the dark one is, without burnt highlights or a colour cast."""
    original = photograph()[:320:2, :400:2]
    dark = np.rint(original * 0.15).astype(np.uint8)
    bright = RUASInferencer(variant=variant, device='cpu')(dark)[0]['enhanced']
    gain = peak_signal_noise_ratio(original, bright) - peak_signal_noise_ratio(original, dark)
    assert gain > 2
    assert (bright == 255).mean() < 0.02
    shares = [image.mean((0, 1)) / image.mean() for image in (original, bright)]
    assert np.abs(shares[0] - shares[1]).max() < 0.15


@pytest.mark.parametrize('photograph', [astronaut, coffee])
def test_noise_is_told_from_texture(photograph):
    """RUAS_A leaves a dark photograph as it is, and removes noise of one and a quarter of its grey levels."""
    dark = photograph()[:320:2, :400:2] * 0.15
    noisy = dark + 1.275 * np.random.default_rng(0).standard_normal(dark.shape)
    enhance = RUASInferencer(device='cpu')
    scores = [enhance(image.clip(0, 255).round().astype(np.uint8))[0]['noise_score'] for image in (dark, noisy)]
    assert scores[0] < 0.5 * enhance.model.epsilon < enhance.model.epsilon < scores[1]


def test_publish(tmp_path):
    """The files of a checkpoint are those it came from, but for what is chosen; a bad one is one sentence."""

    def publish(src, *options):
        return subprocess.run([sys.executable, TOOL, src, tmp_path, *options], capture_output=True, text=True)

    assert publish(shipped_weights('A'), '--border', '7').returncode == 0
    for variant in VARIANTS:
        ours, theirs = load_enhancer(tmp_path / f'ruas_{variant.lower()}.pth'), load_enhancer(variant=variant)
        assert (ours.variant, ours.epsilon, ours.border) == (variant, theirs.epsilon, 7)
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    failed = publish(tmp_path / 'none.pth')
    assert failed.returncode == 1 and 'publish.py: ' in failed.stderr and 'Traceback' not in failed.stderr
