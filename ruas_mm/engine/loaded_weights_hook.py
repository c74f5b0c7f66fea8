"""Says which weights of a checkpoint went into the model, where mmengine goes on whatever it holds."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from ruas_mm.engine.objective import unwrapped
from ruas_mm.utils.text import shorten

# Names that one message shows of each kind.
_SHOWN = 3


class LoadedWeightsHook(Hook):
    """Compares a checkpoint with the model before it is loaded, for ``load_from`` and for resuming.

    To start from a part of the weights is common, such as a pre-trained scene module or a detector of other classes:
    then one warning counts and names what is missing, unused, or of another shape. A checkpoint of which nothing fits
    is of another model, and refused.
    """

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare names and shapes.

        Args:
            runner (Runner): Holds the model.
            checkpoint (dict): What was read from the file.

        Raises:
            ValueError: If no weight of the checkpoint fits the model.
        """
        path = runner._load_from or 'to resume from'
        model = unwrapped(runner)
        state = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, Mapping) else None
        if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
            raise ValueError(f'Checkpoint {path} holds no weights: it has no "state_dict" of names and tensors.')
        given = {re.sub(r'^module\.', '', name): value for name, value in state.items()}  # as mmengine does
        wanted = model.state_dict()
        fitting = {name for name in wanted.keys() & given.keys() if _fits(given[name], wanted[name])}
        if not any(name in fitting for name, _ in model.named_parameters()):
            raise ValueError(
                f'Checkpoint {path} is of another model than the config: no weight fits. '
                f'The model has {_list(wanted)}; the checkpoint has {_list(given)}.'
            )
        # Old checkpoints lack the counters of batch normalisation, which change nothing.
        missing = [name for name in wanted if name not in given and not name.endswith('num_batches_tracked')]
        unused = [name for name in given if name not in wanted]
        other = [name for name in given if name in wanted and name not in fitting]
        if missing or unused or other:
            runner.logger.warning(
                f'Checkpoint {path} fits a part of the model: {len(fitting)} of {len(wanted)} weights are loaded. '
                f'Not in the checkpoint: {_list(missing)}. In another shape or kind: {_list(other)}. '
                f'Not in the model: {_list(unused)}.'
            )


def _fits(given: Any, wanted: Any) -> bool:
    if not isinstance(given, Tensor) or not isinstance(wanted, Tensor):
        return type(given) is type(wanted)  # the extra state of a module
    return given.shape == wanted.shape and given.layout is wanted.layout and given.is_meta is wanted.is_meta is False


def _list(names: Collection[str]) -> str:
    if not names:
        return 'none'
    shown = ', '.join(shorten(name) for name in list(names)[:_SHOWN])
    return f'{len(names)} ({shown}{", …" if len(names) > _SHOWN else ""})'
