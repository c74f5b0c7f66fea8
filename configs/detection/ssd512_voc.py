"""Plain SSD512 on data in VOC format: the baseline of ruas_ssd512_voc.py."""

_base_ = './ruas_ssd512_voc.py'

model = dict(data_preprocessor=dict(scene_module=None))
