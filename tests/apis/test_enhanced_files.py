"""Files in, enhanced files out: odd names and places, links, interruptions, and what is left of them."""

import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from clips import save_clip

from ruas_mm.apis import input_files
from ruas_mm.apis.enhanced_files import Enhanced, Report, save_enhanced
from ruas_mm.apis.input_files import Failure, find_files, printable, read_files

try:
    import av  # noqa: F401

    HAS_AV = True
except ImportError:
    HAS_AV = False
needs_av = pytest.mark.skipif(not HAS_AV, reason='videos need PyAV')


def brighten(pictures, illumination):
    """Stands for the model: what is read comes back as it is."""
    for picture in pictures:
        if isinstance(picture, Failure):
            yield None, picture
        else:
            yield picture, Enhanced(picture.pixels, picture.pixels if illumination else None, None)


def save_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8, 3), 20, np.uint8)).save(path)
    return path


def files_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob('*') if not path.is_dir()}


def reasons(report):
    return {Path(path).name: reason for path, reason in report.failures}


# ------------------------------------------------------------------------------------------------------------ links


def test_linked_folders_are_searched_once(tmp_path):
    source, elsewhere = tmp_path / 'in', tmp_path / 'elsewhere'
    for path in (source / 'b/1.png', elsewhere / '2.png', elsewhere / 'deep/3.png'):
        save_image(path)
    (source / 'a').symlink_to('b')  # the real folder keeps its images
    (source / 'link').symlink_to(elsewhere)
    (source / 'link again').symlink_to(elsewhere)
    (elsewhere / 'up').symlink_to(source)
    (elsewhere / 'deep/loop').symlink_to('.')
    (source / 'self').symlink_to('self')
    (source / 'gone').symlink_to('nowhere')
    report = save_enhanced(brighten, source, tmp_path / 'out')
    assert not report.failures
    assert files_in(tmp_path / 'out') == {'b/1.png', 'link/2.png', 'link/deep/3.png'}
    remarks = {str(Path(path).relative_to(source)): reason for path, reason in report.remarks}
    assert remarks.keys() == {'a', 'link again', 'link/up', 'link/deep/loop', 'self', 'gone'}
    for name in ('self', 'gone'):
        assert 'leads nowhere' in remarks.pop(name)
    assert all('searched already' in reason for reason in remarks.values())


def test_out_behind_a_link_is_not_enhanced_again(tmp_path):
    save_image(tmp_path / 'in/1.png')
    (tmp_path / 'out').mkdir()
    (tmp_path / 'in/results').symlink_to(tmp_path / 'out')
    for _ in range(2):
        report = save_enhanced(brighten, tmp_path / 'in', tmp_path / 'out')
        assert len(report.written) == 1
        assert files_in(tmp_path / 'out') == {'1.png'}


def test_a_loop_as_out(tmp_path):
    save_image(tmp_path / 'in/1.png')
    (tmp_path / 'out').symlink_to('out')
    with pytest.raises(OSError, match=r'The folder .*out cannot be made'):
        save_enhanced(brighten, tmp_path / 'in', tmp_path / 'out')
    with pytest.raises(OSError, match=r'out cannot be read: Too many levels'):
        save_enhanced(brighten, tmp_path / 'out', tmp_path / 'other')


# ------------------------------------------------------------------------------------------------- special files


@pytest.mark.parametrize('suffix', ['.png', pytest.param('.mp4', marks=needs_av)])
def test_only_regular_files_are_read(tmp_path, suffix):
    """None of them is opened: reading a pipe or /dev/zero would not end."""
    source = tmp_path / 'in'
    source.mkdir()
    os.mkfifo(source / f'pipe{suffix}')
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(source / f's{suffix}'))
    (source / f'zero{suffix}').symlink_to('/dev/zero')
    (source / f'loop{suffix}').symlink_to(f'loop{suffix}')
    (source / f'gone{suffix}').symlink_to('nowhere')
    report = save_enhanced(brighten, source, tmp_path / 'out')
    failures = reasons(report)
    assert not report.written
    for name, word in (
        ('pipe', 'named pipe'),
        ('s', 'socket'),
        ('zero', 'device'),
        ('loop', 'symbolic'),
        ('gone', 'No such'),
    ):
        assert word in failures.pop(f'{name}{suffix}')
    assert not failures
    assert not files_in(tmp_path / 'out')


def test_an_image_that_changes_while_it_is_read(tmp_path, monkeypatch):
    path = save_image(tmp_path / 'a.png')
    real = input_files.read_picture

    def grow(path):
        picture = real(path)
        with open(path, 'ab') as file:
            file.write(b'more')
        return picture

    monkeypatch.setattr(input_files, 'read_picture', grow)
    assert [failure.reason for failure in read_files([path])] == ['the file changed while it was read']


def test_a_file_of_absurd_size(tmp_path):
    with open(tmp_path / 'a.png', 'wb') as file:
        file.truncate(1 << 40)  # sparse: it takes no space
    (failure,) = read_files([tmp_path / 'a.png'])
    assert '1099511627776 bytes' in failure.reason


# ------------------------------------------------------------------------------------------------------------ names


@needs_av
def test_names_of_any_kind(tmp_path):
    """Bytes that are no text, control characters, and names as long as the file system takes."""
    source, out = tmp_path / 'in', tmp_path / 'out'
    source.mkdir()
    stems = [b'\xff\xfe', b'line\nbreak', b'\x1b[31mred', b'%d', b'-', b'n' * 251, 'ü'.encode() * 125]
    for suffix, make in ((b'.png', save_image), (b'.mp4', save_clip)):
        make(tmp_path / f'a{suffix.decode()}')
        for stem in stems:
            os.link(tmp_path / f'a{suffix.decode()}', os.path.join(os.fsencode(source), stem + suffix))
    report = save_enhanced(brighten, source, out)
    assert not report.failures
    assert len(report.written) == 2 * len(stems)
    assert sorted(os.listdir(os.fsencode(out))) == sorted(os.listdir(os.fsencode(source)))


def test_a_name_too_long_for_its_companion(tmp_path):
    path = save_image(tmp_path / 'in' / f'{"n" * 251}.png')
    report = save_enhanced(brighten, path.parent, tmp_path / 'out', compare=True)
    assert 'too long' in reasons(report)[path.name]
    with pytest.raises(OSError, match='cannot be read: File name too long'):
        save_enhanced(brighten, tmp_path / ('n' * 300), tmp_path / 'out')


@pytest.mark.parametrize(
    ('name', 'shown'), [('ü 日', 'ü 日'), ('a\nb\x1b', r'a\nb\x1b'), ('\udcff', r'\xff'), ('\u202e', r'\u202e')]
)
def test_names_are_printed_on_one_line(name, shown):
    assert printable(name) == shown


@pytest.mark.parametrize(('source', 'out', 'name'), [('', 'out', 'source'), ('in', '', 'out')])
def test_empty_names(tmp_path, monkeypatch, source, out, name):
    """They are no names for the current folder."""
    monkeypatch.chdir(tmp_path)
    save_image(tmp_path / 'in/1.png')
    with pytest.raises(ValueError, match=f'^{name} must be a file or folder, got an empty name'):
        save_enhanced(brighten, source, out)
    assert files_in(tmp_path) == {'in/1.png'}


class Counter(BaseHTTPRequestHandler):
    requests = 0

    def do_GET(self):
        type(self).requests += 1
        self.send_error(404)

    def log_message(self, *_):
        pass


@needs_av
def test_names_and_playlists_open_nothing_else(tmp_path, monkeypatch):
    """FFmpeg takes "http:…" for an address, and follows lists to other files and hosts."""
    monkeypatch.chdir(tmp_path)
    Counter.requests = 0
    server = ThreadingHTTPServer(('127.0.0.1', 0), Counter)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        port, source = server.server_port, tmp_path / 'in'
        source.mkdir()
        save_clip(tmp_path / 'secret.mp4')
        save_clip(source / f'http:127.0.0.1:{port}.mp4')
        playlist = '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n'
        (source / 'file list.mp4').write_text(playlist.format((tmp_path / 'secret.mp4').as_uri()))
        (source / 'http list.mp4').write_text(playlist.format(f'http://127.0.0.1:{port}/a.mp4'))
        (source / 'concat.mkv').write_text(f"ffconcat version 1.0\nfile '{tmp_path / 'secret.mp4'}'\n")
        (source / 'session.avi').write_text(f'v=0\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n')
        report = save_enhanced(brighten, 'in', 'out')
        assert [Path(path).name for path in report.written] == [f'http:127.0.0.1:{port}.mp4']
        assert reasons(report).keys() == {'file list.mp4', 'http list.mp4', 'concat.mkv', 'session.avi'}
        assert all('no video in MP4, QuickTime, Matroska or AVI' in reason for reason in reasons(report).values())
        monkeypatch.chdir(source)  # the name without a folder before it is what FFmpeg would take for an address
        assert len(save_enhanced(brighten, f'http:127.0.0.1:{port}.mp4', '../other').written) == 1
    finally:
        server.shutdown()
        server.server_close()
    assert Counter.requests == 0


# ------------------------------------------------------------------------------------------------ permissions, space


@contextmanager
def as_a_stranger():
    """Give up the rights of root, which no permission stops."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public():
    """A folder that a stranger may enter, with one image."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_image(folder / 'in/1.png')
        save_image(folder / 'in/sub/2.png')
        (folder / 'out').mkdir()
        for path in (folder, folder / 'out'):
            path.chmod(0o777)
        yield folder
        for path in (folder, folder / 'in', folder / 'in/sub', folder / 'out'):
            path.chmod(0o700)


def test_a_folder_that_must_not_be_listed(public):
    (public / 'in/sub').chmod(0)
    with as_a_stranger():
        report = save_enhanced(brighten, public / 'in', public / 'out')
    assert [Path(path).name for path in report.written] == ['1.png']
    assert reasons(report) == {'sub': 'the folder cannot be read: Permission denied'}
    (public / 'in').chmod(0)
    with as_a_stranger():
        report = save_enhanced(brighten, public / 'in', public / 'out')
        assert reasons(report) == {'in': 'the folder cannot be read: Permission denied'}
        with pytest.raises(OSError, match=r'1\.png cannot be read: Permission denied'):
            save_enhanced(brighten, public / 'in/1.png', public / 'out')


def test_files_that_must_not_be_read(public):
    (public / 'in/1.png').chmod(0)
    (public / 'in/v.mp4').write_bytes(b'')
    (public / 'in/v.mp4').chmod(0)
    with as_a_stranger():
        report = save_enhanced(brighten, public / 'in', public / 'out')
    expected = {'1.png', 'v.mp4'} if HAS_AV else {'1.png'}
    assert {name for name, reason in reasons(report).items() if reason == 'Permission denied'} == expected
    assert [Path(path).name for path in report.written] == ['2.png']


def test_folders_that_must_not_be_written(public):
    (public / 'out').chmod(0o555)
    with as_a_stranger(), pytest.raises(PermissionError, match='no permission to write'):
        save_enhanced(brighten, public / 'in', public / 'out')
    with as_a_stranger(), pytest.raises(OSError, match='cannot be made: Permission denied'):
        save_enhanced(brighten, public / 'in', public / 'out/new')
    (public / 'out').chmod(0o777)
    (public / 'out/sub').mkdir()
    (public / 'out/sub').chmod(0o555)
    with as_a_stranger():
        report = save_enhanced(brighten, public / 'in', public / 'out')
    assert reasons(report) == {'2.png': 'its result cannot be written: Permission denied'}
    assert files_in(public / 'out') == {'1.png'}


# ---------------------------------------------------------------------------------------------------- interruptions


@pytest.mark.parametrize('interruption', [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize('at', [1, pytest.param(6, marks=needs_av)])
def test_an_interruption_leaves_what_was_done_and_nothing_else(tmp_path, interruption, at):
    """At the second image, and within the video."""
    for number in range(3):
        save_image(tmp_path / f'in/{number}.png')
    if HAS_AV:
        save_clip(tmp_path / 'in/v.mp4')
    seen = []

    def enhance(pictures, illumination):
        for outcome in brighten(pictures, illumination):
            if len(seen) == at:
                raise interruption
            seen.append(outcome)
            yield outcome

    report = Report()
    with pytest.raises(interruption):
        save_enhanced(enhance, tmp_path / 'in', tmp_path / 'out', report=report)
    done = {f'{number}.png' for number in range(min(at, 3))}
    assert {Path(path).name for path in report.written} == files_in(tmp_path / 'out') == done
    assert report.waiting == 3 + HAS_AV - len(done)
    report = save_enhanced(brighten, tmp_path / 'in', tmp_path / 'out')
    assert len(report.written) == 3 + HAS_AV
    assert report.waiting == 0


def test_leftovers_of_a_killed_run(tmp_path):
    """They are removed by the next run, unless they are still being written; none is taken for an input."""
    script = (
        'import os, sys, time\n'
        'from ruas_mm.utils.fileio import atomic_file\n'
        'with atomic_file(sys.argv[1]) as (file, _):\n'
        '    file.write(b"half")\n'
        '    file.flush()\n'
        '    print("writing", flush=True)\n'
        '    time.sleep(600)\n'
    )
    save_image(tmp_path / 'in/1.png')
    out = tmp_path / 'out'
    environment = {**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2])}
    command = [sys.executable, '-c', script, str(out / 'x.png')]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(2)]
    try:
        for writer in writers:
            assert writer.stdout.readline() == b'writing\n'
        assert len(files_in(out)) == 2
        writers[0].kill()
        writers[0].wait()
        save_enhanced(brighten, tmp_path / 'in', out)
        (unfinished,) = files_in(out) - {'1.png'}
        assert unfinished.startswith('.ruas_mm-')
        assert unfinished.endswith('.tmp')
        assert find_files(out).files == [out / '1.png']
        writers[1].kill()
        writers[1].wait()
        save_enhanced(brighten, tmp_path / 'in', out)
        assert files_in(out) == {'1.png'}
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            writer.stdout.close()


# --------------------------------------------------------------------------------------------------------- videos


def test_without_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'av', None)
    save_image(tmp_path / 'in/1.png')
    (tmp_path / 'in/v.mp4').write_bytes(b'video')
    report = save_enhanced(brighten, tmp_path / 'in', tmp_path / 'out')
    assert [Path(path).name for path in report.written] == ['1.png']
    assert 'pip install av' in reasons(report)['v.mp4']
    assert files_in(tmp_path / 'out') == {'1.png'}


@needs_av
def test_companions_of_a_video(tmp_path):
    save_clip(tmp_path / 'v.mp4', size=(31, 17))
    report = save_enhanced(brighten, tmp_path / 'v.mp4', tmp_path / 'out', compare=True, save_illumination=True)
    assert report.written == [str(tmp_path / 'out/v.mp4')]
    assert files_in(tmp_path / 'out') == {'v.mp4', 'v.compare.mp4', 'v.illumination.mp4'}
    assert len(list(read_files([tmp_path / 'out/v.compare.mp4']))) == 8
    assert next(read_files([tmp_path / 'out/v.compare.mp4'])).pixels.shape == (17, 62, 3)


@needs_av
def test_a_frame_that_cannot_be_enhanced_fails_the_video(tmp_path):
    def enhance(pictures, illumination):
        for number, (picture, outcome) in enumerate(brighten(pictures, illumination)):
            yield picture, outcome if number < 4 else Failure(picture.path, 'out of memory')

    save_clip(tmp_path / 'v.mp4')
    report = save_enhanced(enhance, tmp_path / 'v.mp4', tmp_path / 'out')
    assert reasons(report) == {'v.mp4': 'frame 4: out of memory'}
    assert not files_in(tmp_path / 'out')


@needs_av
def test_sound_that_is_left_out_is_told(tmp_path):
    save_clip(tmp_path / 'a.mkv', sound='libopus')
    (tmp_path / 'a.mkv').rename(tmp_path / 'a.avi')
    report = save_enhanced(brighten, tmp_path / 'a.avi', tmp_path / 'out', compare=True)
    assert len(report.written) == 1
    assert [(Path(path).name, reason) for path, reason in report.remarks] == [
        ('a.avi', 'its sound was left out: avi cannot hold opus')
    ]


def test_results_have_the_usual_permissions(tmp_path):
    save_image(tmp_path / 'in/1.png')
    save_enhanced(brighten, tmp_path / 'in', tmp_path / 'out')
    (tmp_path / 'plain').write_text('')
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / 'plain', tmp_path / 'out/1.png')]
    assert modes[0] == modes[1]
