"""Read files written by ``torch.save`` without running code from them, in memory and time bounded by their size.

``torch.load`` cannot be used for this. It inflates compressed files, calls the functions that it allows with any
arguments, restores values that unfold to any size, and each of its versions checks something else. What is read here is
read in the same way with all of them.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import struct
import sys
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, BinaryIO

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch.serialization import MAGIC_NUMBER, PROTOCOL_VERSION, StorageType, _get_layout, _get_restore_location
from torch.storage import TypedStorage

from ruas_mm.utils.text import shorten, show

# What a file may unfold to: a value counts as often as it is referred to, as copying, comparing or printing it would.
_UNFOLDED = 2**26
_UNFOLDED_PER_BYTE = 16
_DEPTH = 100
_DIMENSIONS = 64
# Numbers whose hashes collide make a dict slow; strings cannot be chosen so, since Python salts their hashes.
_NUMBER_KEYS = 100_000
_PIECE = 2**20

_KEY_TYPES = (str, bytes, int, float, bool, type(None), torch.dtype, torch.device)


class UnreadableError(Exception):
    """Why a file cannot be loaded, as the end of a sentence that begins with its name."""


def read_checkpoint(file: BinaryIO, map_location: Any = None) -> Any:
    """Read a file written by ``torch.save``, in its zip format or the one before.

    Args:
        file (BinaryIO): The file, opened for reading; it must be seekable.
        map_location (Any): As in ``torch.load``. Defaults to None.

    Returns:
        Any: What was saved.

    Raises:
        UnreadableError: If the file is no checkpoint, is damaged, or asks for something that is refused.
        Exception: Whatever else a damaged file breaks.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(2)
    file.seek(0)
    if not start:
        raise UnreadableError('is empty')
    restore = _get_restore_location(map_location)
    if start == b'PK':
        return _read_zip(file, size, restore)
    if start[:1] == pickle.PROTO:
        return _read_legacy(file, size, restore)
    raise UnreadableError('is not a checkpoint: it is not a file written by torch.save')


def _read_zip(file: BinaryIO, size: int, restore: Callable) -> Any:
    if not zipfile.is_zipfile(file):
        raise UnreadableError('is damaged: its end is missing')
    try:
        archive = zipfile.ZipFile(file)
    except Exception as error:  # whatever a damaged directory breaks: BadZipFile, UnicodeDecodeError, …
        raise UnreadableError(f'is damaged: {shorten(str(error))}') from error
    with archive:
        members = _check_members(archive, size)
        folder = next(iter(members), '').partition('/')[0]
        if f'{folder}/constants.pkl' in members:
            raise UnreadableError('is a TorchScript archive, not a file written by torch.save')
        if f'{folder}/data.pkl' not in members:
            raise UnreadableError('is not a checkpoint: it is a zip file that torch.save did not write')

        def read(name: str) -> bytes:
            try:
                return archive.read(members[f'{folder}/{name}'])
            except zipfile.BadZipFile as error:
                raise _damaged(error) from error

        order = read('byteorder').decode() if f'{folder}/byteorder' in members else 'little'
        if order not in ('little', 'big'):
            raise UnreadableError(f'is damaged: its byte order is {show(order)}')
        storages: dict[str, torch.UntypedStorage] = {}

        def find_storage(key: str, dtype: torch.dtype, nbytes: int, location: str) -> torch.UntypedStorage:
            info = members.get(f'{folder}/data/{key}')
            if info is None or info.file_size != nbytes:
                held = 'no bytes' if info is None else f'{info.file_size} bytes'
                raise UnreadableError(f'is damaged: it holds {held} of storage {show(key)}, expected {show(nbytes)}')
            if key not in storages:
                storage = torch.UntypedStorage(nbytes)
                try:
                    with archive.open(info) as source:
                        _fill(storage, source)
                except zipfile.BadZipFile as error:
                    raise _damaged(error) from error
                if order != sys.byteorder:
                    storage.byteswap(dtype)
                storages[key] = restore(storage, location)
            return storages[key]

        data = read('data.pkl')
        reader = _Unpickler(io.BytesIO(data), len(data), find_storage)
        content = reader.load()
    reader.check_sparse()
    _check_unfolded(content, size)
    return content


def _damaged(error: zipfile.BadZipFile) -> UnreadableError:
    return UnreadableError(f'is damaged: {shorten(str(error).replace("Bad CRC-32 for file", "wrong checksum of"))}')


def _check_members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Return the members of a zip file by name; refuse those that hold more than the file itself."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        if info.filename in members:
            raise UnreadableError(f'is damaged: it holds {show(info.filename)} twice')
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.compress_size != info.file_size:
            raise UnreadableError(
                f'holds {show(info.filename)} compressed or encrypted, which torch.save never writes, '
                'so it was not loaded'
            )
        members[info.filename] = info
    if sum(info.file_size for info in members.values()) > size:
        raise UnreadableError('is damaged: its parts overlap')
    return members


def _read_legacy(file: BinaryIO, size: int, restore: Callable) -> Any:
    storages: dict[str, tuple[torch.UntypedStorage, torch.UntypedStorage, torch.dtype]] = {}
    declared = 0

    def find_storage(key: str, dtype: torch.dtype, nbytes: int, location: str) -> torch.UntypedStorage:
        nonlocal declared
        if key not in storages:
            declared += nbytes
            if declared > size:
                raise UnreadableError('is damaged: its storages are declared larger than the file')
            read = torch.UntypedStorage(nbytes)  # filled below, since the bytes come after the pickle
            storages[key] = read, restore(read, location), dtype
        if storages[key][0].nbytes() != nbytes:
            raise UnreadableError(f'is damaged: it declares two sizes of storage {show(key)}')
        return storages[key][1]

    reader = _Unpickler(file, size, find_storage)
    if reader.load() != MAGIC_NUMBER or reader.load() != PROTOCOL_VERSION:
        raise UnreadableError('is not a checkpoint: it is not a file written by torch.save')
    reader.load()  # facts about the machine, which torch does not use either
    content = reader.load()
    keys = reader.load()
    if not isinstance(keys, list) or len(keys) != len(storages) or not all(key in storages for key in keys):
        raise UnreadableError('is damaged: it does not list its storages')
    for key in keys:
        read, target, dtype = storages[key]
        header = file.read(8)
        if len(header) < 8 or struct.unpack('<q', header)[0] * dtype.itemsize != read.nbytes():
            raise UnreadableError(f'is damaged: storage {show(key)} has another size than declared')
        _fill(read, file)
        if sys.byteorder == 'big':
            read.byteswap(dtype)
        if target is not read:
            target.copy_(read)
    reader.check_sparse()
    _check_unfolded(content, size)
    return content


def _fill(storage: torch.UntypedStorage, source: BinaryIO) -> None:
    """Read the bytes of a storage, piece by piece so that they are never held twice."""
    view, done = torch.empty(0, dtype=torch.uint8).set_(storage).numpy(), 0
    while done < len(view):
        piece = source.read(min(_PIECE, len(view) - done))
        if not piece:
            raise UnreadableError('is damaged: its end is missing')
        view[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
        done += len(piece)
    source.read(1) if isinstance(source, zipfile.ZipExtFile) else None  # the end of a member: its checksum is compared


def _check_unfolded(root: Any, size: int) -> None:
    """Refuse what refers to itself, is nested too deeply, or unfolds to far more than the file holds."""
    limit = _UNFOLDED + _UNFOLDED_PER_BYTE * size
    known: dict[int, tuple[int, int] | None] = {}  # of each container: what it unfolds to, and its height

    def measure(value: Any, depth: int) -> tuple[int, int]:
        if isinstance(value, _Allowed):
            raise _refused(value.name)
        if not isinstance(value, (dict, list, tuple, set)):
            return _bytes_of(value), 0
        if depth > _DEPTH:
            raise UnreadableError(f'is nested more than {_DEPTH} levels deep, so it was not loaded')
        if id(value) not in known:
            known[id(value)] = None
            total, height = 8, 0
            for child in _children(value):
                weight, below = measure(child, depth + 1)
                total, height = total + weight, max(height, below)
            known[id(value)] = total, height + 1
        measured = known[id(value)]
        if measured is None:
            raise UnreadableError('holds a value that contains itself, so it was not loaded')
        if measured[0] > limit or depth + measured[1] > _DEPTH:
            raise UnreadableError(
                f'is {size} bytes long and unfolds to more than {limit} bytes or {_DEPTH} levels, so it was not loaded'
            )
        return measured

    measure(root, 0)


def _children(value: Any) -> Iterable[Any]:
    if not isinstance(value, dict):
        yield from value
        return
    for key, item in value.items():
        yield key
        yield item
    yield from getattr(value, '__dict__', {}).values()  # of an OrderedDict


def _bytes_of(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size() if value.layout is torch.strided and not value.is_meta else 8
    if isinstance(value, np.ndarray):
        return value.nbytes
    return 8 + len(value) if isinstance(value, (str, bytes, bytearray)) else 8


def _refused(name: str) -> UnreadableError:
    return UnreadableError(f'asks for {shorten(name)}, which could run code, so it was not loaded')


class _Allowed:
    """Stands for a class or function that a file may name; the file never gets hold of the thing itself."""

    __slots__ = ('call', 'name')

    def __init__(self, name: str, call: Callable | None = None) -> None:
        self.name = name
        self.call = call


class _Unpickler(pickle._Unpickler):
    """Restores tensors, plain values, numpy arrays and ``HistoryBuffer``.

    Python's own implementation of pickle, with the instructions replaced that could run code. Each one costs no more
    than what it reads from the file; those that copy are counted.
    """

    def __init__(self, file: BinaryIO, size: int, find_storage: Callable) -> None:
        super().__init__(file, encoding='utf-8')
        self._file_read = lambda count: file.read(min(count, size))  # some files allocate what is asked for
        self._find_storage = find_storage
        self._budget = 4 * size + 1024
        self._number_keys = 0
        self._unchecked: list[Callable] = []

    def spend(self, count: int) -> None:
        """Count values or bytes that a file asks to copy."""
        self._budget -= count
        if self._budget < 0:
            raise UnreadableError('copies more values than it holds, so it was not loaded')

    def check_sparse(self) -> None:
        """Check that the indices of sparse tensors lie inside, once their storages have been read."""
        for check in self._unchecked:
            check()

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace('__builtin__', 'builtins').replace('numpy._core', 'numpy.core')
        path = f'{module}.{name}'
        if path in _ALLOWED:
            return _ALLOWED[path]
        if module == 'torch' and isinstance(vars(torch).get(name), (torch.dtype, torch.qscheme)):
            return vars(torch)[name]
        if module in ('torch', 'torch.cuda', 'torch.storage') and name.endswith('Storage'):
            try:
                return torch.uint8 if name == 'UntypedStorage' else StorageType(name).dtype
            except KeyError:
                pass
        raise _refused(path)

    def persistent_load(self, pid: Any) -> TypedStorage:
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != 'storage':
            raise UnreadableError('is damaged: it names something that is not a storage')
        dtype, key, location, numel = pid[1:5]
        if not (isinstance(dtype, torch.dtype) and type(key) is str and type(location) is str and _is_size(numel)):
            raise UnreadableError('is damaged: it does not say what its storages are')
        storage = self._find_storage(key, dtype, numel * dtype.itemsize, location)
        if len(pid) == 6 and pid[5] is not None:  # a part of the storage, in old files
            if type(pid[5]) is not tuple or len(pid[5]) != 3 or not all(map(_is_size, pid[5][1:])):
                raise UnreadableError('is damaged: it does not say what its storages are')
            begin, end = pid[5][1] * dtype.itemsize, sum(pid[5][1:]) * dtype.itemsize
            if end > storage.nbytes():
                raise UnreadableError('is damaged: a part of a storage reaches beyond it')
            storage = storage[begin:end]
        return TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)

    def _check_keys(self, keys: Iterable[Any]) -> None:
        """Refuse keys whose hash would be slow, or crash the interpreter, as that of deeply nested tuples does."""
        for key in keys:
            for part in key if type(key) is tuple else (key,):
                if type(part) not in _KEY_TYPES and not isinstance(part, np.generic):
                    raise UnreadableError(f'has {show(part)} as a key, expected strings or numbers')
                if isinstance(part, int) and abs(part) >= 2**63:
                    raise UnreadableError(f'has {show(part)} as a key, expected numbers of 64 bits')
                self._number_keys += not isinstance(part, (str, bytes))
            self.spend(len(key) if type(key) is tuple else 0)
        if self._number_keys > _NUMBER_KEYS:
            raise UnreadableError(f'has more than {_NUMBER_KEYS} keys that are not strings, so it was not loaded')

    def load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack[-1]
        if not isinstance(function, _Allowed) or type(arguments) is not tuple:
            raise UnreadableError(f'is damaged: it calls {show(function)}')
        if function.call is None:
            raise _refused(f'a call of {function.name}')
        self.stack[-1] = function.call(self, *arguments)

    def load_newobj(self) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        if not isinstance(kind, _Allowed):
            raise UnreadableError(f'is damaged: it calls {show(kind)}')
        if kind is not _HISTORY_BUFFER or arguments != ():
            raise _refused(f'a call of {kind.name}')
        self.append(HistoryBuffer())

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, np.dtype):
            _set_byte_order(target, state)
        elif type(target) is np.ndarray:
            _set_array(self, target, state)
        elif type(target) is HistoryBuffer:
            _set_history(target, state)
        elif type(target) is OrderedDict and type(state) is dict:
            _set_attributes(target, state)
        elif isinstance(target, _Allowed):
            raise _refused(f'a change of {target.name}')
        else:
            raise UnreadableError(f'is damaged: it sets attributes of {show(target)}')

    def load_append(self) -> None:
        value = self.stack.pop()
        self._top(list).append(value)

    def load_appends(self) -> None:
        values = self.pop_mark()
        self._top(list).extend(values)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._check_keys([key])
        self._top(dict, OrderedDict, Counter)[key] = value

    def load_setitems(self) -> None:
        items = self.pop_mark()
        target = self._top(dict, OrderedDict, Counter)
        self._check_keys(items[::2])
        target.update(zip(items[::2], items[1::2], strict=True))

    def load_additems(self) -> None:
        values = self.pop_mark()
        self._check_keys(values)
        self._top(set).update(values)

    def _top(self, *kinds: type) -> Any:
        if type(self.stack[-1]) not in kinds:
            raise UnreadableError(f'is damaged: it adds values to {show(self.stack[-1])}')
        return self.stack[-1]

    class _Instructions(dict):
        def __missing__(self, code: int) -> Callable:
            raise UnreadableError(f'is damaged: it holds {bytes([code])!r} where torch.save writes an instruction')

    _kept = (
        *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
        *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT),
        *(pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE8, pickle.SHORT_BINSTRING, pickle.BINSTRING),
        *(pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.BINBYTES8),
        *(pickle.EMPTY_LIST, pickle.EMPTY_TUPLE, pickle.EMPTY_DICT, pickle.EMPTY_SET),
        *(pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
        *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET),
        *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.BINPERSID),
    )
    dispatch = _Instructions({code: pickle._Unpickler.dispatch[code] for (code,) in _kept})
    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.APPEND[0]] = load_append
    dispatch[pickle.APPENDS[0]] = load_appends
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.ADDITEMS[0]] = load_additems


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _expect(condition: bool, what: str) -> None:
    if not condition:
        raise UnreadableError(f'is damaged: it holds no valid {what}')


# What the functions that a file may name do; ``reader`` is the unpickler.


def _make_set(reader: _Unpickler, values: Any = ()) -> set:
    _expect(type(values) in (list, tuple), 'set')
    reader.spend(len(values))
    reader._check_keys(values)
    return set(values)


def _make_ordered_dict(reader: _Unpickler, pairs: Any = ()) -> OrderedDict:
    _expect(type(pairs) in (list, tuple), 'OrderedDict')
    _expect(all(type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs), 'OrderedDict')
    reader.spend(len(pairs))
    reader._check_keys(key for key, _ in pairs)
    return OrderedDict(pairs)


def _make_counter(reader: _Unpickler, counts: Any = None) -> Counter:
    _expect(counts is None or type(counts) is dict, 'Counter')
    reader.spend(len(counts or ()))
    return Counter(counts)


def _make_bytes(reader: _Unpickler, text: Any = '', encoding: Any = 'latin1') -> bytes:
    _expect(type(text) is str and type(encoding) is str and encoding in ('latin1', 'latin-1'), 'bytes')
    reader.spend(len(text))
    return text.encode('latin1')


def _make_bytearray(reader: _Unpickler, content: Any = b'', encoding: Any = 'latin1') -> bytearray:
    if type(content) is not bytes:
        return bytearray(_make_bytes(reader, content, encoding))
    reader.spend(len(content))
    return bytearray(content)


def _make_complex(reader: _Unpickler, real: Any, imaginary: Any) -> complex:
    _expect(type(real) is float and type(imaginary) is float, 'complex number')
    return complex(real, imaginary)


def _make_size(reader: _Unpickler, sizes: Any) -> torch.Size:
    _expect(type(sizes) in (tuple, list) and all(map(_is_size, sizes)), 'torch.Size')
    reader.spend(len(sizes))
    return torch.Size(sizes)


def _make_device(reader: _Unpickler, kind: Any, index: Any = None) -> torch.device:
    _expect(type(kind) is str and (index is None or _is_size(index)), 'device')
    return torch.device(kind) if index is None else torch.device(kind, index)


def _make_layout(reader: _Unpickler, name: Any) -> torch.layout:
    _expect(type(name) is str, 'layout')
    return _get_layout(name)


def _make_dtype(reader: _Unpickler, code: Any, align: Any = False, copy: Any = True) -> np.dtype:
    kinds = '?bBhHiIlLqQefdgFDG', 'biufcSU'  # as characters, or with a size; no objects
    valid = type(code) is str and (
        (len(code) == 1 and code in kinds[0] + 'SU')
        or (1 < len(code) < 8 and code.lstrip('<>=|')[:1] in kinds[1] and code.lstrip('<>=|')[1:].isdecimal())
    )
    if not valid:
        raise _refused(f'numpy.dtype({show(code)})')
    return np.dtype(code, False, True)  # always a copy: numpy's own ones must not be changed by a file


def _set_byte_order(target: np.dtype, state: Any) -> None:
    _expect(type(state) is tuple and len(state) >= 2 and type(state[1]) is str and state[1] in '<>=|', 'numpy.dtype')
    if state[1] in '<>':
        target.__setstate__(target.newbyteorder(state[1]).__reduce__()[2])


def _make_array(reader: _Unpickler, kind: Any, shape: Any, code: Any) -> np.ndarray:
    _expect(kind is _NDARRAY and type(shape) is tuple, 'array')
    return np.zeros(0, np.int8)


def _set_array(reader: _Unpickler, target: np.ndarray, state: Any) -> None:
    _expect(type(state) is tuple and len(state) == 5 and type(state[1]) is tuple, 'array')
    version, shape, dtype, fortran, data = state
    if type(data) is str:  # from Python 2
        data = _make_bytes(reader, data)
    _expect(isinstance(dtype, np.dtype) and type(data) is bytes, 'array')
    _expect(len(shape) <= 32 and all(map(_is_size, shape)), 'array')
    count = math.prod(shape)
    _expect(count * dtype.itemsize == len(data) and (dtype.itemsize > 0 or count == 0), 'array')
    reader.spend(len(data))
    target.__setstate__((1, shape, dtype, bool(fortran), data))


def _make_scalar(reader: _Unpickler, dtype: Any, data: Any = b'') -> np.generic:
    _expect(isinstance(dtype, np.dtype), 'number')
    if type(data) is str:
        data = _make_bytes(reader, data)
    _expect(type(data) is bytes and len(data) == dtype.itemsize, 'number')
    reader.spend(len(data))
    return np.frombuffer(data, dtype)[0] if data else dtype.type()


def _get_statistic(reader: _Unpickler, owner: Any, name: Any) -> _Allowed:
    """The one use of ``getattr`` in a checkpoint: HistoryBuffer pickles its statistics methods by name."""
    if owner is not _HISTORY_BUFFER or type(name) is not str or name not in _STATISTICS:
        raise _refused(f'getattr of {show(name)}')
    return _STATISTICS[name]


def _set_history(target: HistoryBuffer, state: Any) -> None:
    _expect(type(state) is dict, 'HistoryBuffer')
    statistics = state.get('statistics_methods', {})
    _expect(type(statistics) is dict and all(_STATISTICS.get(k) is v for k, v in statistics.items()), 'HistoryBuffer')
    log, count, longest = (state.get(name) for name in ('_log_history', '_count_history', 'max_length'))
    _expect(type(log) is np.ndarray and type(count) is np.ndarray and _is_size(longest), 'HistoryBuffer')
    _expect(log.ndim == count.ndim == 1 and len(log) == len(count), 'HistoryBuffer')
    _expect(log.dtype.kind in 'biuf' and count.dtype.kind in 'biuf', 'HistoryBuffer')
    _expect(set(state) <= {'_log_history', '_count_history', 'max_length', 'statistics_methods'}, 'HistoryBuffer')
    target.max_length, target._log_history, target._count_history = longest, log, count


def _set_attributes(target: Any, state: Any) -> None:
    """Set attributes, but none that would take the place of a method."""
    for name, value in state.items():
        if type(name) is not str or hasattr(type(target), name):
            raise _refused(f'a change of {shorten(type(target).__name__)}.{shorten(str(name))}')
        if name == '_metadata':  # of a state_dict: the versions of its modules
            _expect(isinstance(value, dict) and all(isinstance(item, dict) for item in value.values()), '_metadata')
        vars(target)[name] = value


def _check_view(storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype) -> None:
    """Check that a tensor lies inside its storage: torch would enlarge the storage, and reveal what lies behind."""
    _expect(isinstance(storage, TypedStorage) and isinstance(size, tuple) and isinstance(stride, tuple), 'tensor')
    _expect(len(size) == len(stride) <= _DIMENSIONS and all(map(_is_size, (offset, *size, *stride))), 'tensor')
    count = math.prod(size)
    last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True)) if count else -1
    if (last + 1) * dtype.itemsize > storage._untyped_storage.nbytes() or count >= 2**62:
        raise UnreadableError(f'is damaged: a tensor of shape {shorten(str(tuple(size)))} reaches beyond its storage')


def _check_metadata(metadata: Any, dtype: torch.dtype) -> dict[str, bool] | None:
    if not metadata:
        return None
    _expect(type(metadata) is dict and set(metadata) <= {'conj', 'neg'}, 'tensor')
    _expect(all(type(value) is bool for value in metadata.values()), 'tensor')
    _expect(dtype.is_complex or not metadata.get('conj'), 'tensor')
    return metadata


def _make_tensor_v1(reader: _Unpickler, storage: Any, offset: Any, size: Any, stride: Any) -> torch.Tensor:
    return _make_tensor(reader, storage, offset, size, stride, False, None)


def _make_tensor(
    reader: _Unpickler,
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any,
    hooks: Any,
    metadata: Any = None,
) -> torch.Tensor:
    _expect(isinstance(storage, TypedStorage), 'tensor')
    return _make_tensor_v3(reader, storage, offset, size, stride, requires_grad, hooks, storage.dtype, metadata)


def _make_tensor_v3(
    reader: _Unpickler,
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any,
    hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> torch.Tensor:
    _expect(isinstance(dtype, torch.dtype) and type(requires_grad) is bool, 'tensor')
    _check_view(storage, offset, size, stride, dtype)
    untyped = storage._untyped_storage
    tensor = torch.empty(0, dtype=dtype, device=untyped.device).set_(untyped, offset, size, stride)
    tensor.requires_grad = requires_grad
    metadata = _check_metadata(metadata, dtype)
    if metadata:
        torch._utils.set_tensor_metadata(tensor, metadata)
    return tensor


def _make_quantised(
    reader: _Unpickler,
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    quantizer: Any,
    requires_grad: Any,
    hooks: Any,
) -> torch.Tensor:
    _expect(isinstance(storage, TypedStorage) and type(quantizer) is tuple and type(requires_grad) is bool, 'tensor')
    _check_view(storage, offset, size, stride, storage.dtype)
    count = math.prod(size)
    _expect(count * storage.dtype.itemsize <= storage._untyped_storage.nbytes(), 'tensor')  # torch allocates it first
    if len(quantizer) == 3:
        scheme, scale, zero = quantizer
        _expect(scheme is torch.per_tensor_affine and type(scale) is float and type(zero) is int, 'tensor')
    else:
        _expect(len(quantizer) == 4, 'tensor')
        scheme, scale, zero, axis = quantizer
        _expect(scheme in (torch.per_channel_affine, torch.per_channel_affine_float_qparams), 'tensor')
        _expect(_is_size(axis) and axis < len(size) and type(scale) is type(zero) is torch.Tensor, 'tensor')
        _expect(scale.shape == zero.shape == (size[axis],), 'tensor')
        reader.spend(scale.numel())
    return torch._utils._rebuild_qtensor(storage, offset, size, stride, quantizer, requires_grad, OrderedDict())


def _make_sparse(reader: _Unpickler, layout: Any, data: Any) -> torch.Tensor:
    _expect(isinstance(layout, torch.layout) and type(data) is tuple and 3 <= len(data) <= 5, 'sparse tensor')
    parts = [part for part in data if isinstance(part, torch.Tensor)]
    size = next((part for part in data if isinstance(part, tuple)), None)
    _expect(all(part.layout is torch.strided for part in parts), 'sparse tensor')
    reader.spend(sum(part.numel() for part in parts))  # all are compared with the size
    if layout is torch.sparse_coo:
        coalesced = data[3] if len(data) == 4 else None
        _expect(len(parts) == 2 and isinstance(size, tuple) and coalesced in (None, True, False), 'sparse tensor')
        tensor = torch.sparse_coo_tensor(*parts, size, check_invariants=False)
        reader._unchecked.append(partial(torch.sparse_coo_tensor, *parts, size, check_invariants=True))
        return tensor._coalesced_(True) if coalesced else tensor
    _expect(len(parts) == 3 and isinstance(size, tuple), 'sparse tensor')
    make = partial(torch.sparse_compressed_tensor, *parts, size, layout=layout)
    reader._unchecked.append(partial(make, check_invariants=True))
    return make(check_invariants=False)


def _make_meta(reader: _Unpickler, dtype: Any, size: Any, stride: Any, requires_grad: Any) -> torch.Tensor:
    _expect(isinstance(dtype, torch.dtype) and isinstance(size, tuple) and isinstance(stride, tuple), 'tensor')
    _expect(len(size) == len(stride) <= _DIMENSIONS and all(map(_is_size, (*size, *stride))), 'tensor')
    return torch.empty_strided(size, stride, dtype=dtype, device='meta', requires_grad=bool(requires_grad))


def _make_parameter(
    reader: _Unpickler, data: Any, requires_grad: Any, hooks: Any, state: Any = None
) -> torch.nn.Parameter:
    _expect(isinstance(data, torch.Tensor) and type(requires_grad) is bool, 'parameter')
    parameter = torch.nn.Parameter(data, requires_grad)
    if state:
        _expect(type(state) is dict, 'parameter')
        _set_attributes(parameter, state)
    return parameter


def _make_typed(reader: _Unpickler, function: Any, kind: Any, arguments: Any, state: Any) -> torch.Tensor:
    """A tensor or parameter with attributes."""
    _expect(isinstance(function, _Allowed) and function.call in _TENSORS.values(), 'tensor')
    _expect(kind in (_TENSOR, _PARAMETER) and type(arguments) is tuple, 'tensor')
    tensor = function.call(reader, *arguments)
    if kind is _PARAMETER and not isinstance(tensor, torch.nn.Parameter):
        tensor = tensor.as_subclass(torch.nn.Parameter)
    if state:
        _expect(type(state) is dict, 'tensor')
        _set_attributes(tensor, state)
    return tensor


_TENSORS: dict[str, Callable] = {
    'torch._utils._rebuild_tensor': _make_tensor_v1,
    'torch._utils._rebuild_tensor_v2': _make_tensor,
    'torch._utils._rebuild_tensor_v3': _make_tensor_v3,
    'torch._utils._rebuild_qtensor': _make_quantised,
    'torch._utils._rebuild_sparse_tensor': _make_sparse,
    'torch._utils._rebuild_meta_tensor_no_storage': _make_meta,
    'torch._utils._rebuild_parameter': _make_parameter,
    'torch._utils._rebuild_parameter_with_state': _make_parameter,
}
_FUNCTIONS: dict[str, Callable | None] = {
    **_TENSORS,
    'torch._tensor._rebuild_from_type_v2': _make_typed,
    'torch.Tensor': None,
    'torch.nn.parameter.Parameter': None,
    'torch.Size': _make_size,
    'torch.device': _make_device,
    'torch.serialization._get_layout': _make_layout,
    'collections.OrderedDict': _make_ordered_dict,
    'collections.Counter': _make_counter,
    'builtins.set': _make_set,
    'builtins.bytes': _make_bytes,
    '_codecs.encode': _make_bytes,
    'builtins.bytearray': _make_bytearray,
    'builtins.complex': _make_complex,
    'builtins.getattr': _get_statistic,
    'numpy.ndarray': None,
    'numpy.dtype': _make_dtype,
    'numpy.core.multiarray._reconstruct': _make_array,  # numpy 1 and 2 read each other's files
    'numpy.core.multiarray.scalar': _make_scalar,
    'mmengine.logging.history_buffer.HistoryBuffer': None,
}
_ALLOWED = {name: _Allowed(name, call) for name, call in _FUNCTIONS.items()}
_TENSOR, _PARAMETER, _NDARRAY, _HISTORY_BUFFER = (
    _ALLOWED[name]
    for name in (
        'torch.Tensor',
        'torch.nn.parameter.Parameter',
        'numpy.ndarray',
        'mmengine.logging.history_buffer.HistoryBuffer',
    )
)
_STATISTICS = {name: _Allowed(f'HistoryBuffer.{name}') for name in ('min', 'max', 'current', 'mean')}
