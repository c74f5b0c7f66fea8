import functools
import http.server
import os
import pickle
import random
import threading

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner, load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ruas_mm  # noqa: F401
from ruas_mm.utils.checkpoint import CheckpointError, load_from_http, load_from_local


class Tiny(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, x, mode='tensor'):
        out = self.layer(x)
        return {'loss': out.square().mean()} if mode == 'loss' else out


def make_runner(work_dir, name, max_iters, **options):
    data = TensorDataset(torch.randn(8, 2))
    return Runner(
        Tiny(),
        str(work_dir),
        train_dataloader=DataLoader(data, batch_size=2, sampler=DefaultSampler(data)),
        train_cfg={'type': 'IterBasedTrainLoop', 'max_iters': max_iters},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9}},
        param_scheduler={'type': 'LinearLR', 'start_factor': 0.5, 'by_epoch': False, 'end': 4},
        default_hooks={'checkpoint': {'type': 'CheckpointHook', 'by_epoch': False, 'interval': 2}},
        experiment_name=f'{work_dir.name}_{name}',
        **options,
    )


def test_runner_resumes(tmp_path):
    first = make_runner(tmp_path, 'first', max_iters=2)
    first.train()
    second = make_runner(tmp_path, 'second', max_iters=4, resume=True)
    second.load_or_resume()
    assert second.iter == 2
    torch.testing.assert_close(second.model.state_dict(), first.model.state_dict())
    momentum = [state['momentum_buffer'] for state in second.optim_wrapper.optimizer.state.values()]
    assert len(momentum) == 2 and all(buffer.abs().sum() > 0 for buffer in momentum)
    kept, old = (runner.message_hub.get_scalar('train/loss') for runner in (second, first))
    assert kept.data[0].tolist() == old.data[0].tolist() and len(kept.data[0]) == 2
    assert kept.mean() == old.mean()


def everything():
    history = HistoryBuffer([1.0], [1])
    history.update(2.0)
    kinds = 'uint8', 'int64', 'float16', 'float32', 'bool', 'complex64', 'U3'
    return {
        'history': history,
        'arrays': [np.zeros((2, 3), kind) for kind in kinds],
        'scalars': [np.float64(0.5), np.float32(0.5), np.int64(7), np.bool_(True)],
        'random': (random.getstate(), np.random.get_state(), torch.get_rng_state()),
        'tensors': {'half': torch.ones(2, dtype=torch.bfloat16), 'parameter': nn.Parameter(torch.ones(2))},
        'plain': (None, True, 2**100, 1.5, 'text', b'bytes', {1, 2}, torch.device('cpu'), torch.float16),
    }


@pytest.mark.parametrize('zipped', [True, False])
def test_everything_comes_back(tmp_path, zipped):
    path = tmp_path / 'all.pth'
    torch.save(everything(), path, _use_new_zipfile_serialization=zipped)
    before, after = everything(), CheckpointLoader.load_checkpoint(str(path), 'cpu', 'silent')
    assert after['plain'] == before['plain']
    assert after['scalars'] == before['scalars']
    assert [type(value) for value in after['scalars']] == [type(value) for value in before['scalars']]
    for old, new in zip(before['arrays'], after['arrays'], strict=True):
        np.testing.assert_array_equal(new, old, strict=True)
    assert after['history'].data[0].tolist() == [1, 2]
    assert after['history'].statistics('mean') == 1.5
    torch.testing.assert_close(after['tensors'], before['tensors'])
    random.setstate(after['random'][0])
    np.random.set_state(after['random'][1])
    torch.set_rng_state(after['random'][2])


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize('save', ['zip', 'legacy', 'bare pickle'])
@pytest.mark.parametrize(
    ('attack', 'refused'),
    [
        (lambda path: Call(os.mkdir, path), f'{os.mkdir.__module__}.mkdir'),
        (lambda path: Call(exec, f'import os; os.mkdir({path!r})'), 'exec'),
        (lambda path: Call(getattr, HistoryBuffer, '__init__'), 'getattr'),
        (lambda path: Call(getattr, Call(getattr, HistoryBuffer, 'mean'), '__globals__'), 'getattr'),
        (lambda path: Call(np.load, path), 'numpy.load'),
        (lambda path: Call(torch.load, path), 'torch.serialization.load'),
    ],
    ids=['os', 'exec', 'getattr', 'nested getattr', 'numpy', 'torch'],
)
def test_hostile_checkpoint_runs_nothing(tmp_path, attack, refused, save):
    path, mark = tmp_path / 'hostile.pth', tmp_path / 'mark'
    content = {'state_dict': {}, 'meta': attack(str(mark))}
    if save == 'bare pickle':
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=save == 'zip')
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(Tiny(), str(path))
    assert not mark.exists()
    message = str(caught.value)
    assert '\n' not in message and str(path) in message and refused in message


def test_loading_leaves_torch_as_strict_as_it_was(tmp_path):
    path = tmp_path / 'all.pth'
    torch.save(everything(), path)
    load_from_local(path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


def test_damaged_files_are_named(tmp_path):
    whole = tmp_path / 'whole.pth'
    torch.save(everything(), whole)
    content = whole.read_bytes()
    torch.save(everything(), tmp_path / 'legacy.pth', _use_new_zipfile_serialization=False)
    legacy = (tmp_path / 'legacy.pth').read_bytes()
    cases = {
        'empty.pth': (b'', 'empty'),
        'text.pth': (b'a page that says 404 instead of a checkpoint', 'not a checkpoint'),
        'cut.pth': (content[: len(content) // 2], 'damaged'),
        'zeroed.pth': (content[:200] + bytes(200) + content[400:], ''),
        'cut_legacy.pth': (legacy[: len(legacy) // 2], ''),
    }
    for name, (damaged, expected) in cases.items():
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(CheckpointError) as caught:
            load_from_local(tmp_path / name)
        message = str(caught.value)
        assert '\n' not in message and str(tmp_path / name) in message and expected in message


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'missing\.pth does not exist'):
        load_checkpoint(Tiny(), str(tmp_path / 'missing.pth'))
    with pytest.raises(FileNotFoundError, match='is a folder'):
        load_from_local(tmp_path)


def test_download(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setenv('no_proxy', '*')
    torch.save(everything(), tmp_path / 'all.pth')
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{server.server_port}'
        assert load_from_http(f'{url}/all.pth')['history'].statistics('mean') == 1.5
        with pytest.raises(CheckpointError, match=rf'{url}/missing\.pth cannot be downloaded'):
            CheckpointLoader.load_checkpoint(f'{url}/missing.pth', logger='silent')
        server.shutdown()
    assert load_from_http(f'{url}/all.pth')['plain'] == everything()['plain']  # now from the cache
