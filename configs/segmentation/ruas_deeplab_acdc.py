"""RUAS-DeepLab on ACDC night: scene module, ResNet-50, DeepLabV3+, trained end to end with the segmentation loss."""

_base_ = '../_base_/default_runtime.py'

# --- Often changed -------------------------------------------------------------------------------------------------
data_root = 'data/acdc/'  # holds rgb_anon/, gt/ and the lists made by tools/dataset_tools/split.py
train_list = 'splits/train.txt'  # the paper: 400 of the 506 night images drawn at random
val_list = 'splits/val.txt'  # … and the other 106
batch_size = 8  # a GPU
num_workers = 4
max_epochs = 200  # of 50 iterations
base_lr = 1e-2  # for 8 images per iteration; --auto-scale-lr adapts it to more GPUs
pretrained = None  # file with ResNetV1c-50 weights ('path/to/resnet50_v1c.pth'); None trains from scratch
scene_genotype = 'ruas_enhance_journal'  # name or file; None builds the searchable form
genotype = 'deeplab_plain'  # of the head; the paper published none
sync_bn = None  # 'torch': batch norm over the images of all GPUs; for few images a GPU

# --- Sometimes changed ---------------------------------------------------------------------------------------------
crop_size = (512, 512)
image_scale = (1920, 1080)  # the original size of the images
stages = 3  # K, Table II
num_classes = 19  # Cityscapes'
norm_cfg = dict(type='BN', requires_grad=True)

model = dict(
    type='ruas_mm.RUASEncoderDecoder',
    data_preprocessor=dict(
        type='ruas_mm.RUASSegDataPreprocessor',
        scene_module=dict(type='ruas_mm.SceneModule', stages=stages, genotype=scene_genotype),
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size=crop_size,  # of training: smaller crops are padded
    ),
    backbone=dict(
        type='mmseg.ResNetV1c',
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        strides=(1, 2, 2, 1),  # the last level at stride 16
        dilations=(1, 1, 1, 2),
        contract_dilation=True,
        norm_cfg=norm_cfg,
        norm_eval=False,
        style='pytorch',
        pretrained=pretrained,
    ),
    decode_head=dict(
        type='ruas_mm.SearchableDeepLabHead',
        branches=4,
        reduced_channels=256,  # before the branches, so that the searchable form fits a 24 GB GPU
        genotype=genotype,
        in_channels=2048,
        in_index=3,
        channels=256,
        c1_in_channels=256,  # 0: DeepLabV3, without a decoder
        c1_channels=48,
        dropout_ratio=0.1,
        num_classes=num_classes,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='mmseg.CrossEntropyLoss', avg_non_ignore=True, loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type='mmseg.FCNHead',
        in_channels=1024,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=num_classes,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='mmseg.CrossEntropyLoss', avg_non_ignore=True, loss_weight=0.4),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)

# No photometric distortion: its shifts of up to 32 grey levels are larger than most values of a dark image.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ruas_mm.LoadSegLabels'),
    dict(type='RandomResize', scale=image_scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='mmseg.RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmseg.PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_scale, keep_ratio=True),
    dict(type='ruas_mm.LoadSegLabels'),  # after Resize: metrics need boxes in original pixels
    dict(type='mmseg.PackSegInputs'),
]

train_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    persistent_workers=num_workers > 0,
    drop_last=True,  # batch norm learns nothing from a lone last image
    sampler=dict(type='mmengine.DefaultSampler', shuffle=True),
    dataset=dict(
        type='ruas_mm.ACDCNightDataset',
        data_root=data_root,
        ann_file=train_list,
        data_prefix=dict(img_path='rgb_anon/night', seg_map_path='gt/night'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=num_workers,
    persistent_workers=num_workers > 0,
    sampler=dict(type='mmengine.DefaultSampler', shuffle=False),
    dataset=dict(
        type='ruas_mm.ACDCNightDataset',
        data_root=data_root,
        ann_file=val_list,
        data_prefix=dict(img_path='rgb_anon/night', seg_map_path='gt/night'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

# --- Rarely changed ------------------------------------------------------------------------------------------------
train_cfg = dict(type='mmengine.EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(type='mmengine.ValLoop')
test_cfg = dict(type='mmengine.TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=base_lr, momentum=0.9, weight_decay=5e-4),
    clip_grad=dict(max_norm=35.0),
    # The scene module is initialised as an enhancer, so it is fine-tuned and not trained from scratch.
    paramwise_cfg=dict(custom_keys={'data_preprocessor.scene_module': dict(lr_mult=0.1)}),
)
param_scheduler = [
    dict(type='mmengine.PolyLR', power=0.9, eta_min=1e-4, by_epoch=True, end=max_epochs, convert_to_iter_based=True)
]
auto_scale_lr = dict(enable=False, base_batch_size=8)
default_scope = 'mmseg'
default_hooks = dict(
    checkpoint=dict(interval=10),
    visualization=dict(type='mmseg.SegVisualizationHook', interval=1),  # draws with tools/test.py --show-dir
)
visualizer = dict(type='ruas_mm.RUASSegVisualizer', vis_backends=_base_.vis_backends, name='visualizer')
tta_model = dict(type='ruas_mm.SegTTAModel')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale_factor=ratio, keep_ratio=True) for ratio in (0.75, 1.0, 1.25)],
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='ruas_mm.LoadSegLabels')],
            [dict(type='mmseg.PackSegInputs')],
        ],
    ),
]
