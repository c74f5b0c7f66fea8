import importlib.util
import subprocess
import sys

import mmengine.registry
import pytest

from ruas_mm.registry import COMPONENTS, MODELS

BLOCK_MMDET = """
import sys
from importlib.abc import MetaPathFinder

class Block(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == 'mmdet':
            raise ModuleNotFoundError("No module named 'mmdet'", name='mmdet')

sys.meta_path.insert(0, Block())
"""


def run(code):
    """Run code in a fresh interpreter and return what it printed."""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_missing_host_disables_its_own_components_only():
    code = """
import ruas_mm, ruas_mm.search, ruas_mm.modules
from mmengine.registry import MODELS
assert ruas_mm.SceneModule is ruas_mm.modules.SceneModule
MODELS.build(dict(type='ruas_mm.SceneModule'))
for ask in lambda: ruas_mm.RUASDetDataPreprocessor, lambda: MODELS.get('ruas_mm.RUASDetDataPreprocessor'):
    try:
        ask()
    except ImportError as error:
        print(error)
"""
    expected = 'ruas_mm.RUASDetDataPreprocessor needs mmdet, which cannot be used here: '
    lines = run(BLOCK_MMDET + code).splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith(expected) and "No module named 'mmdet'" in line


def test_type_resolves_without_custom_imports():
    code = """
from mmengine.registry import MODELS
import ruas_mm.version  # any import of the package, such as that of a config, is enough
print(MODELS.build(dict(type='ruas_mm.SceneModule')).__class__.__module__)
"""
    assert run(code).startswith('ruas_mm.modules')


@pytest.mark.parametrize('package', ['ruas_mm', 'ruas_mm.search', 'ruas_mm.modules', 'ruas_mm.losses'])
def test_import_arrows(package):
    hosts = {'mmcv', 'mmdet', 'mmseg', 'mmagic'}
    assert run(f'import sys, {package}; print(sorted({hosts} & set(sys.modules)))') == '[]'


@pytest.mark.parametrize('module', sorted({m for registry in COMPONENTS.values() for m in registry.values()}))
def test_listed_modules_exist(module):
    assert importlib.util.find_spec(module) is not None


def test_unknown_name_is_not_ours():
    import ruas_mm

    with pytest.raises(AttributeError, match='NoSuchThing'):
        _ = ruas_mm.NoSuchThing
    assert MODELS.get('ruas_mm.NoSuchThing') is None


def test_every_registry_knows_the_scope():
    """Or mmengine warns of it whenever a config of this package is inherited elsewhere, and built in its scope."""
    roots = [
        registry for registry in vars(mmengine.registry).values() if isinstance(registry, mmengine.registry.Registry)
    ]
    assert len(roots) > 15
    for root in roots:
        with root.switch_scope_and_registry('ruas_mm') as registry:
            assert (registry.scope, registry.name) == ('ruas_mm', root.name)
