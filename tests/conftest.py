import os
import signal
import subprocess
import sys
from pathlib import Path

# Before torch is imported, here and in the tools that tests start: tiny inputs gain nothing from more threads.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import pytest
import torch

torch.set_num_threads(1)


def pytest_runtest_setup(item):
    if item.get_closest_marker('cuda') and not torch.cuda.is_available():
        pytest.skip('no CUDA device')


@pytest.fixture
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def torchrun():
    """Run a script in two processes. Their start has been seen to hang or fail now and then: it gets three tries."""

    def run(*arguments, cwd):
        command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2']
        environment = {
            **os.environ,
            'PYTHONPATH': str(Path(__file__).parents[1]),
            'OMP_NUM_THREADS': '1',
            'GLOO_SOCKET_IFNAME': 'lo',
        }
        for _ in range(3):
            process = subprocess.Popen(
                [*command, *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
                cwd=cwd,
                start_new_session=True,
            )
            try:
                output, errors = process.communicate(timeout=90)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output, errors = process.communicate()
            if process.returncode == 0:
                break
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    return run
