# What every config of this suite shares. Foreign types carry their scope, so that the file can be inherited from
# another project (`_base_ = 'ruas_mm::…'`), where unprefixed names would be looked up in this package alone.

# --- Often changed -------------------------------------------------------------------------------------------------
load_from = None  # checkpoint to start from
resume = False
randomness = dict(seed=0)

# --- Sometimes changed ---------------------------------------------------------------------------------------------
log_level = 'INFO'
vis_backends = [dict(type='mmengine.LocalVisBackend'), dict(type='mmengine.TensorboardVisBackend')]
log_processor = dict(type='mmengine.LogProcessor', window_size=50, by_epoch=True)

# --- Rarely changed ------------------------------------------------------------------------------------------------
# Before a host's own train.py builds the runner, which imports torchvision: see docs/installation.md.
custom_imports = dict(imports=['ruas_mm'], allow_failed_imports=False)
default_hooks = dict(
    timer=dict(type='mmengine.IterTimerHook'),
    logger=dict(type='mmengine.LoggerHook', interval=50),
    param_scheduler=dict(type='mmengine.ParamSchedulerHook'),
    checkpoint=dict(
        type='mmengine.CheckpointHook',
        interval=1,
        max_keep_ckpts=2,  # keeps the previous checkpoint as a fallback
        backend_args=dict(backend='ruas_mm.atomic'),  # writes files atomically, in a local folder
    ),
    sampler_seed=dict(type='mmengine.DistSamplerSeedHook'),
)
env_cfg = dict(
    cudnn_benchmark=False,  # input sizes vary
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
