"""Synthesise low-light images from normally lit ones with a Retinex model: uneven, weak light and sensor noise."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

try:
    from mmcv.transforms import BaseTransform
except ImportError:  # `darken` needs only numpy; mmcv is installed wherever there is a pipeline for the transform
    BaseTransform = object

Range = tuple[float, float]


def darken(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    exposure: Range = (0.004, 0.02),
    falloff: Range = (0.0, 0.7),
    lamps: tuple[int, int] = (1, 4),
    lamp_gain: Range = (5.0, 60.0),
    lamp_radius: Range = (0.04, 0.16),
    shot_noise: Range = (1e-5, 1e-4),
    read_noise: Range = (5e-5, 4e-4),
) -> tuple[np.ndarray, np.ndarray]:
    """Darken an image: y = encode(x·L + n), where x is the image in linear light, L an illumination field and n noise.

    L = exposure · (a linear falloff across the image + the light of some lamps), clipped to 1, so that no pixel becomes
    brighter. Relative to the point right below it, a lamp at height h lights the ground at distance d by
    h³ / (h² + d²)^(3/2). The noise follows the Poisson-Gaussian model in its normal approximation (Foi et al.,
    "Practical Poissonian-Gaussian noise modeling and fitting for single-image raw-data", IEEE TIP 2008): the standard
    deviation at x·L is sqrt(shot_noise · x·L + read_noise²), independent in each pixel and channel.

    Args:
        image (np.ndarray): H×W or H×W×C, sRGB encoded, in [0, 1], with channels in any order.
        rng (np.random.Generator): Source of all random numbers.
        exposure (tuple[float, float]): Range of the ambient light, as a fraction of the light of ``image``, in (0, 1];
            sampled log-uniformly.
        falloff (tuple[float, float]): Range of the fraction of the ambient light lost from one side of the image to the
            other, in [0, 1).
        lamps (tuple[int, int]): Range of the number of lamps, inclusive.
        lamp_gain (tuple[float, float]): Range of a lamp's light right below it, as a multiple of the ambient light.
        lamp_radius (tuple[float, float]): Range of a lamp's height h, as a fraction of the image diagonal.
        shot_noise (tuple[float, float]): Range of the variance of the photon noise at white, in squared linear light;
            1/shot_noise is the full-well capacity of a pixel in electrons. Sampled log-uniformly.
        read_noise (tuple[float, float]): Range of the standard deviation of the read noise, in linear light.

    Returns:
        tuple[np.ndarray, np.ndarray]: The dark image (float32, the shape of ``image``, in [0, 1], sRGB encoded) and
        the illumination field L (float32, H×W, in (0, 1], in linear light).
    """
    height, width = image.shape[:2]
    illumination = _illumination(height, width, rng, exposure, falloff, lamps, lamp_gain, lamp_radius)
    shot, read = _log_uniform(rng, shot_noise), rng.uniform(*read_noise)
    light = srgb_to_linear(np.clip(image, 0, 1))
    light *= illumination if image.ndim == 2 else illumination[..., None]
    light += np.sqrt(shot * light + read**2) * rng.standard_normal(light.shape, np.float32)
    return linear_to_srgb(np.clip(light, 0, 1, out=light)), illumination


def srgb_to_linear(image: np.ndarray) -> np.ndarray:
    """Decode sRGB values in [0, 1] to linear light (IEC 61966-2-1), float32 of the same shape."""
    image = np.asarray(image, np.float32)
    return np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: np.ndarray) -> np.ndarray:
    """Encode linear light in [0, 1] as sRGB (IEC 61966-2-1), float32 of the same shape."""
    light = np.asarray(light, np.float32)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def _illumination(
    height: int,
    width: int,
    rng: np.random.Generator,
    exposure: Range,
    falloff: Range,
    lamps: tuple[int, int],
    lamp_gain: Range,
    lamp_radius: Range,
) -> np.ndarray:
    # Coordinates in units of the diagonal, so that the field does not depend on the resolution.
    diagonal = float(np.hypot(height, width))
    y, x = np.mgrid[:height, :width].astype(np.float32) / diagonal
    bottom, right = height / diagonal, width / diagonal

    angle = rng.uniform(0, 2 * np.pi)
    slope = (x - right / 2) * np.cos(angle) + (y - bottom / 2) * np.sin(angle)  # within [-1/2, 1/2]
    field = 1 - rng.uniform(*falloff) * (slope + 0.5)
    for _ in range(rng.integers(lamps[0], lamps[1] + 1)):
        squared = (x - rng.uniform(0, right)) ** 2 + (y - rng.uniform(0, bottom)) ** 2
        field += rng.uniform(*lamp_gain) * (1 + squared / rng.uniform(*lamp_radius) ** 2) ** -1.5
    return np.minimum(_log_uniform(rng, exposure) * field, 1).astype(np.float32)


def _log_uniform(rng: np.random.Generator, bounds: Range) -> float:
    low, high = np.log(bounds)
    return float(np.exp(rng.uniform(low, high)))


class LowLightSynthesis(BaseTransform):
    """Darken the image of a sample with :func:`darken`, leaving its labels unchanged.

    Required keys: ``img`` (uint8, H×W×3 as mmcv loads it) and, with a seed, ``img_path`` if it exists. Modified key:
    ``img``. Added key: ``illumination`` (float32, H×W, in (0, 1], in linear light), the field that was sampled;
    geometric transforms later in the pipeline do not change it.

    Args:
        exposure (tuple[float, float]): Range of the ambient light, as a fraction of the light of the image, in (0, 1].
        falloff (tuple[float, float]): Range of the fraction of the ambient light lost across the image, in [0, 1).
        lamps (tuple[int, int]): Range of the number of lamps, inclusive, at least 0.
        lamp_gain (tuple[float, float]): Range of a lamp's light, as a multiple of the ambient light, at least 0.
        lamp_radius (tuple[float, float]): Range of a lamp's height, as a fraction of the image diagonal, > 0.
        shot_noise (tuple[float, float]): Range of the photon noise's variance at white, in squared linear light, > 0.
        read_noise (tuple[float, float]): Range of the read noise's standard deviation, in linear light, at least 0.
        seed (int, optional): Seed, at least 0. With a seed, the result depends only on the seed and on the file name of
            the image (without its folder), or on its content if it has no path, so that validation data is the same in
            every epoch and run. With None, numpy's global generator is used, which mmengine seeds in each worker.
            Defaults to None.

    Raises:
        ValueError: If a range is not two ascending numbers within its limits, or the seed is negative.
    """

    def __init__(
        self,
        exposure: Range = (0.004, 0.02),
        falloff: Range = (0.0, 0.7),
        lamps: tuple[int, int] = (1, 4),
        lamp_gain: Range = (5.0, 60.0),
        lamp_radius: Range = (0.04, 0.16),
        shot_noise: Range = (1e-5, 1e-4),
        read_noise: Range = (5e-5, 4e-4),
        seed: int | None = None,
    ) -> None:
        tiny = np.finfo(float).tiny
        self.ranges = {
            'exposure': _check_range('exposure', exposure, tiny, 1),
            'falloff': _check_range('falloff', falloff, 0, 1 - 1e-6),
            'lamps': _check_range('lamps', lamps, 0),
            'lamp_gain': _check_range('lamp_gain', lamp_gain, 0),
            'lamp_radius': _check_range('lamp_radius', lamp_radius, tiny),
            'shot_noise': _check_range('shot_noise', shot_noise, tiny),
            'read_noise': _check_range('read_noise', read_noise, 0),
        }
        if any(int(count) != count for count in lamps):
            raise ValueError(f'lamps of LowLightSynthesis must be integers, got {lamps!r}.')
        if seed is not None and seed < 0:
            raise ValueError(f'seed of LowLightSynthesis must be at least 0, got {seed}.')
        self.seed = seed

    def transform(self, results: dict) -> dict:
        """Darken ``results['img']``.

        Args:
            results (dict): The sample; see the class for its keys.

        Returns:
            dict: The same dict with the dark ``img`` and ``illumination``.

        Raises:
            TypeError: If the image is not uint8.
        """
        image = results['img']
        if image.dtype != np.uint8:
            raise TypeError(
                f'The image of LowLightSynthesis must be uint8, got {image.dtype}; apply it before any conversion to '
                'floating point.'
            )
        dark, results['illumination'] = darken(image.astype(np.float32) / 255, self._rng(results), **self.ranges)
        results['img'] = np.round(dark * 255).astype(np.uint8)
        return results

    def _rng(self, results: dict) -> np.random.Generator:
        if self.seed is None:
            return np.random.default_rng(np.random.randint(0, 2**32, dtype=np.uint64))
        path = results.get('img_path')
        identity = Path(path).name.encode() if path else np.ascontiguousarray(results['img'])
        return np.random.default_rng([self.seed, zlib.crc32(identity)])

    def __repr__(self) -> str:
        arguments = ', '.join(f'{name}={value}' for name, value in {**self.ranges, 'seed': self.seed}.items())
        return f'{type(self).__name__}({arguments})'


def _check_range(name: str, value: Range, low: float, high: float = np.inf) -> Range:
    try:
        first, last = value
        valid = low <= first <= last <= high
    except (TypeError, ValueError):
        valid = False
    if not valid:
        limits = f'from {low:.3g}' + ('' if high == np.inf else f' to {high:.3g}')
        raise ValueError(f'{name} of LowLightSynthesis must be two ascending numbers {limits}, got {value!r}.')
    return (first, last)
