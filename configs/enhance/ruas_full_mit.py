"""RUAS on MIT-Adobe FiveK: scene module and noise removal for every image (Table V)."""

_base_ = './ruas_a_mit.py'

model = dict(variant='full')
