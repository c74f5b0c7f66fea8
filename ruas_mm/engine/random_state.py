"""The random number generators of a process, together."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def get_random_state() -> dict[str, Any]:
    """Return the state of Python's, numpy's and torch's generators, the current CUDA device's included.

    Returns:
        dict[str, Any]: Plain values and tensors, fit for a checkpoint.
    """
    state = {'python': random.getstate(), 'numpy': np.random.get_state(), 'torch': torch.get_rng_state()}
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put the generators back.

    Args:
        state (dict[str, Any]): What :func:`get_random_state` returned, also after a checkpoint's detour.
    """
    random.setstate(state['python'])
    np.random.set_state(state['numpy'])
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


def seed_all(seed: int) -> None:
    """Seed the generators.

    Args:
        seed (int): Any non-negative number.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Leave the generators as they were, whatever happens inside."""
    state = get_random_state()
    try:
        yield
    finally:
        set_random_state(state)
