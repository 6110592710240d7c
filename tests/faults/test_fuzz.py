"""Some thousand broken files of each kind: refused in a sentence or read, in bounded time and memory. `make fuzz` reads a hundred thousand."""

import pytest

from fuzz import KINDS, LIMIT_S, MEMORY, broken
from fuzz_all import run

BASE = 400  # MiB of a process that has read one file of each kind, with room


@pytest.mark.fault
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_broken_files_are_refused_in_a_sentence(tmp_path, kind):
    found = run(kind, 1500, 1, tmp_path)
    assert not found["crashes"], [text for text, _ in found["crashes"]]
    assert found["read"] + found["refused"] == 1500
    assert found["refused"] > 150  # they are really broken
    assert found["slowest_s"] < LIMIT_S
    assert found["peak_mib"] < BASE + MEMORY / 2**20


def test_a_broken_file_is_a_function_of_its_number():
    good = KINDS["csv"].good()
    first, again = broken("csv", good, 3), broken("csv", good, 3)
    assert [next(first) for _ in range(20)] == [next(again) for _ in range(20)]


def test_the_search_finds_what_is_there(tmp_path, monkeypatch):
    """A reader that fails at every file that is not whole."""
    import fuzz

    def fragile(path):
        if path.read_bytes() not in KINDS["bmp"].good():
            raise KeyError("bmp")

    monkeypatch.setitem(fuzz.KINDS, "fragile", fuzz.Kind("a.bmp", KINDS["bmp"].good, (fragile,)))
    monkeypatch.setattr(fuzz.resource, "setrlimit", lambda *_: None)
    found = fuzz.fuzz("fragile", 50, 0, tmp_path / "last")
    assert found["crashed"] > 40 and "KeyError at test_fuzz.py" in found["crashes"][0][0]
