"""The enhancer as users call it: arrays, files, folders and videos in; pictures and dicts out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from mmengine.device import get_device
from torch import Tensor

from ruas_mm.apis.enhanced_files import Enhanced, Report, save_enhanced
from ruas_mm.apis.enhancer_checkpoint import load_enhancer
from ruas_mm.apis.input_files import Failure, find_files, is_folder, read_files, reason_of
from ruas_mm.apis.pictures import Picture
from ruas_mm.apis.tiling import find_reach, split
from ruas_mm.models.enhance.exposure import Level, block_side
from ruas_mm.modules import fold
from ruas_mm.modules.resampling import shrink
from ruas_mm.search import searchable_slots

# dtype -> white.
_WHITE = {'uint8': 255, 'uint16': 65535, 'float16': 1, 'float32': 1, 'float64': 1}
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

Input: TypeAlias = np.ndarray | str | os.PathLike


class RUASInferencer:
    """Brightens dark images of any size, on any device, in bounded memory.

    Large images run in tiles that overlap by as much as the model sees, which is measured when it is loaded; the noise
    decision of variant ``A`` is one for the whole image. The result is that of the whole image up to rounding.

    Args:
        checkpoint (str | PathLike, optional): Checkpoint of ``ruas_mm.RUAS``; by default the shipped weights.
        variant (str, optional): ``S``, ``full`` or ``A``, as far as the checkpoint has the parts; by default the
            checkpoint's own, and ``A`` of the shipped weights.
        device (str, optional): Such as ``cpu`` or ``cuda:0``; by default a GPU if there is one.
        stages (int, optional): Number of stages to use, the first ones; by default all that were trained.
        batch_size (int): Images of equal size that run together. It pays on a GPU only.
        tile (int): Side in pixels of the parts that larger images run in. Less takes less memory.
        channel_order (str): ``rgb`` or ``bgr``: that of arrays, in and out. It does not matter to :meth:`save`.
        resolution (float, optional): 1, 1/2, 1/3, … 1/16: side of the image in which the illumination is found, as a
            share of the whole image's; by default the checkpoint's. Less is quicker.
        exposure (float | str, optional): How bright results become: ``auto``, or their mean luminance in (0, 1); by
            default as the checkpoint says, the shipped weights: whatever comes out. See :class:`ruas_mm.RUAS`.
        strength (float, optional): Share in [0, 1] of the enhanced image in the result, the rest being the image; by
            default as the checkpoint says, mostly 1.
        brightness_gate (float, optional): Images whose mean luminance in [0, 1] exceeds it stay as they are; by default
            as the checkpoint says, mostly none.

    Raises:
        FileNotFoundError: If the checkpoint does not exist, or no weights are shipped.
        CheckpointError: If the file is no checkpoint, damaged, or refused.
        ValueError: If an option has no such value, or the checkpoint is of another model.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike[str] | None = None,
        variant: str | None = None,
        device: str | None = None,
        stages: int | None = None,
        batch_size: int = 1,
        tile: int = 768,
        channel_order: str = 'rgb',
        resolution: float | None = None,
        exposure: float | str | None = None,
        strength: float | None = None,
        brightness_gate: float | None = None,
    ) -> None:
        for option, value in (('batch_size', batch_size), ('tile', tile)):
            if value < 1:
                raise ValueError(f'RUASInferencer needs {option} >= 1, not {value}.')
        if channel_order not in ('rgb', 'bgr'):
            raise ValueError(f"RUASInferencer has no channel_order {channel_order!r}; choose 'rgb' or 'bgr'.")
        self.batch_size = batch_size
        self.tile = tile
        self.channel_order = channel_order
        self.model = load_enhancer(
            checkpoint,
            variant,
            stages,
            resolution,
            exposure=exposure,
            strength=strength,
            brightness_gate=brightness_gate,
        )
        self.reach = find_reach(self._everything, self.model.scene_module.factor)
        self.device = device or get_device()
        try:
            if torch.device(self.device).type == 'cpu' and not searchable_slots(self.model):
                self.model = fold(self.model)  # after the reach was measured: folded, NaN spreads further than values
            self.model.to(torch.device(self.device))
        except (RuntimeError, AssertionError) as error:  # the latter from a torch without CUDA
            raise ValueError(f'Device {self.device!r} cannot be used: {reason_of(error).rstrip(".")}.') from error

    def __call__(self, inputs: Input | Sequence[Input]) -> list[dict[str, Any]]:
        """Enhance images and keep all results in memory.

        Args:
            inputs (np.ndarray | str | PathLike | Sequence): As in :meth:`iterate`.

        Returns:
            list[dict]: The results as of :meth:`iterate`.

        Raises:
            OSError: If a path does not exist or cannot be read.
            ValueError: If an array is no image.
        """
        return list(self.iterate(inputs))

    def iterate(self, inputs: Input | Sequence[Input]) -> Iterator[dict[str, Any]]:
        """Enhance images one after the other.

        Args:
            inputs (np.ndarray | str | PathLike | Sequence): Arrays, image files, video files, folders (with all that
                is in them), or a sequence of those. An array has shape (H, W), gray, (H, W, 3), or (H, W, 4), with
                alpha; uint8, uint16, or floats in [0, 1].

        Yields:
            dict: Of each image or frame:

            * ``enhanced`` (np.ndarray): of its shape and dtype (float32 for any float), alpha untouched; None if the
              file cannot be enhanced;
            * ``illumination`` (np.ndarray): of shape (H, W) or (H, W, 3) and the same dtype, white being 1; or None;
            * ``noise_score`` (float): how noisy it is; None without a noise estimator;
            * ``path`` (str): the file; None for an array;
            * ``frame`` (int): its number in a video, from 0; None for others;
            * ``error`` (str): why the file cannot be enhanced; None if it can.

        Raises:
            OSError: If a path does not exist or cannot be read.
            ValueError: If an array is no image.
        """
        if isinstance(inputs, (np.ndarray, str, os.PathLike)):
            inputs = [inputs]
        elif not isinstance(inputs, Sequence):
            raise ValueError(f'RUASInferencer takes numpy arrays, paths and lists of them, not {_kind(inputs)}.')
        for picture, outcome in self._enhance_all(self._read(inputs), True):
            yield self._as_dict(picture, outcome)

    def save(
        self,
        source: str | os.PathLike[str],
        out: str | os.PathLike[str],
        compare: bool = False,
        save_illumination: bool = False,
        show_progress: bool = False,
        report: Report | None = None,
    ) -> Report:
        """Enhance files into files.

        Args:
            source (str | PathLike): An image, a video, or a folder, whose folders are searched too, those behind links
                among them, but not ``out``.
            out (str | PathLike): Folder for the results, which keep their names and sub-folders; for a single file
                also the name of the result.
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
        return save_enhanced(self._enhance_all, source, out, compare, save_illumination, show_progress, report)

    def _read(self, inputs: Sequence[Input]) -> Iterator[Picture | Failure]:
        for item in inputs:
            if isinstance(item, np.ndarray):
                yield _to_picture(item, self.channel_order)
            elif not isinstance(item, (str, os.PathLike)):
                raise ValueError(f'RUASInferencer takes numpy arrays, paths and lists of them, not {_kind(item)}.')
            elif is_folder(item):
                found = find_files(Path(item))
                yield from found.failures
                yield from read_files(found.files)
            else:
                yield from read_files([Path(item)])

    def _as_dict(self, picture: Picture | None, outcome: Enhanced | Failure) -> dict[str, Any]:
        names = ('enhanced', 'illumination', 'noise_score', 'path', 'frame', 'error')
        if isinstance(outcome, Failure):
            return dict.fromkeys(names) | {'path': outcome.path, 'error': outcome.reason}
        enhanced, illumination = outcome.pixels, outcome.illumination
        if self.channel_order == 'bgr' and enhanced.ndim == 3:
            enhanced, illumination = enhanced[..., ::-1], illumination[..., ::-1]
        if picture.alpha is not None:
            if enhanced.ndim == 2:
                enhanced = np.stack([enhanced] * 3, axis=2)
            enhanced = np.dstack([enhanced, picture.alpha])
        values = (enhanced, illumination, outcome.noise_score, picture.path, picture.frame, None)
        return dict(zip(names, values, strict=True))

    def _enhance_all(
        self, pictures: Iterable[Picture | Failure], illumination: bool
    ) -> Iterator[tuple[Picture | None, Enhanced | Failure]]:
        """Enhance neighbours of equal size together; what cannot be enhanced stops nothing."""
        for kind, group in groupby(pictures, _batch_key):
            while batch := list(islice(group, self.batch_size)):
                if kind is None:
                    yield from ((None, failure) for failure in batch)
                    continue
                try:
                    results = self._enhance([picture.pixels for picture in batch], illumination)
                except (RuntimeError, MemoryError) as error:  # mostly: too little memory
                    results = [Failure(picture.path, f'enhancing it failed: {reason_of(error)}') for picture in batch]
                yield from zip(batch, results, strict=True)

    @torch.no_grad()
    def _enhance(self, images: list[np.ndarray], illumination: bool) -> list[Enhanced]:
        """Enhance images of one shape and dtype, tile by tile.

        Variant A goes through the tiles twice: only after the first time are the noise scores of whole images known.
        """
        model, pixels = self.model, np.stack(images)
        level = model.level(self._copy(pixels)) if model.adjusts else None
        enhanced = np.empty_like(pixels)
        light = np.empty_like(pixels) if illumination else None
        noise = np.zeros(len(pixels))
        for y, inner, crop in self._tiles(pixels):
            u, t = self._scene(y, level)
            x = u if model.variant != 'full' else self._clean(u)
            _put(x[crop] if level is None else level.blend(y[crop], x[crop]), enhanced[inner])
            if light is not None:
                _put(t[crop] if level is None else level.weaken(t[crop]), light[inner])
            if model.noise_estimator is not None:
                theta = model.noise_estimator(u)[crop]
                noise += theta.abs().sum(dim=(1, 2, 3), dtype=torch.float64).cpu().numpy()
        if model.noise_estimator is None:
            scores = [None] * len(pixels)
        else:
            scores = (noise / (3 * pixels.shape[1] * pixels.shape[2])).tolist()
            noisy = [index for index, score in enumerate(scores) if score > model.epsilon]
            level = None if level is None else Level(*(values[noisy] for values in level))
            for y, inner, crop in self._tiles(pixels[noisy]) if noisy else ():
                x = self._clean(self._scene(y, level)[0])[crop]
                x = x if level is None else level.blend(y[crop], x)
                for place, index in enumerate(noisy):
                    _put(x[place], enhanced[index][inner[1:]])
        lights = [None] * len(pixels) if light is None else light
        return [Enhanced(*results) for results in zip(enhanced, lights, scores, strict=True)]

    def _tiles(self, pixels: np.ndarray) -> Iterator[tuple[Tensor, tuple, tuple]]:
        """Yield each tile as the model wants it, its place in the images, and that place in the model's maps."""
        every, grid = slice(None), self.model.scene_module.factor
        for tile in split(*pixels.shape[1:3], self.tile, self.reach, self.model.border, grid):
            rows, columns = tile.outer
            part = pixels.take(rows, 1, mode='clip').take(columns, 2, mode='clip')  # the outermost pixels repeated
            yield self._to_tensor(part), (every, *tile.inner), (every, every, *tile.crop)

    def _copy(self, pixels: np.ndarray) -> Tensor:
        """Return small copies of images, for the model's level, made from a few rows at a time."""
        height, width = pixels.shape[1:3]
        block = block_side(height, width)
        rows = block * max(1, self.tile**2 // (block * width))
        parts = [shrink(self._to_tensor(pixels[:, top : top + rows]), block) for top in range(0, height, rows)]
        return torch.cat(parts, dim=2)

    def _to_tensor(self, pixels: np.ndarray) -> Tensor:
        """Return pixels (N, H, W), gray, or (N, H, W, 3) as RGB in [0, 1] of shape (N, 3, H, W)."""
        y = torch.from_numpy(pixels.astype(np.float32) / _WHITE[pixels.dtype.name]).to(self.device)
        y = y.unsqueeze(1).expand(-1, 3, -1, -1) if y.ndim == 3 else y.permute(0, 3, 1, 2)
        return y.contiguous()

    def _scene(self, y: Tensor, level: Level | None = None) -> tuple[Tensor, Tensor]:
        """Return the last u and t of images of shape (N, 3, H, W)."""
        scene = self.model.scene_module(y if level is None else level.expose(y))
        return scene.features[-1], scene.illuminations[-1]

    def _clean(self, u: Tensor) -> Tensor:
        return self.model.noise_removal(u).clamp(0, 1)

    def _everything(self, y: Tensor) -> Tensor:
        """Return the sum of all maps that a result may depend on."""
        u, t = self._scene(y)
        parts = [u, t]
        if self.model.noise_removal is not None:
            parts.append(self._clean(u))
        if self.model.noise_estimator is not None:
            parts.append(self.model.noise_estimator(u))
        return sum(parts)


def _batch_key(picture: Picture | Failure) -> tuple | None:
    return None if isinstance(picture, Failure) else (picture.pixels.shape, picture.pixels.dtype)


def _put(maps: Tensor, pixels: np.ndarray) -> None:
    """Write maps of shape (..., 3, H, W) in [0, 1] into pixels of shape (..., H, W, 3), or (..., H, W) if gray."""
    values = maps.movedim(-3, -1).cpu().numpy()
    if pixels.ndim < values.ndim:
        values = values @ _LUMA
    white = _WHITE[pixels.dtype.name]
    pixels[...] = values if white == 1 else np.rint(values.clip(0, 1) * np.float32(white))


def _to_picture(array: np.ndarray, channel_order: str) -> Picture:
    """Take an array for an image; the errors are for the user."""
    if np.ma.is_masked(array):
        raise ValueError('RUASInferencer takes arrays without masked pixels; fill them first, with array.filled(…).')
    array = np.asarray(array)  # matrices and other subclasses index and broadcast in their own way
    if array.dtype.name not in _WHITE:
        raise ValueError(f'RUASInferencer takes arrays of uint8, uint16 or floats in [0, 1], not of {array.dtype}.')
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or not array.size:
        raise ValueError(
            f'RUASInferencer takes arrays of shape (H, W), (H, W, 3) or (H, W, 4) with pixels, not {array.shape}.'
        )
    if array.dtype.kind == 'f':
        if not ((array >= 0) & (array <= 1)).all():
            raise ValueError('RUASInferencer takes floats in [0, 1]; an array has other values, or NaN.')
        array = array.astype(np.float32)
    array = array.astype(array.dtype.newbyteorder('='), copy=False)
    if array.ndim == 2:
        return Picture(array)
    pixels = array[..., :3] if channel_order == 'rgb' else array[..., 2::-1]
    return Picture(pixels, array[..., 3] if array.shape[2] == 4 else None)


def _kind(thing: Any) -> str:
    return type(thing).__name__
