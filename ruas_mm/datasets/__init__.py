"""Low-light data sets, the transforms that synthesise them, and the split of a data set for a search."""

from ruas_mm.datasets.split import split_dataset

__all__ = ['split_dataset']
