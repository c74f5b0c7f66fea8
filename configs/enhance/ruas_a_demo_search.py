"""Search of RUAS on the embedded demo data: minutes on two CPU cores."""

_base_ = './ruas_full_lol_search.py'

# --- Often changed -------------------------------------------------------------------------------------------------
data_root = 'data/demo/lol/'  # tools/make_demo_data.py
max_epochs = 2
scene_lr = 4e-5  # fewer iterations, larger steps

# --- Sometimes changed ---------------------------------------------------------------------------------------------
crop_size = (96, 96)

part = dict(dataset=dict(data_root=data_root, pipeline=_base_.train_pipeline))
part['dataset']['pipeline'][1].crop_size = crop_size
train_dataloader = dict(dataset=part)
# A few hundred steps instead of thousands: larger ones, and an earlier start.
custom_hooks = _base_.custom_hooks
custom_hooks[0].update(
    scene_iters=5,
    warmup=5,
    interval=2,
    patience=None,
    optimizer=dict(type='Adam', lr=0.02, betas=(0.5, 0.999), weight_decay=1e-3),
)
custom_hooks[0].val_dataloader.dataset.dataset.update(part['dataset'])

# --- Rarely changed ------------------------------------------------------------------------------------------------
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs + 1)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(scene_module=dict(lr_mult=scene_lr / _base_.base_lr))),
)
