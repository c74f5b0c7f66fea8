"""Images of different sizes go through a module without influencing each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor


def stack_by_size(images: Tensor | Sequence[Tensor]) -> list[tuple[list[int], Tensor]]:
    """Stack the images of each size.

    Args:
        images (Tensor | Sequence[Tensor]): Images of shape (N, C, H, W), or a list of shape (C, H, W) whose sizes may
            differ.

    Returns:
        list[tuple[list[int], Tensor]]: For each size the places of its images among ``images``, and their batch.
    """
    if isinstance(images, Tensor):
        return [(list(range(len(images))), images)]
    groups = defaultdict(list)
    for index, image in enumerate(images):
        groups[tuple(image.shape)].append(index)
    return [(indices, torch.stack([images[index] for index in indices])) for indices in groups.values()]
