"""RUAS_S on MIT-Adobe FiveK: the scene module alone (Table V)."""

_base_ = './ruas_a_mit.py'

model = dict(variant='S')
