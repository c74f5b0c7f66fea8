"""RUAS for the OpenMMLab toolboxes: machine vision in the dark."""

from __future__ import annotations

from mmengine.config.utils import MODULE2PACKAGE

from ruas_mm.registry import COMPONENTS
from ruas_mm.utils.compat import apply_compatibility
from ruas_mm.utils.lazy_names import LazyNames
from ruas_mm.version import __version__

# Enables `_base_ = 'ruas_mm::…'` in configs of other projects. With the name of a submodule, mmengine finds the package
# by import instead of by distribution, which works for wheel, editable and PYTHONPATH installations.
MODULE2PACKAGE['ruas_mm'] = 'ruas_mm.version'

apply_compatibility()

_PUBLIC = {name: module for registry in COMPONENTS.values() for name, module in registry.items()}

__all__ = ['__version__']  # without the components: a star import would import every host

__getattr__ = LazyNames(__name__, _PUBLIC)


def __dir__() -> list[str]:
    return sorted([*__all__, *_PUBLIC])
