"""RUAS_S on MIT-Adobe FiveK with five stages (Table II)."""

_base_ = './ruas_s_mit.py'

stages = 5

model = dict(scene_module=dict(stages=stages))
