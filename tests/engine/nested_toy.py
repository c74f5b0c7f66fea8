"""A network of two searchable convolutions on tiny pictures, as a config: what runs inside a run are built from."""

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from torch import nn

from ruas_mm.search import SearchSlots

CANDIDATES = ('conv_1x1', 'conv_3x3', 'conv_5x5')  # which is best depends on how they are initialised
NAMES = ('a', 'b')
kill = {}  # folder of a run -> iteration in which it dies


@MODELS.register_module(force=True)
class TwoConvs(BaseModel):
    def __init__(self, genotype=None):
        super().__init__()
        self.slots = SearchSlots('head', NAMES, CANDIDATES, genotype)
        self.convs = nn.ModuleList(self.slots.build(index, 1, 1) for index in range(len(NAMES)))

    def forward(self, inputs, target, mode='tensor'):
        x, target = torch.stack(list(inputs)), torch.stack(list(target))
        for conv, p in zip(self.convs, self.slots.probs(), strict=True):
            x = conv(x, p)
        error = (x - target).square().mean(dim=(1, 2, 3))
        return {'loss': error.mean()} if mode == 'loss' else [{'error': each.item()} for each in error]


@DATASETS.register_module(force=True)
class Edges(BaseDataset):
    """Noise, and its horizontal differences as the target."""

    def __init__(self, seed, count=4):
        self.seed, self.count = seed, count
        super().__init__()

    def load_data_list(self):
        return [{'seed': 100 * self.seed + index} for index in range(self.count)]

    def __getitem__(self, index):
        picture = torch.randn(1, 5, 5, generator=torch.Generator().manual_seed(self.get_data_info(index)['seed']))
        return {'inputs': picture, 'target': picture - picture.roll(1, -1)}


@METRICS.register_module(force=True)
class Closeness(BaseMetric):
    default_prefix = 'toy'

    def process(self, data_batch, data_samples):
        self.results.extend(sample['error'] for sample in data_samples)

    def compute_metrics(self, results):
        return {'closeness': -sum(results) / len(results), 'lost': float('nan')}


@HOOKS.register_module(force=True)
class Killer(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        for folder, iteration in kill.items():
            if runner.work_dir.endswith(folder) and runner.iter == iteration:
                raise InterruptedError(folder)


def loader(seed):
    sampler = dict(type='DefaultSampler', shuffle=True)
    return dict(batch_size=2, num_workers=0, sampler=sampler, dataset=dict(type='Edges', seed=seed))


def config(work_dir, name, seed=0, epochs=3, validation=False, **options):
    """A search of the toy; ``options`` are the hook's."""
    search = dict(
        type='ruas_mm.CooperativeSearchHook',
        val_dataloader=loader(2),
        strategy='global',
        optimizer=dict(type='Adam', lr=0.1),
        scene_iters=1,
        task_iters=1,
        interval=1,
    )
    content = dict(
        model=dict(type='TwoConvs', genotype=None),
        work_dir=str(work_dir),
        train_dataloader=loader(1),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.05)),
        custom_hooks=[dict(search, **options), dict(type='Killer')],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        visualizer=dict(type='Visualizer', name=f'of {name}', vis_backends=[dict(type='LocalVisBackend')]),
        randomness=dict(seed=seed),
        experiment_name=name,
    )
    if validation:
        content |= dict(val_cfg=dict(), val_dataloader=loader(2), val_evaluator=dict(type='Closeness'))
    return Config(content)
