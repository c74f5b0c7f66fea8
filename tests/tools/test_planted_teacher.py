"""A search with a known answer: normalised kernels find the teacher's operations, others do not."""

import importlib.util
from pathlib import Path

TOOL = Path(__file__).parents[2] / 'tools' / 'analysis_tools' / 'planted_teacher.py'
SPEC = importlib.util.spec_from_file_location('planted_teacher', TOOL)
planted_teacher = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(planted_teacher)


def found(setting, seeds):
    return sum(planted_teacher.finds(planted_teacher.TEACHERS[1], setting, seed) for seed in range(seeds))


def test_normalised_kernels_find_the_teacher():
    assert found(planted_teacher.FULL, 10) >= 8


def test_the_size_of_the_weights_hides_the_teacher():
    """Without the normalisation: a candidate's weights can make up for its probability."""
    assert found(planted_teacher.FULL._replace(normalise=False), 5) <= 2
