"""Video files as pictures, frame by frame, and back. Needs PyAV, the package ``av``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from ruas_mm.apis.pictures import Picture, PictureError
from ruas_mm.apis.video_containers import find_container
from ruas_mm.utils.fileio import atomic_file, open_regular

# Suffix -> container format, encoder, its options. Without frames that depend on later ones ("bf"), the time of each
# is stored exactly.
_H264 = ('libx264', {'crf': '18', 'preset': 'veryfast', 'bf': '0'})
_OUTPUTS = {
    '.mp4': ('mp4', *_H264),
    '.mov': ('mov', *_H264),
    '.mkv': ('matroska', *_H264),
    '.avi': ('avi', 'mjpeg', {'qmin': '2', 'qmax': '2'}),
}
VIDEO_SUFFIXES = tuple(_OUTPUTS)

_MAX_PIXELS = 178_956_970  # of a frame: as many as Pillow takes for an image
_STRICT = {'err_detect': 'crccheck+bitstream+buffer+explode', 'max_pixels': str(_MAX_PIXELS)}

# FFmpeg's numbers of colour spaces and ranges. A stream that does not name its colour space is taken for BT.601.
_BT709, _UNSPECIFIED, _BT601 = 1, 2, 5
_COLOUR_SPACES = (_BT709, 4, _BT601, 6, 7, 9)
_LIMITED, _FULL = 1, 2
_SCALING = 4 | 0x2000 | 0x4000 | 0x40000  # swscale: bicubic, chroma at full size, exact rounding


@dataclass
class Frame(Picture):
    """A picture of a video.

    Attributes:
        time (Fraction): When it is shown, in seconds.
    """

    time: Fraction = Fraction(0)


class VideoReader:
    """The pictures of a video file, to be used in a ``with`` block.

    Only the file itself is read: nothing in it, nor its name, can make FFmpeg open another file or an address.

    Args:
        path (str | os.PathLike): A regular file that holds MP4, QuickTime, Matroska or AVI, whatever its suffix.

    Attributes:
        count (int): Number of stored frames.
        hidden (int): How many of them the file tells not to show, as a trimmed video does; known when all are decoded.
        rate (Fraction): Frames a second on average; 25 if the file does not say.
        time_base (Fraction): The unit of the frames' times, in seconds.
        aspect (Fraction): Width of a pixel over its height, upright.
        colour (tuple[int, int, int]): FFmpeg's numbers of the colour space, primaries and transfer function.

    Raises:
        OSError: If the file cannot be opened, or is no regular file.
        PictureError: If it holds no video, or a part of it is missing, or PyAV is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self._av = _import_av()
        self._resources = ExitStack()
        try:
            file = self._resources.enter_context(open_regular(path))
            self._before = _state(file)
            self._format = find_container(file)
            self._file = file
            self.count = self._count_frames()
            self._container = self._open()
            self._stream = self._find_stream(self._container)
        except BaseException:
            self.close()
            raise
        self.hidden = 0
        context = self._stream.codec_context
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.rate = rate if rate and 0 < rate < 1000 else Fraction(25)
        self.time_base = self._stream.time_base
        self.aspect = self._stream.sample_aspect_ratio or Fraction(1)
        self.colour = (context.colorspace, context.color_primaries, context.color_trc)

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._resources.close()

    def __iter__(self) -> Iterator[Frame]:
        """Decode the video.

        Yields:
            Frame: Its frames, uint8 RGB, upright.

        Raises:
            PictureError: If a frame is damaged or missing, has another size than those before, or the file changes
                meanwhile.
        """
        time = -1 / self.rate
        for number, frame in enumerate(self.decode()):
            time = frame.pts * self.time_base if frame.pts is not None else time + 1 / self.rate
            pixels = _upright(_to_rgb(frame), frame.side_data.get('DISPLAYMATRIX'))
            yield Frame(pixels, path=str(self.path), frame=number, time=time)

    def decode(self) -> Iterator[Any]:
        """Decode the video and yield PyAV's frames as they are stored; raise as ``__iter__`` does."""
        number = packets = hidden = 0
        size = None
        with self._reasons(lambda: f'frame {number} cannot be decoded'):
            for packet in self._container.demux(self._stream):
                is_data = packet.dts is not None or packet.size > 0
                packets += is_data
                hidden += is_data and (packet.is_discard or not packet.size)
                if packet.is_corrupt:
                    raise PictureError(f'frame {number} is damaged')
                if is_data and not packet.size:
                    continue  # the frame before lasts longer; to the decoder it would mean the end
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise PictureError(f'frame {number} is damaged')
                    size = size or (frame.width, frame.height)
                    if size != (frame.width, frame.height):
                        raise PictureError(
                            f'frame {number} has {frame.width}x{frame.height} pixels, those before {size[0]}x{size[1]}'
                        )
                    yield frame
                    number += 1
        if number < packets - hidden and self._stream.codec_context.name != 'vp8':  # which stores frames to hide them
            raise PictureError(f'{packets - hidden - number} of its {packets} frames cannot be decoded')
        if not number:
            raise PictureError('it holds no video that can be decoded')
        if _state(self._file) != self._before:
            raise PictureError('the file changed while it was read')
        if self._format == 'mov':  # the others cannot hide frames
            self.hidden = self.count - number

    @contextmanager
    def sound(self) -> Iterator[tuple[list[Any], Iterator[Any]]]:
        """Open the sound of the video.

        Yields:
            tuple[list, Iterator]: PyAV's audio streams, and their packets, in order.
        """
        with ExitStack() as resources:
            container = resources.enter_context(self._open(resources.enter_context(open_regular(self.path))))
            streams = list(container.streams.audio)
            packets = (packet for packet in container.demux(streams) if packet.dts is not None) if streams else iter(())
            yield streams, packets

    def _open(self, file: BinaryIO | None = None, **options: str) -> Any:
        """Open the container anew; one at a time for each file."""
        file = file or self._file
        file.seek(0)
        options = {'protocol_whitelist': '', 'format_whitelist': self._format, **options}
        with self._reasons(lambda: 'it cannot be read as a video'):
            return self._av.open(
                file,
                format=self._format,
                container_options=options,
                metadata_errors='replace',
                io_open=_refuse_to_open,
            )

    def _find_stream(self, container: Any) -> Any:
        """Return the stream of pictures that is to be shown, ready to be decoded."""
        self._resources.enter_context(container)
        stream = container.streams.best('video')  # no cover picture, if there is anything else
        if stream is None:
            raise PictureError('there is no video in it')
        if stream.codec_context is None:
            raise PictureError('it is damaged, or coded in a way that is not known')
        stream.codec_context.options = dict(_STRICT)
        return stream

    def _count_frames(self) -> int:
        """Go through the file once without decoding, so that what is missing is known before any work is done."""
        with self._open(ignore_editlist='1') as container:
            stream = self._find_stream(container)
            count, first, last = 0, None, None
            with self._reasons(lambda: f'frame {count} cannot be read'):
                for packet in container.demux(stream):
                    if packet.dts is not None or packet.size:
                        count += 1
                        first, last = packet.dts if first is None else first, packet.dts
            found = count
            if self._format == 'avi' and None not in (first, last):  # frames that are left out still have their time
                found = last - first + 1
            if found < stream.frames:
                raise PictureError(f'it holds {found} frames, but says that it has {stream.frames}')
        return count

    @contextmanager
    def _reasons(self, what: Callable[[], str]) -> Iterator[None]:
        """Say what FFmpeg's errors are about."""
        try:
            yield
        except PictureError:
            raise
        except Exception as error:  # FFmpeg's errors, and whatever a damaged file breaks in PyAV
            raise PictureError(f'{what()}: {getattr(error, "strerror", None) or error}') from error


@contextmanager
def write_video(
    path: str | os.PathLike[str], source: VideoReader, remark: Callable[[str], None]
) -> Iterator[Callable[[np.ndarray, Fraction], None]]:
    """Write a video that appears under its name at the end of the ``with`` block, or not at all.

    Before it appears, it is read back: all its frames are decoded.

    Args:
        path (str | os.PathLike): Where the file goes; its suffix is one of ``VIDEO_SUFFIXES``.
        source (VideoReader): The video that it is made from, whose sound, frame rate, pixel aspect and colour space it
            gets.
        remark (Callable): Is told, in a sentence without the file's name, what could not be kept.

    Yields:
        Callable: Appends a frame: takes its pixels, RGB, uint8, of shape (H, W, 3), all of one size, and its time in
            seconds.

    Raises:
        OSError: If the file cannot be written, or does not hold what was written.
    """
    path = Path(path)
    with atomic_file(path) as (file, temporary), source.sound() as (streams, packets):
        writer = _Writer(path.suffix.lower(), file, source, streams, packets, remark)
        try:
            with _as_os_error('it cannot be written'):
                yield writer.write
                writer.finish()
            file.flush()
        finally:
            writer.close()
        _read_back(temporary, writer)


class _Writer:
    """Encodes frames into an open file, and copies the sound into it."""

    def __init__(
        self,
        suffix: str,
        file: BinaryIO,
        source: VideoReader,
        streams: list[Any],
        packets: Iterator[Any],
        remark: Callable[[str], None],
    ) -> None:
        self.count = 0
        self.size = (0, 0)
        self._av = _import_av()
        name, self._codec, self._options = _OUTPUTS[suffix]
        self._container = self._av.open(file, 'w', format=name)
        self._source = source
        self._sound = streams
        self._packets = packets
        self._packet = None
        self._remark = remark
        self._stream = None
        self._last = None

    def write(self, pixels: np.ndarray, time: Fraction) -> None:
        """Append a frame and the sound that belongs before it."""
        if self._stream is None:
            self._start(pixels.shape[1], pixels.shape[0])
        number = round(time / self._stream.codec_context.time_base)
        if self._last is not None:
            number = max(number, self._last + 1)
        self._last = number
        self._copy_sound(time)
        frame = _from_rgb(self._av, pixels, self._stream.codec_context)
        frame.pts, frame.time_base = number, self._stream.codec_context.time_base
        self._container.mux(self._stream.encode(frame))
        self.count += 1

    def finish(self) -> None:
        """Write all that is left."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())
            self._copy_sound(None)
        self._container.close()

    def close(self) -> None:
        """Let the file go, whatever is in it."""
        with suppress(Exception):  # what could not be written before cannot be written now
            self._container.close()

    def _start(self, width: int, height: int) -> None:
        source, is_jpeg = self._source, self._codec == 'mjpeg'
        base = 1 / source.rate if is_jpeg else source.time_base  # AVI counts frames, it does not time them
        try:
            stream = self._container.add_stream(self._codec, rate=source.rate, time_base=base, options=self._options)
        except ValueError as error:
            raise OSError(f'this build of PyAV has no encoder {self._codec}') from error
        stream.width, stream.height = width, height
        context = stream.codec_context
        context.sample_aspect_ratio = source.aspect
        if is_jpeg:
            context.pix_fmt = 'yuvj420p'
        else:
            context.pix_fmt = 'yuv444p' if width % 2 or height % 2 else 'yuv420p'  # H.264 halves even sizes only
            space, context.color_primaries, context.color_trc = source.colour
            context.colorspace = space if space in (*_COLOUR_SPACES, _UNSPECIFIED) else _BT709
            context.color_range = _LIMITED
        self._stream, self.size = stream, (width, height)
        copies = {}
        for sound in self._sound:
            try:
                copies[sound.index] = self._container.add_stream_from_template(sound)
            except ValueError:
                self._remark(f'its sound was left out: {self._container.format.name} cannot hold {_codec_name(sound)}')
        self._sound = copies
        self._packet = next(self._packets, None)

    def _copy_sound(self, until: Fraction | None) -> None:
        while (packet := self._packet) is not None:
            if until is not None and packet.dts * packet.time_base > until:
                return
            if packet.stream.index in self._sound:
                packet.stream = self._sound[packet.stream.index]
                self._container.mux(packet)
            self._packet = next(self._packets, None)


def _read_back(path: Path, writer: _Writer) -> None:
    """Check that a video holds what was written."""
    try:
        with VideoReader(path) as video:
            count = 0
            for frame in video.decode():
                count += (frame.width, frame.height) == writer.size
    except PictureError as error:
        raise OSError(f'what was written cannot be read back: {error}') from error
    if count != writer.count:
        raise OSError(f'{count} frames can be read back of {writer.count} that were written')


@contextmanager
def _as_os_error(what: str) -> Iterator[None]:
    try:
        yield
    except _import_av().FFmpegError as error:
        raise OSError(f'{what}: {error.strerror}') from error


def _import_av() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise PictureError(f'videos need PyAV (pip install av), which cannot be imported: {error}') from error
    return av


def _refuse_to_open(url: str, *_: object) -> None:
    raise PictureError(f'it refers to another file or address, {url!r}, which is not opened')


def _state(file: BinaryIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _codec_name(stream: Any) -> str:
    return stream.codec_context.name if stream.codec_context else 'its coding'


def _to_rgb(frame: Any) -> np.ndarray:
    """Convert a frame to RGB, as its own colour space and range say."""
    is_full = frame.color_range == _FULL or frame.format.name.startswith('yuvj')
    space = frame.colorspace if frame.colorspace in _COLOUR_SPACES else _BT601
    return _convert(frame, 'rgb24', is_full, space, not is_full, space).to_ndarray()


def _from_rgb(av: ModuleType, pixels: np.ndarray, context: Any) -> Any:
    """Convert RGB to a frame for an encoder."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format='rgb24')
    is_full = context.pix_fmt.startswith('yuvj')
    space = context.colorspace if context.colorspace in _COLOUR_SPACES else _BT601
    return _convert(frame, context.pix_fmt, not is_full, space, is_full, space)


def _convert(frame: Any, to: str, from_full: bool, from_space: int, to_full: bool, to_space: int) -> Any:
    """Convert a frame. RGB has no range: the caller gives it another one than YUV's, or PyAV passes on neither."""
    return frame.reformat(
        format=to,
        src_colorspace=from_space,
        dst_colorspace=to_space,
        src_color_range=_FULL if from_full else _LIMITED,
        dst_color_range=_FULL if to_full else _LIMITED,
        interpolation=_SCALING,
    )


def _upright(pixels: np.ndarray, matrix: Any) -> np.ndarray:
    """Turn pixels as a display matrix says: it maps (x, y) to (a x + c y, b x + d y)."""
    if matrix is None:
        return pixels
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if a == d == 0:
        pixels = pixels.swapaxes(0, 1)
        a, d = c, b
    elif b or c:
        raise PictureError('it is to be shown turned by an angle that is no multiple of 90 degrees')
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
