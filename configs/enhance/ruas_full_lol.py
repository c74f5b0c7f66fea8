"""RUAS on LOL: scene module and noise removal for every image (Table V)."""

_base_ = './ruas_a_lol.py'

model = dict(variant='full')
