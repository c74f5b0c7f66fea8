import pytest

from ruas_mm.datasets.text_files import parse_numbers, read_lines


def test_decimal_numbers():
    assert parse_numbers(['12', '-3', '0.5', '007', '9999999']) == [12, -3, 0.5, 7, 9999999]
    assert parse_numbers([]) == []


# What float, int or both take beside what a label file means.
ODD = [
    '41e90',
    '1e2',
    'nan',
    '-nan',
    'inf',
    '-Infinity',
    '1_000',
    '+5',
    '٣',
    '１',
    '0x10',
    '.5',
    '5.',
    '1,5',
    '',
    ' 1',
    '1\n',
]
ODD += ['9' * 8, '9' * 5000, '0.' + '1' * 5000, '--1', '1-', '½', '1+0j', 'True']


@pytest.mark.parametrize('text', ODD, ids=[ascii(text[:10]) for text in ODD])
def test_no_decimal_number(text):
    with pytest.raises(ValueError, match='decimal numbers'):
        parse_numbers(['1', text])


def test_lines(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_bytes('\ufeffone\r\n two \rthree\n\n \n'.encode())
    assert read_lines(str(path), 'lines') == ['one', ' two ', 'three']
    path.write_bytes(b'')
    assert read_lines(str(path), 'lines') == []


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.txt: no such file; expected some lines\.$'):
        read_lines(str(tmp_path / 'none.txt'), 'some lines')
    (tmp_path / 'binary.txt').write_bytes(b'\xff\xfe1\n')
    with pytest.raises(ValueError, match=r'binary\.txt: expected some lines, but it is not UTF-8 text\.$'):
        read_lines(str(tmp_path / 'binary.txt'), 'some lines')
    for name in ('', 'binary.txt/a.txt', 'a' * 300):
        with pytest.raises(ValueError, match=r'expected some lines, but it cannot be read \(.+\)\.$'):
            read_lines(str(tmp_path / name), 'some lines')
