"""Checkpoints load in full, message hub included, and run no code of their own; damaged ones are recognised."""

from __future__ import annotations

import math
import os
import pickle
import re
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import HistoryBuffer
from mmengine.utils import digit_version
from torch._weights_only_unpickler import _get_allowed_globals

# States of training as mmengine's CheckpointHook names them; its best_*.pth hold no optimizer and are none.
_NUMBERED = re.compile(r'(epoch|iter)_(\d+)\.pth')


class CheckpointError(RuntimeError):
    """A file is no checkpoint, is damaged, or asks for something that a checkpoint may not ask for."""


@register_backend('ruas_mm.atomic', force=True)
class AtomicBackend(LocalBackend):
    """Local files that appear whole or not at all: ``CheckpointHook(backend_args=dict(backend='ruas_mm.atomic'))``."""

    def put(self, obj: bytes, filepath: str | os.PathLike[str]) -> None:
        """Write a file under a temporary name and rename it.

        Args:
            obj (bytes): What the file holds.
            filepath (str | os.PathLike): Where it goes.

        Raises:
            OSError: If it cannot be written; nothing is left behind then.
        """
        temporary = f'{filepath}.tmp'  # always the same, so that a resumed run writes over what a killed one left
        try:
            super().put(obj, temporary)
            os.replace(temporary, filepath)
        except OSError as error:  # such as a full disk, which does not say for which file
            Path(temporary).unlink(missing_ok=True)
            raise OSError(f'{filepath} cannot be written: {error.strerror}.') from error


def load_from_local(filename: str | os.PathLike[str], map_location: Any = None) -> Any:
    """Load a checkpoint file without running code from it.

    Tensors, plain Python values, numpy arrays and scalars, and mmengine's ``HistoryBuffer`` are restored; a file that
    names any other class or function is refused before that is called.

    Args:
        filename (str | os.PathLike): Path of the file.
        map_location (Any): As in ``torch.load``. Defaults to None.

    Returns:
        Any: What was saved.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is empty, damaged, no checkpoint, or refused.
    """
    filename = os.path.expanduser(filename)
    if not os.path.isfile(filename):
        kind = 'is a folder, not a file' if os.path.isdir(filename) else 'does not exist'
        raise FileNotFoundError(f'The checkpoint {filename} {kind}.')
    with open(filename, 'rb') as file:
        _check_content(file, filename)
        try:
            return _load(file, map_location)
        except pickle.UnpicklingError as error:
            refused = re.search(r'\bGLOBAL (\S+)', str(error))
            what = f'{refused[1]}' if refused else 'something other than tensors and plain values'
            raise CheckpointError(
                f'The checkpoint {filename} asks for {what}, which could run code, so it was not loaded.'
            ) from error
        except Exception as error:  # whatever a damaged file breaks: RuntimeError, EOFError, KeyError, …
            reason = str(error).partition('\n')[0] or type(error).__name__
            raise CheckpointError(f'The checkpoint {filename} cannot be loaded: {reason}') from error


def load_from_http(filename: str, map_location: Any = None) -> Any:
    """Download a checkpoint into torch's cache, unless it is there, and load it like a local file.

    Args:
        filename (str): URL of the file.
        map_location (Any): As in ``torch.load``. Defaults to None.

    Returns:
        Any: What was saved.

    Raises:
        CheckpointError: If the download fails, or the file is empty, damaged, no checkpoint, or refused.
    """
    path = os.path.join(torch.hub.get_dir(), 'checkpoints', os.path.basename(urlparse(filename).path))
    for turn in (True, False):  # first rank 0, then those on machines that do not share its cache
        if (get_dist_info()[0] == 0) is turn and not os.path.exists(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            try:
                torch.hub.download_url_to_file(filename, path)
            except OSError as error:
                raise CheckpointError(f'The checkpoint {filename} cannot be downloaded: {error}') from error
        barrier()
    return load_from_local(path, map_location)


def register_loaders() -> None:
    """Make every mmengine runner and ``load_checkpoint`` use the loaders of this module for files and URLs."""
    from mmengine.runner.checkpoint import CheckpointLoader

    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), loader=load_from_http, force=True)


def named_checkpoint(work_dir: str | os.PathLike[str]) -> str:
    """Return the checkpoint that a work directory's file ``last_checkpoint`` names.

    Args:
        work_dir (str | os.PathLike): The work directory.

    Returns:
        str: Path of a file that need not exist; empty if ``last_checkpoint`` is missing or empty.
    """
    pointer = Path(work_dir, 'last_checkpoint')
    named = pointer.read_text(errors='replace').strip('\0 \n') if pointer.is_file() else ''
    if not named:
        return ''
    here = os.path.join(work_dir, os.path.basename(named))  # first: the folder may have been moved or copied since
    return here if os.path.isfile(here) or not os.path.isfile(named) else named


def find_resumable(work_dir: str | os.PathLike[str]) -> tuple[str | None, str]:
    """Choose the newest sound checkpoint of a work directory, wherever the run that wrote it was killed.

    It is the one that ``last_checkpoint`` names. If that one is missing or damaged, it is the newest sound one before
    it by the number in its name, ``epoch_N.pth`` or ``iter_N.pth``; newer files, which an earlier run or a kill before
    the update of ``last_checkpoint`` may have left, are not used. If ``last_checkpoint`` names no such file, it is
    the newest sound one of all. Sound files load with the right checksums and hold a state of training.

    Args:
        work_dir (str | os.PathLike): The work directory.

    Returns:
        tuple[str | None, str]: Path of the checkpoint, None if the folder has none at all, and a sentence that tells
            the user why it is not the one expected; empty if it is.

    Raises:
        CheckpointError: If there are checkpoints but none is sound.
    """
    pointer, named = Path(work_dir, 'last_checkpoint'), named_checkpoint(work_dir)
    older = _older_checkpoints(os.path.dirname(named) or work_dir, os.path.basename(named))
    if not (older or named or pointer.exists()):
        return None, f'There is no checkpoint in {work_dir}, so training starts from the beginning.'
    faults = [] if named else [f'{pointer} is {"empty" if pointer.exists() else "missing"}']
    for path in [named, *older] if named else older:
        try:
            _check_resumable(path)
        except (CheckpointError, OSError) as error:
            faults.append(str(error).rstrip('.'))
        else:
            return path, f'{"; ".join(faults)}, so training goes on from {path}.' if faults else ''
    raise CheckpointError(f'Training cannot go on, {work_dir} holds no sound checkpoint: {"; ".join(faults)}.')


def _older_checkpoints(folder: str | os.PathLike[str], name: str) -> list[str]:
    """List the numbered checkpoints before ``name``, or all if that has no number, the newest first."""
    found = {str(path): match for path in Path(folder).glob('*.pth') if (match := _NUMBERED.fullmatch(path.name))}
    if not found:
        return []
    last = _NUMBERED.fullmatch(name)
    # Epochs and iterations cannot be compared: without a number to go by, those of the run that wrote last.
    kind = (last or found[max(found, key=os.path.getmtime)])[1]
    limit = int(last[2]) if last else math.inf
    numbers = {path: int(match[2]) for path, match in found.items() if match[1] == kind and int(match[2]) < limit}
    return sorted(numbers, key=numbers.get, reverse=True)


def _check_resumable(filename: str) -> None:
    checkpoint = load_from_local(filename, 'cpu')
    if not isinstance(checkpoint, dict) or not {'meta', 'state_dict', 'message_hub'} <= checkpoint.keys():
        raise CheckpointError(f'The checkpoint {filename} holds no state of training.')


def _check_content(file: BinaryIO, filename: str) -> None:
    """Tell an empty, cut, altered or foreign file from a checkpoint by its first bytes and its zip checksums.

    torch itself does not compare the checksums: it would load altered weights without a word.
    """
    start = file.read(2)
    if not start:
        raise CheckpointError(f'The checkpoint {filename} is empty.')
    if start != b'PK' and start[:1] != pickle.PROTO:
        raise CheckpointError(f'{filename} is not a checkpoint: it is not a file written by torch.save.')
    fault = _zip_fault(file) if start == b'PK' else ''
    if fault:
        raise CheckpointError(f'The checkpoint {filename} is damaged: {fault}.')
    file.seek(0)


def _zip_fault(file: BinaryIO) -> str:
    """Say what is wrong with a zip file; nothing if it is whole."""
    try:
        if not zipfile.is_zipfile(file):
            return 'its end is missing'
        with zipfile.ZipFile(file) as archive:
            altered = archive.testzip()
    except Exception as error:  # whatever a damaged directory breaks: BadZipFile, UnicodeDecodeError, …
        return str(error) or type(error).__name__
    return f'the checksum of {altered!r} is wrong' if altered else ''


def _getattr(owner: Any, name: str) -> Any:
    """The one use of ``getattr`` in a checkpoint: HistoryBuffer pickles its statistics methods by name."""
    if owner is HistoryBuffer and name in ('min', 'max', 'current', 'mean'):
        return vars(HistoryBuffer)[name]
    raise pickle.UnpicklingError(f'GLOBAL getattr of {name!r} was refused')


def _allowed_globals() -> dict[str, Any]:
    """What a checkpoint may name besides what torch itself allows."""
    allowed = {
        'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
        'builtins.getattr': _getattr,
        'numpy.ndarray': np.ndarray,
        'numpy.dtype': np.dtype,
    }
    array = np.zeros(0)
    for core in ('numpy.core.multiarray', 'numpy._core.multiarray'):  # numpy 1 and 2 read each other's files
        allowed[f'{core}._reconstruct'] = array.__reduce__()[0]
        allowed[f'{core}.scalar'] = np.float64(0).__reduce__()[0]
    for code in '?bBhHiIlLqQefdgFDGSU':  # every plain dtype; object arrays stay out
        kind = type(np.dtype(code))
        allowed[f'{kind.__module__}.{kind.__qualname__}'] = kind
    return allowed


def _load(file: BinaryIO, map_location: Any) -> Any:
    if digit_version(torch.__version__) < digit_version('2.6'):  # torch's own unpickler cannot be told of _getattr
        return torch.load(file, map_location, pickle_module=_restricted_pickle, weights_only=False)
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals([(value, name) for name, value in _allowed_globals().items()])
    try:
        return torch.load(file, map_location, weights_only=True)
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


class _RestrictedUnpickler(pickle.Unpickler):
    """Finds what torch's weights-only unpickler allows and ``_allowed_globals``, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        path = f'{module.replace("__builtin__", "builtins")}.{name}'
        allowed = _get_allowed_globals() | _allowed_globals()
        if path not in allowed:
            raise pickle.UnpicklingError(f'GLOBAL {path} was refused')
        return allowed[path]


# In the shape of a module, as torch.load wants it.
_restricted_pickle = SimpleNamespace(
    __name__='restricted_pickle',
    Unpickler=_RestrictedUnpickler,
    load=lambda file, **options: _RestrictedUnpickler(file, **options).load(),
)
