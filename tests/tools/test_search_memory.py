"""What a search needs, as the tool says it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmdet.models')

ROOT = Path(__file__).parents[2]


def test_memory_of_a_small_search(tmp_path):
    tool = ROOT / 'tools' / 'analysis_tools' / 'search_memory.py'
    config = ROOT / 'configs' / 'detection' / 'ruas_ssd_demo_search.py'
    done = subprocess.run(
        [sys.executable, str(tool), str(config), '--size', '96', '64'],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        cwd=tmp_path,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    figures = [float(figure) for figure in re.findall(r'│ +(\d+\.\d+) │', done.stdout)]
    assert len(figures) == 4
    assert figures == sorted(figures)  # a peak never falls
    assert 0 < figures[-1] < 3
