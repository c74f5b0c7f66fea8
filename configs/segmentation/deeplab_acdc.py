"""Plain DeepLabV3+ on ACDC night, all of it mmseg's own: the baseline of ruas_deeplab_acdc.py."""

_base_ = './ruas_deeplab_acdc.py'

head = dict(_base_.model.decode_head, _delete_=True, type='mmseg.DepthwiseSeparableASPPHead', dilations=(1, 6, 12, 18))
for option in ('branches', 'reduced_channels', 'genotype'):  # only used by our head
    del head[option]
model = dict(type='mmseg.EncoderDecoder', data_preprocessor=dict(scene_module=None), decode_head=head)
del head, option
