import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / 'tools/analysis_tools/benchmark.py'
CASES = {
    'scene': 6,
    'search': 4,
}


@pytest.mark.parametrize('benchmark', CASES)
def test_runs(benchmark, tmp_path):
    out = tmp_path / 'rows.json'
    command = [TOOL, benchmark, '--size', '24', '16', '--threads', '1', '--min-run-time', '0.01', '--out', out]
    result = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    rows = json.loads(out.read_text())['rows']
    assert len(rows) == CASES[benchmark]
    assert rows[0]['case'] == rows[0]['reference']
    assert rows[0]['speedup'] == 1
    assert all(row['median_ms'] > 0 and row['case'] in result.stdout for row in rows)
