import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('rich')

TOOL = Path(__file__).resolve().parents[2] / 'tools/analysis_tools/compare_results.py'
AP, RECALL = 'darkface/voc_area_ap50', 'darkface/recall'


def run(*args):
    return subprocess.run([sys.executable, TOOL, *map(str, args)], capture_output=True, text=True)


def rows(done):
    """The cells of each row, by the name of the run."""
    assert done.returncode == 0, done.stderr
    table = [[cell.strip() for cell in re.split('[│┃]', line)[1:-1]] for line in done.stdout.splitlines()]
    return {cells[0]: cells[1:] for cells in table if cells}


@pytest.fixture
def work_dir(tmp_path):
    """Make a work directory as ``tools/test.py`` leaves it."""

    def make(name, precision, recall=0.5, time='20260102_030405'):
        folder = tmp_path / name / time
        folder.mkdir(parents=True)
        figures = {AP: precision, RECALL: recall, 'data_time': 0.1, 'time': 0.2}
        (folder / f'{time}.json').write_text(json.dumps(figures))
        return folder.parent

    return make


def test_one_run_each(work_dir):
    done = run(work_dir('found', 0.51239), work_dir('published', 0.4))
    assert rows(done) == {
        'run': ['one run', 'mean ± sd'],
        'found': ['0.5124', '0.5124'],
        'published': ['0.4000', '0.4000'],
    }
    assert AP in done.stdout


def test_seeds_share_a_row(work_dir):
    """Numbers at the end of a name alone make a seed; the standard deviation is the sample's."""
    searched = [work_dir(f'ssd300_searched_{seed}', value) for seed, value in ((0, 0.1), (2, 0.2), (10, 0.3))]
    fixed = [work_dir('ssd300_fixed_2', 0.4), work_dir('ssd300_fixed_0', 0.2)]
    assert rows(run(*searched, *fixed)) == {
        'run': ['seed 0', 'seed 2', 'seed 10', 'mean ± sd'],
        'ssd300_searched': ['0.1000', '0.2000', '0.3000', '0.2000 ± 0.1000'],
        'ssd300_fixed': ['0.2000', '0.4000', '', '0.3000 ± 0.1414'],
    }


def test_last_test_counts(work_dir):
    """Neither an earlier one nor what training logged."""
    work_dir('a', 0.9, time='20260101_235959')
    folder = work_dir('a', 0.3, time='20260102_000000')
    for later in ('20260103_000000', '20260102_000000'):
        logged = folder / later / 'vis_data' / f'{later}.json'
        logged.parent.mkdir(parents=True)
        logged.write_text('{"loss": 1.0}\n{"loss": 0.5}\n')
    assert rows(run(folder))['a'] == ['0.3000', '0.3000']


def test_chosen_metric(work_dir):
    done = run(work_dir('a', 0.1, recall=0.7), '--metric', 'recall')
    assert rows(done)['a'] == ['0.7000', '0.7000']


def one_sentence(done, *words):
    assert done.returncode == 1
    assert done.stdout == ''
    (message,) = done.stderr.splitlines()
    assert message.startswith('Error: ')
    for word in words:
        assert str(word) in message


def test_missing_result(work_dir, tmp_path):
    """Trained and not yet tested, or no such folder."""
    tested = work_dir('a', 0.1)
    log = tmp_path / 'untested' / '20260102_030405' / 'vis_data' / '20260102_030405.json'
    log.parent.mkdir(parents=True)
    log.write_text('{"loss": 1.0}\n')
    for folder in (tmp_path / 'untested', tmp_path / 'nowhere'):
        one_sentence(run(tested, folder), f'{folder} holds no test result', 'tools/test.py')


def test_unknown_metric(work_dir):
    folder = work_dir('a', 0.1)
    one_sentence(run(folder, '--metric', 'speed'), folder, 'speed', AP, RECALL)


def test_results_that_cannot_be_read_or_told_apart(tmp_path):
    for folder, content in (('cut', '{"a/ap": 0.'), ('bare', '{"note": "none"}')):
        (tmp_path / folder / '20260101').mkdir(parents=True)
        (tmp_path / folder / '20260101' / '20260101.json').write_text(content)
    for name in ('x/run', 'y/run'):
        (tmp_path / name / '20260101').mkdir(parents=True)
        (tmp_path / name / '20260101' / '20260101.json').write_text('{"a/ap": 0.5}')
    for folders, words in (
        (['cut'], 'is damaged'),
        (['bare'], 'holds no figures'),
        (['x/run', 'y/run'], 'two work directories are called run'),
    ):
        done = run(*(tmp_path / folder for folder in folders))
        assert done.returncode != 0
        assert words in done.stderr
        assert 'Traceback' not in done.stderr
