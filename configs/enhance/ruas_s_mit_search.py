"""Search of RUAS_S on MIT-Adobe FiveK: the scene module alone."""

_base_ = './ruas_full_mit_search.py'

model = dict(variant='S')
custom_hooks = _base_.custom_hooks
custom_hooks[0].strategy = 'global'  # each module has its own loss
