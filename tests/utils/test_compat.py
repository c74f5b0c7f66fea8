import subprocess
import sys

from mmengine.config.utils import MODULE2PACKAGE

from ruas_mm.utils import compat


def run(code, **options):
    """Run code in a fresh interpreter and return its last line."""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_import_is_light():
    """Neither torch nor mmengine's runner is imported only to be cured."""
    heavy = {'torch', 'torchvision', 'mmengine.runner', 'mmcv', 'mmdet', 'mmseg'}
    assert run(f'import sys, ruas_mm; print(sorted({heavy} & set(sys.modules)))') == '[]'


def test_torchvision_imports_and_works():
    code = """
import ruas_mm
import torch, torchvision.extension
from torchvision.ops import box_iou
box = torch.tensor([[0., 0., 2., 2.]])
print(box_iou(box, box).item())
"""
    assert run(code) == '1.0'


def test_torchvision_without_its_binary_says_so():
    code = """
import ruas_mm
import torch, torchvision, torchvision.extension
if torchvision.extension._has_ops():
    print('has ops', len(torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)))
else:
    try:
        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except RuntimeError as error:
        print(error)
"""
    assert run(code).startswith(('has ops 1', "Couldn't load custom C++ ops"))


def test_working_torchvision_is_left_alone(monkeypatch):
    """Where torchvision's own binary works, nothing is defined that could stand before it."""
    import torchvision.extension

    monkeypatch.setattr(torchvision.extension, '_has_ops', lambda: True)
    before = list(compat._LIBRARIES)
    compat._define_torchvision_operators()
    assert before == compat._LIBRARIES


def test_defining_twice_is_harmless():
    compat._define_torchvision_operators()
    before = list(compat._LIBRARIES)
    compat._define_torchvision_operators()
    assert before == compat._LIBRARIES


def test_applying_twice_adds_one_finder():
    compat.apply_compatibility()
    compat.apply_compatibility()
    assert sum(isinstance(finder, compat._AfterImport) for finder in sys.meta_path) <= 1


def test_loaders_are_registered_in_either_order():
    show = 'print(mmengine.runner.checkpoint.CheckpointLoader._schemes[""].__module__)'
    assert run(f'import ruas_mm, mmengine.runner; {show}') == 'ruas_mm.utils.checkpoint'
    assert run(f'import mmengine.runner, ruas_mm; {show}') == 'ruas_mm.utils.checkpoint'


def test_mmseg_under_another_distribution(tmp_path):
    """A fork of mmsegmentation, whose distribution has another name, serves its configs."""
    (tmp_path / 'mmseg/.mim/configs/unet').mkdir(parents=True)
    (tmp_path / 'mmseg/__init__.py').touch()
    (tmp_path / 'mmseg/.mim/model-index.yml').write_text('Import: []')
    (tmp_path / 'mmseg/.mim/configs/unet/a.py').write_text('answer = 42')
    (tmp_path / 'inherits.py').write_text("_base_ = 'mmseg::unet/a.py'")
    code = f"""
import sys
from importlib import metadata
sys.path.insert(0, {str(tmp_path)!r})
original = metadata.distribution
def distribution(name):
    if name == 'mmsegmentation':
        raise metadata.PackageNotFoundError(name)
    return original(name)
metadata.distribution = distribution
import ruas_mm
from mmengine.config import Config
print(Config.fromfile({str(tmp_path / 'inherits.py')!r}).answer)
"""
    assert run(code) == '42'


def test_mmsegmentation_keeps_its_name(monkeypatch):
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', 'mmsegmentation')
    monkeypatch.setattr(compat, 'distribution', lambda name: name)
    compat._name_mmseg()
    assert MODULE2PACKAGE['mmseg'] == 'mmsegmentation'
