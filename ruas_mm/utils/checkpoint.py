"""Load checkpoints completely, including the message hub, without running code from them, and detect damage."""

from __future__ import annotations

import hashlib
import http.client
import math
import os
import re
import sys
import urllib.request
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.fileio import LocalBackend, register_backend

from ruas_mm.utils.checkpoint_reader import UnreadableError, read_checkpoint
from ruas_mm.utils.fileio import open_file
from ruas_mm.utils.text import shorten

# States of training as mmengine's CheckpointHook names them; its best_*.pth hold no optimizer and are none.
_NUMBERED = re.compile(r'(epoch|iter)_(\d+)\.pth')
# Time-out of the server in seconds.
_TIMEOUT = 60


class CheckpointError(RuntimeError):
    """A file is not a checkpoint, is damaged, or refers to a class or function that is not allowed in checkpoints."""


@register_backend('ruas_mm.atomic', force=True)
class AtomicBackend(LocalBackend):
    """Backend that writes local files atomically: ``CheckpointHook(backend_args=dict(backend='ruas_mm.atomic'))``."""

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
        OSError: If it is no regular file, or cannot be read.
        CheckpointError: If the file is empty, damaged, no checkpoint, or refused.
    """
    return _load(filename, os.path.expanduser(filename), map_location)


def load_from_http(filename: str, map_location: Any = None) -> Any:
    """Download a checkpoint into torch's cache, unless it is there, and load it like a local file.

    The cache knows a file by its whole URL. What enters it is complete, can be loaded, and begins with the SHA-256
    that its name ends with, where it does (``name-d92d2636.pth``). A damaged file in the cache is downloaded again.

    Args:
        filename (str): URL of the file.
        map_location (Any): As in ``torch.load``. Defaults to None.

    Returns:
        Any: What was saved.

    Raises:
        CheckpointError: If the download fails, or the file is empty, damaged, no checkpoint, or refused.
    """
    content: Any = None
    failure: CheckpointError | None = None
    for turn in (True, False):  # first rank 0, then those on machines that do not share its cache
        if (get_dist_info()[0] == 0) is turn:
            try:
                content = _load_cached(filename, map_location)
            except CheckpointError as error:  # raised when no rank waits for this one any more
                failure = error
        barrier()
    if failure is not None:
        raise failure
    return content


def _load_cached(url: str, map_location: Any) -> Any:
    folder = os.path.join(torch.hub.get_dir(), 'checkpoints')
    name = re.split('[?#]', url)[0].rpartition('/')[2]
    readable = re.sub(r'[^\w.-]', '_', name, flags=re.ASCII)[-80:]
    path = os.path.join(folder, f'{hashlib.sha256(url.encode(errors="replace")).hexdigest()[:32]}-{readable}')
    if os.path.exists(path):
        try:
            return _load(url, path, map_location)
        except (CheckpointError, OSError):
            pass  # a new download may fix it
    partial = f'{path}.{uuid.uuid4().hex}.partial'
    try:
        os.makedirs(folder, exist_ok=True)
        digest = _download(url, partial)
        expected = re.search(r'-([0-9a-f]{8,64})\.\w+$', name)  # torch's convention; a date is not a hash
        if expected and not re.fullmatch(r'(19|20)\d{6}', expected[1]) and not digest.startswith(expected[1]):
            raise CheckpointError(
                f'The checkpoint {url} is damaged: its SHA-256 begins with {digest[: len(expected[1])]}, '
                f'expected {expected[1]} from its name.'
            )
        content = _load(url, partial, map_location)
        os.replace(partial, path)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = shorten(str(error)).rstrip('.') or type(error).__name__
        raise CheckpointError(f'The checkpoint {url} cannot be downloaded: {reason}.') from error
    finally:
        if os.path.exists(partial):
            os.remove(partial)
    return content


def _download(url: str, path: str) -> str:
    """Write what a URL holds to a file that does not exist yet; return its SHA-256."""
    digest, done = hashlib.sha256(), 0
    request = urllib.request.Request(url, headers={'User-Agent': 'ruas_mm'})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response, open(path, 'xb') as file:
        if urlparse(url).scheme == 'https' and urlparse(response.url).scheme != 'https':
            raise OSError(f'it leads from https to {shorten(response.url)}')
        length = response.length  # None if the server does not say
        with torch.hub.tqdm(total=length, unit='B', unit_scale=True, disable=not sys.stderr.isatty()) as progress:
            while piece := response.read(2**20):
                file.write(piece)
                digest.update(piece)
                progress.update(len(piece))
                done += len(piece)
    if length is not None and done != length:
        raise OSError(f'{done} of {length} bytes arrived')
    return digest.hexdigest()


def _load(name: str | os.PathLike[str], path: str, map_location: Any) -> Any:
    """Load a file; errors call it by ``name``."""
    with open_file(path, 'The checkpoint') as file:
        try:
            content = read_checkpoint(file, map_location)
        except UnreadableError as error:
            raise CheckpointError(f'The checkpoint {name} {error}.') from error
        except Exception as error:  # whatever a damaged file breaks: RuntimeError, EOFError, KeyError, …
            reason = shorten(str(error)).rstrip('.') or type(error).__name__
            raise CheckpointError(f'The checkpoint {name} cannot be loaded: {reason}.') from error
    if isinstance(content, dict) and isinstance(content.get('meta'), dict):
        # The config of OpenMMLab 1: mmengine would run it as Python when it resumes, only to read a number of GPUs.
        content['meta'].pop('config', None)
    return content


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
    try:
        with open_file(Path(work_dir, 'last_checkpoint'), 'The file') as file:
            named = file.read(2**16).decode(errors='replace').strip('\0 \n')
    except FileNotFoundError:
        named = ''
    if not named:
        return ''
    here = os.path.join(work_dir, os.path.basename(named))  # first, as the folder may have been moved or copied
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
