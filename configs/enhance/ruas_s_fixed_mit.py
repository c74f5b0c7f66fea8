"""RUAS_S on MIT-Adobe FiveK with the same guess, max(y), in every stage (Fig. 3b)."""

_base_ = './ruas_s_mit.py'

model = dict(scene_module=dict(warm_start='fixed'))
