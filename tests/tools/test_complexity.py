"""tools/analysis_tools/complexity.py against what METHOD §5 counts."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ruas_mm.models.enhance import RUAS

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'analysis_tools' / 'complexity.py'
CONFIGS = ROOT / 'configs' / 'enhance'


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('complexity', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_counts(tool):
    """The estimator's convolutions are counted exactly; what the cells cost depends on how they are run."""
    size = (40, 30)
    found = {variant: tool.measure(RUAS(variant), size, 'cpu', 0.0) for variant in ('S', 'full', 'A')}
    assert [found[variant].params for variant in ('S', 'full', 'A')] == [1161, 1161 + 5985, 1161 + 5985 + 29507]
    biases = 4 * 32 + 3
    estimator = 40 * 30 * (29507 - biases) / 1e9
    assert found['A'].gflops - found['full'].gflops == pytest.approx(estimator, rel=1e-6)
    assert 0 < found['S'].gflops < found['full'].gflops
    assert all(cost.ms > 0 for cost in found.values())
    wider = tool.measure(RUAS('S'), (80, 30), 'cpu', 0.0)
    assert wider.gflops == pytest.approx(2 * found['S'].gflops, rel=1e-6)


def test_command_line():
    command = [sys.executable, str(TOOL), str(CONFIGS / 'ruas_s_lol.py'), '--size', '32', '24']
    done = subprocess.run([*command, '--json'], capture_output=True, text=True, env={'PYTHONPATH': str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)['params'] == 1161
