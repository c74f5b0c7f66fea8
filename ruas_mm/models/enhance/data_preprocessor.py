"""Images of any kind become RGB in [0, 1], each at its own size."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

# torch has 16 bits without a sign from version 2.3 on.
_WHITE = {torch.uint8: 255} | ({torch.uint16: 65535} if hasattr(torch, 'uint16') else {})


class RUASDataPreprocessor(BaseDataPreprocessor):
    """Brings images to the device and to float32 RGB in [0, 1].

    Nothing is padded or stacked (as mmengine's ``ImgDataPreprocessor`` does), since what lies beyond the border of an
    image changes it: :class:`ruas_mm.RUAS` takes a list and runs images of equal size together.

    Args:
        bgr_to_rgb (bool): Whether the images are BGR, as mmcv and OpenCV load them.
        non_blocking (bool): Whether copies to the device may run beside the program.
    """

    def __init__(self, bgr_to_rgb: bool = True, non_blocking: bool = False) -> None:
        super().__init__(non_blocking)
        self.bgr_to_rgb = bgr_to_rgb

    def forward(self, data: dict, training: bool = False) -> dict:
        """Prepare a batch.

        Args:
            data (dict): ``inputs``: images of shape (3, H, W), a list or stacked; uint8, uint16 or floats in [0, 1].
                Everything else, such as ``data_samples``, is brought to the device.
            training (bool): Makes no difference.

        Returns:
            dict: The batch with ``inputs`` as a list of float32 RGB images of shape (3, H, W) in [0, 1].

        Raises:
            TypeError: If an image has another dtype.
            ValueError: If an image has another shape, no pixels, or floats outside [0, 1].
        """
        for image in data['inputs']:
            _check(image)  # here, where the images still are on the CPU: on a GPU to look at values is to wait
        data = self.cast_data(data)
        return {**data, 'inputs': [self._prepare(image) for image in data['inputs']]}

    def _prepare(self, image: Tensor) -> Tensor:
        rgb = image.float() / _WHITE.get(image.dtype, 1)
        return rgb.flip(0) if self.bgr_to_rgb else rgb


def _check(image: Any) -> None:
    if not isinstance(image, Tensor) or not (image.is_floating_point() or image.dtype in _WHITE):
        kind = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(f'RUASDataPreprocessor takes images as uint8, uint16 or float tensors, not {kind}.')
    if image.ndim != 3 or len(image) != 3 or not image.numel():
        raise ValueError(f'RUASDataPreprocessor takes images of shape (3, H, W) with pixels, not {tuple(image.shape)}.')
    if image.is_floating_point() and not ((image >= 0) & (image <= 1)).all():
        raise ValueError('RUASDataPreprocessor takes float images in [0, 1]; one has other values, or NaN.')
