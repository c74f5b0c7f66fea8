"""Phases of the three strategies, warm-up, and the end of a search."""

import pytest

from ruas_mm.engine.phase_schedule import PhaseSchedule
from ruas_mm.search import Phase


def phases(strategy, iterations, has_scene=True, **options):
    schedule = PhaseSchedule(strategy, **options)
    schedule.start(has_scene, iterations)
    return ''.join(schedule.phase(iteration).value[0] for iteration in range(iterations))


@pytest.mark.parametrize(
    ('strategy', 'has_scene', 'expected'),
    [
        ('cooperative', True, 'sstttsstttss'),
        ('independent', True, 'sssstttttttt'),  # two fifths of twelve, rounded down
        ('global', True, 'jjjjjjjjjjjj'),
        ('cooperative', False, 'tttttttttttt'),
        ('independent', False, 'tttttttttttt'),
        ('global', False, 'jjjjjjjjjjjj'),
    ],
)
def test_phases_of_each_strategy(strategy, has_scene, expected):
    assert phases(strategy, 12, has_scene, scene_iters=2, task_iters=3) == expected


def test_warmup_counts_the_iterations_of_each_phase():
    schedule = PhaseSchedule('cooperative', scene_iters=1, task_iters=1, warmup=2)
    searched = []
    for iteration in range(8):
        phase = schedule.phase(iteration)
        searched.append(schedule.searches(phase))
        schedule.count(phase)
    assert searched == [False] * 4 + [True] * 4
    schedule.ended = 'enough'
    assert not schedule.searches(Phase.SCENE)


def test_state_is_restored():
    first = PhaseSchedule('independent')
    first.count(Phase.SCENE)
    first.begin_search(Phase.SCENE, 7)
    first.ended = 'enough'
    second = PhaseSchedule('independent')
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict()
    with pytest.raises(ValueError, match="'independent'.*'global'"):
        PhaseSchedule('global').load_state_dict(first.state_dict())
