"""RUAS as an editor of mmagic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmagic.models import DataPreprocessor
from mmagic.structures import DataSample
from torch import Tensor

from ruas_mm.models.enhance.ruas import RUAS


class RUASEditDataPreprocessor(DataPreprocessor):
    """mmagic's data preprocessor for images of any size, with or without ground truth.

    mmagic's own warns of each sample that lacks one of ``data_keys``, and stacks the ground truth of a batch, which
    fails for images of different sizes. :class:`RUASEditor` takes mmagic's own as well.

    Args:
        mean (float | Sequence[float]): Subtracted from the pixel values, which are in [0, 255].
        std (float | Sequence[float]): Divides them afterwards.
        stack_data_sample (bool): Whether a batch's data samples become one.
        **kwargs (Any): Other options of ``mmagic.DataPreprocessor``.
    """

    def __init__(
        self,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        stack_data_sample: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(mean=mean, std=std, stack_data_sample=stack_data_sample, **kwargs)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Prepare a batch; see ``mmagic.DataPreprocessor.forward``.

        Args:
            data (dict): ``inputs``: images of shape (3, H, W) with values in [0, 255], a list or stacked; and,
                optionally, ``data_samples``.
            training (bool): Whether the ground truth is normalised too. It is BGR otherwise.

        Returns:
            dict: The batch, with ``inputs`` padded at the bottom and on the right and stacked.
        """
        samples, keys = data.get('data_samples') or [], self.data_keys
        self.data_keys = [key for key in keys or [] if samples and all(key in sample for sample in samples)]
        try:
            return super().forward(data, training)
        finally:
            self.data_keys = keys


class RUASEditor(RUAS):
    """:class:`ruas_mm.RUAS` for mmagic's pipelines, data sets, metrics, loops and visualizers.

    The model, its losses, which need no ground truth, and its weights are those of :class:`ruas_mm.RUAS`: checkpoints
    of either load into the other. Padding and normalisation of the data preprocessor are undone first, so that an
    image's result does not depend on its batch mates.

    Args:
        data_preprocessor (dict, optional): Config of an ``mmagic.DataPreprocessor``, with any options; by default
            :class:`RUASEditDataPreprocessor` as it is.
        **kwargs (Any): Options of :class:`ruas_mm.RUAS`.
    """

    def __init__(self, data_preprocessor: dict | None = None, **kwargs: Any) -> None:
        super().__init__(data_preprocessor=data_preprocessor or {'type': 'ruas_mm.RUASEditDataPreprocessor'}, **kwargs)

    def forward(
        self,
        inputs: Tensor | dict[str, Tensor],
        data_samples: DataSample | Sequence[DataSample] | None = None,
        mode: str = 'tensor',
    ) -> Any:
        """Run one of mmengine's modes.

        Args:
            inputs (Tensor | dict): Images of shape (N, 3, H, W) as the data preprocessor returns them; a dict with them
                as ``img`` if the pipeline packs more than one thing.
            data_samples (DataSample | Sequence[DataSample], optional): Their samples, which say how each image was
                padded and in which order its channels are; one sample may hold a stacked batch.
            mode (str): ``loss``, ``predict`` or ``tensor``.

        Returns:
            Any: A dict of losses, the samples as of :meth:`predict`, or a list of enhanced images of shape (3, H, W),
            RGB in [0, 1].

        Raises:
            ValueError: If the mode is unknown, or an image has not three channels.
        """
        images = inputs['img'] if isinstance(inputs, dict) else inputs
        if data_samples is None:
            order = self.data_preprocessor.output_channel_order or 'BGR'
            data_samples = [DataSample(metainfo={'img_output_channel_order': order}) for _ in images]
        elif isinstance(data_samples, DataSample):
            data_samples = data_samples.split(allow_nonseq_value=True)
        ys = [self._rgb(image, sample) for image, sample in zip(images, data_samples, strict=True)]
        return super().forward(ys, data_samples, mode)

    def _rgb(self, image: Tensor, sample: DataSample) -> Tensor:
        """Undo what the data preprocessor did to an image, and return it as RGB in [0, 1]."""
        bgr = self.data_preprocessor.destruct(image, sample)
        if len(bgr) != 3:
            raise ValueError(f'RUASEditor takes images of shape (3, H, W), not {tuple(bgr.shape)}.')
        return bgr.flip(0) / 255

    def predict(
        self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence[DataSample] | None = None
    ) -> list[DataSample]:
        """Enhance images; an image's result does not depend on its batch mates.

        Args:
            inputs (Tensor | Sequence[Tensor]): Images, RGB in [0, 1]: shape (N, 3, H, W), or a list of shape (3, H, W).
            data_samples (Sequence[DataSample], optional): Their samples; without any, new ones are made.

        Returns:
            list[DataSample]: The samples with ``input``, ``illumination`` and ``output``, which holds ``pred_img`` and,
            with a noise estimator, ``noise_score``. Pictures are as mmagic's metrics and visualizers expect them: BGR,
            floats in [0, 255], of shape (3, H, W), on the CPU.
        """
        samples = [DataSample() for _ in inputs] if data_samples is None else list(data_samples)
        for y, sample, result in zip(inputs, samples, super().predict(inputs), strict=True):
            sample.input = _picture(y)
            sample.illumination = _picture(result.illumination)
            sample.output = DataSample(pred_img=_picture(result.enhanced))
            if 'noise_score' in result:
                sample.output.noise_score = result.noise_score
        return samples


def _picture(rgb: Tensor) -> Tensor:
    return rgb.flip(0).mul(255).cpu()
