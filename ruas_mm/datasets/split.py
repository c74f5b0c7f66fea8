"""Split any data set reproducibly, so that a search trains weights and architecture on different images."""

from __future__ import annotations

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from torch import Generator, randperm


def split_dataset(dataset: dict, part: str, fraction: float = 0.5, seed: int = 0) -> BaseDataset:
    """Build a data set and keep one of its two parts; can be used as a ``type`` in configs.

    Both parts are taken from the same random permutation, so two configs that differ only in ``part`` have no image in
    common and together use all images.

    Args:
        dataset (dict): Config of any data set based on ``mmengine.dataset.BaseDataset``.
        part (str): The part to keep: ``weights`` or ``architecture``, named after what it trains.
        fraction (float): Fraction of the images in the part ``weights``, in (0, 1).
        seed (int): Seed of the permutation.

    Returns:
        BaseDataset: The data set with the images of this part, in their original order.

    Raises:
        ValueError: If an argument is invalid, or the part would be empty.
    """
    if part not in ('weights', 'architecture'):
        raise ValueError(f"part of split_dataset must be 'weights' or 'architecture', got {part!r}.")
    if not 0 < fraction < 1:
        raise ValueError(f'fraction of split_dataset must be in (0, 1), got {fraction}.')
    whole = DATASETS.build(dataset)
    whole.full_init()
    order = randperm(len(whole), generator=Generator().manual_seed(seed)).tolist()
    first = round(fraction * len(whole))
    indices = sorted(order[:first] if part == 'weights' else order[first:])
    if not indices:
        raise ValueError(
            f'The part {part!r} of the data set must not be empty, got {len(whole)} images and fraction={fraction}.'
        )
    whole.get_subset_(indices)
    return whole
