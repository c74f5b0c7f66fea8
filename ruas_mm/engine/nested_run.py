"""Runs of the same config inside a run, each in a folder of its work directory."""

from __future__ import annotations

import copy
import gc
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.utils import ManagerMixin

from ruas_mm.engine.random_state import preserved_random_state
from ruas_mm.utils.checkpoint import find_resumable


def nested_config(runner: Runner, folder: str, seed: int, load_from: str | None) -> Config:
    """Copy the config of a run for one inside it.

    Args:
        runner (Runner): The outer run, built from a config.
        folder (str): Name of the inner run's folder in the work directory.
        seed (int): Seed of the inner run.
        load_from (str, optional): Weights to start from, where there is no checkpoint to go on from.

    Returns:
        Config: The config; its other settings are those of the outer run. It goes on from the newest sound checkpoint
        in the folder, if that holds one.

    Raises:
        ValueError: If the runner was not built from a config.
        CheckpointError: If the folder holds checkpoints, but no sound one.
    """
    if 'model' not in runner.cfg:
        raise ValueError(f'{folder} is a run of the same config, but the runner was not built from one.')
    config = copy.deepcopy(runner.cfg)
    config.work_dir = os.path.join(runner.work_dir, folder)
    # mmengine finds loggers, visualizers and message hubs by these names, in the whole process.
    config.experiment_name = f'{runner.experiment_name}_{folder}'
    if config.get('visualizer') is not None:
        config.visualizer.name = config.experiment_name
    config.randomness = {**(config.get('randomness') or {}), 'seed': seed}
    checkpoint, remark = _together(lambda: find_resumable(config.work_dir))
    config.resume, config.load_from = checkpoint is not None, checkpoint or load_from
    if checkpoint is not None:
        runner.logger.info(remark or f'The run in {config.work_dir} goes on from {checkpoint}.')
    return config


@contextmanager
def nested_run(runner: Runner, config: Config) -> Iterator[Runner]:
    """Build the run of a config inside another one; afterwards random numbers and global objects are the outer one's.

    Args:
        runner (Runner): The outer run.
        config (Config): What :func:`nested_config` returned, with the caller's changes.

    Yields:
        Runner: The inner run, of the same class as the outer one.
    """
    with preserved_random_state(), _global_objects_of_its_own():
        yield type(runner).from_cfg(config)
    gc.collect()  # a runner and its loops refer to each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def find_hooks(config: Config, kind: type[Hook]) -> list[dict]:
    """Return the configs among ``custom_hooks`` that build a kind of hook.

    Args:
        config (Config): The config of a run.
        kind (type[Hook]): The class.

    Returns:
        list[dict]: The configs themselves, not copies.
    """

    def builds(hook: Any) -> bool:
        cls = hook.get('type') if isinstance(hook, dict) else None
        cls = HOOKS.get(cls) if isinstance(cls, str) else cls
        return isinstance(cls, type) and issubclass(cls, kind)

    return [hook for hook in config.get('custom_hooks') or () if builds(hook)]


def read_together(path: Path) -> dict[str, Any] | None:
    """Read a JSON file of a nested run in one process, for all.

    Args:
        path (Path): The file.

    Returns:
        dict | None: Its content; None if there is no such file.

    Raises:
        ValueError: If it holds no JSON object.
        OSError: If it cannot be read.
    """

    def read() -> dict[str, Any] | None:
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(f'{path} is not JSON: {error}.') from None
        if not isinstance(content, dict):
            raise ValueError(f'{path} must hold a JSON object, got a {type(content).__name__}.')
        return content

    return _together(read)


def common_seed(runner: Runner) -> int:
    """Return the seed of rank 0, to which those of other ranks may have been added."""
    return _together(lambda: runner.seed)


def _together(action: Any) -> Any:
    """Call a function in the main process, and return its result, or raise its error, in all."""
    outcome: list[Any] = [None, None]
    if is_main_process():
        try:
            outcome[0] = action()
        except Exception as error:
            outcome[1] = error
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


@contextmanager
def _global_objects_of_its_own() -> Iterator[None]:
    """Forget what is registered inside, so that the current logger, visualizer and scope are the same as before."""
    before = {cls: OrderedDict(cls._instance_dict) for cls in _subclasses(ManagerMixin)}
    try:
        yield
    finally:
        for cls in _subclasses(ManagerMixin):
            known = before.get(cls, OrderedDict())
            for name, instance in cls._instance_dict.items():
                for handler in getattr(instance, 'handlers', ()) if name not in known else ():
                    if isinstance(handler, logging.FileHandler):
                        handler.close()
            cls._instance_dict = known


def _subclasses(cls: type) -> Iterator[type]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
