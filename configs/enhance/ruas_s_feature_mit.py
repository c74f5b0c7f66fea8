"""RUAS_S on MIT-Adobe FiveK with u itself as the guess, as in the detection release."""

_base_ = './ruas_s_mit.py'

model = dict(scene_module=dict(warm_start='feature'))
