"""Checkpoints that attack their reader, and random damage to good ones; shared by tests and fuzzing.

``python hostile.py FOLDER MEGABYTES`` loads every file of a folder in a process of bounded memory and prints, line by
line, its name, what came of it, the seconds it took and the message.
"""

import io
import json
import os
import struct
import sys
import time
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import torch
from mmengine.logging import HistoryBuffer


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


class Change:
    """Pickles as ``function(*args)`` whose state is then set."""

    def __init__(self, function, args, state):
        self.reduced = function, args, state

    def __reduce__(self):
        return self.reduced


def saved(content, **options):
    """Return the bytes that torch.save writes."""
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def packed(pickled, storages=(), compression=zipfile.ZIP_STORED, **more):
    """Return a checkpoint of a pickle, storages and other members, without torch.save's checks."""
    file = io.BytesIO()
    members = {'version': b'3\n', 'byteorder': b'little', **more, 'data.pkl': pickled}
    members |= {f'data/{key}': content for key, content in dict(storages).items()}
    with zipfile.ZipFile(file, 'w', compression) as archive:
        for name, content in members.items():
            archive.writestr(f'archive/{name}', content)
    return file.getvalue()


def doubled(value, times=60):
    for _ in range(times):
        value = [value, value]
    return value


def repacked(content, compression=zipfile.ZIP_DEFLATED, change=lambda name, data: data):
    """Return a checkpoint with its members changed."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(file, 'w', compression) as archive:
        for name in source.namelist():
            archive.writestr(name, change(name, source.read(name)))
    return file.getvalue()


def overlapping(content):
    """Return a checkpoint whose directory lists its largest member a thousand times."""
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, 'a') as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
        for index in range(1000):
            info = zipfile.ZipInfo(f'{largest.filename}{index}')
            info.header_offset, info.CRC = largest.header_offset, largest.CRC
            info.file_size, info.compress_size = largest.file_size, largest.compress_size
            archive.filelist.append(info)
        archive._didModify = True
    return file.getvalue()


def shrunk(name, data):
    return data[:4] if '/data/' in name else data


STOP = b'.'
HEAD = b'\x80\x02'


def name_of(thing):
    module = thing.__module__.replace('builtins', '__builtin__')
    return b'c' + f'{module}\n{thing.__qualname__}\n'.encode()


def hostile_checkpoints():
    """Return checkpoints that would take all memory or time, reach beyond their own memory, or change the process.

    Returns:
        dict[str, bytes]: What each tries, and the file.
    """
    tensor = torch.zeros(1)
    storage = tensor._typed_storage()
    wide = torch.zeros(1000)
    hook = OrderedDict()
    rebuild = torch._utils._rebuild_tensor_v2
    encode = b'c_codecs\nencode\n'
    files = {
        'inflated': repacked(saved({'state_dict': {'w': torch.zeros(10**7)}})),
        'inflated pickle': packed(HEAD + b']' * 10**7 + STOP, compression=zipfile.ZIP_DEFLATED),
        'overlapping members': overlapping(saved({'w': torch.zeros(10**6)})),
        'doubling list': saved({'meta': doubled([])}),
        'doubling text': saved({'meta': doubled('x' * 1000, 30)}),
        'doubling tuple as key': packed(HEAD + b'})q\x00' + b'h\x00h\x00\x86q\x00' * 60 + b'K\x01s' + STOP),
        'deep tuple as key': packed(HEAD + b'})' + b'\x85' * 10**6 + b'K\x01s' + STOP),
        'deep list': packed(HEAD + b']' * 10**6 + b'a' * (10**6 - 1) + STOP),
        'itself': packed(HEAD + b']q\x00h\x00a' + STOP),
        'doubling bytes': packed(
            HEAD
            + encode
            + b'X\x02\x00\x00\x00ab'
            + b'X\x06\x00\x00\x00latin1\x86R'
            + b'q\x00'
            # encode(encode(…, 'hex'), 'hex'): each twice as long as the one before
            + (encode + b'h\x00X\x03\x00\x00\x00hex\x86Rq\x00') * 45
            + STOP
        ),
        'bytearray': saved({'a': Call(bytearray, 10**11)}),
        'tensor by size': saved({'a': Call(torch.FloatTensor, 10**6, 10**5)}),
        'array by size': saved({'a': Call(np.ndarray, (10**6, 10**5))}),
        'dtype by size': saved({'a': Call(np.dtype, 'V2000000000')}),
        'dtype of objects': saved({'a': Call(np.dtype, 'O')}),
        'dtype changed': saved({'a': Change(np.dtype, ('f8', False, False), (3, '>', None, None, None, 10**9, 8, 0))}),
        'expanded tensor': saved({'w': tensor.expand(10**10)}),
        'many views': saved([wide[index % 7 :].expand(1000, -1) for index in range(3000)]),
        'beyond storage': saved({'w': Call(rebuild, storage, 0, (10**9,), (1,), False, hook)}),
        'beyond storage by offset': saved({'w': Call(rebuild, storage, 10**9, (1,), (1,), False, hook)}),
        'beyond storage by stride': saved({'w': Call(rebuild, storage, 0, (2,), (10**12,), False, hook)}),
        'negative stride': saved({'w': Call(rebuild, storage, 0, (2,), (-1,), False, hook)}),
        'huge size': saved({'w': Call(rebuild, storage, 0, (2**62, 2**62), (0, 0), False, hook)}),
        'declared larger': repacked(saved({'w': torch.zeros(10**5)}), zipfile.ZIP_STORED, shrunk),
        'legacy declared larger': saved({'w': torch.zeros(77)}, _use_new_zipfile_serialization=False).replace(
            b'K\x4d', b'J\xff\xff\xff\x7f'
        ),
        'quantised beyond storage': saved(
            {
                'w': Call(
                    torch._utils._rebuild_qtensor,
                    torch.quantize_per_tensor(tensor, 1.0, 0, torch.qint8)._typed_storage(),
                    0,
                    (10**9,),
                    (0,),
                    (torch.per_tensor_affine, 1.0, 0),
                    False,
                    hook,
                )
            }
        ),
        'nested beyond buffer': saved(
            {
                'w': Call(
                    torch._utils._rebuild_nested_tensor,
                    torch.zeros(4),
                    torch.tensor([[10**9]]),
                    torch.tensor([[1]]),
                    torch.tensor([0]),
                )
            }
        ),
        'sparse beyond size': saved(
            {
                'w': Call(
                    torch._utils._rebuild_sparse_tensor,
                    torch.sparse_coo,
                    (torch.tensor([[10**9]]), torch.ones(1), torch.Size([2])),
                )
            }
        ),
        'sparse indices expanded': saved(
            {
                'w': Call(
                    torch._utils._rebuild_sparse_tensor,
                    torch.sparse_coo,
                    (torch.zeros(1, 1, dtype=torch.int64).expand(1, 10**10), torch.ones(1).expand(10**10), (2,)),
                )
            }
        ),
        'colliding keys': packed(
            HEAD
            + b'}('
            + b''.join(b'\x8a\x0c' + (k * (2**61 - 1)).to_bytes(12, 'little') + b'N' for k in range(200_000))
            + b'u'
            + STOP
        ),
        'many number keys': packed(
            HEAD + b'}(' + b''.join(b'G' + struct.pack('>d', k * 2.0**61) + b'N' for k in range(200_000)) + b'u' + STOP
        ),
        'copied again and again': packed(
            HEAD + b']q\x00(' + b'K\x01' * 10**5 + b'e' + (b'c__builtin__\nset\nh\x00\x85R') * 10**5 + STOP
        ),
        'long integer': packed(HEAD + b'\x8b' + struct.pack('<i', 10**6) + b'\x7f' * 10**6 + STOP),
        'integer as text': packed(HEAD + b'I' + b'9' * 10**6 + b'\n' + STOP),
        'string of 4 GB': packed(HEAD + b'X\xff\xff\xff\xffabc' + STOP),
        'bytearray of an exabyte': packed(b'\x80\x05\x96' + struct.pack('<Q', 2**60) + b'abc' + STOP),
        'far memo': packed(HEAD + b'Nr\xff\xff\xff\xff' + STOP),
        'class changed': packed(
            HEAD + name_of(HistoryBuffer) + b'N}X\x04\x00\x00\x00meanK\x01s\x86b' + STOP,
        ),
        'function changed': packed(HEAD + name_of(rebuild) + b'N}X\x0c\x00\x00\x00__defaults__Ns\x86b' + STOP),
        'class as value': packed(HEAD + b'}X\x01\x00\x00\x00ac' + b'torch\nTensor\ns' + STOP),
        'instance by name': packed(HEAD + b'(ios\nsystem\n' + STOP),
        'object by class': packed(HEAD + b'(cos\nsystem\nX\x02\x00\x00\x00idX\x00\x00\x00\x00o' + STOP),
        'method hidden': saved({'state_dict': Change(OrderedDict, (), {'items': 1})}),
        'versions of nothing': saved({'state_dict': Change(OrderedDict, (), {'_metadata': 5})}),
        'tensor with methods hidden': saved(
            Call(
                torch._tensor._rebuild_from_type_v2,
                rebuild,
                torch.Tensor,
                (storage, 0, (1,), (1,), False, hook),
                {'isfinite': 1},
            )
        ),
        'counter of a list': saved({'a': Call(Counter, doubled([], 20))}),
        'history of text': saved({'h': Change(HistoryBuffer, (), {'_log_history': 'x', '_count_history': 3})}),
        'script': packed(HEAD + b'}' + STOP, **{'constants.pkl': HEAD + b')' + STOP}),
        'no pickle': packed(HEAD + b'}' + STOP).replace(b'data.pkl', b'data.txt'),
        'byte order': packed(HEAD + b'}' + STOP, byteorder=b'middle'),
        'pickle of another protocol': packed(b'\x80\xff}' + STOP),
        'empty pickle': packed(b''),
        'tar': tarred(),
    }
    return files


def tarred():
    import tarfile

    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode='w') as archive:
        for name in ('storages', 'tensors', 'pickle'):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return file.getvalue()


def good_checkpoint(rng, zipped=True):
    """Return a small checkpoint with something of everything."""
    history = HistoryBuffer([1.0], [1])
    history.update(2.0)
    content = {
        'state_dict': torch.nn.Linear(3, 2).state_dict(),
        'meta': {'epoch': rng.randrange(9), 'cfg': 'model = dict(a=1)', 'time': 'now', 'list': [1, (2.5, None), {'x'}]},
        'message_hub': {'log_scalars': OrderedDict(loss=history), 'array': np.arange(3.0), 'scalar': np.float32(1)},
        'optimizer': {'state': {0: {'step': torch.tensor(1.0)}}, 'param_groups': [{'lr': 0.1, 'betas': (0.9, 0.99)}]},
        'random': (b'bytes', torch.get_rng_state()[:9], torch.device('cpu'), torch.float16, torch.Size([1, 2])),
    }
    return saved(content, _use_new_zipfile_serialization=zipped)


def mutated(content, rng):
    """Return bytes with a few of them changed, removed, added, doubled or cut off.

    Args:
        content (bytes): A good file.
        rng (random.Random): Where the damage comes from.

    Returns:
        bytes: The damaged file, which may be a good one still.
    """
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        if not content:
            break
        place, length = rng.randrange(len(content)), rng.choice([1, 1, 2, 4, 8, 64])
        kind = rng.randrange(7)
        if kind == 0:
            content[place] = rng.randrange(256)
        elif kind == 1:
            content[place] ^= 1 << rng.randrange(8)
        elif kind == 2:
            content[place : place + length] = rng.randbytes(length)
        elif kind == 3:
            content[place : place + length] = rng.choice([b'\x00', b'\xff', b'\x7f']) * length
        elif kind == 4:
            del content[place : place + length]
        elif kind == 5:
            content[place:place] = content[place : place + length] * rng.choice([1, 3, 100])
        elif rng.random() < 0.3:
            del content[place:]
    return bytes(content)


def mutated_checkpoint(rng):
    """Return a damaged checkpoint: anywhere in the file, or in its pickle with sound checksums around it.

    Args:
        rng (random.Random): Where the damage comes from.

    Returns:
        bytes: The file.
    """
    content = good_checkpoint(rng, zipped=rng.random() < 0.8)
    if not content.startswith(b'PK') or rng.random() < 0.2:
        return mutated(content, rng)
    damage = mutated_pickle if rng.random() < 0.5 else mutated
    return repacked(
        content, zipfile.ZIP_STORED, lambda name, data: damage(data, rng) if name.endswith('data.pkl') else data
    )


def mutated_pickle(content, rng):
    """Return a pickle with whole instructions replaced, removed, doubled or swapped."""
    import pickletools

    places = [place for _, _, place in pickletools.genops(content)] + [len(content)]
    parts = [content[begin:end] for begin, end in zip(places, places[1:], strict=False)]
    codes = [code.code.encode('latin1') for code in pickletools.opcodes]
    for _ in range(rng.choice([1, 1, 2, 4])):
        place, kind = rng.randrange(len(parts)), rng.randrange(5)
        if kind == 0:
            parts[place] = rng.choice(codes) + parts[place][1:]
        elif kind == 1:
            parts[place] = b''
        elif kind == 2:
            parts[place] *= 2
        elif kind == 3:
            parts[place] = rng.choice(parts)
        else:
            other = rng.randrange(len(parts))
            parts[place], parts[other] = parts[other], parts[place]
    return b''.join(parts)


def mutated_genotype(rng):
    """Return a damaged genotype file, or one of other values."""
    values = [None, True, -1, 10**30, 1e308, 'skip', '', [], {}, [[]], {'a': {}}]
    slots = {'scene.last': rng.choice(['skip', 'conv_3x3', *values]), rng.choice(['scene.distill_1', '', 'é']): 'skip'}
    content = {
        'format': rng.choice(['ruas_mm.genotype'] * 9 + values),
        'version': rng.choice([1] * 9 + values),
        'slots': rng.choice([slots] * 9 + values),
        'probabilities': rng.choice([{'scene.last': {'skip': rng.choice([0.5, 2, *values])}}, {}, *values]),
        'origin': rng.choice([{'what': 'a test'}, *values]),
        'undecided': rng.choice([{'scene.last': rng.choice(['noise', *values])}, {}, *values]),
    }
    text = json.dumps(content).encode()
    return text if rng.random() < 0.5 else mutated(text, rng)


def main(folder, megabytes):
    """Load what is in a folder; see the text of this file."""
    import resource

    from ruas_mm.utils.checkpoint import CheckpointError, load_from_local

    with open('/proc/self/statm') as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + int(megabytes) * 2**20,) * 2)
    for name in sorted(os.listdir(folder)):
        start = time.monotonic()
        print(name, end='\t', flush=True)
        try:
            load_from_local(os.path.join(folder, name), 'cpu')
            outcome, message = 'loaded', ''
        except CheckpointError as error:
            outcome, message = 'refused', str(error)
        except BaseException as error:
            outcome, message = type(error).__name__, str(error)[:300]
        print(outcome, f'{time.monotonic() - start:.1f}', message.replace('\n', '\\n'), sep='\t', flush=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
