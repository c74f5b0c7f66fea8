"""RUAS-SSD512: a scene module before the ordinary SSD512, its neck and head searchable, on data in VOC format."""

_base_ = './ruas_ssd300_voc.py'

# --- Often changed -------------------------------------------------------------------------------------------------
genotype = 'ssd512_plain'  # of neck and head: none was published for this layout

# --- Sometimes changed ---------------------------------------------------------------------------------------------
input_size = 512

model = dict(
    neck=dict(
        out_channels=(512, 1024, 512, 256, 256, 256, 256),
        level_strides=(2, 2, 2, 2, 2),  # 32 → 16 → 8 → 4 → 2 → 1 cells
        level_paddings=(1, 1, 1, 1, 1),
        genotype=genotype,
    ),
    bbox_head=dict(
        in_channels=(512, 1024, 512, 256, 256, 256, 256),
        genotype=genotype,
        anchor_generator=dict(
            input_size=input_size,
            basesize_ratio_range=(0.1, 0.9),
            strides=[8, 16, 32, 64, 128, 256, 512],
            ratios=[[2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]],
        ),
    ),
)
train_pipeline = _base_.train_pipeline
train_pipeline[3].scale = (input_size, input_size)
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (input_size, input_size)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
