"""Plain SSD512 on ExDark: the baseline of ruas_ssd_exdark.py."""

_base_ = './ruas_ssd_exdark.py'

model = dict(data_preprocessor=dict(scene_module=None))
