"""RUAS_S on MIT-Adobe FiveK with no residual rectification (Fig. 3c)."""

_base_ = './ruas_s_mit.py'

model = dict(scene_module=dict(warm_start='updated'))
