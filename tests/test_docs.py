"""The documentation's commands and snippets are run, page by page, in a folder with small data; training is cut to two steps."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from somite.cli import main
from somite.data.phantoms import write_phantoms

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = sorted(page for page in DOCS.rglob("*.md") if BLOCK.search(page.read_text()))
SMALL = [
    *("--method.network.channels=14", "--method.network.hidden=8", "--method.network.updates=2", "--data.preprocess.size=null"),
    *("--training.steps=2", "--training.batch=2", "--training.validate=2", "--data.crop=32", "--task.members=2", "--task.steps=[1,2]"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which every page's commands make sense."""
    root = tmp_path_factory.mktemp("docs")
    write_phantoms(root / "my_images", 10, (40, 40))
    write_phantoms(root / "my_volumes", 6, (32, 36, 9), channels=1)
    write_phantoms(root / "my_classes", 6, (40, 40), classes=2)
    shutil.copy(next((root / "my_images/images").iterdir()), root / "image.png")
    shutil.copy(next((root / "my_volumes/images").iterdir()), root / "scan.nii.gz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for run in ("runs/mine", "runs/demo"):
            command("somite train medsegdiffnca/one-step --data.root my_images --out " + run)
    return root


def command(line: str) -> None:
    words = shlex.split(line)
    assert words[0] == "somite"
    small = SMALL if words[1] == "train" else []
    assert main([*words[1:], *small]) == 0, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_the_page_runs_as_it_is_printed(page, place, monkeypatch):
    monkeypatch.chdir(place)
    names: dict = {}
    for kind, text in BLOCK.findall(page.read_text()):
        if kind == "python":
            exec(compile(text, str(page), "exec"), names)
        else:
            for line in text.strip().splitlines():
                command(line)


def test_pages_with_commands_are_found():
    assert {"get-started.md", "predict.md", "evaluate.md", "own-data.md", "extend.md"} <= {page.name for page in PAGES}
