"""Plain DeepLabV3+ on CamVid, all of it mmseg's own: the baseline of ruas_deeplab_camvid.py."""

_base_ = './ruas_deeplab_camvid.py'

head = _base_.model.decode_head
model = dict(
    type='mmseg.EncoderDecoder',
    data_preprocessor=dict(scene_module=None),
    decode_head=dict(
        _delete_=True,
        type='mmseg.DepthwiseSeparableASPPHead',
        dilations=(1, 6, 12, 18),
        in_channels=head.in_channels,
        in_index=head.in_index,
        channels=head.channels,
        c1_in_channels=head.c1_in_channels,
        c1_channels=head.c1_channels,
        dropout_ratio=head.dropout_ratio,
        num_classes=head.num_classes,
        norm_cfg=head.norm_cfg,
        align_corners=head.align_corners,
        loss_decode=head.loss_decode,
    ),
)
