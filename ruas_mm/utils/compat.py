"""Workarounds for known bugs of other packages."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from types import ModuleType

import mmengine.config
import mmengine.utils
from mmengine.config.utils import MODULE2PACKAGE


def apply_compatibility() -> None:
    """Apply workarounds for known upstream bugs, each only if the bug is present.

    * ``_base_ = 'package::…'`` where setuptools has no ``pkg_resources`` (from version 81 on), with mmengine 0.10.7;
    * ``_base_ = 'mmseg::…'`` with a distribution of mmseg that is not called mmsegmentation;
    * ``import torchvision`` (published wheels are CUDA builds) beside a CPU-only torch;
    * loading mmengine checkpoints with torch >= 2.6, safely: see :mod:`ruas_mm.utils.checkpoint`.

    This function is fast and can be called more than once. It does not import torch, torchvision or mmengine's runner;
    their workarounds are applied when another module imports them.
    """
    _find_packages_without_pkg_resources()
    _name_mmseg()
    waiting = {}
    for module, workaround in _WORKAROUNDS.items():
        if module in sys.modules:
            workaround()
        else:
            waiting[module] = workaround
    if not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport(waiting))


def _find_packages_without_pkg_resources() -> None:
    """Let mmengine find other packages and their configs if pkg_resources is not installed."""
    if find_spec('pkg_resources') is None and 'pkg_resources' in mmengine.utils.is_installed.__code__.co_names:
        # mmengine.hub imports these functions from mmengine.utils, if it is imported later.
        for module in (mmengine.utils, mmengine.utils.package_utils, mmengine.config.config):
            module.is_installed, module.get_installed_path = _is_installed, _get_installed_path


def _is_installed(package: str) -> bool:
    try:
        _get_installed_path(package)
    except PackageNotFoundError:
        return False
    return True


def _get_installed_path(package: str) -> str:
    """Return the folder of a package, given the name of its module or of its distribution (mmsegmentation)."""
    try:
        module = (distribution(package).read_text('top_level.txt') or package).split()[0]
    except PackageNotFoundError:
        module = package
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise PackageNotFoundError(package)
    return os.path.dirname(spec.origin)


def _name_mmseg() -> None:
    """Let mmengine find mmseg's configs by module name where no distribution called mmsegmentation exists."""
    try:
        distribution('mmsegmentation')
    except PackageNotFoundError:
        if find_spec('mmseg') is not None:
            MODULE2PACKAGE['mmseg'] = 'mmseg'


def _define_torchvision_operators() -> None:
    """Define the two operator schemas that torchvision's import requires, if its binary cannot be loaded.

    The operators are not implemented: ``torchvision.ops.nms`` still reports that the compiled operators are missing.
    """
    from torchvision.extension import _has_ops

    if _has_ops():
        return
    import torch

    for schema in (
        'nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
        'qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
    ):
        if not hasattr(torch.ops.torchvision, schema.partition('(')[0]):
            library = torch.library.Library('torchvision', 'FRAGMENT')
            library.define(schema)
            _LIBRARIES.append(library)  # the definitions are removed with the library object


def _register_checkpoint_loaders() -> None:
    from ruas_mm.utils.checkpoint import register_loaders

    register_loaders()


_LIBRARIES: list = []

# Module -> function to call right after the module has been imported.
_WORKAROUNDS: dict[str, Callable[[], None]] = {
    'torchvision.extension': _define_torchvision_operators,  # loads the binary; the schemas are needed right afterwards
    'mmengine.runner.checkpoint': _register_checkpoint_loaders,
}


class _AfterImport(MetaPathFinder):
    """Calls a function when the module of that name has been imported."""

    def __init__(self, actions: dict[str, Callable[[], None]]) -> None:
        self.actions = actions

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        action = self.actions.get(fullname)
        spec = PathFinder.find_spec(fullname, path, target) if action else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_then_act(module: ModuleType) -> None:
            execute(module)
            action()

        spec.loader.exec_module = execute_then_act
        return spec
