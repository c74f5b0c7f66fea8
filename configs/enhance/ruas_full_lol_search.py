"""Search of RUAS on LOL: scene module and noise removal, cooperatively (paper §4.2, Algorithm 1)."""

_base_ = ['./ruas_full_lol.py', '../_base_/search.py']  # the second one holds the options of the search

# --- Often changed -------------------------------------------------------------------------------------------------
max_epochs = 20  # the paper
batch_size = 1  # the paper; a GPU
num_workers = 2
base_lr = 5e-3  # the release
# With that rate our scene module would burn out u within 50 iterations; see ruas_a_lol.py.
scene_lr = 2e-6

# --- Sometimes changed ---------------------------------------------------------------------------------------------
split = dict(
    fraction=0.5, seed=0
)  # fraction of the training images for the weights; the others are for the architecture

model = dict(genotype=None)
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
custom_hooks = [
    dict(
        _base_.search,
        val_dataloader=search_dataloader,
        scene_iters=10,  # the release: TM in every tenth step
        task_iters=1,
        warmup=20,
        optimizer=dict(type='Adam', lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3),  # the paper
    )
]

# --- Rarely changed ------------------------------------------------------------------------------------------------
# By epochs, so that a resumed search goes on bit by bit.
train_cfg = dict(_delete_=True, type='mmengine.EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs + 1)
val_cfg = None  # the result is judged by training the found architecture
val_dataloader = None
val_evaluator = None
optim_wrapper = dict(
    optimizer=dict(lr=base_lr),
    paramwise_cfg=dict(
        custom_keys=dict(_delete_=True, scene_module=dict(lr_mult=scene_lr / base_lr)),
    ),
)
log_processor = dict(by_epoch=True)
default_hooks = dict(checkpoint=dict(by_epoch=True, interval=1))
