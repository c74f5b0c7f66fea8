"""RUAS-SSD on DARK FACE with ResNet-50 (Table VII)."""

_base_ = './ruas_ssd_darkface.py'

# --- Often changed -------------------------------------------------------------------------------------------------
pretrained = None  # file with ResNet weights; None trains from scratch

# --- Sometimes changed ---------------------------------------------------------------------------------------------
channels = (256, 512, 1024, 2048)  # strides 4, 8, 16, 32

model = dict(
    data_preprocessor=dict(std=[58.395, 57.12, 57.375]),  # as torchvision's weights need
    backbone=dict(
        _delete_=True,
        type='mmdet.ResNet',
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=-1,  # 4 freezes the whole backbone, as the authors do with a pre-trained one
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        pretrained=pretrained,
    ),
    neck=dict(in_channels=channels, out_channels=(*channels, 512, 256), l2_norm_scales=()),
    bbox_head=dict(in_channels=(*channels, 512, 256)),
)
