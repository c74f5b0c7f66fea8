"""A seeded part of any data set, so that a search trains weights and architecture on different images."""

from __future__ import annotations

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from torch import Generator, randperm


def split_dataset(dataset: dict, part: str, fraction: float = 0.5, seed: int = 0) -> BaseDataset:
    """Build a data set and keep one of its two parts; to be used as a ``type`` in configs.

    Both parts come from one random order, so configs that differ in ``part`` alone share no image and lose none.

    Args:
        dataset (dict): Config of any data set based on ``mmengine.dataset.BaseDataset``.
        part (str): ``weights`` or ``architecture``: which of the two it trains.
        fraction (float): Share of the images that train the weights, in (0, 1).
        seed (int): Seed of the random order.

    Returns:
        BaseDataset: The data set with that part of its images, in their original order.

    Raises:
        ValueError: If an option has no such value, or the part would be empty.
    """
    if part not in ('weights', 'architecture'):
        raise ValueError(f"split_dataset has no part {part!r}; choose 'weights' or 'architecture'.")
    if not 0 < fraction < 1:
        raise ValueError(f'split_dataset needs 0 < fraction < 1, not {fraction}.')
    whole = DATASETS.build(dataset)
    whole.full_init()
    order = randperm(len(whole), generator=Generator().manual_seed(seed)).tolist()
    first = round(fraction * len(whole))
    indices = sorted(order[:first] if part == 'weights' else order[first:])
    if not indices:
        raise ValueError(
            f'The part {part!r} of the data set would be empty: it has {len(whole)} images, fraction={fraction}.'
        )
    whole.get_subset_(indices)
    return whole
