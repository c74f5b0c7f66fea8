"""How good enhanced images are: PSNR, SSIM, LPIPS and NIQE, with their protocols stated."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

# A figure of one image: of the result and the ground truth (None: there is none), uint8 RGB of shape (3, H, W).
Measure = Callable[[Tensor, Tensor], float]

_ALEXNET = 'https://download.pytorch.org/models/alexnet-owt-7be5be79.pth'  # what torchvision and LPIPS's authors use


class ImageQuality(BaseMetric):
    """Means of PSNR, SSIM, LPIPS and NIQE over the images.

    All of them on RGB with 8 bits, over the whole image (no border is left out), the brightness of the result as it is
    (never fitted to the ground truth's mean):

    * ``psnr`` in dB (higher is better): of the mean squared error over pixels and channels, peak 255. scikit-image.
    * ``ssim`` (higher): scikit-image's ``structural_similarity`` as it comes, with uniform windows of 7×7 and the
      sample covariance, the mean of the three channels. (Wang's Gaussian windows give 0.0005 less on LOL.)
    * ``lpips`` (lower): AlexNet, version 0.1, by the package of its authors.
    * ``niqe`` (lower; needs no ground truth): on gray, in blocks of 96×96, with its authors' parameters, by mmagic.

    The authors cut off the fraction where others round; so the figures of their weights on the 8 pairs of LOL and the 5
    of MIT-Adobe FiveK that this was checked with are 14.52 dB and 0.612, 15.46 dB and 0.879 with ``rounding='down'``;
    14.58 dB and 0.615, 15.39 dB and 0.879 with ``rounding='nearest'``.

    Args:
        metric (str | Sequence[str]): Which figures.
        rounding (str): How results become 8 bits: ``nearest``, or ``down`` as in the authors' release.
        lpips_backbone (str, optional): File with torchvision's ImageNet weights of AlexNet; by default the one in
            torch's cache, which is filled from the network.
        collect_device (str): ``cpu`` or ``gpu``, see ``mmengine.evaluator.BaseMetric``.
        prefix (str, optional): Instead of ``enhance``.

    Raises:
        ValueError: If an option has no such value, or the backbone's file is another network's.
        ImportError: If the package that computes a figure is missing; the message names it.
        FileNotFoundError: If AlexNet's weights are neither there nor to be had.
    """

    default_prefix = 'enhance'

    def __init__(
        self,
        metric: str | Sequence[str] = ('psnr', 'ssim'),
        rounding: str = 'nearest',
        lpips_backbone: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        builders: dict[str, Callable[[], Measure]] = {
            'psnr': partial(_skimage, 'psnr', 'peak_signal_noise_ratio', data_range=255),
            'ssim': partial(_skimage, 'ssim', 'structural_similarity', data_range=255, channel_axis=2),
            'lpips': partial(_lpips, lpips_backbone),
            'niqe': _niqe,
        }
        names = (metric,) if isinstance(metric, str) else tuple(metric)
        if not names or not set(names) <= set(builders):
            raise ValueError(f'ImageQuality: expected metric among {", ".join(builders)}, found {names}.')
        if rounding not in ('nearest', 'down'):
            raise ValueError(f"ImageQuality has no rounding={rounding!r}; choose 'nearest' or 'down'.")
        self.rounding = rounding
        self._measures = {name: builders[name]() for name in names}

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Measure the images of a batch.

        Args:
            data_batch (Any): Not used.
            data_samples (Sequence[dict]): Of each image ``enhanced`` (floats in [0, 1]) and, if there is ground truth,
                ``gt`` (uint8), both RGB of shape (3, H, W).

        Raises:
            ValueError: If a figure needs a ground truth that is missing or of another size, the image is too small for
                it, or a result is not finite.
        """
        for sample in data_samples:
            image = sample.get('img_path', f'image {len(self.results) + 1}')
            result, truth = sample['enhanced'], sample.get('gt')
            if not result.isfinite().all():
                raise ValueError(f'{image}: ImageQuality expected a finite result, found NaN or infinity.')
            if truth is not None and truth.shape != result.shape:
                raise ValueError(
                    f'{image}: ImageQuality expected a ground truth of shape {tuple(result.shape)}, found '
                    f'{tuple(truth.shape)}.'
                )
            scaled = result.clamp(0, 1) * 255
            result = (scaled.round() if self.rounding == 'nearest' else scaled).byte()
            figures = {}
            for name, measure in self._measures.items():
                if truth is None and name != 'niqe':
                    raise ValueError(
                        f'{image}: no ground truth, which {name} needs; without any, ask for '
                        "ImageQuality(metric='niqe')."
                    )
                height, width = result.shape[-2:]
                if min(height, width) < _SMALLEST.get(name, 1) or (name == 'niqe' and height // 96 * (width // 96) < 2):
                    raise ValueError(f'{image}: too small for {name}, {width}×{height}.')
                figures[name] = measure(result, truth)
            self.results.append(figures)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Average.

        Args:
            results (list[dict]): The figures of each image.

        Returns:
            dict[str, float]: The means over the images, under the names of the figures.
        """
        return {name: float(np.mean([figures[name] for figures in results])) for name in self._measures}


# LPIPS: what AlexNet's strides and poolings leave a pixel of. NIQE: two blocks of 96×96, or there is no covariance.
_SMALLEST = {'ssim': 7, 'lpips': 31, 'niqe': 96}


def _import(module: str, package: str, figure: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except Exception as error:  # a broken package fails in many ways: ImportError, AssertionError on versions, …
        raise ImportError(
            f'ImageQuality: {figure} is computed by {package}, which cannot be used here: '
            f'{type(error).__name__}: {error}'
        ) from error


def _array(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).cpu().numpy()


def _skimage(figure: str, function: str, **options: Any) -> Measure:
    compare = getattr(_import('skimage.metrics', 'scikit-image', figure), function)

    def measure(result: Tensor, truth: Tensor) -> float:
        with np.errstate(divide='ignore'):  # equal images: infinitely many dB
            return float(compare(_array(truth), _array(result), **options))

    return measure


def _lpips(backbone: str | None) -> Measure:
    package = _import('lpips', 'lpips', 'lpips')
    weights = _alexnet(backbone)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):  # training's random numbers stay what they are
        warnings.simplefilter('ignore')  # of torchvision, about how lpips calls it
        model = package.LPIPS(net='alex', pnet_rand=True, verbose=False)
    try:
        for part in model.net.children():
            part.load_state_dict({key: weights[f'features.{key}'] for key in part.state_dict()})
    except (KeyError, RuntimeError):
        raise ValueError(f"{backbone}: expected torchvision's weights of AlexNet, found those of another.") from None

    @torch.no_grad()
    def measure(result: Tensor, truth: Tensor) -> float:
        pair = [image[None].float() / 127.5 - 1 for image in (result, truth)]
        return model.to(result.device)(*pair).item()

    return measure


def _alexnet(path: str | None) -> dict[str, Tensor]:
    """Weights of torchvision's AlexNet, from a file or torch's cache, which is filled from the network."""
    try:
        if path is None:
            return torch.hub.load_state_dict_from_url(_ALEXNET, map_location='cpu', progress=False, weights_only=True)
        return torch.load(path, map_location='cpu', weights_only=True)
    except OSError as error:
        if path is not None:
            raise FileNotFoundError(f'ImageQuality: lpips_backbone {path} cannot be read ({error}).') from None
        cache = os.path.join(torch.hub.get_dir(), 'checkpoints', os.path.basename(_ALEXNET))
        raise FileNotFoundError(
            f"ImageQuality: lpips needs AlexNet's weights, but {_ALEXNET} cannot be reached ({error}); put that file "
            f'at {cache}, or give its path as lpips_backbone.'
        ) from None


def _niqe() -> Measure:
    niqe = _import('mmagic.evaluation.metrics.niqe', 'mmagic', 'niqe').niqe

    def measure(result: Tensor, truth: Tensor | None) -> float:
        return float(niqe(_array(result)[..., ::-1], crop_border=0, convert_to='gray'))

    return measure
