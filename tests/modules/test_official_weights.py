"""The authors' published weights run in our default modules, unchanged, and give their published pictures."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ruas_mm.modules import SceneModule

DATA = Path(__file__).parents[2] / '../shared/data/official_ruas'

pytestmark = pytest.mark.skipif(
    not (DATA / 'lol.pt').is_file(),
    reason="the authors' weights and pictures (../shared/data/official_ruas) are absent",
)

# Their edges, by the place that METHOD §3 gives them: o1 … o7. An edge without weights is a skip connection.
EDGES = ('c1_d', 'c1_r', 'c2_d', 'c2_r', 'c3_d', 'c3_r', 'c4')


@pytest.fixture(scope='module')
def weights():
    return torch.load(DATA / 'lol.pt', map_location='cpu', weights_only=True)


@pytest.fixture(scope='module')
def scene_module(weights):
    """Our defaults with their weights; the strict loading says that none is missing and none is left over."""
    state = {}
    for key, value in weights.items():
        if key.startswith('enhance_net.iems.'):
            stage, _, edge, *rest = key.removeprefix('enhance_net.iems.').split('.')
            ours = 'fuse' if edge == 'c5' else f'operations.{EDGES.index(edge)}'
            state[f'cells.{stage}.{ours}.{rest[-1]}'] = value
    module = SceneModule()
    module.load_state_dict(state, strict=True)
    assert len(state) == sum(key.startswith('enhance_net.') for key in weights)
    return module.eval()


def noise_score(weights, u):
    """METHOD §5: five 3x3 convolutions, ReLU between; the mean absolute value of each image."""
    for index in (0, 2, 4, 6, 8):
        prefix = f'estimation.estimation.{index}.'
        u = F.conv2d(u.relu() if index else u, weights[prefix + 'weight'], weights[prefix + 'bias'], padding=1)
    return u.abs().mean(dim=(1, 2, 3))


def remove_noise(weights, u):
    """METHOD §5 with the journal genotype: 1-RC, 3-RC, 3-2-DC, 1-RC, 3-RC, 3-C, 3-RC; six channels, three cells."""

    def conv(x, name, padding=0, dilation=1):
        name = f'denoise_net.{name}.'
        return F.conv2d(x, weights[name + 'weight'], weights[name + 'bias'], padding=padding, dilation=dilation)

    def act(x):
        return F.leaky_relu(x, 0.05)

    x = conv(u, 'stem', 1)
    for k in range(3):
        at = f'nrms.{k}.'
        d1 = act(x + conv(x, at + 'c1_d.op'))
        r1 = act(x + conv(x, at + 'c1_r.op', 1) + x)
        d2 = act(conv(r1, at + 'c2_d.op', 2, 2))
        r2 = act(r1 + conv(r1, at + 'c2_r.op') + r1)
        d3 = act(r2 + conv(r2, at + 'c3_d.op', 1))
        r3 = act(conv(r2, at + 'c3_r.op', 1) + r2)
        d4 = act(r3 + conv(r3, at + 'c4.op', 1))
        x = conv(torch.cat([d1, d2, d3, d4], 1), at + 'c5')
    return u - conv(x, 'activate.0', 1)


def read(path):
    return cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize(('name', 'noisy'), [('00091.png', False), ('00451.png', True)])
@torch.no_grad()
def test_published_pictures(weights, scene_module, name, noisy):
    """One picture below their noise threshold, u^K itself, and one above it."""
    y = torch.from_numpy(read(DATA / 'lol/input' / name)).permute(2, 0, 1)[None] / 255
    u = scene_module(y).features[-1]
    assert (noise_score(weights, u).item() > 0.035) == noisy
    x = remove_noise(weights, u) if noisy else u
    ours = (x[0].clamp(0, 1) * 255).permute(1, 2, 0).numpy()
    published = read(DATA / 'lol/published_result' / name).astype(np.float32)
    # They truncate when they write 8 bits: the true value lies in [p, p + 1), give or take the rounding of float32.
    difference = ours - published
    assert difference.min() > -1e-3
    assert difference.max() < 1 + 1e-3
    assert abs(np.trunc(ours) - published).max() <= 1
    assert (np.trunc(ours) == published).mean() > 0.999


def test_size(weights):
    assert sum(value.numel() for key, value in weights.items() if key.startswith('enhance_net.')) == 1161
    assert sum(p.numel() for p in SceneModule().parameters()) == 1161
