"""Plain SSD with an ImageNet backbone (MobileNetV2) in VOC format: the baseline of ruas_ssd_mobilenetv2_voc.py."""

_base_ = './ruas_ssd_mobilenetv2_voc.py'

model = dict(
    data_preprocessor=dict(scene_module=None),
    neck=dict(genotype='ssd_plain'),
    bbox_head=dict(genotype='ssd_plain'),
)
