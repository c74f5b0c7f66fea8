"""The fuzzer: few cases of each kind by the tool itself, and that it sees what it looks for."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('mmdet.models', exc_type=ImportError)
pytest.importorskip('av')

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'analysis_tools' / 'fuzz.py'
SPEC = importlib.util.spec_from_file_location('fuzz', TOOL)
fuzz = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(fuzz)


def test_a_few_attacks_of_each_kind(tmp_path):
    command = [sys.executable, TOOL, '--n', '60', '--seed', '1', '--out', tmp_path / 'out.json']
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / 'out.json').read_text())
    assert set(result['counts']) == {'pictures', 'videos', 'labels', 'genotypes', 'checkpoints', 'configs'}
    assert sum(sum(counts.values()) for counts in result['counts'].values()) >= 60
    assert result['bad'] == []


def unexpected(rng, folder):
    raise KeyError('deep inside')


def lost(rng, folder):
    raise fuzz.SilentLoss('half of it is gone')


def run_code(rng, folder):
    (folder / 'payload.txt').touch()
    return 'refused'


def hang(rng, folder):
    while True:
        pass


def crash(rng, folder):
    os.kill(os.getpid(), signal.SIGKILL)


def take_memory(rng, folder):
    np.ones(2**40, np.uint8)
    return 'accepted'


@pytest.mark.parametrize(
    ('attack', 'outcome'),
    [
        (unexpected, 'traceback'),
        (lost, 'silent loss'),
        (run_code, 'payload'),
        (hang, 'hang'),
        (crash, 'crash'),
        (take_memory, 'traceback'),
        (lambda rng, folder: 'accepted', 'accepted'),
    ],
)
def test_each_outcome_is_seen(monkeypatch, tmp_path, attack, outcome):
    monkeypatch.setitem(fuzz.ATTACKS, 'odd', fuzz.Attack(attack, 1.0, lambda: None))
    assert fuzz.run_case('odd', 0, 7, tmp_path, seconds=1).outcome == outcome


def test_a_case_is_determined_by_its_number(monkeypatch, tmp_path):
    drawn = []
    draw = fuzz.Attack(lambda rng, folder: str(rng.integers(10**9)), 1.0, lambda: None)
    monkeypatch.setitem(fuzz.ATTACKS, 'odd', draw)
    for folder, number in (('a', 3), ('b', 3), ('c', 4)):
        (tmp_path / folder).mkdir()
        drawn.append(fuzz.run_case('odd', 0, number, tmp_path / folder, seconds=60).outcome)
    assert drawn[0] == drawn[1] != drawn[2]
