"""Plain SSD behind a scene module on the embedded demo data: what the scene module alone adds (Table VIII)."""

_base_ = './ruas_ssd_demo.py'

model = dict(neck=dict(genotype='ssd_plain'), bbox_head=dict(genotype='ssd_plain'))
