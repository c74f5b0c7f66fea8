"""RUAS-DeepLab on the embedded demo data: the ACDC layout on a small backbone, minutes on two CPU cores."""

_base_ = './ruas_deeplab_acdc.py'

# --- Often changed -------------------------------------------------------------------------------------------------
data_root = 'data/demo/acdc/'  # tools/make_demo_data.py
batch_size = 8
num_workers = 2
max_epochs = 12
base_lr = 2e-3

# --- Sometimes changed ---------------------------------------------------------------------------------------------
image_scale = (320, 240)
channels = (24, 48, 96, 192)  # ResNet-18 with 24 instead of 64 base channels

model = dict(
    data_preprocessor=dict(size=None, size_divisor=1),  # no padding: all images have the same size
    backbone=dict(
        _delete_=True,
        type='mmseg.ResNet',
        depth=18,
        base_channels=channels[0],
        stem_channels=channels[0],
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        pretrained=None,
    ),
    decode_head=dict(
        in_channels=channels[-1], channels=64, reduced_channels=64, c1_in_channels=channels[0], c1_channels=16
    ),
    auxiliary_head=None,
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ruas_mm.LoadSegLabels'),
    dict(type='Resize', scale=image_scale, keep_ratio=False),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmseg.PackSegInputs'),
]
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = image_scale
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    dataset=dict(
        data_root=data_root,
        ann_file='',
        data_prefix=dict(img_path='rgb_anon/night/train', seg_map_path='gt/night/train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=num_workers,
    dataset=dict(
        data_root=data_root,
        ann_file='',
        data_prefix=dict(img_path='rgb_anon/night/val', seg_map_path='gt/night/val'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

# --- Rarely changed ------------------------------------------------------------------------------------------------
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=base_lr, weight_decay=0.01))
param_scheduler = [
    dict(type='mmengine.LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='mmengine.CosineAnnealingLR', by_epoch=True, T_max=max_epochs, convert_to_iter_based=True, eta_min=1e-5),
]
default_hooks = dict(
    logger=dict(type='mmengine.LoggerHook', interval=10),
    checkpoint=dict(interval=5),
)
