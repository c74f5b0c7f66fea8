"""Search of RUAS-DeepLab on ACDC night: scene module and feature conversion, cooperatively (paper §4.2, Algorithm 1)."""

_base_ = ['./ruas_deeplab_acdc.py', '../_base_/search.py']  # the second one holds the options of the search

# --- Often changed -------------------------------------------------------------------------------------------------
max_epochs = 30  # the paper
batch_size = 2  # a GPU; the paper's 1 is too few for the batch norm of the image pooling
num_workers = 4
base_lr = 2e-3

# --- Sometimes changed ---------------------------------------------------------------------------------------------
split = dict(
    fraction=0.5, seed=0
)  # fraction of the training images for the weights; the others are for the architecture

model = dict(
    data_preprocessor=dict(scene_module=dict(genotype=None)),
    decode_head=dict(genotype=None),
    scene_loss=dict(smoothness='neighbourhood'),
)
train_set = _base_.train_dataloader.dataset
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
custom_hooks = [dict(_base_.search, val_dataloader=search_dataloader)]

# --- Rarely changed ------------------------------------------------------------------------------------------------
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs + 1)
val_cfg = None  # the result is judged by training the found architecture
val_dataloader = None
val_evaluator = None
optim_wrapper = dict(
    optimizer=dict(lr=base_lr),  # a tenth for the scene module, whose loss alone soon overexposes u
    clip_grad=dict(max_norm=5.0),  # the release
)
param_scheduler = [
    dict(type='mmengine.CosineAnnealingLR', by_epoch=True, T_max=max_epochs, convert_to_iter_based=True, eta_min=1e-5)
]
auto_scale_lr = dict(base_batch_size=2)
default_hooks = dict(checkpoint=dict(interval=1))
