"""What users call: the inferencer, and the command line tools' common part."""

from __future__ import annotations

from typing import Any

__all__ = ['RUASInferencer']


def __getattr__(name: str) -> Any:
    if name in __all__:  # only now: the training tools do not need it
        from ruas_mm.apis.inferencer import RUASInferencer

        return RUASInferencer
    raise AttributeError(f"module 'ruas_mm.apis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
