"""Plain SSD300 on data in VOC format: the baseline of ruas_ssd300_voc.py."""

_base_ = './ruas_ssd300_voc.py'

model = dict(data_preprocessor=dict(scene_module=None))
