import importlib
import importlib.util
import subprocess
import sys

import mmengine.registry
import pytest

from ruas_mm.registry import COMPONENTS, MODELS

BREAK = """
import sys
from importlib.abc import MetaPathFinder

class Break(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in {modules}:
            raise {error}

sys.meta_path.insert(0, Break())
"""
NO_HOST = "import sys; sys.modules.update(dict.fromkeys(['mmdet', 'mmseg', 'mmagic']))"  # None: cannot be imported
# What torch 2.0 says to a module of ours that needs a newer one.
OLD_TORCH = BREAK.format(
    modules=['ruas_mm.modules.folded'], error='AttributeError("module \'torch.backends\' is too old")'
)


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
"""
    run(NO_HOST + code)


ASK = {
    'attribute': 'import ruas_mm; ruas_mm.{name}',
    'from import': 'from ruas_mm import {name}',
    'type in a config': 'import mmengine.registry; mmengine.registry.MODELS.get("ruas_mm.{name}")',
}


@pytest.mark.parametrize('way', ASK)
@pytest.mark.parametrize(
    ('broken', 'name', 'reason'),
    [
        (NO_HOST, 'RUASDetDataPreprocessor', 'needs mmdet, which cannot be imported: ModuleNotFoundError: '),
        (OLD_TORCH, 'SceneModule', "cannot be imported: AttributeError: module 'torch.backends' is too old"),
    ],
    ids=['missing host', 'old torch'],
)
def test_asking_for_what_cannot_be_imported_says_why(way, broken, name, reason):
    code = f"""
try:
    {ASK[way].format(name=name)}
except {'AttributeError' if way == 'attribute' else 'ImportError'} as error:
    print(error)
"""
    assert run(broken + code).startswith(f'ruas_mm.{name} {reason}')


def test_introspection_passes_over_what_cannot_be_imported():
    code = """
import inspect, pydoc
import ruas_mm
assert not hasattr(ruas_mm, 'RUASDetDataPreprocessor')
assert hasattr(ruas_mm, 'SceneModule')
members = dict(inspect.getmembers(ruas_mm))
assert 'SceneModule' in members and 'RUASDetDataPreprocessor' not in members
assert 'machine vision in the dark' in pydoc.render_doc(ruas_mm, renderer=pydoc.plaintext)  # what help() prints
"""
    run(NO_HOST + code)


def test_inferencer_that_cannot_be_imported():
    code = """
import inspect
import ruas_mm.apis
assert not hasattr(ruas_mm.apis, 'RUASInferencer')
assert 'RUASInferencer' not in dict(inspect.getmembers(ruas_mm.apis))
try:
    from ruas_mm.apis import RUASInferencer
except ImportError as error:
    print(error)
"""
    no_pillow = BREAK.format(modules=['PIL'], error='ModuleNotFoundError("No module named " + repr(name))')
    expected = "ruas_mm.apis.RUASInferencer cannot be imported: ModuleNotFoundError: No module named 'PIL'"
    assert run(no_pillow + code) == expected


def test_unknown_names():
    with pytest.raises(ImportError, match="cannot import name 'NoSuchThing'"):
        from ruas_mm import NoSuchThing  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match="No module named 'ruas_mm.no_such_module'"):
        importlib.import_module('ruas_mm.no_such_module')


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
