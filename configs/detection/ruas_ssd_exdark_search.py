"""Search of RUAS-SSD on ExDark: scene module, neck and head in the SSD512 layout, cooperatively (paper §4.2)."""

_base_ = ['./ruas_ssd_exdark.py', '../_base_/search.py']  # the second one holds the options of the search

# --- Often changed -------------------------------------------------------------------------------------------------
max_epochs = 30  # the paper
batch_size = 1  # the paper; a GPU
num_workers = 4
base_lr = 1e-3

# --- Sometimes changed ---------------------------------------------------------------------------------------------
split = dict(
    fraction=0.5, seed=0
)  # fraction of the training images for the weights; the others are for the architecture

model = dict(
    data_preprocessor=dict(scene_module=dict(genotype=None)),
    neck=dict(genotype=None),
    bbox_head=dict(genotype=None),
    scene_loss=dict(smoothness='neighbourhood'),
)
train_set = _base_.train_dataloader.dataset
loader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    persistent_workers=False,  # so that a resumed search uses the same images as an uninterrupted one
    sampler=dict(type='mmengine.DefaultSampler', shuffle=True),
)
train_dataloader = dict(
    _delete_=True, **loader, dataset=dict(type='ruas_mm.split_dataset', part='weights', **split, dataset=train_set)
)
search_dataloader = dict(
    **loader, dataset=dict(type='ruas_mm.split_dataset', part='architecture', **split, dataset=train_set)
)
custom_hooks = [dict(_base_.search, val_dataloader=search_dataloader)]

# --- Rarely changed ------------------------------------------------------------------------------------------------
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs + 1)
val_cfg = None  # the result is judged by training the found architecture
val_dataloader = None
val_evaluator = None
optim_wrapper = dict(
    optimizer=dict(lr=base_lr),
    clip_grad=dict(max_norm=5.0),  # the release
    # The scene module learns from its own loss here, at the release's rate.
    paramwise_cfg=dict(custom_keys={'data_preprocessor.scene_module': dict(lr_mult=5.0)}),
)
param_scheduler = [
    dict(type='mmengine.LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=500),
    dict(type='mmengine.CosineAnnealingLR', by_epoch=True, T_max=max_epochs, eta_min=1e-5),
]
auto_scale_lr = dict(base_batch_size=1)
