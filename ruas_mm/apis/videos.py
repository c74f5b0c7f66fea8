"""Video files as pictures, frame by frame, and back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ruas_mm.apis.pictures import Picture, PictureError

# Suffix -> the codec that OpenCV writes it with.
_CODECS = {'.mp4': 'mp4v', '.mov': 'mp4v', '.mkv': 'mp4v', '.avi': 'MJPG'}
VIDEO_SUFFIXES = tuple(_CODECS)


def read_frames(path: str | os.PathLike[str]) -> Iterator[Picture]:
    """Read a video.

    Args:
        path (str | os.PathLike): The file.

    Yields:
        Picture: Its frames, uint8 RGB, upright.

    Raises:
        PictureError: If OpenCV finds no frame in it.
    """
    video = cv2.VideoCapture(str(path))
    try:
        number = 0
        while (frame := video.read()[1]) is not None:
            yield Picture(np.ascontiguousarray(frame[..., ::-1]), path=str(path), frame=number)
            number += 1
    except cv2.error as error:
        raise PictureError(f'OpenCV cannot decode frame {number}: {error.err}') from error
    finally:
        video.release()
    if not number:
        raise PictureError('OpenCV finds no video in it')


def frame_rate(path: str | os.PathLike[str]) -> float:
    """Return the frames a second of a video; 25 if it does not say."""
    video = cv2.VideoCapture(str(path))
    try:
        rate = video.get(cv2.CAP_PROP_FPS)
    finally:
        video.release()
    return rate if 0 < rate < 1000 else 25.0


class VideoWriter:
    """A video file that appears whole or not at all: under a temporary name until the end of the ``with`` block.

    Args:
        path (str | os.PathLike): Where the file goes; its suffix is one of ``VIDEO_SUFFIXES``.
        rate (float): Frames a second.
    """

    def __init__(self, path: str | os.PathLike[str], rate: float) -> None:
        self.path = Path(path)
        self.rate = rate
        self.temporary = self.path.with_name(f'.{self.path.stem}.{os.getpid()}.tmp{self.path.suffix}')
        self._video: cv2.VideoWriter | None = None

    def write(self, pixels: np.ndarray) -> None:
        """Append a frame.

        Args:
            pixels (np.ndarray): RGB, uint8, shape (H, W, 3); all of one size.

        Raises:
            OSError: If the file cannot be written.
        """
        height, width = pixels.shape[:2]
        if self._video is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            codec = cv2.VideoWriter_fourcc(*_CODECS[self.path.suffix.lower()])
            self._video = cv2.VideoWriter(str(self.temporary), codec, self.rate, (width, height))
        if not self._video.isOpened():
            raise OSError(f'OpenCV cannot write {self.path}')
        self._video.write(np.ascontiguousarray(pixels[..., ::-1]))

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if self._video is not None:
                self._video.release()
                if kind is None:
                    os.replace(self.temporary, self.path)
        finally:
            self.temporary.unlink(missing_ok=True)
