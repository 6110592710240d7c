"""Runs given to a stand-in of the Hugging Face hub by its own client, and opened from there; a stranger's forged files are refused."""

import json
import os
import pickle
import re
from threading import Thread

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import Namespace
from safetensors.torch import load_file, save

import somite
from hubs import Hub, Repository
from runs import TINY
from somite.cli import main
from somite.data.phantoms import write_phantoms
from somite.errors import InputError
from somite.publish import packed
from somite.store import digest_of, find

IMAGE = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with all that training and evaluation leave, on data in a place that nobody else shall hear of."""
    root = tmp_path_factory.mktemp("secret")
    write_phantoms(root / "patients", 20, (32, 32))
    small = ["--training.steps=2", "--training.validate=2", "--task.members=2", "--task.steps=[1]"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["somite", "train", "medsegdiffnca/demo", "--data.root", str(root / "patients")])
        assert main(["train", "medsegdiffnca/demo", f"--data.root={root / 'patients'}", *TINY, *small, "--out", str(root / "run")]) == 0
    assert main(["evaluate", str(root / "run")]) == 0
    return root / "run"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = Hub()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # its client's setting for hubs without Xet
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_TOKEN", "writes")
    monkeypatch.setenv("SOMITE_STORE", str(tmp_path / "store"))
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def told(capsys, *line):
    """The one sentence of a command that ends with code 2."""
    capsys.readouterr()
    assert main([*map(str, line)]) == 2
    *bars, error = capsys.readouterr().err.splitlines()  # the bars are its client's
    assert error.startswith("error: ") and not [text for text in bars if "error" in text.lower()]
    return error


def test_what_is_pushed_is_opened_by_its_name_and_answers_alike(hub, run, capsys):
    assert main(["push", str(run), "me/cells"]) == 0
    assert f"{hub.address}/me/cells" in capsys.readouterr().out
    assert hub.repositories["me/cells"].private
    ours, theirs = somite.load(run).predict(IMAGE, seed=3), somite.load("me/cells").predict(IMAGE, seed=3)
    assert torch.equal(torch.as_tensor(ours.probability), torch.as_tensor(theirs.probability))


def test_public_only_where_it_is_asked_for(hub, run, capsys):
    hub.repositories["me/open"] = Repository(private=False)
    assert "add --public" in told(capsys, "push", run, "me/open")
    assert not hub.repositories["me/open"].commits
    assert main(["push", str(run), "me/open", "--public"]) == 0
    assert main(["push", str(run), "me/new", "--public"]) == 0
    assert hub.repositories["me/open"].commits and not hub.repositories["me/new"].private


def test_the_card_says_data_scores_limits_and_use(hub, run, tmp_path):
    about = tmp_path / "about.md"
    about.write_text("Cells of a phantom.\n\nMade by nobody.")
    assert main(["push", str(run), "me/cells", "--about", str(about), "--licence", "cc-by-4.0"]) == 0
    files = list(hub.repositories["me/cells"].commits.values())[-1]
    assert {*files} == {"README.md", "recipe.yaml", "weights.safetensors"}
    _, head, card = files["README.md"].decode().split("---\n", 2)
    assert yaml.safe_load(head)["license"] == "cc-by-4.0" and yaml.safe_load(head)["pipeline_tag"] == "image-segmentation"
    assert "Research use only" in card and "Made by nobody." in card and "## Limits" in card and 'somite.load("me/cells")' in card
    assert re.search(r"\| Dice \| [\d.]+ \| [\d.]+ to [\d.]+ \|", card)
    assert files["recipe.yaml"].startswith(b"# Cells of a phantom.\n")


def test_nothing_says_where_it_was_trained(hub, run):
    (run / "control.json").write_text(json.dumps({"threshold": 0.3, "cases": {"Jane Doe": "abc", "John Doe": "def"}}))
    assert main(["push", str(run), "me/cells"]) == 0
    files = list(hub.repositories["me/cells"].commits.values())[-1]
    assert str(run.parent) in (run / "recipe.yaml").read_text() and str(run.parent) in (run / "README.md").read_text()
    assert not [name for name, data in files.items() if str(run.parent).encode() in data or b"/home/" in data]
    assert b"--data.root patients" in files["README.md"]
    (run / "control.json").unlink()
    assert json.loads(files["control.json"]) == {"threshold": 0.3, "cases": {"0": "abc", "1": "def"}}


def test_a_dry_run_writes_the_same_and_sends_nothing(hub, run, tmp_path, capsys):
    assert main(["push", str(run), "me/cells", "--dry-run", str(tmp_path / "dry")]) == 0
    assert not hub.seen
    assert main(["push", str(run), "me/cells"]) == 0
    files = list(hub.repositories["me/cells"].commits.values())[-1]
    assert {path.name: path.read_bytes() for path in (tmp_path / "dry").iterdir()} == files
    assert "holds something already" in told(capsys, "push", run, "me/cells", "--dry-run", tmp_path / "dry")


def test_a_revision_stays_and_the_newest_is_asked_for_each_time(hub, run):
    assert main(["push", str(run), "me/cells"]) == 0
    there = hub.repositories["me/cells"]
    first = there.at("main")
    changed = {name: value + 1 for name, value in load_file(run / "weights.safetensors").items()}
    assert somite.load("me/cells").path.name == first
    second = there.commit(**{"weights.safetensors": save(changed)})
    old, new = somite.load(f"me/cells@{first}").method.state_dict(), somite.load("me/cells").method.state_dict()
    assert all(torch.equal(new[name], old[name] + 1) for name in old) and somite.load("me/cells").path.name == second


def test_offline_it_is_found_again(hub, run, monkeypatch):
    assert main(["push", str(run), "me/cells"]) == 0
    online = somite.load("me/cells").path
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert somite.load("me/cells").path == online
    with pytest.raises(InputError, match="me/others is no run folder here, and the Hugging Face hub cannot be reached, and no copy"):
        somite.load("me/others")


def test_offline_nothing_is_pushed(hub, run, monkeypatch, capsys):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert "was not pushed: the Hugging Face hub cannot be reached, and nothing was sent" in told(capsys, "push", run, "me/cells")


@pytest.mark.parametrize(("token", "words"), [(None, "(401): log in with `hf auth login`"), ("false", "(401): log in with"), ("reads", "does not let you write it (403)")],
                         ids=["none", "false", "reading"])  # fmt: skip
def test_tokens_that_may_not_push(hub, run, monkeypatch, capsys, token, words):
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    assert words in told(capsys, "push", run, "me/cells")
    assert not hub.repositories


@pytest.mark.parametrize(("name", "words"), [("org/none", "none of that name, or it is private (404)"), ("org/gated", "does not let you read it (403)"),
                                             ("org/empty", "it has no recipe.yaml"), ("org/empty@v9", "no such revision of it (404)")])  # fmt: skip
def test_what_cannot_be_had(hub, name, words):
    hub.repositories["org/gated"], hub.repositories["org/empty"] = Repository(), Repository()
    hub.repositories["org/empty"].commit(**{"README.md": b"nothing"})
    with pytest.raises(InputError) as error:
        somite.load(name)
    assert words in str(error.value) and name in str(error.value) and "\n" not in str(error.value)


def test_a_private_one_without_a_token(hub, run, monkeypatch):
    assert main(["push", str(run), "me/cells"]) == 0
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match=r"or it is private \(401\).*HF_TOKEN to a token that may read it"):
        somite.load("me/cells")


@pytest.mark.parametrize("name", ["cells", "me/cells/deep", "me/cells@v2", "../cells"])
def test_names_to_push_to(hub, run, capsys, name):
    assert "write org/name" in told(capsys, "push", run, name)
    assert not hub.seen


class Mark:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


FORGED = {
    "shapes": ("entries differ", lambda good, mark: save({name: value[..., :-1].contiguous() for name, value in good.items()})),
    "names": ("entries differ", lambda good, mark: save({f"x.{name}": value for name, value in good.items()})),
    "NaN": ("NaN or infinite", lambda good, mark: save({name: value * torch.nan for name, value in good.items()})),
    "a pickle": ("is broken", lambda good, mark: pickle.dumps(Mark(mark))),
    "a header without end": ("is broken", lambda good, mark: (2**62).to_bytes(8, "little") + b"{}"),
    "cut short": ("is broken", lambda good, mark: save(good)[:-1000]),
    "empty": ("is broken", lambda good, mark: b""),
}


@pytest.mark.parametrize("kind", FORGED)
def test_forged_weights_are_refused(hub, run, tmp_path, kind):
    words, forge = FORGED[kind]
    there = hub.repositories["org/bad"] = Repository()
    good = load_file(run / "weights.safetensors")
    there.commit(**{"recipe.yaml": (run / "recipe.yaml").read_bytes(), "weights.safetensors": forge(good, tmp_path / "mark")})
    with pytest.raises(InputError, match=words) as error:
        somite.load("org/bad")
    assert "weights.safetensors" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "mark").exists()


def test_a_strangers_recipe_builds_no_class_of_others(hub, run, tmp_path, monkeypatch):
    (tmp_path / "strange.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'mark')!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    there = hub.repositories["org/bad"] = Repository()
    recipe = (run / "recipe.yaml").read_text().replace("somite.networks.medsegdiffnca.MedSegDiffNCA", "strange.Network")
    there.commit(**{"recipe.yaml": recipe.encode(), "weights.safetensors": (run / "weights.safetensors").read_bytes()})
    with pytest.raises(InputError, match=r"strange\.Network, which is not somite's"):
        somite.load("org/bad")
    assert not (tmp_path / "mark").exists()


def test_files_that_no_run_needs_are_left_there(hub, run):
    there = hub.repositories["org/much"] = Repository()
    files = {name: (run / name).read_bytes() for name in ("recipe.yaml", "weights.safetensors")}
    there.commit(**files, **{"pytorch_model.bin": b"a pickle", "code.py": b"1 / 0", "frozen/abc/model.pt": b"a pickle"})
    folder = somite.load("org/much").path
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {*files}


def test_a_run_of_the_hub_is_written_into_by_nobody(hub, run, capsys):
    assert main(["push", str(run), "me/cells"]) == 0
    for line in (["calibrate", "me/cells"], ["pack", "me/cells"]):
        assert "stays as it came" in told(capsys, *line)
    assert "came without its data" in told(capsys, "evaluate", "me/cells")
    assert "push runs that you trained" in told(capsys, "push", "me/cells", "me/again")


def test_frozen_parts_go_along(hub, run, tmp_path):
    part = tmp_path / "vae"
    part.mkdir()
    (part / "config.json").write_text("{}")
    (part / "diffusion_pytorch_model.safetensors").write_bytes(save({"a": torch.ones(2)}))
    digest = digest_of(part)
    named = Namespace(ours=Namespace(source=str(part), digest=digest), public=Namespace(source="org/vae", digest="0" * 64))
    packed(named, run, tmp_path / "out")
    found = {path.relative_to(tmp_path / "out").as_posix(): path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    assert {*found} == {f"frozen/{digest}/config.json", f"frozen/{digest}/diffusion_pytorch_model.safetensors"}
    files = {name: (run / name).read_bytes() for name in ("recipe.yaml", "weights.safetensors")}
    hub.repositories["org/whole"] = Repository()
    hub.repositories["org/whole"].commit(**files, **found)
    assert find("/gone", digest, somite.load("org/whole").path).joinpath("config.json").read_text() == "{}"
    (part / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(InputError, match=r"pytorch_model\.bin is neither configuration nor safetensors"):
        packed(Namespace(ours=Namespace(source=str(part), digest=None)), run, tmp_path / "other")
