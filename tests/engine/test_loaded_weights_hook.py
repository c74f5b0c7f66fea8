"""``load_from`` says which weights of a checkpoint fit."""

import logging
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from ruas_mm.engine import LoadedWeightsHook


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(2, 3)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 4)

    def forward(self, *inputs, mode='tensor'):
        return {}


class Records(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


@pytest.fixture
def load(tmp_path):
    """Load a checkpoint as a training does; return what was warned of."""

    def load(content):
        torch.save(content, tmp_path / 'a.pth')
        runner = Runner(Model(), str(tmp_path / 'work'), load_from=str(tmp_path / 'a.pth'), experiment_name='x')
        runner.register_hook(LoadedWeightsHook())
        records = Records()
        runner.logger.addHandler(records)
        runner.load_or_resume()
        runner.logger.removeHandler(records)
        return [text for text in records.texts if text.startswith('Checkpoint')]

    return load


def test_a_whole_checkpoint_needs_no_word(load):
    state = Model().state_dict()
    assert load({'state_dict': state}) == []
    assert load(state) == []
    assert load({'state_dict': OrderedDict((f'module.{name}', value) for name, value in state.items())}) == []
    del state['norm.num_batches_tracked']  # as in old checkpoints
    assert load({'state_dict': state}) == []


def test_a_part_is_counted_and_named(load):
    state = Model().state_dict()
    for name in ('backbone.bias', 'norm.weight', 'norm.bias', 'norm.running_mean'):
        del state[name]
    state['head.weight'] = torch.zeros(9, 3)
    state['decoder.weight'] = torch.zeros(1)
    (warning,) = load({'state_dict': state})
    assert 'a.pth fits a part of the model: 4 of 9 weights are loaded.' in warning
    assert 'Not in the checkpoint: 4 (backbone.bias, norm.weight, norm.bias, …).' in warning
    assert 'In another shape or kind: 1 (head.weight).' in warning
    assert 'Not in the model: 1 (decoder.weight).' in warning


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ({'state_dict': {'encoder.weight': torch.zeros(1)}}, 'no weight fits.*backbone.weight.*1 .encoder.weight'),
        ({'state_dict': {'head.weight': torch.zeros(5, 5)}}, 'no weight fits'),
        ({'state_dict': {'head.weight': np.zeros((4, 3))}}, 'no weight fits'),
        ({'state_dict': {'head.weight': torch.zeros(4, 3, device='meta')}}, 'no weight fits'),
        ({'state_dict': {'norm.num_batches_tracked': torch.tensor(0)}}, 'no weight fits'),
        ({'state_dict': {}}, 'no weight fits.*the checkpoint has none'),
        ({'meta': {'epoch': 1}}, 'no weight fits'),
        ({'state_dict': [1]}, 'holds no weights'),
        ({'state_dict': {1: torch.zeros(1)}}, 'holds no weights'),
    ],
)
def test_another_model_is_refused(load, content, words):
    with pytest.raises(ValueError, match=rf'a\.pth.*{words}') as caught:
        load(content)
    assert '\n' not in str(caught.value) and len(str(caught.value)) < 500


def test_what_is_no_mapping_is_refused():
    runner = SimpleNamespace(_load_from='a.pth', model=Model())
    with pytest.raises(ValueError, match='holds no weights'):
        LoadedWeightsHook().after_load_checkpoint(runner, [1])
