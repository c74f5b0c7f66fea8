"""Load the ground truth of an enhancement sample."""

from __future__ import annotations

from mmcv.transforms import LoadImageFromFile


class LoadGroundTruth(LoadImageFromFile):
    """Load the ground truth image; a ``LoadImageFromFile`` with the same arguments.

    Added key: ``gt`` (uint8, H×W×3, BGR), read from ``gt_path``. Samples without ``gt_path`` are left unchanged.
    """

    def transform(self, results: dict) -> dict:
        """Load ``results['gt_path']``, if there is one.

        Args:
            results (dict): The sample.

        Returns:
            dict: The same dict, with ``gt``.
        """
        if 'gt_path' in results:
            results['gt'] = super().transform({'img_path': results['gt_path']})['img']
        return results
