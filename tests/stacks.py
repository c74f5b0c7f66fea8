"""Try the wheel of ruas_mm in fresh environments: `make stacks`, or `python tests/stacks.py [NAME …]`.

Each stack is a virtual environment of its own under `.stacks/`, which is deleted afterwards: the lowest, the pinned and
the newest torch for every Python that is present, and the OneDL forks. In each one the wheel is installed, a picture is
enhanced, a config is inherited, and the quick tests run. The last thing printed is a table with the state of every
stack: `passed`, `failed`, or `unavailable` where its packages cannot be installed here. The logs stay in `.stacks/`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / '.stacks'
PYTHONS = ('3.10', '3.11', '3.12', '3.13', '3.14')
# The first torch >= 2.1 with wheels for that Python.
LOWEST = {'3.10': '2.1.2', '3.11': '2.1.2', '3.12': '2.2.2', '3.13': '2.5.1', '3.14': '2.9.0'}
TESTS = ('search', 'modules', 'apis', 'test_registry.py')
TOOLS = ('pytest', 'pytest-timeout', 'hypothesis', 'scikit-image')
CHECK = """
import subprocess, sysconfig
import cv2, mmengine, numpy, torch
from mmengine.config import Config
import ruas_mm
from ruas_mm import SceneModule
from ruas_mm.apis import RUASInferencer

assert 'site-packages' in ruas_mm.__file__, ruas_mm.__file__
dark = numpy.random.default_rng(0).integers(0, 60, (33, 47, 3), dtype=numpy.uint8)
assert len(RUASInferencer()(dark)) == 1
cv2.imwrite('dark.png', dark)
subprocess.run([sysconfig.get_path('scripts') + '/ruas', 'enhance', 'dark.png', 'bright'], check=True)
assert cv2.imread('bright/dark.png').mean() > dark.mean()
scene = SceneModule()(torch.rand(1, 3, 16, 16))
scene.features[-1].mean().backward()
with open('inherits.py', 'w') as file:
    file.write("_base_ = 'ruas_mm::detection/ruas_ssd_demo.py'")
assert Config.fromfile('inherits.py').model.type == 'ruas_mm.RUASSingleStageDetector'
versions = (torch, numpy, mmengine, cv2)
print('versions', *(module.__version__ for module in versions))
"""


@dataclass
class Stack:
    """An environment to try.

    Args:
        name (str): What it is called on the command line and in the table.
        python (str): Version of the interpreter, such as ``3.11``.
        steps (tuple): Arguments of the ``pip install`` commands, one after the other; ``{wheel}`` is this package.
        check (str): Code that must run.
    """

    name: str
    python: str
    steps: tuple[tuple[str, ...], ...]
    check: str = CHECK


def stacks() -> list[Stack]:
    """List what can be tried."""
    found = []
    for python in PYTHONS:
        # numpy 2 came with torch 2.3.
        old = ('numpy<2',) if LOWEST[python] < '2.3' else ()
        found.append(Stack(f'{python}-lowest', python, ((f'torch=={LOWEST[python]}', *old, '{wheel}'),)))
        found.append(Stack(f'{python}-newest', python, (('torch', '{wheel}'),)))
        pinned = ('-r', str(ROOT / 'requirements/torch.txt'), '{wheel}')
        found.append(Stack(f'{python}-pinned', python, (pinned,)))
    torch, hosts, mmcv = (ROOT / 'requirements' / name for name in ('torch.txt', 'onedl/hosts.txt', 'onedl/mmcv.txt'))
    without_deps = ('--no-deps', '{wheel}')
    engine = ('onedl-mmengine==0.10.12', 'opencv-python-headless', 'numpy>=2')
    found.append(Stack('onedl-engine', '3.11', (('-r', str(torch)), engine, without_deps)))
    build = ('--no-build-isolation', '--no-deps', '-r', str(mmcv))
    forks = CHECK + "\nassert all(hasattr(ruas_mm, name) for name in ('RUASDetDataPreprocessor', 'RUASEncoderDecoder'))"
    tools = ('-r', str(ROOT / 'requirements/build.txt'))
    found.append(Stack('onedl', '3.11', (tools, ('-r', str(torch)), ('-r', str(hosts)), build, without_deps), forks))
    return found


def run(command: list[str], log: Path, cwd: Path) -> bool:
    """Run a command, append what it prints to the log, and tell whether it succeeded."""
    environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    with log.open('a') as file:
        print('$', *command, file=file, flush=True)
        return subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, cwd=cwd, env=environment).returncode == 0


def attempt(stack: Stack, wheel: Path, tests: bool) -> tuple[str, str]:
    """Try one stack.

    Args:
        stack (Stack): What to install.
        wheel (Path): This package.
        tests (bool): Whether to run the tests too, which takes minutes.

    Returns:
        tuple[str, str]: Its state, and the versions that were installed or what went wrong.
    """
    folder, log = WORK / stack.name, WORK / f'{stack.name}.log'
    shutil.rmtree(folder, ignore_errors=True)
    log.unlink(missing_ok=True)
    # Not every shim on the path is an interpreter that runs.
    python = f'python{stack.python}'
    if not shutil.which(python) or subprocess.run([python, '-c', ''], capture_output=True).returncode:
        return 'unavailable', f'no Python {stack.python}'
    try:
        run([python, '-m', 'venv', str(folder / 'env')], log, ROOT)
        executable = str(folder / 'env/bin/python')
        install = [executable, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check']
        for step in (*stack.steps, TOOLS):
            if not run([*install, *(part.format(wheel=wheel) for part in step)], log, ROOT):
                return 'unavailable', f'pip install {" ".join(step)}: see {log.name}'
        # Copies, so that the tests import the wheel and not this checkout.
        for name in ('tests', 'configs', 'tools'):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns('__pycache__'))
        (folder / 'check.py').write_text(stack.check)
        shutil.copy(ROOT / 'pyproject.toml', folder)
        if not run([executable, 'check.py'], log, folder):
            return 'failed', f'check: see {log.name}'
        versions = [line for line in log.read_text().splitlines() if line.startswith('versions ')][-1]
        torch, numpy, mmengine, opencv = versions.split()[1:]
        what = f'torch {torch}, numpy {numpy}, mmengine {mmengine}, OpenCV {opencv}'
        if not tests:
            return 'passed', what
        if not run([executable, '-m', 'pytest', '-q', *(f'tests/{name}' for name in TESTS)], log, folder):
            return 'failed', f'{what}; tests: see {log.name}'
        summary = log.read_text().splitlines()[-1].strip('= ')
        return 'passed', f'{what}; {summary}'
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Build the wheel, try the stacks and print the table."""
    everything = {stack.name: stack for stack in stacks()}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', metavar='NAME', help=f'one or more of: {", ".join(everything)}')
    parser.add_argument('--check-only', action='store_true', help='leave out the tests')
    parser.add_argument('--strict', action='store_true', help='a stack that cannot be installed counts as failed')
    arguments = parser.parse_args()
    names = arguments.names or list(everything)
    if unknown := set(names) - set(everything):
        parser.error(f'NAME must be one of {", ".join(everything)}, got {", ".join(sorted(unknown))}')

    WORK.mkdir(exist_ok=True)
    log = WORK / 'wheel.log'
    if not run([sys.executable, '-m', 'pip', 'wheel', '--no-deps', '-w', str(WORK / 'wheel'), str(ROOT)], log, ROOT):
        sys.exit(f'The wheel cannot be built: see {log}')
    wheel = max((WORK / 'wheel').glob('ruas_mm-*.whl'), key=lambda path: path.stat().st_mtime)

    results = {}
    for name in names:
        print(f'{name} …', end=' ', flush=True)
        results[name] = attempt(everything[name], wheel, not arguments.check_only)
        print(results[name][0], flush=True)
    print(f'\n{"stack":<14}{"state":<13}what')
    for name, (state, what) in results.items():
        print(f'{name:<14}{state:<13}{what}')
    bad = {'failed', 'unavailable'} if arguments.strict else {'failed'}
    sys.exit(any(state in bad for state, _ in results.values()))


if __name__ == '__main__':
    main()
