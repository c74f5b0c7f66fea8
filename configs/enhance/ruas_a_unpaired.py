"""RUAS_A on a folder of dark photographs, nothing else: how the shipped weights were trained (docs/model_card.md)."""

_base_ = './ruas_a_lol.py'

# --- Often changed -------------------------------------------------------------------------------------------------
data_root = 'data/unpaired/'  # images in it and in its sub-folders
test_folders = _base_.test_folders  # pairs to measure on, below test_root; never trained on
test_root = 'data/lol/'
batch_size = 8
num_workers = 2
max_iters = 1000
base_lr = 1e-2
ambient = 0.2  # the darkest pixels are brightened by a factor of about 1 + 1 / ambient

# --- Sometimes changed ---------------------------------------------------------------------------------------------
crop_size = (192, 192)
epsilon = 0.0095  # noise score above which the noise is removed
border = 20  # as far as a pixel sees
white_noise = dict(correlation=0.0)  # what such photographs have, and what their texture is not
# Unlike paper and release, these losses may be trained to their end: the scene's does not burn out, the noise removal's
# does not flatten.
model = dict(
    scene_loss=dict(fidelity_weight=1.0, smooth_weight=0.05, ambient=ambient, window=15),
    # Weak noise prevails, so that little is taken from images with none.
    task_loss=dict(type='ruas_mm.SyntheticDenoisingLoss', strength=0.2, power=1.5, **white_noise),
    noise_loss=dict(target='level', power=2.0, noise_free=0.3, **white_noise),
    epsilon=epsilon,
    border=border,
)
train_pipeline = _base_.train_pipeline
train_pipeline[1].crop_size = crop_size
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    dataset=dict(data_root=data_root, data_prefix=dict(img_path=''), pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(data_root=test_root, data_prefix=test_folders))
test_dataloader = val_dataloader

# --- Rarely changed ------------------------------------------------------------------------------------------------
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='Adam', lr=base_lr),
    paramwise_cfg=dict(
        _delete_=True,
        custom_keys={'noise_removal': dict(lr_mult=0.5), 'noise_estimator': dict(lr_mult=0.2)},
    ),
)
param_scheduler = [
    dict(type='mmengine.CosineAnnealingLR', by_epoch=False, T_max=max_iters, eta_min_ratio=0.02),
]
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(checkpoint=dict(interval=max_iters))
