"""RUAS_S on LOL: the scene module alone (Table V)."""

_base_ = './ruas_a_lol.py'

model = dict(variant='S')
