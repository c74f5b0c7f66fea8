"""Quality of enhanced images: PSNR, SSIM, LPIPS and NIQE, with documented protocols."""

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

# Computes a metric of one image from the result and the ground truth (or None), both uint8 RGB of shape (3, H, W).
Measure = Callable[[Tensor, Tensor], float]

_ALEXNET = 'https://download.pytorch.org/models/alexnet-owt-7be5be79.pth'  # used by torchvision and LPIPS


class ImageQuality(BaseMetric):
    """PSNR, SSIM, LPIPS and NIQE, averaged over the images.

    All metrics are computed on 8-bit RGB over the whole image, including the border. The brightness of the result is
    not adjusted to the mean of the ground truth.

    * ``psnr`` in dB (higher is better): from the mean squared error over pixels and channels, with peak 255, by
      scikit-image.
    * ``ssim`` (higher is better): scikit-image's ``structural_similarity`` with its defaults, which are uniform 7×7
      windows and the sample covariance, averaged over the three channels. (Wang's Gaussian windows give 0.0005 less on
      LOL.)
    * ``lpips`` (lower is better): AlexNet, version 0.1, by the package of its authors.
    * ``niqe`` (lower is better; needs no ground truth): on the gray image, in blocks of 96×96, with the parameters of
      its authors, by mmagic.

    The authors' release truncates to 8 bits where others round. This metric was checked with their weights on 8 pairs
    of LOL and 5 pairs of MIT-Adobe FiveK: 14.52 dB and 0.612, 15.46 dB and 0.879 with ``rounding='down'``; 14.58 dB and
    0.615, 15.39 dB and 0.879 with ``rounding='nearest'``.

    Args:
        metric (str | Sequence[str]): Names of the metrics to compute.
        rounding (str): How results are converted to 8 bits: ``nearest``, or ``down`` as in the authors' release.
        lpips_backbone (str, optional): File with torchvision's ImageNet weights of AlexNet. Defaults to the file in
            torch's cache, which is downloaded if it is missing.
        collect_device (str): ``cpu`` or ``gpu``, see ``mmengine.evaluator.BaseMetric``.
        prefix (str, optional): Prefix of the metric names, which replaces ``enhance``.

    Raises:
        ValueError: If an argument is invalid, or the backbone file contains the weights of another network.
        ImportError: If the package that computes a metric is missing; the message names it.
        FileNotFoundError: If AlexNet's weights are not in the cache and cannot be downloaded.
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
            raise ValueError(f'metric of ImageQuality must be among {", ".join(builders)}, got {names}.')
        if rounding not in ('nearest', 'down'):
            raise ValueError(f"rounding of ImageQuality must be 'nearest' or 'down', got {rounding!r}.")
        self.rounding = rounding
        self._measures = {name: builders[name]() for name in names}

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Compute the metrics of the images in a batch.

        Args:
            data_batch (Any): Not used.
            data_samples (Sequence[dict]): For each image, ``enhanced`` (floats in [0, 1]) and, if there is ground
                truth, ``gt`` (uint8), both RGB of shape (3, H, W).

        Raises:
            ValueError: If the ground truth that a metric needs is missing or has another size, the image is too small
                for a metric, or a result is not finite.
        """
        for sample in data_samples:
            image = sample.get('img_path', f'image {len(self.results) + 1}')
            result, truth = sample['enhanced'], sample.get('gt')
            if not result.isfinite().all():
                raise ValueError(f'{image}: the result must be finite, got NaN or infinity.')
            if truth is not None and truth.shape != result.shape:
                raise ValueError(
                    f'{image}: the ground truth must have shape {tuple(result.shape)}, got {tuple(truth.shape)}.'
                )
            scaled = result.clamp(0, 1) * 255
            result = (scaled.round() if self.rounding == 'nearest' else scaled).byte()
            figures = {}
            for name, measure in self._measures.items():
                if truth is None and name != 'niqe':
                    raise ValueError(
                        f'{image} has no ground truth, which {name} needs; use '
                        "ImageQuality(metric='niqe') for images without ground truth."
                    )
                height, width = result.shape[-2:]
                if min(height, width) < _SMALLEST.get(name, 1) or (name == 'niqe' and height // 96 * (width // 96) < 2):
                    raise ValueError(f'{image} is too small for {name}, got {width}×{height}.')
                figures[name] = measure(result, truth)
            self.results.append(figures)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Average the metrics over the images.

        Args:
            results (list[dict]): The metrics of each image.

        Returns:
            dict[str, float]: The mean of each metric by its name.
        """
        return {name: float(np.mean([figures[name] for figures in results])) for name in self._measures}


# Minimum image sides. LPIPS: AlexNet's strides and poolings must leave at least one pixel. NIQE: the covariance needs
# at least two blocks of 96×96, which is checked separately.
_SMALLEST = {'ssim': 7, 'lpips': 31, 'niqe': 96}


def _import(module: str, package: str, metric: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except Exception as error:  # a broken package fails in many ways: ImportError, AssertionError on versions, …
        raise ImportError(
            f'ImageQuality: {metric} needs {package}, which cannot be imported: {type(error).__name__}: {error}'
        ) from error


def _array(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).cpu().numpy()


def _skimage(metric: str, function: str, **options: Any) -> Measure:
    compare = getattr(_import('skimage.metrics', 'scikit-image', metric), function)

    def measure(result: Tensor, truth: Tensor) -> float:
        with np.errstate(divide='ignore'):  # the PSNR of identical images is infinite
            return float(compare(_array(truth), _array(result), **options))

    return measure


def _lpips(backbone: str | None) -> Measure:
    package = _import('lpips', 'lpips', 'lpips')
    weights = _alexnet(backbone)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):  # leaves training's random state unchanged
        warnings.simplefilter('ignore')  # torchvision warns about how lpips calls it
        model = package.LPIPS(net='alex', pnet_rand=True, verbose=False)
    try:
        for part in model.net.children():
            part.load_state_dict({key: weights[f'features.{key}'] for key in part.state_dict()})
    except (KeyError, RuntimeError):
        raise ValueError(
            f"{backbone} must contain torchvision's weights of AlexNet, got those of another network."
        ) from None

    @torch.no_grad()
    def measure(result: Tensor, truth: Tensor) -> float:
        pair = [image[None].float() / 127.5 - 1 for image in (result, truth)]
        return model.to(result.device)(*pair).item()

    return measure


def _alexnet(path: str | None) -> dict[str, Tensor]:
    """Load the weights of torchvision's AlexNet from a file, or from torch's cache, downloading them if necessary."""
    try:
        if path is None:
            return torch.hub.load_state_dict_from_url(_ALEXNET, map_location='cpu', progress=False, weights_only=True)
        return torch.load(path, map_location='cpu', weights_only=True)
    except OSError as error:
        if path is not None:
            raise FileNotFoundError(f'ImageQuality: lpips_backbone {path} cannot be read ({error}).') from None
        cache = os.path.join(torch.hub.get_dir(), 'checkpoints', os.path.basename(_ALEXNET))
        raise FileNotFoundError(
            f"ImageQuality: lpips needs AlexNet's weights, but {_ALEXNET} cannot be downloaded ({error}); save that "
            f'file as {cache}, or set lpips_backbone to its path.'
        ) from None


def _niqe() -> Measure:
    niqe = _import('mmagic.evaluation.metrics.niqe', 'mmagic', 'niqe').niqe

    def measure(result: Tensor, truth: Tensor | None) -> float:
        return float(niqe(_array(result)[..., ::-1], crop_border=0, convert_to='gray'))

    return measure
