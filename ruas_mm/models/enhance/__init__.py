"""Low-light enhancement. What is here needs mmengine alone."""

from ruas_mm.models.enhance.data_preprocessor import RUASDataPreprocessor
from ruas_mm.models.enhance.ruas import RUAS

__all__ = ['RUAS', 'RUASDataPreprocessor']
