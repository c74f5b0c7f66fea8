"""Version of ruas_mm."""

__version__ = '0.1.0'
