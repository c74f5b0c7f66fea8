"""Public names of a package that are imported when they are first accessed."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from ruas_mm.registry import load_component


class LazyNames(MetaPathFinder):
    """Names of a package, each loaded on demand; an instance is the package's ``__getattr__``.

    A name that cannot be loaded raises the error that Python expects in each place, always with the reason in it:

    * ``package.name``, and with it ``hasattr``, ``help`` and ``inspect.getmembers``: AttributeError;
    * ``from package import name``: ImportError. Python would turn the AttributeError into "cannot import name", without
      the reason, but it looks for a submodule of that name first. That look-up ends here.

    Args:
        package (str): Name of the package.
        modules (Mapping[str, str]): Public names, and the module that defines each.
    """

    def __init__(self, package: str, modules: Mapping[str, str]) -> None:
        self.package, self.modules = package, modules
        self._failed: dict[str, ImportError] = {}  # kept between the two look-ups of one `from … import`
        # Last, so that it is only used for modules that no other finder finds; once, even if the package is reloaded.
        sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, 'package', None) != package]
        sys.meta_path.append(self)

    def __call__(self, name: str) -> Any:
        """Return what ``package.name`` is; see :pep:`562`."""
        if name not in self.modules:
            raise AttributeError(f'module {self.package!r} has no attribute {name!r}')
        try:
            return load_component(f'{self.package}.{name}', self.modules[name])
        except ImportError as error:
            self._failed[name] = error
            raise AttributeError(str(error)) from error

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find no module, but raise the error that explains why a public name could not be imported."""
        package, _, name = fullname.rpartition('.')
        if package == self.package and (error := self._failed.pop(name, None)):
            raise error
        return None
