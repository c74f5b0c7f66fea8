"""mmseg's test-time augmentation with the scene of an image that is not flipped."""

from mmseg.models import SegTTAModel as _SegTTAModel
from mmseg.utils import SampleList


class SegTTAModel(_SegTTAModel):
    """Merges the predictions of the augmented versions of an image.

    mmseg takes everything else from the last version. That version is often flipped, so its scene would not match the
    merged prediction.
    """

    def merge_preds(self, data_samples_list: list[SampleList]) -> SampleList:
        """Merge the predictions of each image.

        Args:
            data_samples_list (list[SampleList]): For each image, the samples of its versions, with ``seg_logits``.

        Returns:
            SampleList: One sample per image, with ``pred_sem_seg`` and the ``scene`` of a version that is not flipped.
        """
        upright = [next((s for s in samples if not s.metainfo.get('flip')), None) for samples in data_samples_list]
        merged = super().merge_preds(data_samples_list)
        for sample, source in zip(merged, upright, strict=True):
            if source is not None and 'scene' in source:
                sample.scene = source.scene
            else:
                sample.pop('scene', None)
        return merged
