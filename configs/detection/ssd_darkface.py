"""Plain SSD in the DARK FACE layout: the baseline of RUAS-SSD, without scene module and search (Table VIII, "TM")."""

_base_ = './ruas_ssd_darkface.py'

model = dict(
    data_preprocessor=dict(scene_module=None),
    neck=dict(genotype='ssd_plain'),
    bbox_head=dict(genotype='ssd_plain'),
)
