"""Plain SSD on the embedded demo data: the baseline of ruas_ssd_demo.py."""

_base_ = './ruas_ssd_demo.py'

model = dict(
    data_preprocessor=dict(scene_module=None),
    neck=dict(genotype='ssd_plain'),
    bbox_head=dict(genotype='ssd_plain'),
)
