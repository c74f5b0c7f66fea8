"""Detection with mmdet."""

# mmdet registers this class in another scope, so configs that write `mmdet.DetTTAModel` cannot find it.
from mmdet.models import DetTTAModel

from ruas_mm.models.detection.data_preprocessor import RUASDetDataPreprocessor
from ruas_mm.models.detection.single_stage import RUASSingleStageDetector
from ruas_mm.models.detection.ssd_head import SearchableSSDHead, SSDHead
from ruas_mm.models.detection.ssd_neck import SearchableSSDNeck
from ruas_mm.models.detection.vgg import SSDVGG

__all__ = [
    'SSDVGG',
    'DetTTAModel',
    'RUASDetDataPreprocessor',
    'RUASSingleStageDetector',
    'SSDHead',
    'SearchableSSDHead',
    'SearchableSSDNeck',
]
