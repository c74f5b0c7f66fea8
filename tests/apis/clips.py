"""Small videos made with PyAV alone, none of it with the code under test."""

from fractions import Fraction

import numpy as np

# Container format and a codec that fits it -> the codec's options.
CODECS = {
    'libx264': ('yuv420p', {'crf': '8'}),
    'mpeg4': ('yuv420p', {'qmin': '2', 'qmax': '2'}),
    'mjpeg': ('yuvj420p', {'qmin': '2', 'qmax': '2'}),
    'ffv1': ('bgr0', {}),
}
FORMATS = {'.mp4': 'mp4', '.mov': 'mov', '.mkv': 'matroska', '.avi': 'avi'}


def pictures(count=8, size=(64, 48)):
    """Smooth pictures of shape (H, W, 3), each unlike the others."""
    y, x = np.mgrid[: size[1], : size[0]]
    base = np.stack([x * 3 % 128, y * 2 % 128, (x + y) % 128], axis=2)
    return [(base + 5 * number).astype(np.uint8) for number in range(count)]


def save_clip(
    path, codec='libx264', size=(64, 48), count=8, times=None, sound=None, colour=None, aspect=None, **options
):
    """Write a video at 10 frames a second, or with frames at the given milliseconds; return its pictures."""
    import av

    form, encoding = CODECS[codec]
    if codec == 'libx264' and (size[0] % 2 or size[1] % 2):
        form = 'yuv444p'
    frames = pictures(count if times is None else len(times), size)
    base = Fraction(1, 10) if times is None else Fraction(1, 1000)
    with open(path, 'w+b') as file, av.open(file, 'w', format=FORMATS[path.suffix]) as container:
        stream = container.add_stream(codec, rate=10, time_base=base, options={**encoding, **options})
        stream.width, stream.height = size
        stream.pix_fmt = form
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if colour:
            stream.codec_context.colorspace, stream.codec_context.color_range = colour
        audio = container.add_stream(sound, rate=48000) if sound else None
        for number, pixels in zip(times or range(len(frames)), frames, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
            if colour:
                space, full = colour
                frame = frame.reformat(
                    format=form, src_colorspace=space, dst_colorspace=space, src_color_range=3 - full,
                    dst_color_range=full, interpolation=0x46004,
                )  # fmt: skip
            frame.pts, frame.time_base = number, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio:
            save_sound(container, audio)
    return frames


def save_sound(container, stream):
    import av

    planar = stream.format.is_planar
    kind = {'flt': np.float32, 's16': np.int16}[stream.format.name.rstrip('p')]
    for number in range(20):
        noise = 0.1 * np.random.default_rng(number).standard_normal((2, 1024))
        noise = noise if kind == np.float32 else noise * 10000
        samples = noise.astype(kind) if planar else noise.T.reshape(1, -1).astype(kind)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format=stream.format.name, layout='stereo')
        frame.sample_rate, frame.pts = 48000, number * 1024
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def decoded(path):
    """Frames of a video as (time in seconds, pixels), read by PyAV without any check."""
    import av

    with open(path, 'rb') as file, av.open(file) as container:
        stream = container.streams.video[0]
        return [(frame.pts * stream.time_base, frame.to_ndarray(format='rgb24')) for frame in container.decode(stream)]


def sound_of(path):
    """The packets of sound of a video."""
    import av

    with open(path, 'rb') as file, av.open(file) as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio) if packet.size]
