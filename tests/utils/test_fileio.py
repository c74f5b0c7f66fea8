import os

import pytest

from ruas_mm.utils.fileio import atomic_write


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
