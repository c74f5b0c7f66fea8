"""Mistakes in configs and options: one sentence each, before data are read. In one process, since there are many."""

import contextlib
import io
import re
import runpy
import sys
import warnings
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger

pytest.importorskip('mmdet.models')
pytest.importorskip('mmseg.models')

from ruas_mm.apis.config_check import check_overrides, check_values
from ruas_mm.apis.run_tool import run_tool
from ruas_mm.apis.tools import set_amp

ROOT = Path(__file__).parents[2]
CONFIGS = {
    'detection': ROOT / 'configs' / 'detection' / 'ruas_ssd_demo.py',
    'search': ROOT / 'configs' / 'detection' / 'ruas_ssd_demo_search.py',
    'segmentation': ROOT / 'configs' / 'segmentation' / 'ruas_deeplab_demo.py',
    'enhancement': ROOT / 'configs' / 'enhance' / 'ruas_a_demo.py',
}
SCENE = {kind: 'model.data_preprocessor.scene_module' for kind in CONFIGS} | {'enhancement': 'model.scene_module'}


@pytest.fixture(scope='module')
def train():
    """``main`` of tools/train.py."""
    return runpy.run_path(str(ROOT / 'tools' / 'train.py'))['main']


@pytest.fixture
def said(train, tmp_path, monkeypatch):
    """Run the tool with arguments; return the one sentence that it says."""

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['train.py', *map(str, arguments), '--work-dir', str(tmp_path / 'work')])
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(MMLogger, '_instance_dict', type(MMLogger._instance_dict)())
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with pytest.raises(SystemExit) as caught:
                run_tool(train)
        text = errors.getvalue()
        sentences = [line for line in text.splitlines() if line.startswith('Error: ')]
        assert caught.value.code == 1 and len(sentences) == 1 and 'Traceback' not in text, text
        return sentences[0]

    return run


# --- Values and keys that every config has ----------------------------------------------------------------------------

WRONG = {
    'optim_wraper.optimizer.lr=1': 'did you mean optim_wrapper?',
    'optim_wrapper.optimizer.lrr=1': 'did you mean optim_wrapper.optimizer.lr?',
    'optim_wrapper.optimizer.type=AdmW': "optim_wrapper.optimizer.type must be .* got 'AdmW'; did you mean 'Adam",
    'optim_wrapper.optimizer.lr=-1': 'optim_wrapper.optimizer.lr must be a number of at least 0, got -1',
    'optim_wrapper.optimizer.lr=abc': "optim_wrapper.optimizer.lr must be .*, got 'abc'",
    'optim_wrapper.optimizer.weight_decay=-1': 'weight_decay must be a number of at least 0, got -1',
    'optim_wrapper.clip_grad=5': 'optim_wrapper.clip_grad must be a dict, got 5',
    'optim_wrapper=5': 'optim_wrapper must be a dict',
    'optim_wrapper=None': 'must define optim_wrapper',
    'model=None': 'must define model',
    'model=5': 'model must be a dict, got 5',
    'train_dataloader.batch_size=0': 'train_dataloader.batch_size must be a whole number of at least 1, got 0',
    'train_dataloader.batch_size=-1': 'train_dataloader.batch_size must be a whole number of at least 1, got -1',
    'train_dataloader.batch_size=1.5': 'train_dataloader.batch_size must be a whole number of at least 1, got 1.5',
    'train_dataloader.batchsize=2': 'did you mean train_dataloader.batch_size?',
    'train_dataloader.num_workers=-1': 'train_dataloader.num_workers must be a whole number of at least 0, got -1',
    'train_dataloader.dataset=5': 'train_dataloader.dataset must be a dict',
    'train_dataloader=5': 'train_dataloader must be a dict',
    'train_cfg.max_epochs=0': 'train_cfg.max_epochs(: IterBasedTrainLoop has no| must be a whole number of at least 1)',
    'train_cfg.max_iters=abc': 'max_iters',
    'train_cfg.val_interval=0': 'train_cfg.val_interval must be a whole number of at least 1, got 0',
    'default_hooks.logger.intervall=5': 'did you mean default_hooks.logger.interval?',
    'default_hooks.logger.interval=0': 'default_hooks.logger.interval must be',
    'default_hooks.checkpoint.interval=abc': "default_hooks.checkpoint.interval must be a whole number, got 'abc'",
    'default_hooks=5': 'default_hooks must be a dict',
    'custom_hooks=5': 'custom_hooks must be a list',
    'randomness.sed=1': 'did you mean randomness.seed?',
    'randomness.seed=abc': 'randomness.seed must be a whole number',
    'log_level=LOUD': 'log_level must be one of',
    'default_scope=nowhere': "default_scope must be the name of an installed toolbox, got 'nowhere'",
    'env_cfg=5': 'env_cfg must be a dict',
    'env_cfg.cudnn_benchmrk=True': 'did you mean env_cfg.cudnn_benchmark?',
    'visualizer=5': 'visualizer must be a dict',
    'load_from=/nowhere/model.pth': 'Checkpoint /nowhere/model.pth does not exist',
    'train_dataloader.batch_size.x=1': 'train_dataloader.batch_size is .*, which has no parts',
}


@pytest.mark.parametrize('kind', CONFIGS)
@pytest.mark.parametrize('option', WRONG)
def test_option(said, kind, option):
    assert re.search(WRONG[option], said(CONFIGS[kind], '--cfg-options', option))


@pytest.mark.parametrize('kind', CONFIGS)
@pytest.mark.parametrize(
    ('option', 'words'),
    [
        ('stage=3', 'did you mean {}.stages?'),
        ('stages=abc', 'stages of SceneModule must be an integer of at least 1'),
        ('type=ruas_mm.SceneModul', "({}.type) is not in the {scope}::model registry; did you mean 'SceneModule'?"),
    ],
)
def test_scene_module(said, kind, option, words):
    scope = Config.fromfile(CONFIGS[kind]).get('default_scope', 'mmengine')
    sentence = said(CONFIGS[kind], '--cfg-options', f'{SCENE[kind]}.{option}')
    assert words.format(SCENE[kind], scope=scope) in sentence


@pytest.mark.parametrize('option', ['visualizer.type=NoVisualizer', 'model.type=ruas_mm.RUA', 'model.x.y=1'])
def test_part_that_cannot_be_built(said, option):
    assert option.partition('.')[0] in said(CONFIGS['enhancement'], '--cfg-options', option)


@pytest.mark.parametrize(
    ('option', 'words'),
    [
        ('beta=abc', "beta >= 0, a number, not 'abc'"),
        ('virtual_lr=abc', 'virtual_lr >= 0'),
        ('tolerance=abc', 'tolerance >= 0'),
        ('scene_iters=0', 'scene_iters >= 1'),
        ('strategy=best', 'choose from cooperative'),
        ('optimizer.lr=-1', 'custom_hooks.0.optimizer.lr must be'),
        ('optimizer.type=Adm', "did you mean 'Adam'?"),
        ('val_dataloader.batch_size=0', 'custom_hooks.0.val_dataloader.batch_size must be'),
        ('betta=1', 'did you mean custom_hooks.0.beta?'),
    ],
)
def test_search_option(said, option, words):
    assert words in said(CONFIGS['search'], '--cfg-options', f'custom_hooks.0.{option}')


# --- Files ------------------------------------------------------------------------------------------------------------

FILES = {
    'syntax.py': ('a = 1\nb = = 2\n', 'syntax.py, line 2, cannot be read as a config: SyntaxError'),
    'raises.py': ('a = 1\nb = 1 / 0\n', 'raises.py, line 2, cannot be read as a config: ZeroDivisionError'),
    'name.py': ('a = b\n', "name 'b' is not defined"),
    'empty.py': ('', 'empty.py must define model'),
    'no_base.py': ("_base_ = 'nowhere.py'\n", 'nowhere.py'),
    'loop.py': ("_base_ = 'loop.py'\n", 'RecursionError'),
    'base_5.py': ('_base_ = 5\n', 'base_5.py cannot be read as a config'),
    'lazy.py': ('import nowhere_at_all\n', 'lazy.py must define model'),
    'reserved.py': ("filename = 'x'\n", 'filename is reserved'),
    'notes.txt': ('model = dict()\n', 'must end in .py, .json, .yaml, .yml'),
    'broken.json': ('{"model": ', 'broken.json cannot be read as a config: JSONDecodeError'),
    'broken.yaml': ('model: [', 'broken.yaml cannot be read as a config: ParserError'),
    'list.json': ('[1, 2]', 'list.json cannot be read as a config'),
    'bytes.py': (b'a = "\xff\xfe"\n', 'bytes.py cannot be read as a config: UnicodeDecodeError'),
    'null.py': (b'a = 1\0\n', 'null.py'),
}


@pytest.mark.parametrize('name', FILES)
def test_file(said, tmp_path, name):
    content, words = FILES[name]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    sentence = said(path)
    assert words in sentence and str(path) in sentence


def test_error_in_a_base(said, tmp_path):
    """The file that is wrong, and the one that was asked for."""
    (tmp_path / 'base.py').write_text('a = b\n')
    (tmp_path / 'config.py').write_text("_base_ = 'base.py'\n")
    sentence = said(tmp_path / 'config.py')
    assert f'{tmp_path}/base.py, line 1, (a base of {tmp_path}/config.py) cannot be read' in sentence


def test_folder(said, tmp_path):
    assert 'is a folder, not a file' in said(tmp_path)


def test_work_dir_is_a_file(said, tmp_path):
    (tmp_path / 'work').write_text('')
    assert f'work directory {tmp_path}/work must be a folder' in said(CONFIGS['enhancement'])


@pytest.mark.parametrize('flag', [['--cfg-options', 'model'], ['--cfg-options', '=1']])
def test_flag_that_cannot_be_read(train, monkeypatch, capsys, flag):
    monkeypatch.setattr(sys, 'argv', ['train.py', str(CONFIGS['enhancement']), *flag])
    with pytest.raises(SystemExit) as caught:
        run_tool(train)
    assert caught.value.code == 2
    assert flag[1] in capsys.readouterr().err.splitlines()[-1]


# --- Overrides --------------------------------------------------------------------------------------------------------

DETECTION = Config.fromfile(CONFIGS['detection'])


@pytest.mark.parametrize(
    'key',
    [
        'model.backbone.with_cp',  # options of the class that the config does not spell out
        'model.data_preprocessor.scene_module.gamma',
        'model.init_cfg',
        'optim_wrapper.accumulative_counts',
        'optim_wrapper.paramwise_cfg.custom_keys.neck.lr_mult',
        'optim_wrapper.optimizer.amsgrad',
        'optim_wrapper.optimizer._delete_',
        'train_dataloader.prefetch_factor',
        'train_dataloader.dataset.indices',
        'default_hooks.early.type',
        'default_hooks.logger.priority',
        'default_hooks.checkpoint.save_best',
        'randomness.deterministic',
        'env_cfg.resource_limit',
        'param_scheduler.0.verbose',
        'custom_hooks',
        'find_unused_parameters',
        'compile',
        'work_dir',
        'load_from',
    ],
)
def test_addition_that_is_read(key):
    assert check_overrides(DETECTION, {key: 1}) == []


def test_options_of_a_type_that_is_given_too():
    given = {'model.neck.type': 'mmdet.FPN', 'model.neck.num_outs': 5}
    assert check_overrides(DETECTION, given) == []
    with pytest.raises(ValueError, match='SearchableSSDNeck has no such option'):
        check_overrides(DETECTION, {'model.neck.num_outs': 5})


def test_new_key_of_a_dict_without_a_type():
    """Nobody can say who reads it: a remark, unless it resembles another."""
    (remark,) = check_overrides(DETECTION, {'model.test_cfg.split_thr': 0.8})
    assert 'model.test_cfg.split_thr is new' in remark
    with pytest.raises(ValueError, match=r'did you mean model\.test_cfg\.score_thr\?'):
        check_overrides(DETECTION, {'model.test_cfg.score_th': 0.8})


def test_variable_of_the_file():
    (remark,) = check_overrides(DETECTION, {'max_epochs': 1})
    assert 'set train_cfg.max_epochs' in remark


def test_item_of_a_tuple():
    with pytest.raises(ValueError, match=r'model\.neck\.in_channels is a tuple; give all of it'):
        check_overrides(DETECTION, {'model.neck.in_channels.0': 8})


def test_item_that_is_not_there():
    with pytest.raises(ValueError, match='param_scheduler has 2 items'):
        check_overrides(DETECTION, {'param_scheduler.5.begin': 8})


# --- Mixed precision --------------------------------------------------------------------------------------------------


class OptimWrapper:
    """In a pure Python config the type is the class itself."""


@pytest.mark.parametrize('kind', [None, 'OptimWrapper', 'mmengine.OptimWrapper', OptimWrapper])
def test_amp_replaces_the_usual_wrapper(kind):
    config = Config({'optim_wrapper': {'optimizer': {'type': 'SGD', 'lr': 1.0}, **({'type': kind} if kind else {})}})
    assert set_amp(config) == ''
    assert config.optim_wrapper.type == 'mmengine.AmpOptimWrapper'
    assert config.optim_wrapper.loss_scale == 'dynamic'


def test_the_rate_of_an_architecture_may_be_auto_and_that_of_weights_not():
    optimizer = {'type': 'Adam', 'lr': 'auto'}
    check_values(Config({'custom_hooks': [{'type': 'ruas_mm.CooperativeSearchHook', 'optimizer': optimizer}]}))
    with pytest.raises(ValueError, match=r'optim_wrapper\.optimizer\.lr must be a number'):
        check_values(Config({'optim_wrapper': {'optimizer': optimizer}}))


def test_amp_that_is_there_already():
    config = Config({'optim_wrapper': {'type': 'AmpOptimWrapper', 'loss_scale': 512.0, 'optimizer': {}}})
    assert 'already' in set_amp(config)
    assert config.optim_wrapper.loss_scale == 512.0


@pytest.mark.parametrize(
    'wrapper',
    [
        {'type': 'ApexOptimWrapper', 'optimizer': {}},
        {'type': 'OptimWrapperDict', 'a': {}},
        {'constructor': 'Mine', 'generator': {'optimizer': {}}, 'critic': {'optimizer': {}}},
    ],
)
def test_amp_of_another_wrapper(wrapper):
    with pytest.raises(ValueError, match='--amp replaces an optim_wrapper of type OptimWrapper, but'):
        set_amp(Config({'optim_wrapper': wrapper}))


@pytest.mark.parametrize('path', sorted(ROOT.glob('configs/*/*.py')), ids=lambda path: path.stem)
def test_stock_amp_takes_our_configs(path):
    """mmseg's train.py compares the wrapper's type with this string."""
    wrapper = Config.fromfile(path).get('optim_wrapper')
    assert wrapper is None or wrapper.type == 'OptimWrapper'
