"""mmseg's test-time augmentation, with the scene of the image as it was taken."""

from mmseg.models import SegTTAModel as _SegTTAModel
from mmseg.utils import SampleList


class SegTTAModel(_SegTTAModel):
    """Merges the predictions of an image's augmented versions.

    mmseg keeps all else of the last version, which often is a mirrored one: its scene would not fit the prediction.
    """

    def merge_preds(self, data_samples_list: list[SampleList]) -> SampleList:
        """Merge the predictions of each image.

        Args:
            data_samples_list (list[SampleList]): For each image the samples of its versions, with ``seg_logits``.

        Returns:
            SampleList: One sample an image, with ``pred_sem_seg`` and the ``scene`` of an unmirrored version.
        """
        upright = [next((s for s in samples if not s.metainfo.get('flip')), None) for samples in data_samples_list]
        merged = super().merge_preds(data_samples_list)
        for sample, source in zip(merged, upright, strict=True):
            if source is not None and 'scene' in source:
                sample.scene = source.scene
            else:
                sample.pop('scene', None)
        return merged
