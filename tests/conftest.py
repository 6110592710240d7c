"""One thread: these tensors are tiny, and threads only get in each other's way."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import sys
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parent))  # for the helpers beside this file
pytest.register_assert_rewrite("somite.contracts")  # the inherited tests


@pytest.fixture(autouse=True)
def _same_start():
    torch.manual_seed(0)


@pytest.fixture
def refused(capsys):
    """Runs a command line that must end in one sentence with these words, and exit code 2."""
    from somite.cli import main

    def check(line, *words):
        assert main([str(part) for part in line]) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: ")
        assert len(told.splitlines()) == 1, told
        assert "Traceback" not in told
        for word in words:
            assert str(word) in told, told

    return check
