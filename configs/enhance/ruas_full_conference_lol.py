"""RUAS on LOL with the architecture of the 2021 conference release (Table V's 0.003 M)."""

_base_ = './ruas_full_lol.py'

genotype = 'ruas_enhance_conference'

model = dict(genotype=genotype, scene_module=dict(t_min=1e-3))
