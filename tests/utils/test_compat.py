import subprocess
import sys
from importlib.util import find_spec

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


INHERIT = """
from mmengine.config import Config
for base in sys.argv[1:]:
    with open('inherits.py', 'w') as file:
        file.write(f'_base_ = {base!r}')
    try:
        print(Config.fromfile('inherits.py').model.data_preprocessor.type)
    except Exception as error:
        print(type(error).__name__, error)
"""
NO_PKG_RESOURCES = "import sys; sys.modules['pkg_resources'] = None; import ruas_mm"  # setuptools 81 and newer


def inherit(bases, cwd):
    command = [sys.executable, '-c', NO_PKG_RESOURCES + INHERIT, *bases]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout.splitlines()


def test_configs_of_packages_without_pkg_resources(tmp_path):
    """By the name of the module (ruas_mm, mmdet) and where the distribution has another name (mmsegmentation)."""
    bases = {
        'ruas_mm::detection/ruas_ssd_demo.py': 'ruas_mm.RUASDetDataPreprocessor',
        'ruas_mm::segmentation/ruas_deeplab_demo.py': 'ruas_mm.RUASSegDataPreprocessor',
    }
    for host, config, kind in (
        ('mmdet', 'retinanet/retinanet_r50_fpn_1x_coco.py', 'DetDataPreprocessor'),
        ('mmseg', 'deeplabv3plus/deeplabv3plus_r50-d8_4xb2-80k_cityscapes-512x1024.py', 'SegDataPreProcessor'),
    ):
        if find_spec(host):
            bases[f'{host}::{config}'] = kind
    assert inherit(bases, tmp_path) == list(bases.values())


def test_package_that_is_not_there_without_pkg_resources(tmp_path):
    (message,) = inherit(['mmaction::tsn/tsn_r50.py'], tmp_path)
    assert message.startswith('ModuleNotFoundError mmaction2 is not installed')
