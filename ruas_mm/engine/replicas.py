"""Independent searches of one config, whose disagreement shows what a search does not decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from ruas_mm.engine.nested_run import common_seed, find_hooks, nested_config, nested_run, read_together


def check_replicas(runner: Runner, hook: type[Hook]) -> None:
    """Refuse a run whose search cannot be repeated.

    Args:
        runner (Runner): The run.
        hook (type[Hook]): The class of the search's hook.

    Raises:
        ValueError: If the config of the run does not hold that hook.
    """
    if not find_hooks(runner.cfg, hook):
        raise ValueError(
            f'replicas repeat the search of a config, but the config of this run has no {hook.__name__} among its '
            'custom_hooks.'
        )


def search_replicas(
    runner: Runner, count: int, hook: type[Hook], candidates: Mapping[str, Sequence[str]], load_from: str | None
) -> list[dict[str, str]]:
    """Run the searches of a config with other seeds, one after the other.

    The i-th is in ``replica_i`` of the work directory, with the run's seed plus i. One that has ended there is taken as
    it is; one that was killed goes on.

    Args:
        runner (Runner): The run whose own search has ended.
        count (int): Number of searches, the run's own included.
        hook (type[Hook]): The class of the search's hook.
        candidates (Mapping[str, Sequence[str]]): The candidates of each slot.
        load_from (str, optional): Weights that the run's own search started from.

    Returns:
        list[dict[str, str]]: The most probable candidate of each slot, by search, without the run's own.

    Raises:
        ValueError: If a search that has ended is one of other slots or of a seed that has been counted already.
    """
    seed = common_seed(runner)
    seeds, found = {seed: runner.work_dir}, []
    for index in range(1, count):
        folder = f'replica_{index}'
        path = Path(runner.work_dir, folder, 'slots.json')
        content = read_together(path)
        if content is None:
            runner.logger.info(
                f'Replica {index} of {count - 1} is searched in {path.parent}, with seed {seed + index}.'
            )
            config = nested_config(runner, folder, seed + index, load_from)
            for options in find_hooks(config, hook):
                options['replicas'] = 1
            with nested_run(runner, config) as nested:
                nested.train()
            content = read_together(path)
        else:
            runner.logger.info(f'Replica {index} of {count - 1} has ended already: {path} is taken as it is.')
        found.append(_choices(content, path, candidates))
        if content.get('seed') in seeds:
            raise ValueError(
                f'{path} is of seed {content["seed"]}, and so is {seeds[content["seed"]]}: no replica of it.'
            )
        seeds[content.get('seed')] = str(path)
    return found


def _choices(content: dict[str, Any], path: Path, candidates: Mapping[str, Sequence[str]]) -> dict[str, str]:
    slots = content.get('slots')
    if not isinstance(slots, dict) or slots.keys() != candidates.keys():
        raise ValueError(f'{path} must be of a search of the same slots: {", ".join(candidates)}.')
    for slot, decision in slots.items():
        if not isinstance(decision, dict) or decision.get('best') not in candidates[slot]:
            raise ValueError(f'{path} must name one of the candidates of slot {slot!r} as the best.')
    return {slot: slots[slot]['best'] for slot in candidates}
