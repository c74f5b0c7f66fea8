import os

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
