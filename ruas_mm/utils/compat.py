"""The one place where ruas_mm works around faults of the packages around it."""

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
    """Cure what is known to break, each cure only where the fault is present.

    * ``_base_ = 'package::…'`` where setuptools has no ``pkg_resources`` (from version 81 on), with mmengine 0.10.7;
    * ``_base_ = 'mmseg::…'`` with a distribution of mmseg that is not called mmsegmentation;
    * ``import torchvision`` (published wheels are CUDA builds) beside a CPU-only torch;
    * loading mmengine checkpoints with torch >= 2.6, safely: see :mod:`ruas_mm.utils.checkpoint`.

    Cheap and safe to call more than once: torch, torchvision and mmengine's runner are not imported for it; the cure
    waits until somebody else imports them.
    """
    _find_packages_without_pkg_resources()
    _name_mmseg()
    waiting = {}
    for module, cure in _CURES.items():
        if module in sys.modules:
            cure()
        else:
            waiting[module] = cure
    if not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport(waiting))


def _find_packages_without_pkg_resources() -> None:
    """Let mmengine find other packages, and so their configs, where there is no pkg_resources to ask."""
    if find_spec('pkg_resources') is None and 'pkg_resources' in mmengine.utils.is_installed.__code__.co_names:
        # mmengine.hub takes them from mmengine.utils, later or never.
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
    """Give torchvision the two schemas its import asks for when its own binary cannot be loaded.

    Nothing is computed by them: ``torchvision.ops.nms`` still says that the compiled operators are missing.
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
            _LIBRARIES.append(library)  # its definitions go when it does


def _register_checkpoint_loaders() -> None:
    from ruas_mm.utils.checkpoint import register_loaders

    register_loaders()


_LIBRARIES: list = []

# Module -> what to do right after it has been imported, before its importer goes on.
_CURES: dict[str, Callable[[], None]] = {
    'torchvision.extension': _define_torchvision_operators,  # loads the binary; the schemas are asked for just after
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
