"""Whether a model is fit for a strategy of the search."""

from __future__ import annotations

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from ruas_mm.engine.objective import unwrapped
from ruas_mm.search import searchable_slots


def check_model(runner: Runner, strategy: str, relaxation: str = 'softmax') -> None:
    """Refuse a model that a strategy cannot search.

    Args:
        runner (Runner): The run; its model may be wrapped.
        strategy (str): Strategy of the search.
        relaxation (str): Relaxation of the search. Defaults to ``softmax``.

    Raises:
        ValueError: If the model has no searchable slots, or the strategy needs phases that it does not have.
    """
    searched = unwrapped(runner)
    model = type(searched).__name__
    if not searchable_slots(searched):
        raise ValueError(f'{model} has no searchable slots: build its scene module, neck or head with genotype=None.')
    expects_all = is_model_wrapper(runner.model) and not getattr(runner.model, 'find_unused_parameters', True)
    if expects_all and relaxation != 'softmax':
        raise ValueError(
            f'With several processes relaxation={relaxation!r} needs find_unused_parameters=True in the config: each '
            'step trains the drawn candidates alone.'
        )
    if strategy in ('global', 'random'):
        return
    if not hasattr(searched, 'search_phase'):
        raise ValueError(
            f'The strategy {strategy!r} needs a model with search phases, such as those built on '
            f"SceneModelMixin; {model} can be searched with strategy='global'."
        )
    if getattr(searched, 'scene_module', None) is not None and searched.scene_loss is None:
        raise ValueError(f'The scene phase needs a scene loss, but {model} was built with scene_loss=None.')
    if expects_all:
        raise ValueError(
            f'With several processes the strategy {strategy!r} needs find_unused_parameters=True in the '
            'config: each phase trains a part of the model.'
        )
