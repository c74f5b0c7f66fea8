"""What the command line tools share: configs, checkpoints and errors that a person can read."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.dist import broadcast_object_list, init_dist, is_distributed, is_main_process
from mmengine.utils.dl_utils import set_multi_processing

from ruas_mm.apis.config_check import check_overrides, check_values, check_work_dir
from ruas_mm.apis.run_tool import add_debug_argument
from ruas_mm.registry import MODELS
from ruas_mm.search import Genotype, set_genotype
from ruas_mm.utils.checkpoint import CheckpointError, find_resumable, named_checkpoint
from ruas_mm.utils.fileio import check_file

_SUFFIXES = ('.py', '.json', '.yaml', '.yml')  # what mmengine reads


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that every OpenMMLab tool has, and ``--genotype``.

    Args:
        parser (argparse.ArgumentParser): Parser to extend.
    """
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: work_dirs/<config name>)')
    parser.add_argument('--genotype', metavar='FILE_OR_NAME', help='architecture for all searchable parts of the model')
    parser.add_argument(
        '--cfg-options', nargs='+', action=_Overrides, default={}, metavar='KEY=VALUE', help='settings to override'
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    add_debug_argument(parser)


class _Overrides(DictAction):
    """mmengine's action for ``--cfg-options``, with a sentence for what is not KEY=VALUE."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: str = ''
    ) -> None:
        for value in values:
            if not value.partition('=')[0] or '=' not in value:
                parser.error(f'{option_string} takes KEY=VALUE, got {value!r}')
            try:
                super().__call__(parser, namespace, [value], option_string)
            except (AssertionError, ValueError, IndexError) as error:
                parser.error(f'{option_string} cannot read {value!r}: {error}')
            given = {**getattr(self, 'given', {}), **getattr(namespace, self.dest)}
            self.given = given
        setattr(namespace, self.dest, self.given)


class FormattedOnce(Config):
    """Config whose text is formatted once: yapf takes seconds, and mmengine asks five times and for each checkpoint."""

    @property
    def pretty_text(self) -> str:
        """The config as Python code; see ``mmengine.Config.pretty_text``."""
        content = repr(self._cfg_dict)
        if content not in _TEXTS:
            _TEXTS[content] = super().pretty_text
        return _TEXTS[content]


_TEXTS: dict[str, str] = {}  # content of a config -> its text


def load_config(args: argparse.Namespace, needs: Sequence[str] = ()) -> Config:
    """Read a config, apply the common flags, and refuse what cannot be right.

    Args:
        args (argparse.Namespace): What :func:`add_common_arguments` parsed, and ``config``.
        needs (Sequence[str]): Keys that the config must have beside ``model``.

    Returns:
        Config: The config to run.

    Raises:
        FileNotFoundError: If the config or the genotype does not exist.
        OSError: If one of them cannot be read, or the work directory cannot be used.
        ImportError: If the model needs a host that cannot be used; the message names it.
        ValueError: If the config lacks a key, an option is misspelt or has no such value, or the model has no place for
            the genotype.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    check_file(args.config, 'Config')
    if Path(args.config).suffix not in _SUFFIXES:
        raise ValueError(f'The name of config {args.config} must end in {", ".join(_SUFFIXES)}.')
    config = Config.fromfile(args.config)
    object.__setattr__(config, '__class__', FormattedOnce)  # a Config sets its own settings where others set attributes
    for remark in check_overrides(config, args.cfg_options):
        print(f'Note: {remark}', file=sys.stderr)
    config.merge_from_dict(args.cfg_options)
    for key in ('model', *needs):
        if config.get(key) is None:  # an empty dict stands for all defaults, as in test_cfg = dict()
            raise ValueError(f'Config {args.config} must define {key}.')
    kind = str(config.model.get('type')) if isinstance(config.model, dict) else ''
    if kind.startswith('ruas_mm.'):
        MODELS.get(kind)  # a missing host is named now, and not by a stranger's look-up of another part of it
    check_values(config)
    config.launcher = args.launcher
    if args.launcher == 'pytorch' and get_device() == 'cpu':
        _join_cpu_processes(config)
    config.work_dir = args.work_dir or config.get('work_dir') or str(Path('work_dirs', Path(args.config).stem))
    check_work_dir(config.work_dir)
    if args.genotype is not None:
        slots = Genotype.load(args.genotype).slots
        if not set_genotype(config.model, slots):
            raise ValueError(f'The model of {args.config} takes no genotype: no part of it has the key "genotype".')
    return config


def _join_cpu_processes(config: Config) -> None:
    """Start distributed training on CPUs, where mmengine asks for CUDA devices whatever the backend."""
    torch.distributed.init_process_group('gloo')  # mmengine takes processes that are joined already
    atexit.register(_leave_cpu_processes)
    config.model_wrapper_cfg = dict(
        type='mmengine.MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=config.get('find_unused_parameters', False),
    )


def _leave_cpu_processes() -> None:
    """End gloo's threads while Python is whole: dropping their last tensors they take its lock, or abort without."""
    gc.collect()  # a distributed model owns the group too, and would wait for the threads with that lock held
    torch.distributed.destroy_process_group()


def set_amp(config: Config) -> str:
    """Let a config train with automatic mixed precision.

    Args:
        config (Config): The config to run; its ``optim_wrapper`` is changed.

    Returns:
        str: What the user should know; empty if the usual wrapper has been replaced.

    Raises:
        ValueError: If the config has another kind of wrapper.
    """
    kind = config.optim_wrapper.get('type', 'OptimWrapper')
    name = kind.rpartition('.')[2] if isinstance(kind, str) else getattr(kind, '__name__', str(kind))
    if name == 'AmpOptimWrapper':
        return 'The config trains with automatic mixed precision already: --amp changes nothing.'
    if name != 'OptimWrapper' or 'optimizer' not in config.optim_wrapper:
        what = f'type {name}' if name != 'OptimWrapper' else 'several optimizers'
        raise ValueError(
            f'--amp replaces an optim_wrapper of type OptimWrapper, but that of the config has {what}; '
            'set type=AmpOptimWrapper where the config builds its wrappers.'
        )
    config.optim_wrapper.type = 'mmengine.AmpOptimWrapper'
    config.optim_wrapper.setdefault('loss_scale', 'dynamic')
    return ''


def find_checkpoint(path: str) -> str:
    """Return a checkpoint file.

    Args:
        path (str): A checkpoint, or a work directory whose last one is meant.

    Returns:
        str: Path of the file.

    Raises:
        FileNotFoundError: If there is none.
        OSError: If it cannot be read, or is no regular file.
    """
    if not os.path.isdir(path):
        if '://' not in path:
            check_file(path, 'Checkpoint')
        return path
    checkpoint = named_checkpoint(path)
    if not checkpoint:
        raise FileNotFoundError(
            f'Work directory {path} holds no checkpoint yet: its file "last_checkpoint" is missing or empty.'
        )
    try:
        check_file(checkpoint, 'Checkpoint')
    except FileNotFoundError:
        raise FileNotFoundError(
            f'Checkpoint {checkpoint}, which {path}/last_checkpoint names, does not exist.'
        ) from None
    return checkpoint


def set_resume(config: Config, source: str) -> str:
    """Let a config go on from a checkpoint. Rank 0 chooses it for all processes.

    Args:
        config (Config): The config to run; ``resume`` and ``load_from`` are set.
        source (str): A checkpoint; or a work directory whose newest sound one is meant; or ``'auto'`` for the config's
            work directory, where a run without any checkpoint starts from the beginning.

    Returns:
        str: What the user should know about the choice; empty if it is the one expected.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        CheckpointError: If the work directory holds checkpoints, but no sound one.
    """
    checkpoint, remark = source, ''
    if source == 'auto':
        checkpoint, remark = _find_resumable_together(config, config.work_dir)
    elif os.path.isdir(source):
        checkpoint, remark = _find_resumable_together(config, source)
        checkpoint = checkpoint or source
    if checkpoint:
        config.resume = True
        config.load_from = find_checkpoint(checkpoint)
    return remark


def _find_resumable_together(config: Config, folder: str) -> tuple[str | None, str]:
    """Call ``find_resumable`` in one process, so that a file which is just appearing or going cannot part them."""
    if config.launcher != 'none' and not is_distributed():  # as the runner would soon
        environment = config.get('env_cfg', {})
        set_multi_processing(distributed=True, **environment.get('mp_cfg', {}))
        init_dist(config.launcher, **environment.get('dist_cfg', {}))
    choice = [None]
    if is_main_process():
        try:
            choice = [find_resumable(folder)]
        except CheckpointError as error:
            choice = [error]
    broadcast_object_list(choice)
    if isinstance(choice[0], CheckpointError):
        raise choice[0]
    return choice[0]
