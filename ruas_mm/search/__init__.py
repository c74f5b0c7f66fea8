"""What may vary in an architecture and how it is decided (torch only)."""

from ruas_mm.search.bilevel import architecture_gradient
from ruas_mm.search.exponentiated_gradient import ExponentiatedGradient
from ruas_mm.search.genotype import Genotype, set_genotype
from ruas_mm.search.mixed_op import DrawnCandidate, MixedOp, reset_scales
from ruas_mm.search.operations import HIGH_LEVEL_SPACE, OPERATIONS, SCENE_SPACE, Operation, build_operation
from ruas_mm.search.phase import Phase
from ruas_mm.search.slots import (
    RELAXATIONS,
    GenotypeLike,
    SearchSlots,
    derive_genotype,
    searchable_slots,
    slot_edges,
)

__all__ = [
    'HIGH_LEVEL_SPACE',
    'OPERATIONS',
    'RELAXATIONS',
    'SCENE_SPACE',
    'DrawnCandidate',
    'ExponentiatedGradient',
    'Genotype',
    'GenotypeLike',
    'MixedOp',
    'Operation',
    'Phase',
    'SearchSlots',
    'architecture_gradient',
    'build_operation',
    'derive_genotype',
    'reset_scales',
    'searchable_slots',
    'set_genotype',
    'slot_edges',
]
