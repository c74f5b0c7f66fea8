"""RUAS-SSD on DARK FACE with ResNet-101 (Table VII)."""

_base_ = './ruas_ssd_r50_darkface.py'

model = dict(backbone=dict(depth=101))
