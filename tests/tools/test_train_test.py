"""tools/train.py and tools/test.py as a user runs them: in another folder, on demo data, with their mistakes."""

import os
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mmcv
import pytest
import torch
from mmengine.config import Config

pytest.importorskip('mmdet.models')
pytest.importorskip('skimage')

sys.path.insert(0, str(Path(__file__).parent))
from prepared_process import ROOT, run_prepared

from ruas_mm.apis.config_check import find_class
from ruas_mm.search import Genotype

CONFIG = ROOT / 'configs' / 'detection' / 'ruas_ssd_demo.py'
TRAIN, TEST = 4, 3
SIZE = (160, 128)


def run(tool, *arguments, cwd):
    return run_prepared(ROOT / 'tools' / tool, *arguments, cwd=cwd)


def options(data, **more):
    """``--cfg-options`` that make the demo config small."""
    given = {
        'train_dataloader.dataset.data_root': f'{data}/',
        'val_dataloader.dataset.data_root': f'{data}/',
        'test_dataloader.dataset.data_root': f'{data}/',
        'train_dataloader.batch_size': 2,
        'train_dataloader.dataset.pipeline.3.scale': '(160,128)',
        'train_cfg.max_epochs': 1,
        'train_cfg.val_interval': 1,
        'default_hooks.checkpoint.interval': 1,
        'model.backbone.base_channels': 8,
        'model.backbone.stem_channels': 8,
        'model.neck.in_channels': '(8,16,32,64)',
        'model.neck.out_channels': '(8,16,32,64,16,16)',
        'model.bbox_head.in_channels': '(8,16,32,64,16,16)',
        'model.test_cfg.score_thr': 0.0,  # so that one epoch finds something
        'model.test_cfg.max_per_img': 10,
        'tta_model.tta_cfg.max_per_img': 10,
    }
    for pipeline in ('train', 'val', 'test'):
        given[f'{pipeline}_dataloader.num_workers'] = 0
        given[f'{pipeline}_dataloader.persistent_workers'] = False
    given.update(more)
    return ['--cfg-options', *(f'{key}={value}' for key, value in given.items())]


def one_sentence(done, *words):
    """The tool ended with a message that a person can read, and nothing of the library's inside."""
    assert done.returncode not in (0, None), done.stdout
    output = done.stdout + done.stderr
    assert 'Traceback' not in output, output[-3000:]
    errors = [line for line in done.stderr.splitlines() if line.startswith('Error: ')]
    assert len(errors) == 1, done.stderr[-3000:]
    for word in words:
        assert str(word) in errors[0]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp('data')
    done = run(
        'make_demo_data.py', 'detection', '--out', out, '--train', TRAIN, '--test', TEST, '--size', *SIZE, cwd=out
    )
    assert done.returncode == 0, done.stderr
    return out / 'darkface'


@pytest.fixture(scope='module')
def training(data, tmp_path_factory):
    """A work directory after one epoch by a fresh Python, and what the tool printed."""
    work = tmp_path_factory.mktemp('work')
    command = [sys.executable, ROOT / 'tools' / 'train.py', CONFIG, '--work-dir', work, *options(data)]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment, cwd=work)
    assert done.returncode == 0, done.stderr[-3000:]
    return work, done.stdout + done.stderr


@pytest.fixture(scope='module')
def trained(training):
    """A work directory after one epoch."""
    return training[0]


def test_training_leaves_what_is_needed(trained):
    assert (trained / 'epoch_1.pth').is_file()
    assert (trained / 'last_checkpoint').read_text().strip().endswith('epoch_1.pth')
    log = next(trained.glob('*/*.log')).read_text()
    assert re.search(r'Epoch\(val\).*darkface/voc_area_ap50: [0-9.]+', log)
    assert 'loss_bbox' in next(trained.glob('*/vis_data/scalars.json')).read_text()
    assert not list(trained.rglob('*.tmp'))


def test_terminal_shows_progress_figures_and_paths(training):
    """The rest is in the log file: hundreds of lines of config, environment, hooks and options of parameters."""
    work, printed = training
    (log,) = work.glob('*/*.log')
    kept = log.read_text()
    assert len(printed.splitlines()) < 25, printed
    for shown in (log, work, 'Epoch(train)', 'loss_bbox', 'Saving checkpoint', 'voc_area_ap50'):
        assert str(shown) in printed and str(shown) in kept
    for hidden in ('System environment', 'Config:', 'Hooks will be executed', 'paramwise_options'):
        assert hidden not in printed and hidden in kept
    assert len(kept.splitlines()) > 500
    assert 'WARNING' not in printed


def test_two_processes_train_one_model(torchrun, data, tmp_path):
    """torchrun on CPUs, where mmengine itself asks for CUDA devices: each process takes its half of the images."""
    flags = ['--launcher', 'pytorch', '--work-dir', tmp_path, *options(data, **{'train_dataloader.batch_size': 1})]
    done = torchrun(ROOT / 'tools' / 'train.py', CONFIG, *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    checkpoint = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    assert checkpoint['meta']['iter'] == TRAIN // 2
    assert all(value.isfinite().all() for value in checkpoint['state_dict'].values())


def test_resume(data, trained, tmp_path):
    """Needs torch >= 2.6 to load mmengine's message hub; counters, optimizer and logs go on where they stopped."""
    work = tmp_path / 'work'
    shutil.copytree(trained, work)
    (work / 'last_checkpoint').write_text(str(work / 'epoch_1.pth'))
    arguments = options(data, **{'train_cfg.max_epochs': 2, 'train_cfg.val_interval': 5})
    done = run('train.py', CONFIG, '--work-dir', work, '--resume', *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'resumed epoch: 1' in done.stdout + done.stderr
    second = torch.load(work / 'epoch_2.pth', weights_only=False)
    first = torch.load(work / 'epoch_1.pth', weights_only=False)
    assert (first['meta']['epoch'], second['meta']['epoch']) == (1, 2)
    assert second['meta']['iter'] == 2 * first['meta']['iter']
    assert not list((work).glob('epoch_3.pth'))


def test_resume_after_a_kill_before_the_final_validation(data, trained, tmp_path):
    """And again, when there is nothing left to do."""
    work = tmp_path / 'work'
    shutil.copytree(trained, work)
    (work / 'last_validation.json').unlink()
    for validated in (True, False):
        done = run('train.py', CONFIG, '--work-dir', work, '--resume', *options(data), cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
        assert 'Training had already finished: epoch 1 of 1' in done.stdout
        assert bool(re.search(r'Epoch\(val\) .*voc_area_ap50', done.stdout)) is validated


def test_interrupted(data, tmp_path):
    """Ctrl-C reaches tool and workers; one line says how to go on, and that command does."""
    work, log = tmp_path / 'work', tmp_path / 'log.txt'
    given = options(
        data, **{'train_cfg.max_epochs': 500, 'train_cfg.val_interval': 500, 'train_dataloader.num_workers': 1}
    )
    with open(log, 'w') as file:
        process = subprocess.Popen(
            [*map(str, [sys.executable, ROOT / 'tools' / 'train.py', CONFIG, '--work-dir', work, *given])],
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
            cwd=tmp_path,
            start_new_session=True,
        )
    while 'Epoch(train) [3]' not in re.sub(' +', ' ', log.read_text()):
        assert process.poll() is None, log.read_text()[-3000:]
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130, said
    assert said.count('\n') == 1 and said.startswith(f'Interrupted. To go on from {work}/epoch_'), said
    command = shlex.split(said.partition(': ')[2])
    assert command[0] == 'python' and command[-1] == '--resume'
    assert not list(work.rglob('*.tmp'))
    last = int(re.search(r'epoch_(\d+)\.pth', said)[1])
    given = [
        f'train_cfg.max_epochs={last + 1}' if part.startswith('train_cfg.max_epochs') else part for part in command
    ]
    done = run('train.py', *given[2:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (work / f'epoch_{last + 1}.pth').is_file()


LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def test_checkpoint_that_the_disk_does_not_take(data, tmp_path):
    command = [sys.executable, '-c', LIMITED, ROOT / 'tools' / 'train.py', CONFIG, '--work-dir', tmp_path / 'work']
    done = subprocess.run(
        [*map(str, command), *options(data)],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        cwd=tmp_path,
    )
    one_sentence(done, tmp_path / 'work' / 'epoch_1.pth', 'cannot be written', 'File too large')
    assert not list((tmp_path / 'work').glob('epoch_1.pth*'))


def pure_python(path):
    """Write the demo config in mmengine's pure Python style: each type is the class itself."""
    config = Config.fromfile(CONFIG)
    imports = set()

    def written(node, path):
        if isinstance(node, dict):
            given = {key: written(value, f'{path}.{key}' if path else key) for key, value in node.items()}
            cls = find_class(config, path, node.get('type'))[1]
            if cls is not None:
                imports.add(f'from {cls.__module__} import {cls.__name__}')
                given['type'] = cls.__name__
            return f'{{{", ".join(f"{key!r}: {value}" for key, value in given.items())}}}'
        if isinstance(node, (list, tuple)):
            items = ''.join(f'{written(value, f"{path}.{index}")}, ' for index, value in enumerate(node))
            return f'({items})' if isinstance(node, tuple) else f'[{items}]'
        return repr(node)

    lines = [f'{key} = {written(value, key)}' for key, value in config._cfg_dict.items()]
    path.write_text('\n'.join([*sorted(imports), *lines]) + '\n')
    return len(imports)


def test_pure_python_config(data, trained, tmp_path):
    """Types are classes; all that test.py does with them is done alike."""
    config, show, out = tmp_path / 'pure.py', tmp_path / 'show', tmp_path / 'out.pkl'
    assert pure_python(config) > 20
    small = options(data)
    small = [part for part in small if not part.startswith('train_dataloader.dataset.pipeline')]
    flags = ['--work-dir', tmp_path / 'work', '--show-dir', show, '--out', out, '--tta']
    done = run('test.py', config, trained, *flags, '--genotype', 'ruas_darkface_vgg16', *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert mmcv.imread(show / 'pr_curve.png') is not None
    assert len(list(show.iterdir())) == TEST + 1
    assert len(pickle.loads(out.read_bytes())) == TEST


def test_testing(data, trained, tmp_path):
    """A work directory stands for its last checkpoint; figures, pictures and predictions come out."""
    out, show = tmp_path / 'out.pkl', tmp_path / 'show'
    flags = ['--work-dir', tmp_path, '--out', out, '--show-dir', show]
    done = run('test.py', CONFIG, trained, *flags, *options(data), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    output = done.stdout + done.stderr
    assert re.search(r'darkface/voc_area_ap50: [0-9.]+', output), output[-2000:]
    assert str(show) in done.stdout

    assert mmcv.imread(show / 'pr_curve.png') is not None
    (show / 'pr_curve.png').unlink()
    pictures = sorted(show.glob('*.png')) + sorted(show.glob('*.jpg'))
    assert len(pictures) == TEST
    for picture in pictures:
        strip = mmcv.imread(str(picture))
        assert strip.shape[1] == 5 * (SIZE[0] + 4)
        assert strip.shape[0] > SIZE[1]
        enhanced = strip[-SIZE[1] :, SIZE[0] + 4 : 2 * SIZE[0]]
        assert enhanced.mean() > strip[-SIZE[1] :, : SIZE[0]].mean()  # the second panel is the brighter one

    predictions = pickle.loads(out.read_bytes())
    assert len(predictions) == TEST
    for prediction in predictions:
        assert 'scene' not in prediction
        assert len(prediction['pred_instances']['bboxes']) == len(prediction['pred_instances']['scores'])
    # Neither the scene's maps nor the memory of the detections that suppression left out.
    assert out.stat().st_size < 60_000


def test_test_time_augmentation(data, trained, tmp_path):
    """Views are merged; what is shown and kept is the image as it is, not a flipped view of it."""
    show = tmp_path / 'show'
    flags = ['--work-dir', tmp_path, '--tta', '--show-dir', show]
    done = run('test.py', CONFIG, trained / 'epoch_1.pth', *flags, *options(data), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r'darkface/voc_area_ap50: [0-9.]+', done.stdout + done.stderr)
    width, height = SIZE
    pictures = [path for path in sorted(show.iterdir()) if path.name != 'pr_curve.png']
    assert len(pictures) == TEST
    for picture in pictures:
        strip = mmcv.imread(str(picture), flag='grayscale')[-height:].astype(float)
        dark, enhanced = strip[:, :width], strip[:, width + 4 : 2 * width + 4]

        def alike(one, other):
            one, other = one - one.mean(), other - other.mean()
            return (one * other).mean() / (one.std() * other.std() + 1e-9)

        assert alike(dark, enhanced) > alike(dark, enhanced[:, ::-1])


def test_genotype_for_all_parts(data, tmp_path):
    """One file decides scene module, neck and head; the log and the checkpoint show it."""
    chosen = Genotype.load('ruas_darkface_vgg16').slots
    chosen = {**chosen, 'scene.last': 'conv_1x1', 'ssd_neck.extra_1': 'conv_5x5', 'ssd_head.conf_6': 'conv_1x1'}
    Genotype(chosen).save(tmp_path / 'mine.json')
    flags = ['--work-dir', tmp_path / 'work', '--genotype', tmp_path / 'mine.json']
    done = run('train.py', CONFIG, *flags, *options(data, **{'train_cfg.val_interval': 5}), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    state = torch.load(tmp_path / 'work' / 'epoch_1.pth', weights_only=False)['state_dict']
    assert state['data_preprocessor.scene_module.cells.0.operations.6.weight'].shape[-1] == 1
    assert state['neck.extra.0.weight'].shape[-1] == 5
    assert state['bbox_head.cls_convs.5.weight'].shape[-1] == 1
    # The config kept beside the checkpoint builds the same model without the flag.
    (kept,) = (tmp_path / 'work').glob('*.py')
    assert Config.fromfile(kept).model.neck.genotype == chosen


BAD_GENOTYPES = {
    'missing slot': (
        '{"format": "ruas_mm.genotype", "version": 1, "slots": {"scene.last": "skip"}}',
        'scene.distill_1',
    ),
    'unknown operation': ('{"format": "ruas_mm.genotype", "version": 1, "slots": {"scene.last": "magic"}}', 'magic'),
    'not JSON': ('slots', 'JSON'),
    'a list': ('[1, 2]', 'not a genotype file'),
    'a newer version': ('{"format": "ruas_mm.genotype", "version": 9, "slots": {}}', 'version 9'),
}


@pytest.mark.parametrize('kind', BAD_GENOTYPES)
def test_bad_genotype(kind, tmp_path):
    content, word = BAD_GENOTYPES[kind]
    (tmp_path / 'bad.json').write_text(content)
    done = run('train.py', CONFIG, '--genotype', tmp_path / 'bad.json', '--work-dir', tmp_path, cwd=tmp_path)
    one_sentence(done, word)


def test_no_such_genotype(tmp_path):
    done = run('test.py', CONFIG, CONFIG, '--genotype', 'nowhere.json', '--work-dir', tmp_path, cwd=tmp_path)
    one_sentence(done, 'nowhere.json', 'ruas_darkface_vgg16')


@pytest.mark.parametrize('tool', ['train.py', 'test.py'])
def test_no_such_config(tool, tmp_path):
    done = run(tool, 'nowhere.py', *(['x.pth'] if tool == 'test.py' else []), cwd=tmp_path)
    one_sentence(done, 'nowhere.py')


def test_no_such_checkpoint(tmp_path):
    one_sentence(run('test.py', CONFIG, 'nowhere.pth', '--work-dir', tmp_path, cwd=tmp_path), 'nowhere.pth')
    one_sentence(
        run('train.py', CONFIG, '--resume', 'nowhere.pth', '--work-dir', tmp_path, cwd=tmp_path), 'nowhere.pth'
    )


def test_work_directory_without_a_checkpoint(tmp_path):
    one_sentence(run('test.py', CONFIG, tmp_path, '--work-dir', tmp_path, cwd=tmp_path), tmp_path, 'last_checkpoint')


def test_checkpoint_to_load_from_is_missing(tmp_path):
    """The second step of hierarchical training without the first."""
    config = CONFIG.parent / 'ruas_ssd_darkface_hierarchical.py'
    one_sentence(run('train.py', config, '--work-dir', tmp_path, cwd=tmp_path), 'ruas_ssd_darkface_pretrain')


def test_checkpoint_of_another_model(data, trained, tmp_path):
    """Figures of a model that is half random would be worse than none."""
    other = {**Genotype.load('ruas_darkface_vgg16').slots, 'ssd_neck.extra_1': 'conv_5x5'}
    Genotype(other).save(tmp_path / 'other.json')
    flags = ['--work-dir', tmp_path / 'work', '--genotype', tmp_path / 'other.json']
    done = run('test.py', CONFIG, trained / 'epoch_1.pth', *flags, *options(data), cwd=tmp_path)
    one_sentence(done, 'epoch_1.pth')


class Hostile:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (Path(self.mark),)


def test_hostile_checkpoint(data, tmp_path):
    """Its code does not run."""
    mark = tmp_path / 'it_ran'
    torch.save({'state_dict': {}, 'meta': Hostile(str(mark))}, tmp_path / 'hostile.pth')
    done = run('test.py', CONFIG, tmp_path / 'hostile.pth', '--work-dir', tmp_path, *options(data), cwd=tmp_path)
    one_sentence(done, 'hostile.pth', 'could run code')
    assert not mark.exists()


def test_label_file_with_a_wrong_count(data, tmp_path):
    broken = tmp_path / 'darkface'
    shutil.copytree(data, broken)
    label = broken / 'train' / 'label' / '1.txt'
    label.write_text('7\n' + label.read_text().partition('\n')[2])
    done = run('train.py', CONFIG, '--work-dir', tmp_path / 'work', *options(broken), cwd=tmp_path)
    one_sentence(done, label, 'line 1', 'must be 7', 'got 5')


def test_data_that_is_not_there(tmp_path):
    """The commonest mistake of all: the demo data have not been made yet."""
    done = run('train.py', CONFIG, '--work-dir', tmp_path / 'work', *options(tmp_path / 'none'), cwd=tmp_path)
    one_sentence(done, tmp_path / 'none')


def test_pretrained_weights_that_are_not_there(data, tmp_path):
    config = CONFIG.parent / 'ruas_ssd_darkface.py'
    given = {'model.backbone.pretrained': 'vgg.pth'}
    for split, folder in (('train', 'train'), ('val', 'test')):
        given |= {
            f'{split}_dataloader.num_workers': 0,
            f'{split}_dataloader.persistent_workers': False,
            f'{split}_dataloader.dataset.ann_file': '',
            f'{split}_dataloader.dataset.data_prefix.img_path': data / folder / 'image',
            f'{split}_dataloader.dataset.data_prefix.label_path': data / folder / 'label',
        }
    arguments = [f'{key}={value}' for key, value in given.items()]
    done = run('train.py', config, '--work-dir', tmp_path / 'work', '--cfg-options', *arguments, cwd=tmp_path)
    one_sentence(done, 'vgg.pth')


def test_out_must_be_a_pickle(tmp_path):
    done = run('test.py', CONFIG, 'x.pth', '--out', 'x.json', cwd=tmp_path)
    assert done.returncode == 2
    assert '.pkl' in done.stderr.splitlines()[-1]


def test_amp_without_a_gpu(data, tmp_path):
    """Trains, or says in one sentence that it cannot."""
    arguments = options(data, **{'train_cfg.val_interval': 5})
    done = run('train.py', CONFIG, '--amp', '--work-dir', tmp_path / 'work', *arguments, cwd=tmp_path)
    if done.returncode == 0:
        assert (tmp_path / 'work' / 'epoch_1.pth').is_file()
    else:
        one_sentence(done, '--amp')
