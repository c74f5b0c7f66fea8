"""A small RUAS with weights that do something, as a checkpoint."""

import torch

from ruas_mm.models.enhance import RUAS

CONFIG = dict(variant='A', genotype='ruas_enhance_journal', noise_estimator=dict(channels=4), epsilon=0.0)


def save_enhancer(path, **options):
    """Write a checkpoint as from_official.py does; return its model."""
    torch.manual_seed(0)
    config = {**CONFIG, **options}
    model = RUAS(**config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    meta = {'model': dict(type='ruas_mm.RUAS', **config)}
    torch.save({'meta': meta, 'state_dict': model.state_dict()}, path)
    return model
