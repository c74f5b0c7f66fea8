"""Pipeline transforms."""

from .low_light_synthesis import LowLightSynthesis, darken

__all__ = ['LowLightSynthesis', 'darken']
