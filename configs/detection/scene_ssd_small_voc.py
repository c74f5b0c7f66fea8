"""Plain SSD behind a scene module, in VOC format: what the scene module alone adds (Table VIII, "RUAS_S + TM")."""

_base_ = './ruas_ssd_small_voc.py'

model = dict(neck=dict(genotype='ssd_plain'), bbox_head=dict(genotype='ssd_plain'))
