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


@pytest.mark.parametrize(('warmup', 'scene', 'task'), [(0, 4, 6), (1, 3, 5), (0.3, 2, 4), (0.0, 4, 6), (9, 0, 0)])
def test_planned_steps_of_a_number_or_a_share_of_warmup(warmup, scene, task):
    """Two rounds of two and three iterations: 4 of the scene phase and 6 of the task phase; a share is rounded up."""
    schedule = PhaseSchedule('cooperative', scene_iters=2, task_iters=3, warmup=warmup)
    schedule.start(True, 10)
    assert [schedule.planned_steps(phase) for phase in (Phase.SCENE, Phase.TASK, Phase.JOINT)] == [scene, task, 0]


def test_progress_runs_from_the_first_step_of_a_phase_to_its_last():
    schedule = PhaseSchedule('cooperative', scene_iters=1, task_iters=1, warmup=1)
    schedule.start(True, 8)
    seen = []
    for iteration in range(8):
        phase = schedule.phase(iteration)
        if phase is Phase.TASK:
            seen.append(schedule.progress(phase))
        schedule.count(phase)
    assert seen == [0, 0, 0.5, 1]
