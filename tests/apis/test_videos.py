"""Videos: what is kept, what is noticed, and what is refused."""

import random
import struct
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from clips import FORMATS, decoded, save_clip, sound_of

from ruas_mm.apis.pictures import PictureError
from ruas_mm.apis.videos import VIDEO_SUFFIXES, VideoReader, write_video

av = pytest.importorskip('av', reason='videos need PyAV')

OWN = {'.avi': 'mjpeg'}  # what is written, where it is not H.264


def copy(source, target):
    """Read a video and write what was read; return the frames and the remarks."""
    remarks = []
    with VideoReader(source) as video:
        frames = []
        with write_video(target, video, remarks.append) as write:
            for frame in video:
                write(frame.pixels, frame.time)
                frames.append(frame)
    return frames, remarks


def read(path):
    with VideoReader(path) as video:
        return list(video)


# ----------------------------------------------------------------------------------------------------- what is kept


@pytest.mark.parametrize('size', [(64, 48), (63, 48), (64, 47), (31, 17), (1, 1)])
@pytest.mark.parametrize('suffix', VIDEO_SUFFIXES)
def test_frames_sizes_and_times(tmp_path, suffix, size):
    expected = save_clip(tmp_path / f'a{suffix}', OWN.get(suffix, 'libx264'), size)
    frames, remarks = copy(tmp_path / f'a{suffix}', tmp_path / f'b{suffix}')
    assert [frame.frame for frame in frames] == list(range(8))
    written = decoded(tmp_path / f'b{suffix}')
    assert [float(time) for time, _ in written] == pytest.approx([number / 10 for number in range(8)], abs=1e-3)
    for pixels, frame, (_, result) in zip(expected, frames, written, strict=True):
        assert frame.pixels.shape == result.shape == (size[1], size[0], 3)
        if size != (1, 1):
            assert np.abs(frame.pixels.astype(int) - pixels).mean() < 4
            assert np.abs(frame.pixels.astype(int) - result).mean() < 4
    assert not remarks
    assert {path.name for path in tmp_path.iterdir()} == {f'a{suffix}', f'b{suffix}'}


@pytest.mark.parametrize('suffix', ['.mp4', '.mov', '.mkv'])
def test_variable_frame_rate(tmp_path, suffix):
    times = [40, 60, 65, 300, 340, 1000]
    save_clip(tmp_path / f'a{suffix}', times=times)
    frames, _ = copy(tmp_path / f'a{suffix}', tmp_path / f'b{suffix}')
    assert [frame.time for frame in frames] == [Fraction(time, 1000) for time in times]
    assert [time for time, _ in decoded(tmp_path / f'b{suffix}')] == [Fraction(time, 1000) for time in times]


def test_variable_frame_rate_in_a_format_without_times(tmp_path):
    """AVI counts frames: the times of others are rounded, and none is lost."""
    save_clip(tmp_path / 'a.mp4', times=[0, 10, 100, 500, 900])
    frames, _ = copy(tmp_path / 'a.mp4', tmp_path / 'b.avi')
    assert len(frames) == len(read(tmp_path / 'b.avi')) == 5


def matrix_of(turn, flip):
    """The display matrix of an MP4 that is turned clockwise after it was mirrored, and what it does to pixels."""
    a, b, c, d = {0: (1, 0, 0, 1), 1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}[turn]
    if flip:
        a, b = -a, -b
    values = (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    return struct.pack('>9i', *values), lambda pixels: np.rot90(pixels[:, ::-1] if flip else pixels, -turn)


@pytest.mark.parametrize('flip', [False, True])
@pytest.mark.parametrize('turn', range(4))
def test_rotation(tmp_path, turn, flip):
    """The result lies as the original is shown, and nothing turns it again."""
    path = tmp_path / 'a.mp4'
    save_clip(path)
    (_, stored), *_ = decoded(path)
    content = bytearray(path.read_bytes())
    place = content.index(b'tkhd') + 4 + 40
    content[place : place + 36], expected = matrix_of(turn, flip)[0], matrix_of(turn, flip)[1](stored)
    path.write_bytes(content)
    frames, _ = copy(path, tmp_path / 'b.mp4')
    assert frames[0].pixels.shape == expected.shape
    assert np.abs(frames[0].pixels.astype(int) - expected).mean() < 3
    (_, written), *_ = decoded(tmp_path / 'b.mp4')
    assert np.abs(frames[0].pixels.astype(int) - written).mean() < 4
    assert b'\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\0' in (tmp_path / 'b.mp4').read_bytes()  # as it lies


def test_rotation_by_another_angle(tmp_path):
    path = tmp_path / 'a.mp4'
    save_clip(path)
    content = bytearray(path.read_bytes())
    place = content.index(b'tkhd') + 4 + 40
    content[place : place + 36] = struct.pack('>9i', 46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    with pytest.raises(PictureError, match='90 degrees'):
        read(path)


@pytest.mark.parametrize('colour', [(1, 1), (1, 2), (5, 1), (9, 1)], ids=['BT.709', 'full', 'BT.601', 'BT.2020'])
def test_colours(tmp_path, colour):
    """They are those that the file's colour space means, in and out, whatever the encoder stores."""
    expected = save_clip(tmp_path / 'a.mp4', colour=colour)
    frames, _ = copy(tmp_path / 'a.mp4', tmp_path / 'b.mp4')
    again = read(tmp_path / 'b.mp4')
    for pixels, frame, result in zip(expected, frames, again, strict=True):
        assert np.abs(frame.pixels.astype(int) - pixels).mean() < 2
        assert np.abs(frame.pixels.astype(int) - result.pixels).mean() < 2
    with VideoReader(tmp_path / 'b.mp4') as video:
        assert video.colour[0] == colour[0]


def test_pixel_aspect(tmp_path):
    with VideoReader(make_wide(tmp_path / 'a.mp4')) as video:
        assert video.aspect == Fraction(4, 3)
    copy(tmp_path / 'a.mp4', tmp_path / 'b.mp4')
    with VideoReader(tmp_path / 'b.mp4') as video:
        assert video.aspect == Fraction(4, 3)


def make_wide(path):
    save_clip(path, aspect=Fraction(4, 3))
    return path


@pytest.mark.parametrize(
    ('suffix', 'sound'), [('.mp4', 'aac'), ('.mov', 'pcm_s16le'), ('.mkv', 'libopus'), ('.avi', 'ac3')]
)
def test_sound_is_copied(tmp_path, suffix, sound):
    save_clip(tmp_path / f'a{suffix}', OWN.get(suffix, 'libx264'), sound=sound)
    _, remarks = copy(tmp_path / f'a{suffix}', tmp_path / f'b{suffix}')
    assert b''.join(sound_of(tmp_path / f'a{suffix}')) == b''.join(sound_of(tmp_path / f'b{suffix}')) != b''
    assert not remarks


def test_sound_that_the_format_cannot_hold(tmp_path):
    save_clip(tmp_path / 'a.mkv', sound='libopus')
    frames, remarks = copy(tmp_path / 'a.mkv', tmp_path / 'b.avi')
    assert len(frames) == 8
    assert remarks == ['its sound was left out: avi cannot hold opus']


def test_a_trimmed_video_shows_what_it_shows(tmp_path):
    """Frames that an edit list hides are no part of the video, and their lack is no damage."""
    save_clip(tmp_path / 'whole.mp4', count=24, bf='0', g='6')
    path = tmp_path / 'trimmed.mp4'
    with av.open(str(tmp_path / 'whole.mp4')) as source, av.open(str(path), 'w') as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                shift = round(Fraction(9, 10) / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                target.mux(packet)
    assert len(read(path)) == len(decoded(path)) < 24
    with VideoReader(path) as video:
        shown = len(list(video))
        assert video.hidden == 24 - shown > 0


# ------------------------------------------------------------------------------------------------- what is noticed

CLIPS = [
    *[('.mp4', 'libx264'), ('.mov', 'mjpeg'), ('.mkv', 'libx264')],
    *[('.mkv', 'mpeg4'), ('.avi', 'mjpeg'), ('.avi', 'mpeg4')],
]


@pytest.mark.parametrize(('suffix', 'codec'), CLIPS)
@pytest.mark.parametrize('kind', ['cut', 'hole', 'noise'])
def test_damage_is_noticed(tmp_path, suffix, codec, kind):
    """No video passes with fewer frames than the whole one has; what passes differs in pixels at most."""
    path, bad = tmp_path / f'a{suffix}', tmp_path / f'bad{suffix}'
    save_clip(path, codec, count=24)
    content, chance = path.read_bytes(), random.Random(0)
    assert len(read(path)) == 24
    start = max(content.find(mark) for mark in (b'mdat', b'movi', b'\x1f\x43\xb6\x75'))  # where frames begin
    end = max(content.rfind(mark) for mark in (b'moov', b'idx1', b'\x1c\x53\xbb\x6b'))  # the table of contents
    refused = 0
    for _ in range(20):
        damaged = bytearray(content)
        if kind == 'cut':
            del damaged[chance.randrange(len(damaged)) :]
        else:
            length = chance.choice([64, 512])
            place = chance.randrange(start, end - length)
            damaged[place : place + length] = bytes(length) if kind == 'hole' else chance.randbytes(length)
        bad.write_bytes(damaged)
        try:
            assert len(read(bad)) == 24
        except PictureError as error:
            assert '\n' not in str(error)
            refused += 1
    assert refused == 20 if kind == 'cut' else refused > 5


@pytest.mark.parametrize('suffix', VIDEO_SUFFIXES)
def test_a_cut_video_is_refused_before_its_first_frame(tmp_path, suffix):
    path = tmp_path / f'a{suffix}'
    save_clip(path, OWN.get(suffix, 'libx264'))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PictureError, match='the last 1 bytes or more are missing'):
        VideoReader(path)


def test_fewer_frames_than_declared(tmp_path):
    path = tmp_path / 'a.avi'
    save_clip(path, 'mjpeg')
    content = bytearray(path.read_bytes())
    place = content.index(b'strh') + 8 + 32  # the length of the stream
    assert content[place : place + 4] == struct.pack('<I', 8)
    content[place : place + 4] = struct.pack('<I', 11)
    path.write_bytes(content)
    with pytest.raises(PictureError, match='it holds 8 frames, but says that it has 11'):
        VideoReader(path)


def test_a_file_that_changes_while_it_is_read(tmp_path):
    path = tmp_path / 'a.mkv'
    save_clip(path)
    with VideoReader(path) as video, pytest.raises(PictureError, match='changed while it was read'):
        for frame in video:
            if frame.frame == 3:
                with open(path, 'ab') as file:
                    file.write(b'more')


def test_what_was_written_is_read_back(tmp_path, monkeypatch):
    """A file that ends early on the disk is no result, even if no error was ever reported."""
    save_clip(tmp_path / 'a.mp4')
    real = VideoReader.__init__

    def lose_the_end(self, path):
        if path.suffix == '.tmp':
            path.write_bytes(path.read_bytes()[:-20])
        real(self, path)

    monkeypatch.setattr(VideoReader, '__init__', lose_the_end)
    with pytest.raises(OSError, match='cannot be read back: it is cut off'):
        copy(tmp_path / 'a.mp4', tmp_path / 'b.mp4')
    assert [path.name for path in tmp_path.iterdir()] == ['a.mp4']


# ------------------------------------------------------------------------------------------------- what is refused


def test_formats_are_told_by_content(tmp_path):
    save_clip(tmp_path / 'a.mkv')
    (tmp_path / 'a.mkv').rename(tmp_path / 'a.mp4')
    assert len(read(tmp_path / 'a.mp4')) == 8


@pytest.mark.parametrize(
    ('content', 'word'),
    [
        (b'', 'empty'),
        (b'text', 'no video in'),
        (b'\x89PNG\r\n\x1a\n' + bytes(64), 'no video in'),
        (b'#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n', 'no video in'),
        (b'ffconcat version 1.0\nfile a.mp4\n', 'no video in'),
        (struct.pack('>I4s4sI4s', 20, b'ftyp', b'isom', 0, b'isom'), 'cannot be read as a video'),
    ],
)
def test_what_is_no_video(tmp_path, content, word):
    (tmp_path / 'a.mp4').write_bytes(content)
    with pytest.raises(PictureError, match=word):
        VideoReader(tmp_path / 'a.mp4')


def test_sound_without_a_video(tmp_path):
    with open(tmp_path / 'a.mp4', 'w+b') as file, av.open(file, 'w', format='mp4') as container:
        from clips import save_sound

        save_sound(container, container.add_stream('aac', rate=48000))
    with pytest.raises(PictureError, match='no video in it'):
        VideoReader(tmp_path / 'a.mp4')


def test_frames_of_different_sizes(tmp_path):
    for name, size in (('a', (64, 48)), ('b', (32, 32))):
        save_clip(tmp_path / f'{name}.mov', 'mjpeg', size)
    with open(tmp_path / 'c.mov', 'w+b') as file, av.open(file, 'w', format='mov') as target:
        stream = None
        for part, name in enumerate('ab'):
            with av.open(str(tmp_path / f'{name}.mov')) as source:
                stream = stream or target.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(source.streams.video[0]):
                    if packet.dts is not None:
                        shift = part * round(Fraction(8, 10) / packet.time_base)
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = stream
                        target.mux(packet)
    with pytest.raises(PictureError, match='frame 8 has 32x32 pixels, those before 64x48'):
        read(tmp_path / 'c.mov')


def test_formats_of_the_tests_are_those_of_the_package():
    assert set(FORMATS) == set(VIDEO_SUFFIXES)
