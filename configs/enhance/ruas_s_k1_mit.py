"""RUAS_S on MIT-Adobe FiveK with one stage (Table II)."""

_base_ = './ruas_s_mit.py'

stages = 1

model = dict(scene_module=dict(stages=stages))
