"""``--resume`` after a kill at any moment: whatever state the work directory was left in."""

import io
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.fileio import LocalBackend
from mmengine.hooks import checkpoint_hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ruas_mm  # noqa: F401
from ruas_mm.apis.tools import find_checkpoint, set_resume
from ruas_mm.utils.checkpoint import CheckpointError, find_resumable, load_from_local

ROOT = Path(__file__).parents[2]


def state(number):
    return {
        'meta': {'epoch': number, 'iter': 2 * number},
        'state_dict': {'weight': torch.full((64,), float(number))},
        'message_hub': {},
    }


@pytest.fixture
def work(tmp_path):
    """A work directory after three epochs, the best of them the second."""
    work = tmp_path / 'work'
    work.mkdir()
    for number in (1, 2, 3):
        torch.save(state(number), work / f'epoch_{number}.pth')
    torch.save(state(2), work / 'best_ap_epoch_2.pth')
    (work / 'last_checkpoint').write_text(str(work / 'epoch_3.pth'))
    return work


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[content.index(state(3)['state_dict']['weight'].numpy().tobytes()) + 7] ^= 1
    path.write_bytes(content)


DAMAGES = {
    'missing': (Path.unlink, 'does not exist'),
    'empty': (lambda path: path.write_bytes(b''), 'is empty'),
    'cut': (cut, 'its end is missing'),
    'zeros': (lambda path: path.write_bytes(bytes(path.stat().st_size)), 'not a checkpoint'),
    'flipped bit': (flip_a_bit, 'checksum'),
    'weights only': (lambda path: torch.save(state(3)['state_dict'], path), 'no state of training'),
    'code': (lambda path: torch.save({**state(3), 'meta': os.getcwd}, path), 'could run code'),
    'folder': (lambda path: (path.unlink(), path.mkdir()), 'is a folder'),
}


def test_the_named_one(work):
    assert find_resumable(work) == (str(work / 'epoch_3.pth'), '')


@pytest.mark.parametrize('kind', DAMAGES)
def test_damaged_checkpoint(work, kind):
    damage, reason = DAMAGES[kind]
    damage(work / 'epoch_3.pth')
    path, remark = find_resumable(work)
    assert path == str(work / 'epoch_2.pth')
    assert re.fullmatch(rf'.*epoch_3\.pth.*{reason}.*, so training goes on from {work}/epoch_2\.pth\.', remark)


def test_two_damaged_checkpoints(work):
    cut(work / 'epoch_3.pth')
    (work / 'epoch_2.pth').write_bytes(b'')
    path, remark = find_resumable(work)
    assert path == str(work / 'epoch_1.pth')
    assert remark.index('epoch_3') < remark.index('epoch_2') < remark.index('epoch_1')


POINTERS = {
    'missing': (None, 'last_checkpoint is missing'),
    'empty': (b'', 'last_checkpoint is empty'),
    'zeros': (bytes(20), 'last_checkpoint is empty'),
    'cut': (b'/somewhere/work/epo', 'epo does not exist'),
    'elsewhere': (b'/somewhere/other.pth', 'other.pth does not exist'),
    'no text': (b'\xff\xfe\x80', 'does not exist'),
}


@pytest.mark.parametrize('kind', POINTERS)
def test_damaged_pointer(work, kind):
    content, reason = POINTERS[kind]
    pointer = work / 'last_checkpoint'
    pointer.unlink() if content is None else pointer.write_bytes(content)
    path, remark = find_resumable(work)
    assert path == str(work / 'epoch_3.pth')
    assert reason in remark and remark.endswith(f', so training goes on from {path}.')
    cut(work / 'epoch_3.pth')
    path, remark = find_resumable(work)
    assert path == str(work / 'epoch_2.pth')
    assert reason in remark and 'its end is missing' in remark


@pytest.mark.parametrize('spoil', [cut, lambda path: None], ids=['half', 'whole'])
def test_newer_checkpoint_that_is_not_named(work, spoil):
    """Left by a kill while or just after it was written, or by an earlier run in the same folder."""
    torch.save(state(4), work / 'epoch_4.pth')
    spoil(work / 'epoch_4.pth')
    assert find_resumable(work) == (str(work / 'epoch_3.pth'), '')
    cut(work / 'epoch_3.pth')
    assert find_resumable(work)[0] == str(work / 'epoch_2.pth')


def test_newest_is_the_highest_number(work):
    """Not the last in the alphabet nor the one written last; another kind of number is another run."""
    for number in (10, 9):
        torch.save(state(number), work / f'epoch_{number}.pth')
    torch.save(state(50), work / 'iter_50.pth')
    os.utime(work / 'iter_50.pth', (0, 0))
    (work / 'last_checkpoint').write_text('')
    assert find_resumable(work)[0] == str(work / 'epoch_10.pth')
    (work / 'last_checkpoint').write_text(str(work / 'iter_60.pth'))
    assert find_resumable(work)[0] == str(work / 'iter_50.pth')


def test_moved_and_copied_folders(work):
    other = work.with_name('other')
    shutil.copytree(work, other)
    assert find_resumable(other) == (str(other / 'epoch_3.pth'), '')
    shutil.rmtree(work)
    assert find_resumable(other) == (str(other / 'epoch_3.pth'), '')
    cut(other / 'epoch_3.pth')
    assert find_resumable(other)[0] == str(other / 'epoch_2.pth')


def test_checkpoints_in_another_folder(work, tmp_path):
    """As ``CheckpointHook(out_dir=…)`` writes them."""
    other = tmp_path / 'logs'
    other.mkdir()
    (work / 'last_checkpoint').rename(other / 'last_checkpoint')
    assert find_resumable(other) == (str(work / 'epoch_3.pth'), '')
    cut(work / 'epoch_3.pth')
    assert find_resumable(other)[0] == str(work / 'epoch_2.pth')


def test_no_sound_checkpoint(work):
    """A silent start from the beginning would overwrite what might still be saved."""
    for number in (1, 2, 3):
        cut(work / f'epoch_{number}.pth')
    with pytest.raises(CheckpointError, match=r'no sound checkpoint: .*epoch_3.*epoch_2.*epoch_1.*\.$') as caught:
        find_resumable(work)
    assert '\n' not in str(caught.value)


def test_no_checkpoint(tmp_path):
    for folder in (tmp_path, tmp_path / 'not made yet'):
        path, remark = find_resumable(folder)
        assert path is None
        assert str(folder) in remark and 'from the beginning' in remark


def test_flipped_bits_are_noticed_or_harmless(work):
    path = work / 'epoch_3.pth'
    content = path.read_bytes()
    chosen = random.Random(0)
    noticed = 0
    for _ in range(400):
        flipped = bytearray(content)
        flipped[chosen.randrange(len(content))] ^= 1 << chosen.randrange(8)
        path.write_bytes(flipped)
        try:
            assert repr(load_from_local(path)) == repr(state(3))
        except CheckpointError as error:
            assert str(path) in str(error) and '\n' not in str(error)
            noticed += 1
    assert noticed > 100


def test_folder_or_file_to_resume_from(work, tmp_path):
    config = Config({'launcher': 'none', 'work_dir': str(tmp_path / 'new')})
    assert 'from the beginning' in set_resume(config, 'auto')
    assert 'load_from' not in config
    cut(work / 'epoch_3.pth')
    assert 'epoch_2' in set_resume(config, str(work))
    assert config.load_from == str(work / 'epoch_2.pth') and config.resume
    assert set_resume(config, str(work / 'epoch_1.pth')) == ''
    assert config.load_from == str(work / 'epoch_1.pth')
    for nothing in (tmp_path, tmp_path / 'none.pth'):
        with pytest.raises(FileNotFoundError, match=str(nothing)):
            set_resume(config, str(nothing))


def test_work_directory_to_test_from(work):
    """Figures of another checkpoint than the one asked for would be worse than none: no other is looked for."""
    assert find_checkpoint(str(work)) == str(work / 'epoch_3.pth')
    for content, reason in ((b'', 'missing or empty'), (b'\xff/epo', r'epo, which .*last_checkpoint names, does not')):
        (work / 'last_checkpoint').write_bytes(content)
        with pytest.raises(FileNotFoundError, match=reason):
            find_checkpoint(str(work))


class Killed(BaseException):
    pass


class Tiny(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)
        nn.init.ones_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x, mode='tensor'):
        out = self.layer(x)
        return {'loss': out.square().mean()} if mode == 'loss' else out


def train(work, name, hook, load_from=None, epochs=4):
    data = TensorDataset(torch.arange(8.0).view(4, 2))
    runner = Runner(
        Tiny(),
        str(work),
        train_dataloader=DataLoader(data, batch_size=2, sampler=DefaultSampler(data, seed=0)),
        train_cfg={'by_epoch': True, 'max_epochs': epochs},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 1e-3, 'momentum': 0.9}},
        default_hooks={'checkpoint': hook},
        load_from=load_from,
        resume=load_from is not None,
        experiment_name=f'{work.name}_{name}',
    )
    runner.train()
    return runner.model.state_dict()


@pytest.mark.parametrize('backend_args', [None, {'backend': 'ruas_mm.atomic'}], ids=['mmengine', 'atomic'])
def test_kill_at_every_moment(backend_args, tmp_path, monkeypatch):
    """With the suite's settings there is always a sound checkpoint once the first has been written."""
    hook = Config.fromfile(ROOT / 'configs' / '_base_' / 'default_runtime.py').default_hooks.checkpoint
    hook['backend_args'] = backend_args
    left = [10**9]

    def moment():
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    def put(self, content, path):
        moment()
        with open(path, 'wb') as file:
            for part in (content[: len(content) // 2], content[len(content) // 2 :]):
                moment()
                file.write(part)
        moment()

    def remove(self, path):
        moment()
        os.remove(path)
        moment()

    class Pointer(io.StringIO):
        def __init__(self, path, mode):
            super().__init__()
            self.file = open(path, mode)  # noqa: SIM115

        def write(self, text):
            with self.file as file:
                for part in (text[: len(text) // 2], text[len(text) // 2 :]):
                    moment()
                    file.write(part)
            moment()

    whole = train(tmp_path / 'whole', 'whole', hook)
    monkeypatch.setattr(LocalBackend, 'put', put)
    monkeypatch.setattr(LocalBackend, 'remove', remove)
    monkeypatch.setattr(checkpoint_hook, 'open', Pointer, raising=False)
    for kill in range(100):
        work = tmp_path / str(kill)
        left[0] = kill
        try:
            train(work, f'{kill}_first', hook)
        except Killed:
            left[0] = 10**9
        else:
            break
        written = {int(path.stem.partition('_')[2]) for path in work.glob('epoch_*.pth')}
        if backend_args:
            assert all(load_from_local(path) for path in work.glob('epoch_*.pth'))
        elif written == {1} and not (work / 'last_checkpoint').exists() and not _is_sound(work / 'epoch_1.pth'):
            continue  # killed while the first checkpoint was written
        path, _ = find_resumable(work)
        if written:
            number = int(re.search(r'epoch_(\d)', path)[1])
            assert number >= max(written) - 1
        if kill % 4 == 3:  # and what is chosen leads where the run would have gone
            torch.testing.assert_close(train(work, f'{kill}_second', hook, path), whole, rtol=0, atol=0)
            assert {path.name for path in work.glob('*.pth*')} == {'epoch_3.pth', 'epoch_4.pth'}
    assert kill > 25


def _is_sound(path):
    try:
        return bool(load_from_local(path))
    except CheckpointError:
        return False


MODULE = """
import torch
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS


@MODELS.register_module()
class TinyModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, x, mode='tensor'):
        out = self.layer(x)
        return {'loss': out.square().mean()} if mode == 'loss' else out


@DATASETS.register_module()
class Points(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {'x': torch.tensor([1.0, index])}
"""

CONFIG = """
import sys

sys.path.insert(0, '{folder}')
custom_imports = dict(imports=['tiny_model'])
default_scope = 'mmengine'
model = dict(type='TinyModel')
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(type='Points'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
)
train_cfg = dict(by_epoch=True, max_epochs=2)
test_dataloader = train_dataloader
test_cfg = dict()
test_evaluator = dict(type='DumpResults', out_file_path='{folder}/out.pkl')
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2))
randomness = dict(seed=0)
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('tiny')
    (folder / 'tiny_model.py').write_text(MODULE)
    (folder / 'tiny.py').write_text(CONFIG.format(folder=folder))
    return folder / 'tiny.py'


@pytest.fixture(scope='module')
def trained(config):
    """A work directory after two epochs."""
    work = config.parent / 'trained'
    done = run('train.py', config, '--work-dir', work)
    assert done.returncode == 0, done.stderr[-3000:]
    return work


def run(tool, config, *arguments):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    command = [sys.executable, str(ROOT / 'tools' / tool), str(config), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=config.parent)


def one_sentence(done, *words):
    assert done.returncode not in (0, None), done.stdout
    assert 'Traceback' not in done.stdout + done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith('Error: ')]
    for word in words:
        assert str(word) in error


def test_training_goes_on_from_the_one_before(config, trained, tmp_path):
    work = tmp_path / 'work'
    shutil.copytree(trained, work)
    cut(work / 'epoch_2.pth')
    longer = ['--cfg-options', 'train_cfg.max_epochs=3']
    done = run('train.py', config, '--work-dir', work, '--resume', *longer)
    assert done.returncode == 0, done.stderr[-3000:]
    damage = f'The checkpoint {work}/epoch_2.pth is damaged: its end is missing'
    sentence = f'{damage}, so training goes on from {work}/epoch_1.pth.'
    log = max(work.glob('*/*.log')).read_text()
    for output in (done.stdout + done.stderr, log):
        assert output.count(sentence) == 1
        assert 'resumed epoch: 1' in output
    assert (work / 'last_checkpoint').read_text() == str(work / 'epoch_3.pth')

    # The same weights, bit for bit, as after the damage had not been done.
    done = run('train.py', config, '--work-dir', trained, '--resume', *longer)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'so training' not in done.stdout + done.stderr
    weights = [load_from_local(folder / 'epoch_3.pth')['state_dict'] for folder in (work, trained)]
    torch.testing.assert_close(*weights, rtol=0, atol=0)


def test_nothing_sound_ends_in_a_sentence(config, trained, tmp_path):
    cut_file = tmp_path / 'epoch_1.pth'
    shutil.copy(next(trained.glob('epoch_*.pth')), cut_file)
    cut(cut_file)
    done = run('train.py', config, '--work-dir', tmp_path, '--resume')
    one_sentence(done, tmp_path, cut_file, 'no sound checkpoint')


@pytest.mark.parametrize('kind', ['cut', 'flipped bit'])
def test_testing_a_damaged_checkpoint(config, work, kind):
    damage, reason = DAMAGES[kind]
    damage(work / 'epoch_3.pth')
    one_sentence(run('test.py', config, work, '--work-dir', work), work / 'epoch_3.pth', reason)


def test_processes_choose_together(torchrun, work, tmp_path):
    """Rank 1 sees another folder than rank 0, and does what rank 0 says, an error included."""
    script = tmp_path / 'choose.py'
    script.write_text(f"""
import os
import torch.distributed
from mmengine.config import Config
from ruas_mm.apis.tools import set_resume
from ruas_mm.utils.checkpoint import CheckpointError

torch.distributed.init_process_group('gloo')
rank = torch.distributed.get_rank()
seen = []
for folder in ('{work}', '{tmp_path}/damaged'):
    config = Config(dict(launcher='pytorch', work_dir='{tmp_path}/none' if rank else folder))
    try:
        set_resume(config, 'auto')
        seen.append(config.load_from)
    except CheckpointError as error:
        seen.append(str(error))
with open(f'{tmp_path}/rank_{{rank}}', 'w') as file:
    print(*seen, sep='\\n', file=file)
torch.distributed.destroy_process_group()
""")
    (tmp_path / 'damaged').mkdir()
    (tmp_path / 'damaged' / 'epoch_1.pth').write_bytes(b'')
    cut(work / 'epoch_3.pth')
    done = torchrun(script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = ((tmp_path / f'rank_{rank}').read_text() for rank in (0, 1))
    assert first == second
    chosen, error = first.splitlines()
    assert chosen == str(work / 'epoch_2.pth')
    assert 'no sound checkpoint' in error
