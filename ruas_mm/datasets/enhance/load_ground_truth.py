"""The well lit image of a sample."""

from __future__ import annotations

from mmcv.transforms import LoadImageFromFile


class LoadGroundTruth(LoadImageFromFile):
    """Load the ground truth as ``LoadImageFromFile`` loads the image, with the same options.

    Added key: ``gt`` (uint8, H×W×3, BGR), from ``gt_path``; samples without that key stay as they are.
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
