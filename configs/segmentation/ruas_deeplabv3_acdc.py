"""RUAS-DeepLab on ACDC night in the form of DeepLabV3, without a decoder."""

_base_ = './ruas_deeplab_acdc.py'

model = dict(decode_head=dict(c1_in_channels=0, c1_channels=0))
