"""RUAS in mmagic: the same model, mmagic's pipelines, data sets, metrics, loops and visualizer around it."""

import copy
import importlib
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import EVALUATOR, HOOKS, METRICS, MODELS
from mmengine.runner import Runner

import ruas_mm
from ruas_mm.apis.enhancer_checkpoint import load_enhancer
from ruas_mm.models.enhance import RUAS
from ruas_mm.search import Phase

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / 'configs' / 'enhance' / 'ruas_a_lol_mmagic.py'
WIDTH, HEIGHT = 48, 40
SIZES = [(12, 16), (9, 7), (12, 16), (1, 1), (1, 5)]
PREPROCESSORS = {
    'default': None,
    'mmagic': dict(type='mmagic.DataPreprocessor', stack_data_sample=False, data_keys=[]),
    'stacked': dict(type='mmagic.DataPreprocessor', mean=[0.0] * 3, std=[255.0] * 3, output_channel_order='RGB'),
    'padded': dict(type='mmagic.DataPreprocessor', mean=0, std=1, pad_size_divisor=32, stack_data_sample=False),
    'untouched': dict(type='mmagic.DataPreprocessor', mean=None, std=None, data_keys=None, stack_data_sample=False),
}


@pytest.fixture(scope='module')
def mmagic():
    return pytest.importorskip('mmagic.models', reason='RUASEditor is for mmagic')


def environment(**more):
    return {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', **more}


def run(*command, cwd):
    """Run Python in a folder and return what it printed."""
    command = [sys.executable, *map(str, command)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=cwd)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def build(kind='RUASEditor', **options):
    """A model with weights that are far from their start."""
    torch.manual_seed(0)
    model = MODELS.build(dict(type=f'ruas_mm.{kind}', **options))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def make_images(sizes=SIZES):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(80, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]


def make_batch(images, truth=True, order='bgr'):
    """BGR images as mmagic's pipelines pack them, loaded in an order."""
    from mmagic.structures import DataSample

    arranged = [image if order == 'bgr' else image.flip(0) for image in images]
    meta = dict(img_channel_order=order, gt_channel_order=order, img_color_type='color', gt_color_type='color')
    samples = [DataSample(metainfo={**meta, 'img_path': f'{index}.png'}) for index in range(len(images))]
    for image, sample in zip(arranged, samples, strict=True):
        if truth:
            sample.gt_img = image + 100
    return {'inputs': arranged, 'data_samples': samples}


# --- mmagic missing ------------------------------------------------------------------------------------------------


def test_without_mmagic(tmp_path):
    """One sentence, from Python and from the tool; the model itself works."""
    code = f"""
import runpy, sys
from importlib.abc import MetaPathFinder

class Block(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == 'mmagic':
            raise ModuleNotFoundError("No module named 'mmagic'", name='mmagic')

sys.meta_path.insert(0, Block())
import ruas_mm
from mmengine.registry import HOOKS, MODELS
MODELS.build(dict(type='ruas_mm.RUAS'))
for ask in (
    lambda: ruas_mm.RUASEditor,
    lambda: MODELS.build(dict(type='ruas_mm.RUASEditor')),
    lambda: HOOKS.get('ruas_mm.BasicVisualizationHook'),
):
    try:
        ask()
    except (ImportError, AttributeError) as error:
        print(error)
sys.argv = ['train.py', {str(CONFIG)!r}]
sys.stderr = sys.stdout
try:
    runpy.run_path({str(ROOT / 'tools' / 'train.py')!r}, run_name='__main__')
except SystemExit:
    pass
"""
    lines = run('-c', code, cwd=tmp_path).splitlines()
    reason = "needs mmagic, which cannot be imported: ModuleNotFoundError: No module named 'mmagic'"
    for name in ('RUASEditor', 'BasicVisualizationHook'):
        assert f'ruas_mm.{name} {reason}' in lines
    assert lines.count(f'ruas_mm.RUASEditor {reason}') == 2
    assert [line for line in lines if line.startswith('Error: ')] == [f'Error: ruas_mm.RUASEditor {reason}']


# --- the same model ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', PREPROCESSORS)
@torch.no_grad()
def test_predicts_what_ruas_predicts(mmagic, name):
    images = make_images(SIZES[:1] * 2 if name == 'stacked' else SIZES)
    plain = build('RUAS', epsilon=0.0).eval()
    editor = build(epsilon=0.0, data_preprocessor=PREPROCESSORS[name]).eval()
    orders = ['bgr'] if name in ('untouched', 'mmagic') else ['bgr', 'rgb']
    for order in orders:
        results = editor.test_step(make_batch(images, order=order))
        assert len(results) == len(images)
        for image, sample, expected in zip(images, results, plain.test_step({'inputs': images}), strict=True):
            close = dict(rtol=1e-4, atol=1e-2)  # of 255
            torch.testing.assert_close(sample.output.pred_img, expected.enhanced.flip(0) * 255, **close)
            torch.testing.assert_close(sample.illumination, expected.illumination.flip(0) * 255, **close)
            torch.testing.assert_close(sample.input, image.float(), **close)
            assert sample.output.noise_score == pytest.approx(expected.noise_score, rel=1e-3)
            assert torch.equal(sample.gt_img.to(torch.uint8), image + 100), 'BGR, as the prediction'
        assert [Path(sample.img_path).stem for sample in results] == [str(index) for index in range(len(images))]


@pytest.mark.parametrize('name', ['default', 'mmagic', 'padded'])
@torch.no_grad()
def test_an_image_does_not_depend_on_its_batch_mates(mmagic, name):
    editor, images = build(data_preprocessor=PREPROCESSORS[name]).eval(), make_images()
    together = editor.test_step(make_batch(images))
    for image, sample in zip(images, together, strict=True):
        (alone,) = editor.test_step(make_batch([image]))
        torch.testing.assert_close(sample.output.pred_img, alone.output.pred_img, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize('variant', ['S', 'full', 'A'])
@pytest.mark.parametrize('phase', [Phase.JOINT, Phase.SCENE])
@pytest.mark.parametrize('truth', [False, True])
def test_loses_what_ruas_loses(mmagic, variant, phase, truth):
    plain, editor = build('RUAS', variant=variant), build(variant=variant)
    losses = []
    for model, batch in (plain, {'inputs': make_images()}), (editor, make_batch(make_images(), truth)):
        model.search_phase = phase
        torch.manual_seed(1)
        losses.append(model.train()(**model.data_preprocessor(batch, True), mode='loss'))
    assert losses[0].keys() == losses[1].keys() and losses[0]
    for name, loss in losses[0].items():
        torch.testing.assert_close(losses[1][name], loss)
    sum(losses[1].values()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in editor.scene_module.parameters())


@torch.no_grad()
def test_exposure_and_strength(mmagic):
    images = make_images([(12, 16)])
    plain, same, bright = (
        build(variant='S', **options).test_step(make_batch(images))[0].output.pred_img
        for options in ({}, {'strength': 0.0}, {'exposure': 0.6})
    )
    torch.testing.assert_close(same, torch.as_tensor(make_batch(images)['inputs'][0]).float())
    assert not torch.equal(plain, bright)


def test_tensor_mode_and_no_samples(mmagic):
    """Samples are not needed; a dict of inputs is what PackInputs gives for more than one key."""
    plain, images = build('RUAS').eval(), make_images(SIZES[:1] * 2)
    for name in ('default', 'stacked'):
        editor = build(data_preprocessor=PREPROCESSORS[name]).eval()
        inputs = editor.data_preprocessor(make_batch(images))['inputs']
        expected = plain(**plain.data_preprocessor({'inputs': images}))
        for result in (editor(inputs), editor({'img': inputs})):
            for ours, theirs in zip(result, expected, strict=True):
                torch.testing.assert_close(ours, theirs)
        assert len(editor(inputs, mode='predict')) == 2


def test_errors(mmagic):
    editor = build()
    batch = make_batch([torch.zeros(1, 4, 4, dtype=torch.uint8)])
    batch['data_samples'][0].set_metainfo(dict(img_color_type='grayscale', gt_color_type='grayscale'))
    with pytest.raises(ValueError, match=r'shape \(3, H, W\), not \(1, 4, 4\)'):
        editor.test_step(batch)
    with pytest.raises(ValueError, match="mode 'fit'"):
        editor(torch.zeros(1, 3, 4, 4), mode='fit')
    with pytest.raises(ValueError, match="variant 'B'"):
        build(variant='B')


def test_weights_fit_both_ways(mmagic):
    plain, editor = build('RUAS'), build()
    assert editor.load_state_dict(plain.state_dict()) and plain.load_state_dict(editor.state_dict())
    assert isinstance(editor, RUAS) and ruas_mm.RUASEditor is type(editor)


# --- mmagic's parts ------------------------------------------------------------------------------------------------


def test_missing_truth_is_no_reason_to_warn(mmagic, monkeypatch):
    """mmagic's own preprocessor tells it of every image, in every iteration."""
    from mmagic.models.data_preprocessors import data_preprocessor as theirs

    said = []
    monkeypatch.setattr(theirs, 'print_log', lambda message, *_: said.append(message))
    editor = build()
    for training in (True, False):
        for truth in (False, True):
            data = editor.data_preprocessor(make_batch(make_images(), truth), training)
            assert all(('gt_img' in sample) == truth for sample in data['data_samples'])
    assert editor.data_preprocessor.data_keys == ['gt_img'] and not said


@pytest.mark.parametrize('metric', ['PSNR', 'SSIM', 'MAE', 'MSE', 'SNR', 'NIQE'])
@torch.no_grad()
def test_metrics_take_the_predictions(mmagic, metric):
    batch = make_batch(make_images([(96, 192)] * 2))
    metric = METRICS.build(dict(type=f'mmagic.{metric}', **(dict(input_order='CHW') if metric == 'NIQE' else {})))
    metric.process(None, [sample.to_dict() for sample in build().eval().test_step(batch)])
    (figure,) = metric.compute_metrics(metric.results).values()
    assert len(metric.results) == 2 and np.isfinite(figure)


# --- as a user runs it ---------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def lol(tmp_path_factory):
    """A folder with LOL's layout."""
    folder, rng = tmp_path_factory.mktemp('lol'), np.random.default_rng(0)
    for split, count in ('our485', 3), ('eval15', 2):
        for index in range(count):
            bright = cv2.resize(rng.uniform(0, 255, (5, 6, 3)), (WIDTH, HEIGHT)).astype(np.uint8)
            for kind, image in ('high', bright), ('low', bright // 7):
                (folder / split / kind).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(folder / split / kind / f'{index}.png'), image)
    return folder


def small(lol):
    """``--cfg-options`` that make the config small."""
    given = {'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2, 'default_hooks.checkpoint.interval': 2}
    given |= {'train_dataloader.batch_size': 2, 'train_dataloader.dataset.pipeline.1.crop_size': (24, 32)}
    for split in ('train', 'val', 'test'):
        given[f'{split}_dataloader.num_workers'] = 0
        given[f'{split}_dataloader.persistent_workers'] = False
        given[f'{split}_dataloader.dataset.data_root'] = f'{lol}/'
    return given


def options(lol):
    return ['--cfg-options', *(f'{key}={value}'.replace(' ', '') for key, value in small(lol).items())]


@pytest.fixture(scope='module')
def trained(mmagic, lol, tmp_path_factory):
    """A work directory after two iterations, and what the tool printed."""
    work = tmp_path_factory.mktemp('work')
    output = run(ROOT / 'tools' / 'train.py', CONFIG, '--work-dir', work, *options(lol), cwd=work)
    return work, output


def test_training(trained):
    work, output = trained
    assert re.search(r'Iter\(val\).*PSNR: [0-9.]+ +SSIM: [0-9.]+', output), output[-2000:]
    assert 'Cannot find key' not in output
    model = load_enhancer(work / 'iter_2.pth')
    assert type(model) is RUAS and model.variant == 'A' and model.epsilon == 0.035
    weights = torch.load(work / 'iter_2.pth', weights_only=False)['state_dict']
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_testing(trained, lol, tmp_path):
    """Figures, predictions and pictures agree with each other and with scikit-image."""
    metrics = pytest.importorskip('skimage.metrics')
    out, show = tmp_path / 'out.pkl', tmp_path / 'show'
    flags = ['--work-dir', tmp_path, '--out', out, '--show-dir', show, *options(lol)]
    flags.append('train_dataloader.dataset.data_root=nowhere/')  # training data is not needed
    output = run(ROOT / 'tools' / 'test.py', CONFIG, trained[0], *flags, cwd=tmp_path)
    psnr = float(re.search(r'PSNR: ([0-9.]+)', output)[1])
    predictions = pickle.loads(out.read_bytes())
    figures, written = [], []
    assert len(predictions) == len(list(show.iterdir())) == 2
    for prediction in predictions:
        truth, dark = cv2.imread(prediction['gt_path']), cv2.imread(prediction['img_path'])
        bright = prediction['output']['pred_img'].numpy().transpose(1, 2, 0)
        figures.append(metrics.peak_signal_noise_ratio(truth.astype(np.float32), bright, data_range=255))
        strip = cv2.imread(str(show / f'{Path(prediction["img_path"]).stem}_0.png'))
        assert strip.shape == (HEIGHT, 4 * WIDTH, 3)
        parts = np.split(strip, 4, axis=1)  # input, illumination, result, ground truth
        assert (parts[0] == dark).all() and (parts[3] == truth).all()
        assert (parts[2] == bright.round()).all() and (parts[1] >= parts[0] // 2).all()
        written.append(metrics.peak_signal_noise_ratio(truth, parts[2]))
        assert not {'input', 'gt_img', 'illumination'} & set(prediction), 'they would swell the file'
    assert psnr == pytest.approx(np.mean(figures), abs=1e-4)
    assert psnr == pytest.approx(np.mean(written), abs=0.05)


ORDINARY = """
_base_ = 'mmagic::_base_/default_runtime.py'
model = dict(
    type='ruas_mm.RUASEditor',
    data_preprocessor=dict(type='DataPreprocessor', mean=[0.0] * 3, std=[255.0] * 3, output_channel_order='RGB'),
)
load = [dict(type='LoadImageFromFile', key=key, channel_order='rgb') for key in ('img', 'gt')]
loader = dict(num_workers=0, batch_size=2, sampler=dict(type='InfiniteSampler'))
data = dict(type='BasicImageDataset', data_root={root!r})
train_dataloader = dict(
    **loader,
    dataset=dict(
        **data, data_prefix=dict(gt='our485/high', img='our485/low'),
        pipeline=[*load, dict(type='SetValues', dictionary=dict(scale=1)),
                  dict(type='PairedRandomCrop', gt_patch_size=16), dict(type='PackInputs')],
    ),
)
loader = dict(num_workers=0, batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False))
folders = dict(gt='eval15/high', img='eval15/low'), dict(gt='our485/high', img='our485/low')
test_dataloader = [
    dict(**loader, dataset=dict(**data, data_prefix=prefix, pipeline=[*load, dict(type='PackInputs')]))
    for prefix in folders
]
test_evaluator = [dict(type='Evaluator', metrics=dict(type='PSNR', prefix=prefix)) for prefix in ('eval', 'train')]
test_cfg = dict(type='MultiTestLoop')
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1)
optim_wrapper = dict(constructor='DefaultOptimWrapperConstructor', type='OptimWrapper',
                     optimizer=dict(type='Adam', lr=1e-3))
"""
RUN_ORDINARY = """
import ruas_mm
from mmengine.config import Config
from mmengine.runner import Runner
config = Config.fromfile('ordinary.py')
config.work_dir = 'work'
runner = Runner.from_cfg(config)
runner.train()
runner.test()
"""


def test_ordinary_config_of_mmagic(mmagic, lol, tmp_path):
    """With our model, mmagic's other data preprocessor, RGB images, two test sets, pictures."""
    (tmp_path / 'ordinary.py').write_text(ORDINARY.format(root=f'{lol}/'))
    output = run('-c', RUN_ORDINARY, cwd=tmp_path)
    assert re.search(r'Iter\(test\).*eval/PSNR: [0-9.]+ +train/PSNR: [0-9.]+', output), output[-2000:]
    pictures = list(tmp_path.glob('work/*/vis_data/vis_image/*.png'))
    assert {picture.stem.partition('_')[0] for picture in pictures} == {'0', '1', '2'}  # of both sets


def test_search_with_an_inherited_config(mmagic, lol, tmp_path):
    """Every part resolves from another project; an iteration of the scene's phase and one of the task's."""
    (tmp_path / 'search.py').write_text(f"_base_ = 'ruas_mm::{CONFIG.relative_to(ROOT / 'configs')}'\n")
    config = Config.fromfile(tmp_path / 'search.py')
    config.merge_from_dict({**small(lol), 'model.genotype': None})
    assert HOOKS.build(config.default_hooks.visualization) is not None
    assert [type(metric).__name__ for metric in EVALUATOR.build(config.test_evaluator).metrics] == ['PSNR', 'SSIM']
    editor = MODELS.build(config.model)
    before = {name: value.clone() for name, value in editor.state_dict().items() if name.endswith('alphas')}
    loader = config.train_dataloader.to_dict()
    hook = dict(type='ruas_mm.CooperativeSearchHook', val_dataloader=loader, scene_iters=1, task_iters=1, order=2)
    Runner(
        editor,
        work_dir=str(tmp_path),
        train_dataloader=copy.deepcopy(loader),
        train_cfg=config.train_cfg,
        optim_wrapper=config.optim_wrapper,
        custom_hooks=[hook],
        randomness=dict(seed=0),
        log_level='ERROR',
        experiment_name=tmp_path.name,
    ).train()
    after = editor.state_dict()
    assert before and not any(torch.equal(value, after[name]) for name, value in before.items())
    assert (tmp_path / 'genotype.json').is_file()


# --- tools/test.py and evaluators ----------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def tool():
    return importlib.import_module('ruas_mm.cli.test')


A, B = dict(type='A'), dict(type='B')


@pytest.mark.parametrize(
    ('evaluator', 'extended'),
    [
        (A, [A, 0]),
        ((A, B), [A, B, 0]),
        (dict(type='Evaluator', metrics=A), dict(type='Evaluator', metrics=[A, 0])),
        (dict(metrics=(A, B)), dict(metrics=[A, B, 0])),
        ([dict(metrics=[A])], [dict(metrics=[A, 0])]),
        ([dict(metrics=[A]), dict(metrics=B)], [dict(metrics=[A, 0]), dict(metrics=[B, 1])]),
        ([[A], [A, B]], [[A, 0], [A, B, 1]]),
        ([], [0]),
    ],
)
def test_metrics_are_found(tool, evaluator, extended):
    """Of mmengine's and mmagic's evaluators; what is added reaches the config, whose form stays."""
    config = Config(dict(test_evaluator=evaluator))
    for index, metrics in enumerate(tool.open_metrics(config, 'test_evaluator')):
        metrics.append(index)
    assert config.to_dict()['test_evaluator'] == extended


def test_one_file_is_for_one_test_set(tool, tmp_path, monkeypatch):
    config = tmp_path / 'config.py'
    config.write_text(
        "model = dict(type='ruas_mm.RUAS')\ntest_dataloader = [dict(), dict()]\ntest_cfg = dict()\n"
        "test_evaluator = [dict(metrics=[dict(type='PSNR')]), dict(metrics=[dict(type='SSIM')])]"
    )
    (tmp_path / 'x.pth').touch()
    monkeypatch.setattr(sys, 'argv', ['test.py', str(config), str(tmp_path / 'x.pth'), '--out', 'x.pkl'])
    with pytest.raises(SystemExit, match=r'one test set, but .*config\.py has 2'):
        tool.main()


def test_pictures_need_a_hook_that_draws(tool):
    config = Config(dict(default_hooks=dict(timer=dict(type='mmengine.IterTimerHook'), logger=None)))
    with pytest.raises(SystemExit, match='--show-dir needs a visualization hook'):
        tool.draw_pictures(config, '/nowhere')
