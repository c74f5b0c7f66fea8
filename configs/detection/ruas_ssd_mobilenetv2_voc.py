"""RUAS-SSD with an ImageNet backbone (MobileNetV2) on one's own dark data in VOC format: small sets, minutes on a CPU."""

_base_ = './ruas_ssd_small_voc.py'

# --- Often changed -------------------------------------------------------------------------------------------------
pretrained = None  # file with ImageNet weights of mmdet's MobileNetV2; None trains from scratch
max_epochs = 8
base_lr = 1e-3

# --- Sometimes changed ---------------------------------------------------------------------------------------------
channels = (24, 32, 96, 320)  # of strides 4, 8, 16, 32

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdet.MobileNetV2',
        out_indices=(1, 2, 4, 6),
        norm_eval=False,
        pretrained=pretrained,
    ),
    neck=dict(in_channels=channels, out_channels=(*channels, 96, 96)),
    bbox_head=dict(in_channels=(*channels, 96, 96)),
)

# --- Rarely changed ------------------------------------------------------------------------------------------------
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=base_lr))
param_scheduler = [
    dict(type='mmengine.LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='mmengine.CosineAnnealingLR', by_epoch=True, T_max=max_epochs, convert_to_iter_based=True, eta_min=1e-5),
]
