"""RUAS on MIT-Adobe FiveK without a choice: every slot an even mixture of all operations (Table III, "Supernet")."""

_base_ = './ruas_full_mit.py'

edges = ('distill_1', 'remain_1', 'distill_2', 'remain_2', 'distill_3', 'remain_3', 'last')
slots = [f'{module}.{edge}' for module in ('scene', 'noise_removal') for edge in edges]

model = dict(genotype=None)
