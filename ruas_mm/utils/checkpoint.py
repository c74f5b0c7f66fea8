"""Checkpoints load in full, message hub included, and run no code of their own."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from types import SimpleNamespace
from typing import Any, BinaryIO
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.logging import HistoryBuffer
from mmengine.utils import digit_version
from torch._weights_only_unpickler import _get_allowed_globals


class CheckpointError(RuntimeError):
    """A file is no checkpoint, is damaged, or asks for something that a checkpoint may not ask for."""


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
        _check_shape(file, filename)
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


def _check_shape(file: BinaryIO, filename: str) -> None:
    """Tell an empty, cut or foreign file from a checkpoint by its first bytes and its zip directory."""
    start = file.read(2)
    if not start:
        raise CheckpointError(f'The checkpoint {filename} is empty.')
    if start == b'PK' and not zipfile.is_zipfile(file):
        raise CheckpointError(f'The checkpoint {filename} is damaged: its end is missing.')
    if start != b'PK' and start[:1] != pickle.PROTO:
        raise CheckpointError(f'{filename} is not a checkpoint: it is not a file written by torch.save.')
    file.seek(0)


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
