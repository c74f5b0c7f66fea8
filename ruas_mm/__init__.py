"""RUAS for the OpenMMLab toolboxes: machine vision in the dark."""

from __future__ import annotations

from typing import Any

from mmengine.config.utils import MODULE2PACKAGE

from ruas_mm.registry import COMPONENTS, load_component
from ruas_mm.utils.compat import apply_compatibility
from ruas_mm.version import __version__

# `_base_ = 'ruas_mm::…'` in a config of another project. A submodule's name, so that mmengine looks the package up by
# import (wheel, editable and PYTHONPATH installs alike) and not by distribution.
MODULE2PACKAGE['ruas_mm'] = 'ruas_mm.version'

apply_compatibility()

_PUBLIC = {name: module for registry in COMPONENTS.values() for name, module in registry.items()}

__all__ = ['__version__']  # not the components: a star import would ask for every host


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return load_component(name, _PUBLIC[name])
    raise AttributeError(f"module 'ruas_mm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_PUBLIC])
