"""The batches that the architecture is trained on: an endless stream that can be taken up again anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.dist import get_rank
from torch.utils.data import DataLoader

from ruas_mm.engine.random_state import get_random_state, preserved_random_state, seed_all, set_random_state


class ValidationStream:
    """Pass after pass over a data loader, reshuffled each time, every batch used.

    It draws from random numbers of its own, seeded anew for each pass: training's stay untouched, and the place in the
    stream is two numbers.

    Args:
        loader (DataLoader): Loader whose sampler has ``set_epoch``, as mmengine's have.
        seed (int): Seed of the run.

    Raises:
        ValueError: If the loader holds no batch.
    """

    def __init__(self, loader: DataLoader, seed: int) -> None:
        if len(loader) == 0:
            raise ValueError(
                f'The validation set of the search is empty: {len(loader.dataset)} images make no batch of '
                f'{loader.batch_size}.'
            )
        self._loader = loader
        self._seed = seed
        self._passes = 0
        self._position = 0
        self._batches: Iterator[Any] | None = None
        self._random_state: dict[str, Any] | None = None

    def __next__(self) -> Any:
        """Return the next batch."""
        with preserved_random_state():
            if self._batches is None:
                self._start_pass()
            else:
                set_random_state(self._random_state)
            batch = next(self._batches, None)
            if batch is None:
                self._passes, self._position = self._passes + 1, 0
                self._start_pass()
                batch = next(self._batches)
            self._position += 1
            self._random_state = get_random_state()
        return batch

    def _start_pass(self) -> None:
        """Open the current pass and go forward to the current position."""
        sampler = self._loader.sampler
        if not hasattr(sampler, 'set_epoch'):  # a batch sampler holds the one that shuffles
            sampler = getattr(self._loader.batch_sampler, 'sampler', sampler)
        if hasattr(sampler, 'set_epoch'):
            sampler.set_epoch(self._passes)
        seed_all(self._seed + 1000 * self._passes + get_rank())
        self._batches = iter(self._loader)
        for _ in range(self._position):
            next(self._batches)

    def state_dict(self) -> dict[str, int]:
        """Return the place in the stream."""
        return {'passes': self._passes, 'position': self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a place in the stream.

        Args:
            state (dict[str, int]): What :meth:`state_dict` returned.
        """
        self._passes, self._position = state['passes'], state['position']
        self._batches = None
