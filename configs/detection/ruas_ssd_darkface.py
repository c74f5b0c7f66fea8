"""RUAS-SSD on DARK FACE: scene module, VGG-16, searched neck and head, trained end to end with the detector's loss."""

_base_ = '../_base_/default_runtime.py'

# --- Often changed -------------------------------------------------------------------------------------------------
data_root = 'data/darkface/'  # holds image/, label/ and the lists made by tools/dataset_tools/split.py
train_list = 'splits/train.txt'  # the paper: 5000 images drawn at random
test_list = 'splits/test.txt'  # … and the other 1000
batch_size = 8  # a GPU
num_workers = 4
max_epochs = 60
base_lr = 1e-3  # for 8 images per iteration; --auto-scale-lr adapts it to more GPUs
pretrained = None  # file with VGG-16 weights ('path/to/vgg16_caffe.pth'); None trains from scratch
genotype = 'ruas_darkface_vgg16'  # name or file; None builds the searchable form

# --- Sometimes changed ---------------------------------------------------------------------------------------------
crop_size = (640, 640)  # faces are small: training sees crops at full resolution
test_scale = (1080, 720)  # the original size of the images
stages = 3  # K, Table II

model = dict(
    type='ruas_mm.RUASSingleStageDetector',
    data_preprocessor=dict(
        type='ruas_mm.RUASDetDataPreprocessor',
        scene_module=dict(type='ruas_mm.SceneModule', stages=stages, genotype=genotype, warm_start='feature'),
        mean=[123.675, 116.28, 103.53],
        std=[1, 1, 1],  # as the Caffe weights of VGG need
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='ruas_mm.SSDVGG',
        depth=16,
        out_feature_indices=(15, 22, 29, 34),  # conv3_3, conv4_3, conv5_3, fc7: strides 4, 8, 16, 32
        pool5_stride=2,
        frozen=False,  # the authors freeze a pre-trained backbone
        pretrained=pretrained,
    ),
    neck=dict(
        type='ruas_mm.SearchableSSDNeck',
        in_channels=(256, 512, 512, 1024),
        out_channels=(256, 512, 512, 1024, 512, 256),
        level_strides=(2, 2),
        level_paddings=(1, 1),
        l2_norm_scales=(10.0, 8.0, 5.0),
        genotype=genotype,
    ),
    bbox_head=dict(
        type='ruas_mm.SearchableSSDHead',
        num_classes=1,
        in_channels=(256, 512, 512, 1024, 512, 256),
        genotype=genotype,
        anchor_generator=dict(
            type='mmdet.AnchorGenerator',  # one square anchor per cell, with twice the stride as side
            strides=[4, 8, 16, 32, 64, 128],
            base_sizes=[8, 16, 32, 64, 128, 256],
            centers=[(2, 2), (4, 4), (8, 8), (16, 16), (32, 32), (64, 64)],
            scales=[1.0],
            ratios=[1.0],
        ),
        bbox_coder=dict(
            type='mmdet.DeltaXYWHBBoxCoder', target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[0.1, 0.1, 0.2, 0.2]
        ),
    ),
    train_cfg=dict(
        assigner=dict(
            type='mmdet.MaxIoUAssigner',
            pos_iou_thr=0.3,  # low: square anchors fit small faces badly
            neg_iou_thr=0.3,
            min_pos_iou=0.0,
            ignore_iof_thr=-1,
            gt_max_assign_all=False,
        ),
        sampler=dict(type='mmdet.PseudoSampler'),
        smoothl1_beta=1.0,
        allowed_border=-1,
        pos_weight=-1,
        neg_pos_ratio=3,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=5000,
        nms=dict(type='nms', iou_threshold=0.3),
        min_bbox_size=0,
        score_thr=0.05,
        max_per_img=750,
    ),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    dict(type='mmdet.MinIoURandomCrop', min_ious=(0.3, 0.5, 0.7, 0.9), min_crop_size=0.3, bbox_clip_border=True),
    dict(type='mmdet.Resize', scale=crop_size, keep_ratio=False),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(type='mmdet.PackDetInputs'),
]
# For metrics that read the original labels, such as mmdet's CocoMetric: instances.
meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances')
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet.Resize', scale=test_scale, keep_ratio=True),
    dict(type='mmdet.LoadAnnotations', with_bbox=True),  # after Resize: metrics need boxes in original pixels
    dict(type='mmdet.PackDetInputs', meta_keys=meta_keys),
]

train_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    persistent_workers=num_workers > 0,
    sampler=dict(type='mmengine.DefaultSampler', shuffle=True),
    dataset=dict(
        type='ruas_mm.DarkFaceDataset',
        data_root=data_root,
        ann_file=train_list,
        data_prefix=dict(img_path='image', label_path='label'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=num_workers,
    persistent_workers=num_workers > 0,
    drop_last=False,
    sampler=dict(type='mmengine.DefaultSampler', shuffle=False),
    dataset=dict(
        type='ruas_mm.DarkFaceDataset',
        data_root=data_root,
        ann_file=test_list,
        data_prefix=dict(img_path='image', label_path='label'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='ruas_mm.DarkFaceMetric')
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
    dict(type='mmengine.LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=500),
    dict(type='mmengine.MultiStepLR', by_epoch=True, milestones=[int(max_epochs * 0.67), int(max_epochs * 0.9)]),
]
auto_scale_lr = dict(enable=False, base_batch_size=8)
default_scope = 'mmdet'
default_hooks = dict(visualization=dict(type='mmdet.DetVisualizationHook'))
visualizer = dict(type='ruas_mm.RUASDetVisualizer', vis_backends=_base_.vis_backends, name='visualizer')
tta_model = dict(type='ruas_mm.DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.3), max_per_img=750))
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='mmdet.Resize', scale=test_scale, keep_ratio=True)],
            [dict(type='mmdet.RandomFlip', prob=0.0), dict(type='mmdet.RandomFlip', prob=1.0)],
            [dict(type='mmdet.LoadAnnotations', with_bbox=True)],
            [dict(type='mmdet.PackDetInputs', meta_keys=(*meta_keys, 'flip', 'flip_direction'))],
        ],
    ),
]
