"""What a search needs, as the tool says it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmdet.models')
pytest.importorskip('mmseg.models')

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize('name', ['detection/ruas_ssd_demo_search.py', 'segmentation/ruas_deeplab_demo_search.py'])
def test_memory_of_a_small_search(name, tmp_path):
    tool = ROOT / 'tools' / 'analysis_tools' / 'search_memory.py'
    done = subprocess.run(
        [sys.executable, str(tool), str(ROOT / 'configs' / name), '--size', '96', '64', '--batch-size', '2'],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    figures = [float(figure) for figure in re.findall(r'│ +(\d+\.\d+) │', done.stdout)]
    assert len(figures) == 4
    assert figures == sorted(figures)  # a peak never falls
    assert 0 < figures[-1] < 3
