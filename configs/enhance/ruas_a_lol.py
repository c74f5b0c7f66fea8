"""RUAS_A on LOL: scene module, noise removal, and a noise estimator that says where it is needed (Table V)."""

_base_ = '../_base_/default_runtime.py'

# --- Often changed -------------------------------------------------------------------------------------------------
data_root = 'data/lol/'  # LOL (v1) as released: our485/ and eval15/ with low/ and high/
train_folder = 'our485/low'  # training needs no ground truth
test_folders = dict(img_path='eval15/low', gt_path='eval15/high')  # without ground truth: gt_path=None …
metric = ('psnr', 'ssim')  # … and 'niqe' alone, which needs mmagic; 'lpips' needs AlexNet's weights
# The paper's 689 and 100 are LOL-v2 real: train_folder = 'Train/Low', test_folders = dict(img_path='Test/Low',
# gt_path='Test/Normal'), name_prefix = ('low', 'normal').
name_prefix = ('', '')
batch_size = 1  # the release; a GPU
num_workers = 2
max_iters = 800  # the release
base_lr = 0.015  # for 1 image an iteration; --auto-scale-lr adapts it to more GPUs
# A new scene module already is a mild enhancer, and its loss alone soon burns out u: at the release's rate for modules
# that start from noise, 0.015, within 50 iterations. So less is more here.
scene_lr = 1e-5
genotype = 'ruas_enhance_journal'  # name or file; None builds the searchable form

# --- Sometimes changed ---------------------------------------------------------------------------------------------
crop_size = (256, 256)
stages = 3  # K, Table II
epsilon = 0.035  # noise score above which the noise is removed
removal_lr = 2e-5  # the release: 1e-3 in every 50th iteration; its loss favours flat images

model = dict(
    type='ruas_mm.RUAS',
    variant='A',
    genotype=genotype,
    scene_module=dict(stages=stages),
    scene_loss=dict(smoothness='neighbourhood'),
    end_to_end=False,  # the release: each module by its own loss; True is the paper's Eq. 5
    epsilon=epsilon,
    data_preprocessor=dict(type='ruas_mm.RUASDataPreprocessor'),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ruas_mm.RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ruas_mm.PackEnhanceInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ruas_mm.LoadGroundTruth'),
    dict(type='ruas_mm.PackEnhanceInputs'),
]
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    persistent_workers=num_workers > 0,
    sampler=dict(type='mmengine.InfiniteSampler', shuffle=True),
    dataset=dict(
        type='ruas_mm.LowLightDataset',
        data_root=data_root,
        data_prefix=dict(img_path=train_folder),
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
        type='ruas_mm.LowLightDataset',
        data_root=data_root,
        data_prefix=test_folders,
        name_prefix=name_prefix,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='ruas_mm.ImageQuality', metric=metric)
test_evaluator = val_evaluator

# --- Rarely changed ------------------------------------------------------------------------------------------------
train_cfg = dict(type='mmengine.IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='mmengine.ValLoop')
test_cfg = dict(type='mmengine.TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=base_lr, momentum=0.9, weight_decay=3e-4),
    clip_grad=dict(max_norm=5.0),
    paramwise_cfg=dict(
        custom_keys={
            'scene_module': dict(lr_mult=scene_lr / base_lr),
            'noise_removal': dict(lr_mult=removal_lr / base_lr),
        }
    ),
)
param_scheduler = []
auto_scale_lr = dict(enable=False, base_batch_size=1)
log_processor = dict(by_epoch=False)
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=max_iters),
    visualization=dict(type='ruas_mm.EnhanceVisualizationHook'),
)
visualizer = dict(type='ruas_mm.RUASEnhanceVisualizer', vis_backends=_base_.vis_backends, name='visualizer')
