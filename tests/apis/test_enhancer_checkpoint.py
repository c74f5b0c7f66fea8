"""What a checkpoint may ask for before its model is built."""

import sys
import warnings
from pathlib import Path

import pytest
import torch

from ruas_mm.apis import RUASInferencer
from ruas_mm.apis.enhancer_checkpoint import load_enhancer
from ruas_mm.models.enhance import RUAS

sys.path.insert(0, str(Path(__file__).parent))

from enhancer import save_enhancer


@pytest.fixture(scope='module')
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp('checkpoint') / 'a.pth'
    save_enhancer(path)
    return torch.load(path, weights_only=True)


def failure(path):
    """Return the one sentence that a checkpoint ends with."""
    with pytest.raises(ValueError, match=path.name) as caught:
        load_enhancer(path)
    message = str(caught.value)
    assert '\n' not in message and len(message) < 500 and message.endswith('.')
    return message


HUGE = 10**8


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'scene_module': {'stages': HUGE}}, 'stages must be at most'),
        ({'scene_module': {'stages': 50}}, 'lacks scene_module.cells.3.fuse.weight'),
        ({'scene_module': {'stages': 2.0}}, 'stages of its scene_module must be an integer of at least 1, got 2.0'),
        ({'scene_module': {'stages': 2**1000}}, 'got an integer of 1001 bits'),  # about the longest in a checkpoint
        ({'scene_module': {'channels': HUGE}}, 'channels of its scene_module must be 3'),
        ({'scene_module': {'window': HUGE + 1}}, 'window must be at most'),
        ({'scene_module': {'window': float('inf')}}, 'window must be at most'),
        ({'scene_module': {'gamma': 'x'}}, "gamma of SceneModule must be a number in [0, 1], got 'x'"),
        ({'scene_module': {'resolution': 1e-9}}, 'stages times window / resolution'),
        ({'scene_module': {'resolution': 0.3}}, 'resolution of SceneModule must be 1, 1/2, 1/3, … or 1/16, got 0.3'),
        ({'scene_module': {'resolution': 'x'}}, "resolution of SceneModule must be 1, 1/2, 1/3, … or 1/16, got 'x'"),
        ({'scene_module': {'wings': 2}}, "unknown option 'wings'"),
        ({'scene_module': {'_scope_': 'os'}}, "unknown option '_scope_'"),
        ({'scene_module': {'type': ['x'] * 9}}, 'must be of type ruas_mm.SceneModule, got a list'),
        ({'scene_module': [1]}, 'its scene_module must be a dict, got a list'),
        ({'noise_removal': {'cells': HUGE}}, 'cells must be at most'),
        ({'noise_removal': {'channels': HUGE}}, 'noise_removal.stem.weight in another shape'),
        ({'noise_estimator': {'channels': HUGE}}, 'noise_estimator.0.weight in another shape'),
        ({'border': HUGE}, 'border must be at most'),
        ({'border': 1.5}, 'border of RUAS must be an integer of at least 0, got 1.5'),
        ({'border': float('nan')}, 'border'),
        ({'epsilon': 'x'}, "epsilon of RUAS must be a number, got 'x'"),
        ({'genotype': 'x' * 10**6}, 'cannot be built: Genotype'),
        ({'genotype': 5}, 'got 5'),
        ({'genotype': {5: 'skip'}}, 'a string as its name, got 5'),
        ({'variant': ['A']}, 'unknown variant a list'),
        ({'type': ['ruas_mm.RUAS']}, 'of a model of type a list'),
    ],
)
def test_what_the_weights_do_not_pay_for_is_not_built(content, tmp_path, options, words):
    model = {**content['meta']['model'], **options}
    torch.save({'meta': {'model': model}, 'state_dict': content['state_dict']}, tmp_path / 'bad.pth')
    assert words in failure(tmp_path / 'bad.pth')


def test_names_without_weights_do_not_pay(content, tmp_path):
    """Thousands of stages may share one tensor in a small file."""
    state = dict(content['state_dict'])
    for index in range(3, 5000):
        state[f'scene_module.cells.{index}.fuse.weight'] = state['scene_module.cells.0.fuse.weight']
    model = {**content['meta']['model'], 'scene_module': {'stages': 5000}}
    torch.save({'meta': {'model': model}, 'state_dict': state}, tmp_path / 'bad.pth')
    assert 'stages must be at most' in failure(tmp_path / 'bad.pth')


def test_how_far_a_model_sees_is_bounded(tmp_path):
    save_enhancer(tmp_path / 'bad.pth', variant='S', scene_module=dict(stages=9, window=99))
    assert 'stages times window / resolution of its scene_module must be at most 512' in failure(tmp_path / 'bad.pth')


@pytest.mark.parametrize(
    'text',
    [
        'model = ' + '-' * 200_000 + '1',
        'model = ' + '(' * 100_000,
        'model = ' + 'dict(a=' * 100_000,
        'model = 1' + '+1' * 200_000,
        'model = a' + '.b' * 200_000,
        'model = 0x' + 'f' * 10**6,
        'model = ' + '9' * 10**6,
        'model = dict(type=' + '"a" ' * 100_000 + ')',
        '#' * 10**7 + '\nmodel = dict(type="RUAS")',
        'model = dict(type="RUAS", **{[]: 1})',
        '\x00',
        5,
    ],
    ids=range(12),
)
def test_texts_that_are_no_configs(content, tmp_path, text):
    torch.save({'meta': {'cfg': text}, 'state_dict': content['state_dict']}, tmp_path / 'bad.pth')
    message = failure(tmp_path / 'bad.pth')
    assert 'does not say how its model is built' in message or 'of a model of type' in message


@pytest.mark.filterwarnings('ignore')  # torch's, about quantised and sparse tensors
@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda value: value.to(torch.float8_e4m3fn), 'float8_e4m3fn'),
        (lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8), 'qint8'),
        (lambda value: value.to_sparse(), 'sparse'),
        (lambda value: value.to('meta'), 'a meta tensor'),
        (lambda value: value.to(torch.complex64), 'complex64'),
        (lambda value: value.to(torch.int32), 'int32'),
        (lambda value: value > 0, 'bool'),
        (lambda value: value.double() * 1e300, 'NaN or infinity'),  # too large for the model's own type
        (lambda value: value[:1].expand(10**5, *value.shape[1:]), 'another shape'),
        (lambda value: value.numpy(), 'a ndarray'),
        (lambda value: None, 'None'),
    ],
    ids=['fp8', 'quantised', 'sparse', 'meta', 'complex', 'integers', 'bool', 'overflow', 'expanded', 'numpy', 'None'],
)
@pytest.mark.parametrize('name', ['noise_removal.stem.weight', 'scene_module.cells.1.operations.1.weight'])
def test_odd_tensors_are_named(content, tmp_path, change, words, name):
    state = {**content['state_dict'], name: change(content['state_dict'][name])}
    torch.save({**content, 'state_dict': state}, tmp_path / 'bad.pth')
    message = failure(tmp_path / 'bad.pth')
    assert name in message and words in message


def test_unusual_tensors_load(content, tmp_path):
    """Parameters, other layouts in memory, and wider or narrower numbers."""
    state = dict(content['state_dict'])
    changes = [
        lambda value: torch.nn.Parameter(value),
        lambda value: value.clone().requires_grad_(),
        lambda value: value.double(),
        lambda value: torch.stack([value, value], -1)[..., 0],  # not contiguous
    ]
    for index, (name, value) in enumerate(state.items()):
        state[name] = changes[index % len(changes)](value)
    torch.save({**content, 'state_dict': state}, tmp_path / 'a.pth')
    loaded = load_enhancer(tmp_path / 'a.pth').state_dict()
    for name, value in content['state_dict'].items():
        assert torch.equal(loaded[name], value) and not loaded[name].requires_grad


def test_a_training_of_unusual_size_loads(tmp_path):
    """Every size that a config may choose, as far as the weights are there."""
    options = dict(
        scene_module=dict(stages=5, window=9), noise_removal=dict(channels=4, cells=1), noise_estimator=dict(channels=7)
    )
    with warnings.catch_warnings():
        save_enhancer(tmp_path / 'a.pth', **options, border=30)
    model = RUASInferencer(tmp_path / 'a.pth', device='cpu').model
    assert isinstance(model, RUAS) and len(model.scene_module.cells) == 5 and model.border == 30
