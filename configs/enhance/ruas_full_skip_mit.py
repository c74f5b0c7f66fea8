"""RUAS on MIT-Adobe FiveK whose cells have one kind of operation, skip (SC, Table III)."""

_base_ = './ruas_full_supernet_mit.py'

cells = {slot: 'skip' for slot in _base_.slots}

model = dict(genotype=dict(_delete_=True, **cells))
