"""The Python blocks of README work as they stand; the configs with the hosts' own train.py and nothing of our tools."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(r'^```python\n(.*?)^```', (ROOT / 'README.md').read_text(), re.DOTALL | re.MULTILINE)
CONFIGS = {re.search(r"'(\w+)::", block)[1]: block for block in BLOCKS if '_base_' in block}
# A config of this checkout, inherited by its path: nothing but the base config imports ruas_mm in time.
CONFIGS['path'] = f"_base_ = '{ROOT}/configs/detection/ruas_ssd_darkface.py'"
SIZE = 64

# What makes the configs small, without a word on the data preprocessor: config of README -> config that inherits it.
COMMON = """
_base_ = './readme.py'
default_hooks = dict(logger=dict(type='mmengine.LoggerHook', interval=1))
val_cfg = val_dataloader = val_evaluator = test_cfg = test_dataloader = test_evaluator = None
"""
SMALL_RESNET = 'depth=18, base_channels=8, stem_channels=8'
SMALL = {
    'mmdet': f"""
train_cfg = dict(max_epochs=1)
model = dict(
    backbone=dict({SMALL_RESNET}, init_cfg=None),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    bbox_head=dict(in_channels=16, feat_channels=16, stacked_convs=1),
)
train_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False, dataset=dict(
    data_root='data/', ann_file='coco.json', data_prefix=dict(img='images/'), pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=({SIZE}, {SIZE})),
        dict(type='PackDetInputs'),
    ]))
""",
    'mmseg': f"""
train_cfg = dict(max_iters=1)
norm_cfg = dict(type='BN')  # the synchronised one needs several processes
model = dict(
    data_preprocessor=dict(size=({SIZE}, {SIZE})),
    pretrained=None,
    backbone=dict({SMALL_RESNET}, norm_cfg=norm_cfg),
    decode_head=dict(in_channels=64, channels=16, c1_in_channels=8, c1_channels=8, norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=32, channels=16, norm_cfg=norm_cfg),
)
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(
    data_root='data/', data_prefix=dict(img_path='images', seg_map_path='labels'), pipeline=[
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')
    ]))
""",
    'ruas_mm': f"""
train_cfg = dict(max_epochs=1)
model = dict(
    backbone=dict(_delete_=True, type='mmdet.ResNet', {SMALL_RESNET}, out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=(8, 16, 32, 64), out_channels=(8, 16, 32, 64, 16, 16), l2_norm_scales=()),
    bbox_head=dict(in_channels=(8, 16, 32, 64, 16, 16)),
)
train_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False, dataset=dict(
    data_root='data/', ann_file='', data_prefix=dict(img_path='images', label_path='faces'), pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='mmdet.LoadAnnotations', with_bbox=True),
        dict(type='mmdet.Resize', scale=({SIZE}, {SIZE})),
        dict(type='mmdet.PackDetInputs'),
    ]))
""",
}
SMALL['path'] = SMALL['ruas_mm']


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Two dark images, labelled in the formats of COCO, Cityscapes and DARK FACE."""
    folder = tmp_path_factory.mktemp('readme')
    for name in ('images', 'labels', 'faces'):
        (folder / 'data' / name).mkdir(parents=True)
    images, boxes = [], []
    for number in (1, 2):
        pixels = np.random.default_rng(number).integers(0, 60, (SIZE, SIZE, 3), dtype=np.uint8)
        name = f'{number}_leftImg8bit'  # Cityscapes pairs the files by their endings
        cv2.imwrite(str(folder / f'data/images/{name}.png'), pixels)
        cv2.imwrite(str(folder / f'data/labels/{number}_gtFine_labelTrainIds.png'), pixels[..., 0] % 19)
        (folder / f'data/faces/{name}.txt').write_text('1\n8 8 40 40\n')
        images.append(dict(id=number, file_name=f'{name}.png', width=SIZE, height=SIZE))
        boxes.append(dict(id=number, image_id=number, category_id=1, bbox=[8, 8, 32, 32], area=1024, iscrowd=0))
    coco = dict(images=images, annotations=boxes, categories=[dict(id=1, name='person')])
    (folder / 'data/coco.json').write_text(json.dumps(coco))
    return folder


def run(*command, cwd):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    return done.stdout


@pytest.mark.parametrize('scope', SMALL)
def test_config_trains_with_the_hosts_own_tool(scope, data, tmp_path):
    host = 'mmseg' if scope == 'mmseg' else 'mmdet'
    pytest.importorskip(f'{host}.models', exc_type=ImportError)
    (tmp_path / 'data').symlink_to(data / 'data')
    (tmp_path / 'readme.py').write_text(CONFIGS[scope])
    (tmp_path / 'small.py').write_text(COMMON + SMALL[scope])
    tool = Path(find_spec(host).origin).parent / '.mim/tools/train.py'
    run(tool, 'small.py', '--work-dir', 'work', cwd=tmp_path)
    (record,) = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    losses = [json.loads(line)['loss'] for line in record.read_text().splitlines()]
    assert losses and all(np.isfinite(loss) for loss in losses)


@pytest.mark.parametrize(
    'block', [block for block in BLOCKS if '_base_' not in block], ids=lambda block: block.split()[-1]
)
def test_code_runs(block, tmp_path):
    run('-c', block, cwd=tmp_path)


def test_every_block_is_tried():
    assert set(CONFIGS) == set(SMALL)
    assert any('SceneModule' in block for block in BLOCKS)
