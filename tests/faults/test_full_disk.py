"""The disk fills up at the n-th file that a command writes: one line, exit code 2, what was there before is there to the bit and nothing
is half-written; and the same command, when there is room again, ends as if nothing had been.

The disk is full where files are made safe (`fsync`, where file systems that allocate late say so). A disk that is really full, of some
kB, is in tests/test_bad_input.py and tests/test_files.py.
"""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import save_file

from known import RECIPE
from runs import TINY
from somite.cli import main
from somite.data.phantoms import write_phantoms
from somite.recipe import build, dump, parse

pytestmark = [pytest.mark.fault, pytest.mark.timeout(900)]
# What tells when and how something was made; all else must be as in an undisturbed folder.
TOLD = ("environment.json", "tensorboard", "cases.csv", "README.md", "report.html", "prediction.json", "recipe.yaml")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run of a network whose weights are known, that was evaluated and calibrated."""
    place = tmp_path_factory.mktemp("place")
    data = write_phantoms(place / "data", 26, (16, 20))
    ids = sorted(path.stem for path in (data / "images").iterdir())
    (data / "groups.csv").write_text("id,group\n" + "".join(f"{name},{name}\n" for name in ids))
    (data / "splits.json").write_text(json.dumps({"train": ids[:4], "val": ids[4:22], "test": ids[22:]}))
    write_phantoms(place / "more", 10, (16, 20), seed=9)
    (place / "linear.yaml").write_text(RECIPE)
    run = place / "run"
    run.mkdir()
    config = parse(place / "linear.yaml", [f"--data.root={place / 'data'}", "--method.network.known=true"])
    (run / "recipe.yaml").write_text(dump(config))
    save_file(build(config).method.state_dict(), run / "weights.safetensors")
    for line in (["calibrate"], ["evaluate"]):
        assert main([*line, str(run), "--trust", "--device", "cpu"]) == 0
    return place


LINES = {
    "train": lambda at: ["train", "medsegdiffnca/demo", "--data.root={data}", "--out", f"{at}/trained", *TINY, "--training.steps=4", "--training.checkpoint=1"],
    "predict": lambda at: ["predict", f"{at}/run", "{data}/images", "--out", f"{at}/out", "--trust", "--device", "cpu"],
    "evaluate": lambda at: ["evaluate", f"{at}/run", "--trust", "--device", "cpu", "--split", "val", "--out", f"{at}/judged"],
    "evaluate again": lambda at: ["evaluate", f"{at}/run", "--trust", "--device", "cpu"],
    "calibrate": lambda at: ["calibrate", f"{at}/run", "--trust", "--device", "cpu"],
    "calibrate --quality": lambda at: ["calibrate", f"{at}/run", "--quality", "--sign", "expected", "--trust", "--device", "cpu"],
    "distil": lambda at: ["distil", f"{at}/run", "--into", "{linear}", "--data.root={more}", "--out", f"{at}/pupil", "--trust", "--device", "cpu"],
}  # fmt: skip


def files(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in sorted(found.items())}


def alike(found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    assert {*found} - tensorboard(found) == {*expected} - tensorboard(expected)
    for name in {*expected} - tensorboard(expected):
        if not any(told in name for told in TOLD):
            assert plain(name, found[name]) == plain(name, expected[name]), name


def tensorboard(names: dict[str, bytes]) -> set[str]:
    return {name for name in names if "tensorboard" in name}


def plain(name: str, content: bytes) -> object:
    """Without when it was made, and how long it took."""
    if not name.endswith(".json"):
        return content if not name.endswith(".ckpt") else len(content)
    tree = json.loads(content)
    return {key: value for key, value in tree.items() if key not in ("environment", "seconds")} if isinstance(tree, dict) else tree


FSYNC = os.fsync


class Disk:
    """Full from the n-th file on; n None: never. Counts."""

    def __init__(self, n=None):
        self.n, self.count = n, 0

    def __call__(self, handle):
        self.count += 1
        if self.n is not None and self.count > self.n:
            raise OSError(errno.ENOSPC, "No space left on device")
        FSYNC(handle)


@pytest.mark.parametrize("command", LINES)
def test_a_disk_that_fills_up(place, tmp_path, monkeypatch, capsys, command):
    def fresh(name):
        at = tmp_path / name
        shutil.copytree(place / "run", at / "run")
        names = {"data": place / "data", "more": place / "more", "linear": place / "linear.yaml"}
        return at, [part.format(**names) for part in LINES[command](at)]

    at, line = fresh("undisturbed")
    whole = Disk()
    monkeypatch.setattr(os, "fsync", whole)
    assert main(line) == 0
    expected = files(at)
    shutil.rmtree(at)
    assert whole.count > 0
    for n in sorted({0, min(1, whole.count - 1), whole.count // 2, whole.count - 1}):
        at, line = fresh("undisturbed")  # the same place, since paths stand in some files
        before = files(at)
        capsys.readouterr()
        monkeypatch.setattr(os, "fsync", Disk(n))
        assert main(line) == 2, n
        told = capsys.readouterr().err.strip().splitlines()
        assert told[-1].startswith("error: ") and "the disk is full" in told[-1], told
        assert not [line for line in told if "Traceback" in line]
        left = files(at)
        assert {name: left.get(name) for name in before} == {
            name: content if name not in expected or name not in changed(before, expected) else left.get(name)
            for name, content in before.items()
        }
        for name in changed(before, expected) & {*before}:
            assert left[name] == before[name] or whole_json(name, left[name])
        assert not [name for name in left if Path(name).name.startswith(".")]
        monkeypatch.setattr(os, "fsync", Disk())
        assert main(line) == 0, n
        alike(files(at), expected)
        shutil.rmtree(at)


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    """Files that the undisturbed command itself replaces."""
    return {name for name in before if after.get(name) != before[name]}


def whole_json(name: str, content: bytes) -> bool:
    return not name.endswith(".json") or bool(json.loads(content))
