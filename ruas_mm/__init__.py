"""RUAS for the OpenMMLab toolboxes: machine vision in the dark."""

from __future__ import annotations

from mmengine.config.utils import MODULE2PACKAGE

from ruas_mm.registry import COMPONENTS
from ruas_mm.utils.compat import apply_compatibility
from ruas_mm.utils.lazy_names import LazyNames
from ruas_mm.version import __version__

# `_base_ = 'ruas_mm::…'` in a config of another project. A submodule's name, so that mmengine looks the package up by
# import (wheel, editable and PYTHONPATH installs alike) and not by distribution.
MODULE2PACKAGE['ruas_mm'] = 'ruas_mm.version'

apply_compatibility()

_PUBLIC = {name: module for registry in COMPONENTS.values() for name, module in registry.items()}

__all__ = ['__version__']  # not the components: a star import would ask for every host

__getattr__ = LazyNames(__name__, _PUBLIC)


def __dir__() -> list[str]:
    return sorted([*__all__, *_PUBLIC])
