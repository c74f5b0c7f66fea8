"""RUAS on MIT-Adobe FiveK whose cells have one kind of operation, res_dil_conv_3x3_d2 (3-2-RDC, Table III)."""

_base_ = './ruas_full_supernet_mit.py'

cells = {slot: 'res_dil_conv_3x3_d2' for slot in _base_.slots}

model = dict(genotype=dict(_delete_=True, **cells))
