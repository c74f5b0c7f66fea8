"""Plain SSD on one's own data in VOC format: the baseline of ruas_ssd_small_voc.py."""

_base_ = './ruas_ssd_small_voc.py'

model = dict(
    data_preprocessor=dict(scene_module=None),
    neck=dict(genotype='ssd_plain'),
    bbox_head=dict(genotype='ssd_plain'),
)
