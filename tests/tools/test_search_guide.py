"""What docs/search.md shows of one's own model runs as it is written there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmdet.models')
pytest.importorskip('skimage')

sys.path.insert(0, str(Path(__file__).parent))
from test_train_test import ROOT
from tiny_search import make_data, options

from ruas_mm.search import HIGH_LEVEL_SPACE, Genotype

GUIDE = ROOT / 'docs' / 'search.md'


def test_another_neck_is_searched(tmp_path):
    section = GUIDE.read_text().partition('## Your own model')[2].partition('\n## ')[0]
    files = {name: code for code, name in re.findall(r'^```python\n(# (\S+\.py)\n.*?)^```', section, re.M | re.S)}
    assert len(files['searchable_mapper.py'].splitlines()) <= 30
    for name, code in files.items():
        (tmp_path / name).write_text(code)
    (command,) = re.findall(r'^PYTHONPATH=\. python path/to/(tools/train\.py) (.+)$', section, re.M)
    tool, config = command
    data = make_data(tmp_path)

    done = subprocess.run(
        [sys.executable, ROOT / tool, config, '--work-dir', 'work', *options(data, **{'train_cfg.max_epochs': 1})],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': f'.{os.pathsep}{ROOT}', 'OMP_NUM_THREADS': '1'},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = Genotype.load(tmp_path / 'work' / 'genotype.json')
    mapper = {slot: operation for slot, operation in found.slots.items() if slot.startswith('mapper.')}
    assert list(mapper) == ['mapper.level_1', 'mapper.level_2', 'mapper.level_3']
    assert set(mapper.values()) <= set(HIGH_LEVEL_SPACE)
    assert any(slot.startswith('scene.') for slot in found.slots)
