import hashlib
import http.server
import os
import pickle
import random
import subprocess
import sys
import threading
import warnings
from collections import Counter
from pathlib import Path

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

import ruas_mm
from ruas_mm.apis.tools import find_checkpoint
from ruas_mm.utils.checkpoint import CheckpointError, load_from_http, load_from_local

sys.path.insert(0, str(Path(__file__).parent))
import hostile


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


def test_resuming_does_not_run_the_config_of_a_checkpoint(tmp_path):
    """mmengine executes ``meta['config']``, which OpenMMLab 1 wrote, when it resumes."""
    make_runner(tmp_path, 'first', max_iters=2).train()
    path, payload = tmp_path / 'iter_2.pth', tmp_path / 'payload'
    checkpoint = torch.load(path, weights_only=False)
    checkpoint['meta']['config'] = f'gpu_ids = open({str(payload)!r}, "w").close() or [0]'
    torch.save(checkpoint, path)
    second = make_runner(tmp_path, 'second', max_iters=4, load_from=str(path), resume=True)
    second.load_or_resume()
    assert second.iter == 2
    assert not payload.exists()


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


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.filterwarnings('ignore')  # torch's, about quantised and sparse tensors
def test_tensors_of_every_kind_come_back(tmp_path, zipped):
    base = torch.arange(12.0).view(3, 4)
    marked = nn.Parameter(torch.ones(2))
    marked.tag = 'x'
    tensors = {
        'transposed': base.t(),
        'part': base[1:, 2:],
        'expanded': base[:1].expand(5, 4),
        'frozen': nn.Parameter(torch.ones(2), requires_grad=False),
        'with an attribute': marked,
        'conjugated': torch.tensor([1 + 2j]).conj(),
        'quantised': torch.quantize_per_tensor(base, 0.1, 3, torch.quint8),
        'per channel': torch.quantize_per_channel(base, torch.ones(3).double(), torch.zeros(3).long(), 0, torch.qint8),
        'sparse': base.to_sparse(),
        'csr': base.to_sparse_csr(),
        'meta': torch.empty(3, device='meta'),
        'empty': torch.zeros(0, 3),
        'fp8': torch.ones(2).to(torch.float8_e4m3fn),
    }
    torch.save(tensors, tmp_path / 'all.pth', _use_new_zipfile_serialization=zipped)
    loaded = load_from_local(tmp_path / 'all.pth', 'cpu')
    for name, tensor in tensors.items():
        assert repr(loaded[name]) == repr(tensor) and type(loaded[name]) is type(tensor), name
    assert loaded['with an attribute'].tag == 'x'
    assert loaded['transposed'].stride() == base.t().stride()
    assert loaded['part'].untyped_storage().data_ptr() == loaded['transposed'].untyped_storage().data_ptr()


def test_versions_of_modules_come_back(tmp_path):
    torch.save(nn.BatchNorm2d(2).state_dict(), tmp_path / 'a.pth')
    assert load_from_local(tmp_path / 'a.pth')._metadata == nn.BatchNorm2d(2).state_dict()._metadata


def load_all(folder):
    """Load all files of a folder in a process with 600 MB of memory more than it starts with."""
    command = [sys.executable, '-W', 'error', hostile.__file__, str(folder), '600']
    environment = {**os.environ, 'PYTHONPATH': str(Path(ruas_mm.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    rows = [line.split('\t') for line in done.stdout.splitlines()]
    assert done.returncode == 0, (rows[-1:], done.stderr)
    return {Path(name).stem: (outcome, message) for name, outcome, _, message in rows}


@pytest.fixture(scope='module')
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('hostile')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch's, about quantised tensors
        files = hostile.hostile_checkpoints()
    for name, content in files.items():
        (folder / f'{name}.pth').write_bytes(content)
    return load_all(folder), set(files)


def test_hostile_checkpoints_are_refused(outcomes):
    """None takes all memory or time, crashes the interpreter, or comes back as something that later code trips over."""
    found, files = outcomes
    assert set(found) == files
    harmless = {'dtype changed', 'far memo'}  # neither has any effect
    for name, (outcome, message) in found.items():
        assert outcome == ('loaded' if name in harmless else 'refused'), (name, outcome, message)
        assert outcome == 'loaded' or (f'{name}.pth' in message and len(message) < 500 and '\\n' not in message)


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('inflated', 'compressed or encrypted, which torch.save never writes'),
        ('overlapping members', 'its parts overlap'),
        ('doubling list', 'unfolds to more than'),
        ('expanded tensor', 'unfolds to more than'),
        ('beyond storage', 'a tensor of shape (1000000000,) reaches beyond its storage'),
        ('declared larger', "it holds 4 bytes of storage '0', expected 400000"),
        ('legacy declared larger', 'declared larger than the file'),
        ('deep list', 'nested more than 100 levels deep'),
        ('itself', 'contains itself'),
        ('class changed', 'a change of mmengine.logging.history_buffer.HistoryBuffer'),
        ('script', 'TorchScript'),
    ],
)
def test_reasons_are_named(outcomes, name, words):
    assert words in outcomes[0][name][1]


def test_random_damage_is_refused_or_harmless(tmp_path):
    rng = random.Random(0)
    for index in range(300):
        (tmp_path / f'{index}.pth').write_bytes(hostile.mutated_checkpoint(rng))
    found = load_all(tmp_path)
    assert len(found) == 300 and {outcome for outcome, _ in found.values()} == {'loaded', 'refused'}


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'pipe.pth')
    for load in (load_from_local, find_checkpoint):
        with pytest.raises(OSError, match=r'pipe\.pth is not a regular file'):
            load(str(tmp_path / 'pipe.pth'))
    with pytest.raises(OSError, match='/dev/zero is not a regular file'):
        load_from_local('/dev/zero')


def test_what_cannot_be_read_is_not_said_to_be_missing(tmp_path):
    (tmp_path / 'loop.pth').symlink_to(tmp_path / 'loop.pth')
    (tmp_path / 'last_checkpoint').symlink_to(tmp_path / 'last_checkpoint')
    for load in (load_from_local, find_checkpoint):
        with pytest.raises(OSError, match=r'loop\.pth cannot be read: Too many levels'):
            load(str(tmp_path / 'loop.pth'))
    with pytest.raises(OSError, match='last_checkpoint cannot be read'):
        find_checkpoint(str(tmp_path))
    (tmp_path / 'last_checkpoint').unlink()
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'loop.pth'))
    with pytest.raises(OSError, match=r'loop\.pth cannot be read'):
        find_checkpoint(str(tmp_path))


def test_permission_denied_is_said(tmp_path):
    torch.save({}, tmp_path / 'secret.pth')
    (tmp_path / 'secret.pth').chmod(0)
    code = (
        'import os, sys\n'
        'from ruas_mm.utils.checkpoint import load_from_local\n'
        'os.geteuid() or os.seteuid(65534)\n'  # root may read everything
        'os.chdir("/")\n'
        f'fd = {str(tmp_path / "secret.pth")!r}\n'
        'try:\n    load_from_local(fd)\n'
        'except PermissionError as error:\n    print(error)\n'
    )
    environment = {**os.environ, 'PYTHONPATH': str(Path(ruas_mm.__file__).parents[1])}
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=environment)
    assert done.stdout == f'The checkpoint {tmp_path / "secret.pth"} cannot be read: Permission denied.\n', done.stderr


class Server(http.server.ThreadingHTTPServer):
    """Serves ``pages``: path -> bytes of the whole reply, or a body. Counts the requests for each."""

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.pages, self.requests = {}, Counter()
        self.url = f'http://127.0.0.1:{self.server_port}'


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests[self.path] += 1
        page = self.server.pages.get(self.path)
        if page is None:
            self.send_error(404)
        elif page.startswith(b'raw:'):
            self.wfile.write(page[4:])
        else:
            self.send_response(200)
            self.send_header('Content-Length', str(len(page)))
            self.end_headers()
            self.wfile.write(page)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setenv('no_proxy', '*')
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def cached(tmp_path):
    return sorted((tmp_path / 'hub' / 'checkpoints').iterdir())


def test_download(server, tmp_path):
    server.pages['/all.pth'] = hostile.saved(everything())
    for _ in range(2):
        content = CheckpointLoader.load_checkpoint(f'{server.url}/all.pth', 'cpu', 'silent')
        assert content['history'].statistics('mean') == 1.5
    assert server.requests['/all.pth'] == 1  # the second came from the cache
    with pytest.raises(CheckpointError, match=rf'{server.url}/missing\.pth cannot be downloaded: .*404'):
        load_from_http(f'{server.url}/missing.pth')
    assert len(cached(tmp_path)) == 1


def test_files_of_one_name_are_told_apart(server, tmp_path):
    for number, path in enumerate(['/m1/last.pth', '/m2/last.pth', '/m2/last.pth?v=2', '/' + 'a' * 300 + '.pth', '/']):
        server.pages[path] = hostile.saved({'number': number})
    for _ in range(2):
        assert [load_from_http(server.url + path)['number'] for path in server.pages] == [0, 1, 2, 3, 4]


def test_a_damaged_file_in_the_cache_is_downloaded_again(server, tmp_path):
    server.pages['/a.pth'] = hostile.saved({'number': 1})
    load_from_http(f'{server.url}/a.pth')
    (path,) = cached(tmp_path)
    path.write_bytes(path.read_bytes()[:-30])
    assert load_from_http(f'{server.url}/a.pth') == {'number': 1}
    assert cached(tmp_path) == [path] and path.read_bytes() == server.pages['/a.pth']


@pytest.mark.parametrize(
    ('reply', 'words'),
    [
        (b'raw:HTTP/1.0 200 OK\r\nContent-Length: 9999\r\n\r\nPK', '2 of 9999 bytes arrived'),
        (b'raw:nonsense\r\n\r\n', 'cannot be downloaded: nonsense'),
        (b'raw:', 'cannot be downloaded'),
        (b'raw:HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n', 'cannot be downloaded'),
        (b'raw:HTTP/1.1 301 Moved\r\nLocation: /a.pth\r\n\r\n', 'cannot be downloaded'),
        (b'raw:HTTP/1.1 301 Moved\r\nLocation: file:///etc/passwd\r\n\r\n', 'cannot be downloaded'),
        (b'raw:HTTP/1.0 200 OK\r\n\r\nPK\x03\x04cut', 'is damaged: its end is missing'),
        (b'a page that says that the model has moved', 'is not a checkpoint'),
    ],
)
def test_bad_downloads_leave_nothing(server, tmp_path, reply, words):
    server.pages['/a.pth'] = reply
    with pytest.raises(CheckpointError, match=f'{server.url}/a.pth') as caught:
        load_from_http(f'{server.url}/a.pth')
    assert words in str(caught.value) and '\n' not in str(caught.value)
    assert cached(tmp_path) == []


@pytest.mark.parametrize('url', ['http://[', 'http://127.0.0.1:99999/a.pth', 'http://a b/a.pth', 'http://\x00/a.pth'])
def test_bad_urls(server, url):
    with pytest.raises(CheckpointError, match='cannot be downloaded'):
        load_from_http(url)


def test_a_hash_in_the_name_is_compared(server):
    content = hostile.saved({'number': 1})
    digest = hashlib.sha256(content).hexdigest()
    server.pages |= dict.fromkeys([f'/a-{digest[:8]}.pth', f'/a-{digest}.pth', '/a-20260131.pth'], content)
    for path in server.pages:  # a date is no hash
        assert load_from_http(server.url + path) == {'number': 1}
    server.pages['/a-0badc0de.pth'] = content
    with pytest.raises(CheckpointError, match=rf'SHA-256 begins with {digest[:8]}, expected 0badc0de'):
        load_from_http(f'{server.url}/a-0badc0de.pth')


def test_redirects_are_followed(server):
    server.pages['/old.pth'] = b'raw:HTTP/1.1 302 Found\r\nLocation: /new.pth\r\n\r\n'
    server.pages['/new.pth'] = hostile.saved({'number': 1})
    assert load_from_http(f'{server.url}/old.pth') == {'number': 1}


def test_a_failure_of_one_rank_keeps_no_other_waiting(server, monkeypatch):
    passed = []
    monkeypatch.setattr('ruas_mm.utils.checkpoint.barrier', lambda: passed.append(True))
    with pytest.raises(CheckpointError):
        load_from_http(f'{server.url}/missing.pth')
    assert len(passed) == 2
