"""Configs for comparing the results of a search: train on the half that trained the weights, judge on the other."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from ruas_mm.apis.config_check import read_keys

_SPLIT = 'split_dataset'


def training_on_halves(search: Config, train: Config) -> Config:
    """Let a training config use the two halves of its training images as a search did.

    It trains on the images that trained the weights, and validates once, at the end, on those that trained the
    architecture. These go through the pipeline of its own validation; everything else of the data set is the training
    set's, so that both halves come from one list of images.

    Args:
        search (Config): Config of the search, whose training data are a ``ruas_mm.split_dataset``.
        train (Config): Config that trains what the search finds.

    Returns:
        Config: A changed copy of ``train``.

    Raises:
        ValueError: If one of the configs does not have such data, or the evaluator reads annotations of its own.
    """
    half = search.train_dataloader.dataset
    if not _is_split(half):
        raise ValueError(
            f'train_dataloader.dataset of the search must be a ruas_mm.split_dataset, got {half.get("type")!r}.'
        )
    if not train.get('val_dataloader') or not train.get('val_evaluator'):
        raise ValueError('The training config must define val_dataloader and val_evaluator to judge what it trains.')
    if any('ann_file' in metric for metric in _dicts(train.val_evaluator)):
        raise ValueError(
            'val_evaluator of the training config must take the labels from the data set, but its ann_file names those '
            'of other images than the half that judges; set it to None or choose another metric.'
        )
    whole, judged = train.train_dataloader.dataset, train.val_dataloader.dataset
    for name, dataset in (('train', whole), ('val', judged)):
        if _is_split(dataset) or 'pipeline' not in dataset:
            raise ValueError(
                f'{name}_dataloader.dataset of the training config must be one whole data set with a pipeline, got '
                f'{dataset.get("type")!r}.'
            )
    options = {key: half[key] for key in ('fraction', 'seed') if key in half}
    split = {'type': 'ruas_mm.split_dataset', **options}
    config = copy.deepcopy(train)
    # Whole new dicts: test_dataloader may be the same object.
    config.train_dataloader = {**train.train_dataloader, 'dataset': {**split, 'part': 'weights', 'dataset': whole}}
    judging = {**split, 'part': 'architecture', 'dataset': {**whole, 'pipeline': judged.pipeline}}
    config.val_dataloader = {**train.val_dataloader, 'dataset': judging}
    config.val_cfg = train.get('val_cfg') or {'type': 'mmengine.ValLoop'}
    last = train.train_cfg.get('max_epochs') or train.train_cfg.get('max_iters')
    config.train_cfg = {**train.train_cfg, 'val_begin': 1, 'val_interval': last}
    return config


def supernet_validation(search: Config, halves: Config) -> Config:
    """Let the config of a search judge architectures in its supernet.

    The validation is the search's own where it has one; otherwise that of the trainings. Where training and validation
    of ``halves`` see images of one size, the validation of the supernet sees those of the size that the search sees.

    Args:
        search (Config): Config of the search.
        halves (Config): What :func:`training_on_halves` returned.

    Returns:
        Config: A changed copy of ``search``, without the hook of the search.
    """
    config = copy.deepcopy(search)
    config.custom_hooks = []
    if not (search.get('val_dataloader') and search.get('val_evaluator')):
        config.val_dataloader = copy.deepcopy(halves.val_dataloader)
        config.val_evaluator = halves.val_evaluator
        pipeline = config.val_dataloader.dataset.dataset.pipeline
        if _scale(pipeline) == _scale(halves.train_dataloader.dataset.dataset.pipeline):
            _set_scale(pipeline, _scale(search.train_dataloader.dataset.dataset.pipeline))
    config.val_cfg = search.get('val_cfg') or halves.val_cfg
    return config


def config_text(config: Config) -> str:
    """Return a config as a Python file without a base and without the variables of its own files.

    Args:
        config (Config): The config; ``Config.pretty_text`` takes seconds for the same.

    Returns:
        str: One assignment per key that something reads.

    Raises:
        ValueError: If a value is no plain Python value, such as a class.
    """
    lines = []
    keys = read_keys()
    for key, value in config.to_dict().items():
        if key not in keys:
            continue
        text = repr(value)
        try:
            ast.literal_eval(text)
        except (ValueError, SyntaxError):
            raise ValueError(f'The value of {key} in config {config.filename} must be made of plain values.') from None
        lines.append(f'{key} = {text}\n')
    return ''.join(lines)


def genotypes_in(node: Any) -> Iterator[Any]:
    """Yield the genotypes that the parts of a model's config name.

    Args:
        node (Any): The config of a model, or a part of it.
    """
    for part in _dicts(node):
        if part.get('genotype') is not None:
            yield part['genotype']


def _is_split(dataset: dict) -> bool:
    kind = dataset.get('type')
    return (kind if isinstance(kind, str) else getattr(kind, '__name__', '')).rpartition('.')[2] == _SPLIT


def _resizes(pipeline: list[dict]) -> list[dict]:
    return [step for step in pipeline if str(step.get('type')).endswith('Resize') and 'scale' in step]


def _scale(pipeline: list[dict]) -> tuple | None:
    """Return the size that a pipeline brings images to; None if it is not one."""
    scales = [tuple(step['scale']) for step in _resizes(pipeline)]
    return scales[0] if len(scales) == 1 else None


def _set_scale(pipeline: list[dict], scale: tuple | None) -> None:
    for step in _resizes(pipeline):
        step['scale'] = scale or step['scale']


def _dicts(node: Any) -> Iterator[dict]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _dicts(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _dicts(value)
