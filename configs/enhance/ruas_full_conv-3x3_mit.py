"""RUAS on MIT-Adobe FiveK whose cells have one kind of operation, conv_3x3 (3-C, Table III)."""

_base_ = './ruas_full_supernet_mit.py'

cells = {slot: 'conv_3x3' for slot in _base_.slots}

model = dict(genotype=dict(_delete_=True, **cells))
