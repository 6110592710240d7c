"""The command line without its script."""

import subprocess
import sys

import somite


def module(*arguments):
    return subprocess.run([sys.executable, "-m", "somite", *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_python_m_somite_is_the_command_line():
    done = module("--version")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, somite.__version__, "")


def test_its_exit_code_is_the_command_lines():
    done = module("nonsense")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")


def test_a_reader_that_has_seen_enough_is_no_fault():
    """`somite recipes | head -1`"""
    with subprocess.Popen([sys.executable, "-m", "somite", "recipes"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as done:
        done.stdout.close()
        assert done.stderr.read() == ""
        assert done.wait(60) in (0, 141)  # 0: it was quicker
