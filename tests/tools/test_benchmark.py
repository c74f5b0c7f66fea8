import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ruas_mm.models.enhance import RUAS

TOOL = Path(__file__).parents[2] / 'tools/analysis_tools/benchmark.py'


def run(*arguments):
    command = [TOOL, '--size', '24', '16', '--threads', '1', '--min-run-time', '0.01', *arguments]
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ('benchmark', 'only', 'count'),
    [('scene', 'training', 3), ('scene', 'derived, folded', 2), ('search', '', 4), ('enhance', 'A, folded, 1/4', 2)],
)
def test_runs(benchmark, only, count, tmp_path):
    out = tmp_path / 'rows.json'
    result = run(benchmark, '--only', only, '--out', out, *(['--process-time'] if benchmark == 'enhance' else []))
    assert result.returncode == 0, result.stderr
    rows = json.loads(out.read_text())['rows']
    assert len(rows) == count
    assert rows[0]['case'] == rows[0]['reference']
    assert rows[0]['speedup'] == 1
    assert all(row['median_ms'] > 0 and row['case'] in result.stdout for row in rows)
    assert any(only in row['case'] for row in rows)


def test_unknown_case():
    result = run('enhance', '--only', 'nothing')
    assert result.returncode == 2
    assert 'A, folded' in result.stderr and 'Traceback' not in result.stderr


def test_process_time_is_for_one_thread():
    result = run('enhance', '--process-time', '--device', 'cpu', '--only', 'S', '--threads', '2')
    assert result.returncode == 2 and '--threads 1' in result.stderr


@pytest.mark.parametrize('variant', ['S', 'full', 'A'])
def test_the_reference_computes_the_same(variant):
    plain_enhance = runpy.run_path(str(TOOL))['plain_enhance']
    torch.manual_seed(0)
    y = 0.4 * torch.rand(1, 3, 9, 14, dtype=torch.float64)
    for epsilon in (-1.0, 1e9):
        model = RUAS(variant, epsilon=epsilon).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
            expected = model.enhance(y).enhanced
            torch.testing.assert_close(plain_enhance(model, y), expected, rtol=0, atol=1e-12)
