"""Search of RUAS-DeepLab on the embedded demo data: minutes on two CPU cores."""

_base_ = ['./ruas_deeplab_demo.py', '../_base_/search.py']  # the second one holds the options of the search

# --- Often changed -------------------------------------------------------------------------------------------------
max_epochs = 4
batch_size = 4
num_workers = 2
base_lr = 2e-3

# --- Sometimes changed ---------------------------------------------------------------------------------------------
image_scale = (192, 144)  # the search uses smaller images than training
split = dict(
    fraction=0.5, seed=0
)  # fraction of the training images for the weights; the others are for the architecture

model = dict(
    data_preprocessor=dict(scene_module=dict(genotype=None)),
    decode_head=dict(genotype=None),
    scene_loss=dict(smoothness='neighbourhood'),
)
train_set = _base_.train_dataloader.dataset
train_set.pipeline[2].scale = image_scale
loader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    persistent_workers=False,  # so that a resumed search uses the same images as an uninterrupted one
    drop_last=True,
    sampler=dict(type='mmengine.DefaultSampler', shuffle=True),
)
train_dataloader = dict(
    _delete_=True, **loader, dataset=dict(type='ruas_mm.split_dataset', part='weights', **split, dataset=train_set)
)
search_dataloader = dict(
    **loader, dataset=dict(type='ruas_mm.split_dataset', part='architecture', **split, dataset=train_set)
)
custom_hooks = [dict(_base_.short_search, val_dataloader=search_dataloader)]

# --- Rarely changed ------------------------------------------------------------------------------------------------
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs + 1)
val_cfg = None  # the result is judged by training the found architecture
val_dataloader = None
val_evaluator = None
optim_wrapper = dict(optimizer=dict(lr=base_lr))
param_scheduler = [
    dict(type='mmengine.CosineAnnealingLR', by_epoch=True, T_max=max_epochs, convert_to_iter_based=True, eta_min=1e-5)
]
default_hooks = dict(checkpoint=dict(interval=1))
