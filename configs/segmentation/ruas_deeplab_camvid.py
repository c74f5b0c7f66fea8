"""RUAS-DeepLab on CamVid, with a small backbone that a laptop can train from scratch."""

_base_ = './ruas_deeplab_demo.py'

# --- Often changed -------------------------------------------------------------------------------------------------
data_root = 'data/camvid/'  # holds train/, trainannot/, val/, valannot/ and tools/dataset_tools/camvid_dusk.py's lists
train_list = 'splits/train.txt'  # all of train/ but the end of the dusk sequence; '' for all of it
batch_size = 8
num_workers = 2
max_epochs = 12
base_lr = 2e-3
darkened = 0.0  # fraction of the frames that are darkened: 1.0 turns CamVid into a night set

# --- Sometimes changed ---------------------------------------------------------------------------------------------
image_scale = (192, 144)  # 16 % of the frames' pixels; label maps are compared in full
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomApply', prob=darkened, transforms=[dict(type='ruas_mm.LowLightSynthesis')]),
    dict(type='ruas_mm.LoadSegLabels'),
    dict(type='Resize', scale=image_scale, keep_ratio=False),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmseg.PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomApply', prob=darkened, transforms=[dict(type='ruas_mm.LowLightSynthesis', seed=0)]),
    dict(type='Resize', scale=image_scale, keep_ratio=False),
    dict(type='ruas_mm.LoadSegLabels'),  # after Resize: metrics need boxes in original pixels
    dict(type='mmseg.PackSegInputs'),
]

model = dict(decode_head=dict(num_classes=11))
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    dataset=dict(
        type='ruas_mm.CamVidDataset',
        data_root=data_root,
        ann_file=train_list,
        data_prefix=dict(img_path='train', seg_map_path='trainannot'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=num_workers,
    dataset=dict(
        type='ruas_mm.CamVidDataset',
        data_root=data_root,
        data_prefix=dict(img_path='val', seg_map_path='valannot'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

# --- Rarely changed ------------------------------------------------------------------------------------------------
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=base_lr))
param_scheduler = [
    dict(type='mmengine.LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='mmengine.CosineAnnealingLR', by_epoch=True, T_max=max_epochs, convert_to_iter_based=True, eta_min=1e-5),
]
