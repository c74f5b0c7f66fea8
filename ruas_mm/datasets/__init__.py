"""Data sets in the dark, the transforms that make them, and their division for a search."""

from ruas_mm.datasets.split import split_dataset

__all__ = ['split_dataset']
