"""The authors' published weights run in our default modules, unchanged, and give their published pictures."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ruas_mm.modules import NoiseEstimator, NoiseRemoval, SceneModule

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


def cell_weights(weights, prefix):
    """Weights of all cells under a prefix, by our names."""
    state = {}
    for key, value in weights.items():
        if key.startswith(prefix):
            cell, edge, *rest = key.removeprefix(prefix).replace('.cell.', '.').split('.')
            ours = 'fuse' if edge == 'c5' else f'operations.{EDGES.index(edge)}'
            state[f'cells.{cell}.{ours}.{rest[-1]}'] = value
    return state


def renamed(weights, theirs, ours):
    return {ours + key.removeprefix(theirs): value for key, value in weights.items() if key.startswith(theirs)}


@pytest.fixture(scope='module')
def modules(weights):
    """Our defaults with their weights; the strict loading says that none is missing and none is left over."""
    states = {
        SceneModule: cell_weights(weights, 'enhance_net.iems.'),
        NoiseRemoval: {
            **cell_weights(weights, 'denoise_net.nrms.'),
            **renamed(weights, 'denoise_net.stem.', 'stem.'),
            **renamed(weights, 'denoise_net.activate.0.', 'to_noise.'),
        },
        NoiseEstimator: renamed(weights, 'estimation.estimation.', ''),
    }
    assert sum(map(len, states.values())) == len(weights)
    modules = []
    for kind, state in states.items():
        module = kind()
        module.load_state_dict(state, strict=True)
        modules.append(module.eval())
    return modules


def read(path):
    return cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize(('name', 'noisy'), [('00091.png', False), ('00451.png', True)])
@torch.no_grad()
def test_published_pictures(modules, name, noisy):
    """One picture below their noise threshold, u^K itself, and one above it."""
    scene_module, noise_removal, noise_estimator = modules
    y = torch.from_numpy(read(DATA / 'lol/input' / name)).permute(2, 0, 1)[None] / 255
    u = scene_module(y).features[-1]
    assert (noise_estimator.score(u).item() > 0.035) == noisy
    x = noise_removal(u) if noisy else u
    ours = (x[0].clamp(0, 1) * 255).permute(1, 2, 0).numpy()
    published = read(DATA / 'lol/published_result' / name).astype(np.float32)
    # They truncate when they write 8 bits: the true value lies in [p, p + 1), give or take the rounding of float32.
    difference = ours - published
    assert difference.min() > -1e-3
    assert difference.max() < 1 + 1e-3
    assert abs(np.trunc(ours) - published).max() <= 1
    assert (np.trunc(ours) == published).mean() > 0.999


def test_size(weights, modules):
    """METHOD §5."""
    assert [sum(p.numel() for p in module.parameters()) for module in modules] == [1161, 5985, 29507]
    assert sum(value.numel() for value in weights.values()) == 1161 + 5985 + 29507
