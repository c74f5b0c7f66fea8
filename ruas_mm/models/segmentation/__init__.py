"""Segmentation with mmseg."""

from ruas_mm.models.segmentation.data_preprocessor import RUASSegDataPreprocessor
from ruas_mm.models.segmentation.deeplab_head import SearchableDeepLabHead
from ruas_mm.models.segmentation.encoder_decoder import RUASEncoderDecoder
from ruas_mm.models.segmentation.tta import SegTTAModel

__all__ = ['RUASEncoderDecoder', 'RUASSegDataPreprocessor', 'SearchableDeepLabHead', 'SegTTAModel']
