"""What users call: the inferencer, and the command line tools' common part."""

from __future__ import annotations

from ruas_mm.utils.lazy_names import LazyNames

__all__ = ['RUASInferencer']

__getattr__ = LazyNames(__name__, {'RUASInferencer': 'ruas_mm.apis.inferencer'})  # the training tools do without


def __dir__() -> list[str]:
    return sorted(__all__)
