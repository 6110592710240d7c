"""docs/how-to/own-network.md from nothing to an exported network, as it is printed: its files, its commands in their order, its Python.

Trainings are cut to two steps of two examples.
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from somite.cli import main
from somite.data.phantoms import write_phantoms

PAGE = (Path(__file__).parents[1] / "docs/how-to/own-network.md").read_text(encoding="utf-8")
FILES = {name: text for name, text in re.findall(r'^```\w+ title="([\w.-]+)"\n(.*?)^```', PAGE, re.MULTILINE | re.DOTALL)}
LINES = [line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) for line in block.splitlines()]
SMALL = ["--training.steps=2", "--training.batch=2", "--training.validate=2", "--task.members=2"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the page's files, and data as it takes them for granted."""
    write_phantoms(tmp_path / "my_images", 10, (40, 40))
    shutil.copy(next((tmp_path / "my_images/images").iterdir()), tmp_path / "image.png")
    (tmp_path / "about.md").write_text("Phantoms.\n")
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("mynet", "parts"):
        sys.modules.pop(name, None)


@pytest.mark.timeout(900)  # twelve commands; 20 s of one core by itself
def test_the_page_goes_from_nothing_to_an_exported_network(folder, capsys):
    assert {"mynet.py", "test_mynet.py", "feed-forward.yaml", "one-step.yaml", "parts.py", "sampled.py"} == set(FILES)
    for line in LINES:
        words = shlex.split(line)
        if words[0] == "somite":
            assert main([*words[1:], *(SMALL if words[1] == "train" else [])]) == 0, line
    exec(compile(FILES["sampled.py"], "sampled.py", "exec"), {})
    page = (folder / "side-by-side.html").read_text(encoding="utf-8")
    assert all(name in page for name in ("feed-forward", "one-step", "denoiser", "dynunet"))
    assert (folder / "exported/model.onnx").is_file()
    card = (folder / "pushed/README.md").read_text(encoding="utf-8")
    assert "names `mynet.MyNet`, which does not come with somite" in card
    assert "--trust" in card and "trust=True" in card
    capsys.readouterr()
    assert main([]) == 0
    advised = [line for line in capsys.readouterr().out.splitlines() if "somite " in line and "runs/" in line and "dynunet" not in line]
    assert advised
    assert all("--trust" in line for line in advised)


def test_its_contract_is_inherited_outside_of_somite(folder):
    """In a process of its own, with no path to this folder of tests."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mynet.py"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout
    assert "16 passed" in done.stdout


def test_its_sampler_is_ddim_and_its_loss_keeps_the_contract(folder):
    import parts

    from somite.contracts import SamplerContract, TermContract
    from somite.diffusion.samplers import DDIM
    from somite.diffusion.schedule import linear

    class Steps(SamplerContract):
        def make(self, steps, **options):
            return parts.Euler(steps, **options)

    class Loss(TermContract):
        def make(self):
            return parts.Edges()

    Steps().test_it_clips_by_the_codec_by_a_number_or_not_at_all()
    Loss().test_what_is_right_costs_nothing_and_what_is_wrong_something()
    Loss().test_an_example_does_not_depend_on_its_neighbours()
    answer = torch.rand(3, 1, 4, 4)
    walked = [torch.stack([step.x for step in Steps().walk(sampler, answer, linear(), 1.0)[0]]) for sampler in (parts.Euler(7), DDIM(7))]
    torch.testing.assert_close(*walked)
