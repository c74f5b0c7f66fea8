"""Files in, enhanced files out: one bad file stops nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from ruas_mm.apis.input_files import Failure, find_files, is_folder, is_video, read_files, reason_of
from ruas_mm.apis.pictures import Picture, PictureError, encode_picture
from ruas_mm.apis.videos import VIDEO_SUFFIXES, VideoReader, write_video
from ruas_mm.utils.fileio import atomic_write, remove_leftovers
from ruas_mm.utils.images import IMAGE_SUFFIXES


class Enhanced(NamedTuple):
    """An image's results.

    Attributes:
        pixels (np.ndarray): The enhanced image, of the shape and dtype of the picture's pixels (float32 for any float).
        illumination (np.ndarray, optional): The illumination t^K, likewise, white being 1; None if not asked for.
        noise_score (float, optional): How noisy the image is; None without a noise estimator.
    """

    pixels: np.ndarray
    illumination: np.ndarray | None
    noise_score: float | None


# Takes pictures, and whether the illumination is wanted; gives each back, in order, with what became of it.
Enhancer = Callable[[Iterable[Picture | Failure], bool], Iterator[tuple[Picture | None, Enhanced | Failure]]]


@dataclass
class Report:
    """What became of files.

    Attributes:
        written (list[str]): The enhanced files, without comparisons and illuminations.
        failures (list[Failure]): Files that are missing among them or beside them, and why.
        others (int): Number of files in the folder that are no images or videos by their suffix.
        remarks (list[Failure]): What is not a failure but should be known: links that were not followed, and the
            sound and the hidden frames of videos that were left out.
        waiting (int): Number of files that are still to be enhanced: 0, unless the run was interrupted.
    """

    written: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    others: int = 0
    remarks: list[Failure] = field(default_factory=list)
    waiting: int = 0


class _Outputs:
    """Where results go: never over an input, nor over another result."""

    def __init__(self, targets: dict[Path, Path]) -> None:
        self.targets = targets
        self._inputs = {os.path.realpath(path) for path in targets}
        self._owners = {os.path.realpath(target): path for path, target in targets.items()}

    def of(self, path: Path, name: str = '') -> Path:
        """Return where a result of a file goes; ``name`` tells it from the main one."""
        target = self.targets[path]
        if name:
            target = target.with_name(f'{target.stem}.{name}{target.suffix}')
        place = os.path.realpath(target)
        if place in self._inputs:
            raise OSError(f'{target} is an input too and was not written over')
        if self._owners.setdefault(place, path) != path:
            raise OSError(f'{target} is the result of {self._owners[place]}')
        return target


def save_enhanced(
    enhance: Enhancer,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    compare: bool = False,
    save_illumination: bool = False,
    show_progress: bool = False,
    report: Report | None = None,
) -> Report:
    """Enhance an image, a video, or the images and videos of a folder.

    Args:
        enhance (Callable): Takes pictures, and whether the illumination is wanted; gives each picture back, in order,
            with what became of it.
        source (str | PathLike): A file, or a folder, whose folders are searched too, those behind links among them, but
            not ``out``.
        out (str | PathLike): Folder for the results, which keep their names and sub-folders; for a single file also
            the name of the result.
        compare (bool): Whether to write ``NAME.compare.SUFFIX`` too: input and result side by side.
        save_illumination (bool): Whether to write ``NAME.illumination.SUFFIX`` too.
        show_progress (bool): Whether to show a progress bar.
        report (Report, optional): A report to fill: what is in it when the run is interrupted was done.

    Returns:
        Report: What was written, and what failed why.

    Raises:
        OSError: If the source does not exist or cannot be read, or ``out`` cannot be a folder.
        ValueError: If the source holds nothing to enhance, or is where the results would go, or a name is empty.
    """
    for name, place in (('source', source), ('out', out)):
        if not os.fspath(place):
            raise ValueError(f'{name} must be a file or folder, got an empty name.')
    report = Report() if report is None else report
    targets = _plan(Path(source), Path(out), report)
    for folder in {target.parent for target in targets.values()}:
        remove_leftovers(folder)
    report.waiting = len(targets)
    outputs = _Outputs(targets)
    extras = [name for name, wanted in (('compare', compare), ('illumination', save_illumination)) if wanted]
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not show_progress) as progress:
        task = progress.add_task('Enhancing', total=len(targets))
        for path, failure in _outcomes(enhance, outputs, extras, progress, report.remarks):
            if failure is None:
                report.written.append(str(targets[path]))
            else:
                report.failures.append(failure)
            report.waiting -= 1
            progress.advance(task)
    return report


def _outcomes(
    enhance: Enhancer, outputs: _Outputs, extras: list[str], progress: Progress, remarks: list[Failure]
) -> Iterator[tuple[Path, Failure | None]]:
    """Enhance the images, then the videos; yield each file when it is done."""
    images = [path for path in outputs.targets if not is_video(path)]
    for picture, outcome in enhance(read_files(images), 'illumination' in extras):
        if isinstance(outcome, Failure):
            yield Path(outcome.path), outcome
        else:
            yield Path(picture.path), _save_image(picture, outcome, outputs, extras)
    for path in outputs.targets:
        if is_video(path):
            yield path, _save_video(path, enhance, outputs, extras, progress, remarks)


def _plan(source: Path, out: Path, report: Report) -> dict[Path, Path]:
    """Return what goes where; report what is left out."""
    if not is_folder(source):
        kinds = VIDEO_SUFFIXES if is_video(source) else IMAGE_SUFFIXES
        if source.suffix.lower() not in kinds:
            known = ', '.join(IMAGE_SUFFIXES + VIDEO_SUFFIXES)
            raise ValueError(f'{source} has none of the suffixes of images and videos: {known}.')
        target = out if out.suffix.lower() in kinds and not os.path.isdir(out) else out / source.name
        if _is_same(target, source):
            raise ValueError(f'The result would be written over {source} itself; name another place.')
        _make_folder(target.parent)
        return {source: target}
    if _is_same(out, source):
        raise ValueError(f'The results would be written over the images in {source}; name another folder.')
    found = find_files(source, leave_out=out)
    if not found.files and not found.failures:
        raise ValueError(f'The folder {source} holds no image or video among its {found.others} files.')
    _make_folder(out)
    report.failures += found.failures
    report.others = found.others
    report.remarks += [Failure(path, f'this link was not followed: {reason}') for path, reason in found.links]
    return {path: out / path.relative_to(source) for path in found.files}


def _is_same(one: Path, other: Path) -> bool:
    return os.path.exists(one) and os.path.samefile(one, other)


def _make_folder(folder: Path) -> None:
    """Make the folder for the results now, rather than fail image by image."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f'The folder {folder} cannot be made: {reason_of(error)}.') from error
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(f'There is no permission to write to the folder {folder}.')


def _save_image(picture: Picture, result: Enhanced, outputs: _Outputs, extras: list[str]) -> Failure | None:
    path = Path(picture.path)
    try:
        for name in ('', *extras):
            target = outputs.of(path, name)
            pixels, alpha = _content(picture, result, name)
            atomic_write(target, encode_picture(pixels, target.suffix, alpha, picture.metadata))
    except (OSError, MemoryError) as error:
        return Failure(str(path), f'its result cannot be written: {reason_of(error)}')
    return None


def _save_video(
    path: Path, enhance: Enhancer, outputs: _Outputs, extras: list[str], progress: Progress, remarks: list[Failure]
) -> Failure | None:
    lost: dict[str, None] = {}  # each reason once, in order
    task = None
    try:
        with ExitStack() as stack:
            video = stack.enter_context(VideoReader(path))
            task = progress.add_task('Frames', total=video.count)
            names = ('', *extras)
            write = {
                name: stack.enter_context(write_video(outputs.of(path, name), video, lost.setdefault)) for name in names
            }
            for frame, outcome in enhance(video, 'illumination' in extras):
                if isinstance(outcome, Failure):
                    raise OSError(f'frame {frame.frame}: {outcome.reason}')
                for name in names:
                    write[name](_content(frame, outcome, name)[0], frame.time)
                progress.advance(task)
            if video.hidden:
                lost.setdefault(f'{video.hidden} of its {video.count} frames are marked as hidden and were left out')
    except (OSError, PictureError, MemoryError) as error:
        return Failure(str(path), reason_of(error))
    finally:
        if task is not None:
            progress.remove_task(task)
    remarks += [Failure(str(path), reason) for reason in lost]
    return None


def _content(picture: Picture, result: Enhanced, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return pixels and alpha of one of the files that an image becomes."""
    if name == 'illumination':
        return result.illumination, None
    if name == 'compare':
        alpha = None if picture.alpha is None else np.hstack([picture.alpha] * 2)
        return np.hstack([picture.pixels, result.pixels]), alpha
    return result.pixels, picture.alpha
