"""RUAS-SSD on the embedded demo data: the DARK FACE layout on a small backbone, minutes on two CPU cores."""

_base_ = './ruas_ssd_darkface.py'

# --- Often changed -------------------------------------------------------------------------------------------------
data_root = 'data/demo/darkface/'  # tools/make_demo_data.py
batch_size = 8
num_workers = 2
max_epochs = 12
base_lr = 2e-3

# --- Sometimes changed ---------------------------------------------------------------------------------------------
image_size = (320, 240)
channels = (24, 48, 96, 192)  # ResNet-18 with 24 instead of 64 base channels

model = dict(
    data_preprocessor=dict(std=[58.395, 57.12, 57.375]),
    backbone=dict(
        _delete_=True,
        type='mmdet.ResNet',
        depth=18,
        base_channels=24,
        stem_channels=24,
        num_stages=4,
        out_indices=(0, 1, 2, 3),  # strides 4, 8, 16, 32
        frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,  # trained from scratch
        pretrained=None,
    ),
    neck=dict(in_channels=channels, out_channels=(*channels, 96, 96), l2_norm_scales=()),
    bbox_head=dict(in_channels=(*channels, 96, 96)),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    dict(type='mmdet.MinIoURandomCrop', min_ious=(0.5, 0.7, 0.9), min_crop_size=0.5),
    dict(type='mmdet.Resize', scale=image_size, keep_ratio=False),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(type='mmdet.PackDetInputs'),
]
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = image_size
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1].transforms[0][0].scale = image_size
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    dataset=dict(
        data_root=data_root,
        ann_file='',
        data_prefix=dict(img_path='train/image', label_path='train/label'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=num_workers,
    dataset=dict(
        data_root=data_root,
        ann_file='',
        data_prefix=dict(img_path='test/image', label_path='test/label'),
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
    checkpoint=dict(type='mmengine.CheckpointHook', interval=5, max_keep_ckpts=2),
)
