import os
import resource

import pytest

from ruas_mm.utils.fileio import atomic_file, atomic_write, open_regular, remove_leftovers


def test_writes_text_and_bytes_and_makes_folders(tmp_path):
    atomic_write(tmp_path / 'a/b/text.json', 'é')
    atomic_write(str(tmp_path / 'bytes'), b'\x00\x01')
    assert (tmp_path / 'a/b/text.json').read_bytes() == 'é'.encode()
    assert (tmp_path / 'bytes').read_bytes() == b'\x00\x01'
    assert [path.name for path in (tmp_path / 'a/b').iterdir()] == ['text.json']


def test_failure_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / 'file'
    atomic_write(path, 'old')

    def fail(*args):
        raise OSError('disk full')

    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(OSError, match='disk full'):
        atomic_write(path, 'new')
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('call', ['fsync', 'replace'])
def test_late_errors_count(tmp_path, monkeypatch, call):
    """Some systems report a full disk only when a file is synchronised."""
    path = tmp_path / 'file'
    atomic_write(path, 'old')

    def fail(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match='No space left'):
        atomic_write(path, 'new')
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_does_not_fit(tmp_path):
    """The system stores a part of it first: the rest is not forgotten."""
    path = tmp_path / 'file'
    atomic_write(path, 'old')
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        for content in (b'x' * 50_001, b'x' * 1_000_000):
            with pytest.raises(OSError, match='File too large'):
                atomic_write(path, content)
        atomic_write(tmp_path / 'fits', b'x' * 50_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == 'old'
    assert (tmp_path / 'fits').stat().st_size == 50_000
    assert {path.name for path in tmp_path.iterdir()} == {'file', 'fits'}


@pytest.mark.parametrize('interruption', [KeyboardInterrupt, SystemExit, ValueError])
def test_an_interrupted_file_does_not_appear(tmp_path, interruption):
    with pytest.raises(interruption), atomic_file(tmp_path / 'file') as (file, temporary):
        file.write(b'half')
        assert temporary.exists()
        raise interruption
    assert not list(tmp_path.iterdir())


def test_the_longest_name(tmp_path):
    atomic_write(tmp_path / ('n' * 255), 'x')
    assert [path.name for path in tmp_path.iterdir()] == ['n' * 255]


def test_leftovers(tmp_path):
    for name in ('.ruas_mm-0123456789abcdef.tmp', 'file.tmp', '.hidden'):
        (tmp_path / name).write_text('x')
    with atomic_file(tmp_path / 'file') as (_, temporary):
        remove_leftovers(tmp_path)
        assert temporary.exists()
    remove_leftovers(tmp_path / 'nowhere')
    assert {path.name for path in tmp_path.iterdir()} == {'file', 'file.tmp', '.hidden'}


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'link').symlink_to('file')
    (tmp_path / 'file').write_text('text')
    with open_regular(tmp_path / 'link') as file:
        assert file.read() == b'text'
    for path, kind in ((tmp_path / 'pipe', 'named pipe'), (tmp_path, 'folder'), ('/dev/zero', 'device')):
        with pytest.raises(OSError, match=f'it is a {kind}, not a regular file'):
            open_regular(path)
