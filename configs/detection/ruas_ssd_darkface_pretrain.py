"""Hierarchical training, first step: the scene module of RUAS-SSD alone, on DARK FACE without its labels (§3.2)."""

_base_ = './ruas_ssd_darkface.py'

# --- Often changed -------------------------------------------------------------------------------------------------
max_epochs = 2  # the scene module has about a thousand weights
base_lr = 1e-3

# --- Sometimes changed ---------------------------------------------------------------------------------------------
model = dict(
    _delete_=True,
    type='ruas_mm.ScenePretrainer',
    data_preprocessor=_base_.model.data_preprocessor,
    scene_loss=dict(smoothness='neighbourhood'),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet.RandomCrop', crop_size=_base_.crop_size),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(type='mmdet.PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape')),
]
train_dataloader = dict(
    dataset=dict(
        data_prefix=dict(label_path=None),
        test_mode=True,  # as every set without labels
        pipeline=train_pipeline,
    )
)

# --- Rarely changed ------------------------------------------------------------------------------------------------
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs + 1)
val_cfg = None
val_dataloader = None
val_evaluator = None
test_cfg = None
test_dataloader = None
test_evaluator = None
optim_wrapper = dict(optimizer=dict(_delete_=True, type='Adam', lr=base_lr), paramwise_cfg=None)
param_scheduler = []
