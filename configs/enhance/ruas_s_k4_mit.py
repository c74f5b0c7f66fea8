"""RUAS_S on MIT-Adobe FiveK with four stages (Table II)."""

_base_ = './ruas_s_mit.py'

stages = 4

model = dict(scene_module=dict(stages=stages))
