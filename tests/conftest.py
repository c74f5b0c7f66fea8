import os
import subprocess
import sys
from pathlib import Path

# Before torch is imported, here and in the tools that tests start: tiny inputs gain nothing from more threads.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import signal
import threading

import pytest
import torch

torch.set_num_threads(1)


# A shell starts background jobs with SIGINT ignored, which the tools under test would inherit: Ctrl-C would do nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item):
    if item.get_closest_marker('cuda') and not torch.cuda.is_available():
        pytest.skip('no CUDA device')


def pytest_collection_modifyitems(items):
    """Run the tests of the tools first: they take longest, and two processes share the files out in this order."""
    items.sort(key=lambda item: 'tools' not in item.path.parts)


@pytest.fixture
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def torchrun():
    """Run a script in two processes."""

    def run(*arguments, cwd):
        command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2']
        process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, 'PYTHONPATH': str(Path(__file__).parents[1]), 'GLOO_SOCKET_IFNAME': 'lo'},
            cwd=cwd,
        )
        try:
            output, errors = process.communicate()
        except BaseException:  # the time limit of the test
            process.terminate()  # not kill: only torchrun can end its processes, each a session of its own
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    return run
