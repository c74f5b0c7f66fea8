"""RUAS_A on the embedded demo data: a minute on two CPU cores (`make enhance-demo`)."""

_base_ = './ruas_a_lol.py'

# --- Often changed -------------------------------------------------------------------------------------------------
data_root = 'data/demo/lol/'  # tools/make_demo_data.py
max_iters = 200
scene_lr = 4e-5  # fewer iterations, larger steps

train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader

# --- Rarely changed ------------------------------------------------------------------------------------------------
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(scene_module=dict(lr_mult=scene_lr / _base_.base_lr))),
)
default_hooks = dict(checkpoint=dict(interval=max_iters))
