"""What is installed: configs that others inherit, the command, and all that the package imports."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PIP = [sys.executable, '-m', 'pip']
OFFLINE = ['--quiet', '--no-index', '--no-deps']
CONFIG = 'detection/ruas_ssd_darkface.py'
READ_CONFIG = """
import json, sys
from mmengine.config import Config
if sys.argv[2] == 'imported':
    import ruas_mm
config = Config.fromfile(sys.argv[1])
import ruas_mm
print(json.dumps([ruas_mm.__file__, config.model.type, config.mine]))
"""


def run(*command, env=None, cwd=None):
    """Run a program, outside the repository and without what this process was told to import; return its output."""
    clean = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**clean, 'PYTHONDONTWRITEBYTECODE': '1', **(env or {})},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The folder everything is built in, with a copy of the repository, since builds leave files in their sources."""
    folder = tmp_path_factory.mktemp('install')
    skip = shutil.ignore_patterns(
        '.*env*', '.git', '.stacks', '__pycache__', '.*_cache', 'work_dirs', 'data', 'build', '*.egg-info'
    )
    shutil.copytree(ROOT, folder / 'source', symlinks=True, ignore=skip)
    return folder


@pytest.fixture(scope='module')
def wheel(folder):
    run(*PIP, 'wheel', *OFFLINE, '--no-build-isolation', '-w', folder / 'wheel', folder / 'source', cwd=folder)
    return next((folder / 'wheel').glob('ruas_mm-*.whl'))


def from_wheel(folder, request):
    """Install the wheel into a folder of its own."""
    run(*PIP, 'install', *OFFLINE, '--target', folder / 'target', request.getfixturevalue('wheel'), cwd=folder)
    return [sys.executable], {'PYTHONPATH': str(folder / 'target')}, folder / 'target'


def editable(folder, request):
    """Install the sources editable into an environment that borrows the heavy packages of this one."""
    run(sys.executable, '-m', 'venv', '--without-pip', folder / 'venv', cwd=folder)
    python = folder / 'venv/bin/python'
    packages = run(python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))', cwd=folder).strip()
    borrowed = [path for path in sys.path if path.endswith('-packages')]
    Path(packages, 'borrowed.pth').write_text('\n'.join(borrowed))
    install = ['install', *OFFLINE, '--no-build-isolation', '--editable', folder / 'source']
    run(*PIP, '--python', python, *install, cwd=folder)
    return [python], {}, folder / 'source'


def pythonpath(folder, request):
    """Install nothing."""
    return [sys.executable], {'PYTHONPATH': str(folder / 'source')}, folder / 'source'


@pytest.mark.parametrize('install', [from_wheel, editable, pythonpath], ids=lambda install: install.__name__)
def test_foreign_config_inherits_ours(install, folder, request, tmp_path):
    python, env, home = install(folder, request)
    ours = f"'ruas_mm::{CONFIG}'"
    for base, mode in (ours, 'imported'), (f"__import__('ruas_mm') and {ours}", 'not imported'):
        (tmp_path / 'foreign.py').write_text(f'_base_ = {base}\nmine = 1\n')
        output = run(*python, '-c', READ_CONFIG, tmp_path / 'foreign.py', mode, env=env, cwd=tmp_path)
        file, model, mine = json.loads(output.splitlines()[-1])
        assert Path(file).is_relative_to(home), file
        assert model.endswith('RUASSingleStageDetector')
        assert mine == 1


def test_command_is_installed(folder, request, tmp_path):
    """With the configs that it knows by name."""
    python, env, home = from_wheel(folder, request)
    command = home / 'bin' / 'ruas'
    assert run(command, '--version', env=env, cwd=tmp_path).startswith('ruas_mm ')
    find = 'from ruas_mm.cli.shipped_configs import find_config; print(find_config("detection/ruas_ssd_demo"))'
    found = Path(run(*python, '-c', find, env=env, cwd=tmp_path).strip())
    assert found.is_relative_to(home) and found.is_file()


def test_what_is_imported_is_required(wheel):
    """Whatever a module imports at its top, but the toolboxes: pip installs it with the package."""
    imported = set()
    for path in ROOT.glob('ruas_mm/**/*.py'):
        if '.mim' in path.parts:
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import):
                imported |= {name.name.partition('.')[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition('.')[0])
    imported -= {*sys.stdlib_module_names, 'ruas_mm', 'mmcv', 'mmdet', 'mmseg', 'mmagic'}
    distributions = {'cv2': 'opencv-python', 'PIL': 'pillow'}
    required = {item.name for item in requirements_of(wheel) if not item.marker}
    assert required == {distributions.get(name, name) for name in imported}


def requirements_of(wheel):
    """Return what a wheel requires, always or for an extra."""
    return [Requirement(line) for line in metadata_of(wheel).get_all('Requires-Dist')]


def metadata_of(wheel):
    (name,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith('.dist-info/METADATA'))
    return Parser().parsestr(zipfile.ZipFile(wheel).read(name).decode())


def test_wheel_is_complete(wheel, folder):
    names = set(zipfile.ZipFile(wheel).namelist())
    source = folder / 'source'
    expected = {f'ruas_mm/.mim/{path.relative_to(source)}' for path in source.glob('configs/**/*.py')}
    expected |= {f'ruas_mm/.mim/{path.relative_to(source)}' for path in source.glob('configs/**/*.yml')}
    expected |= {
        f'ruas_mm/.mim/{path.relative_to(source)}'
        for path in source.glob('tools/**/*.*')
        if path.suffix in ('.py', '.sh')
    }
    expected |= {str(path.relative_to(source)) for path in source.glob('ruas_mm/**/*.py')}
    expected |= {str(path.relative_to(source)) for path in source.glob('ruas_mm/search/genotypes/*.json')}
    assert {f'ruas_mm/.mim/configs/{CONFIG}', 'ruas_mm/.mim/model-index.yml'} <= names
    assert expected <= names
    assert all(name.startswith(('ruas_mm/', 'ruas_mm-')) for name in names)


def test_extras_are_those_of_the_docs_and_leave_mmcv_alone(wheel):
    """No extra asks for mmcv, which plain pip cannot build; mmcv-lite, the same package, is in one alone."""
    requirements = requirements_of(wheel)
    extras = {
        extra: {item.name for item in requirements if item.marker and item.marker.evaluate({'extra': extra})}
        for extra in metadata_of(wheel).get_all('Provides-Extra')
    }
    table = (ROOT / 'docs/installation.md').read_text().partition('| extra |')[2].partition('\n\n')[0]
    assert set(re.findall(r'^\| `(\w+)`', table, re.MULTILINE)) == set(extras)
    assert {extra for extra, names in extras.items() if names & {'mmcv', 'mmcv-lite'}} == {'enhancement'}
    assert extras['all'] == set().union(*extras.values()) - {'mmcv-lite'}
    for extra in 'detection', 'segmentation', 'enhancement':  # the configs write their curves to it
        assert 'tensorboard' in extras[extra]
    always = {item.name: item.specifier for item in requirements if not item.marker}
    assert not always['torch'].contains('2.0.1') and always['torch'].contains('2.1.0')
    assert not any(part.operator in ('<', '<=', '==', '~=') for specifier in always.values() for part in specifier)


def test_wheel_from_source_archive_is_the_same(wheel, folder):
    build = 'import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])'
    run(sys.executable, '-c', build, folder / 'archive', cwd=folder / 'source')
    archive = next((folder / 'archive').glob('*.tar.gz'))
    run(*PIP, 'wheel', *OFFLINE, '--no-build-isolation', '-w', folder / 'again', archive, cwd=folder)
    again = next((folder / 'again').glob('ruas_mm-*.whl'))
    assert zipfile.ZipFile(again).namelist() == zipfile.ZipFile(wheel).namelist()


def test_metafiles_name_existing_configs():
    import yaml

    for metafile in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']:
        content = yaml.safe_load((ROOT / metafile).read_text())
        collections = {collection['Name'] for collection in content['Collections']}
        for model in content['Models']:
            assert (ROOT / model['Config']).is_file(), model['Config']
            assert model['In Collection'] in collections
