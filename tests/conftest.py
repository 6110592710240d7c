"""One thread: these tensors are tiny, and threads only get in each other's way."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import sys
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parent))  # for `contracts`, the inherited tests


@pytest.fixture(autouse=True)
def _same_start():
    torch.manual_seed(0)
