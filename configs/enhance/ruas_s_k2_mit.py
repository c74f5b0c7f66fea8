"""RUAS_S on MIT-Adobe FiveK with two stages (Table II)."""

_base_ = './ruas_s_mit.py'

stages = 2

model = dict(scene_module=dict(stages=stages))
