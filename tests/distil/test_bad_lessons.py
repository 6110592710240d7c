"""What does not go together is told in one sentence, and nothing is computed or written."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import save_file

from known import RECIPE
from runs import classifier
from somite.data.phantoms import write_phantoms
from somite.recipe import build, dump, parse


def recipe(folder: Path) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "linear.yaml").write_text(RECIPE)
    return folder / "linear.yaml"


def made(out: Path, root: Path, *overrides: str) -> Path:
    config = parse(recipe(out), [f"--data.root={root}", *overrides])
    (out / "recipe.yaml").write_text(dump(config))
    save_file(build(config).method.state_dict(), out / "weights.safetensors")
    return out


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    write_phantoms(place / "mine", 10, (16, 20))
    write_phantoms(place / "theirs", 10, (16, 20), seed=9)
    made(place / "teacher", place / "theirs")
    return place


@pytest.fixture
def told(place, refused, tmp_path):
    """Refuses a line, and has written nothing."""

    def check(*words, teacher=place / "teacher", into=None, root=place / "mine", more=()):
        out = tmp_path / "out"
        given = ("--into", into or recipe(place), f"--data.root={root}", "--out", out, "--trust", "--device", "cpu", *more)
        refused(["distil", teacher, *given], *words)
        assert not (out / "soft").exists() and not (out / "recipe.yaml").exists()

    return check


CLASSES = ["--method.codec=somite.diffusion.codec.OneHot", "--method.codec.classes=3", "--method.network.maps=3"]


def test_a_teacher_of_other_classes(place, told, tmp_path):
    three = made(tmp_path / "three", place / "theirs", "--data.labels=[0,1,2]", *CLASSES)
    told("the labels [0, 1, 2]", "a binary mask", "--data.labels", teacher=three)
    told("the labels [0, 1, 2]", "the labels [0, 2, 1]", teacher=three, more=("--data.labels=[0,2,1]", *CLASSES))
    one = made(tmp_path / "one", place / "theirs", "--data.foreground=[255]")
    told("the mask values [255]", "a binary mask", teacher=one)


def test_a_teacher_that_has_seen_the_test_cases(place, told, tmp_path):
    other = shutil.copytree(place / "mine", tmp_path / "renamed")
    splits = json.loads((other / "splits.json").read_text())
    (other / "splits.json").write_text(json.dumps({"train": splits["test"] + splits["train"], "val": splits["val"], "test": []}))
    told("was trained or validated on", splits["test"][0], teacher=made(tmp_path / "by-content", other))
    lists = tmp_path / "splits.json"
    lists.write_text(json.dumps({"train": splits["test"][:2], "val": splits["val"], "test": splits["train"]}))
    seen = made(tmp_path / "by-list", place / "mine", f"--data.splits={lists}")
    told("by-list was trained or validated on", "the pupil's test case", teacher=seen)
    told("by-list was trained", more=("--with", seen))


def test_a_teacher_that_has_seen_another_image_of_a_test_patient(place, told, tmp_path):
    root = shutil.copytree(place / "mine", tmp_path / "patients")
    rows = [f"case{i:03d},patient{i // 2 if i < 8 else 4}" for i in range(10)]
    (root / "groups.csv").write_text("\n".join(["id,group", *rows]) + "\n")
    theirs, ours = tmp_path / "theirs.json", tmp_path / "ours.json"
    theirs.write_text(json.dumps({"train": ["case008"], "val": ["case000"], "test": ["case004"]}))
    ours.write_text(json.dumps({"train": ["case000"], "val": ["case004"], "test": ["case009"]}))
    teacher = made(tmp_path / "teacher", root, f"--data.splits={theirs}")
    told("case009 or of the same patient", teacher=teacher, root=root, more=(f"--data.splits={ours}",))


def test_a_teacher_of_other_channels(place, told, tmp_path):
    four = made(tmp_path / "four", place / "theirs", "--data.preprocess.channels=4", "--method.network.channels=4")
    told("trained on 4 channels", "learns from 3", "--data.preprocess.channels 4", teacher=four)


def test_unlabelled_folders(place, told, tmp_path):
    empty, same = tmp_path / "empty", tmp_path / "same"
    empty.mkdir()
    told("empty is empty", "--unlabelled", more=("--unlabelled", empty))
    told("nowhere does not exist", more=("--unlabelled", tmp_path / "nowhere"))
    same.mkdir()
    test = json.loads((place / "mine/splits.json").read_text())["test"][0]
    shutil.copy(place / "mine/images" / f"{test}.png", same / "another-name.png")
    told("another-name.png", f"is the image of {test}", "--unlabelled", more=("--unlabelled", same))


def test_tasks_that_are_no_segmentation(place, told, tmp_path):
    told("is no segmentation", "Classification", teacher=classifier(tmp_path / "classifier"))
    told("is no segmentation", "Classification", into="classifier/small")


def test_volumes_and_images(place, told, tmp_path):
    volumes = write_phantoms(tmp_path / "volumes", 6, (12, 12, 8), channels=1)
    grey = ("--data.preprocess.channels=1", "--method.network.channels=1")
    flat = made(tmp_path / "flat", place / "theirs", *grey)
    told("is a teacher of 2D images", "a recipe for volumes", teacher=flat, root=volumes, more=(*grey, "--data.preprocess.dims=3"))
    deep = made(tmp_path / "deep", volumes, *grey, "--data.preprocess.dims=3")
    told("is a teacher of volumes", "holds 2D images", teacher=deep, more=grey)


def test_what_the_pupil_cannot_be_taught(told):
    noise = ["--method.terms={noise: {class_path: somite.diffusion.terms.Noise}}", "--method.predicts=v", "--training.steps=1"]
    told("--temperature 2 is of logits", "--method.predicts", into="medsegdiffnca/demo", more=("--temperature", 2, *noise))
    told("--data.soft", "leave one of them out", more=("--data.raters=true",))
    told("random weights", into="sdseg/small", more=("--training.steps=1",))  # an autoencoder of random weights


def test_numbers_out_of_range(told):
    told("--weight 0", more=("--weight", 0))
    told("--weight 1.5", more=("--weight", 1.5))
    told("--temperature 0", more=("--temperature", 0))
    told("must be", more=("--training.steps", 0))


def test_a_folder_keeps_to_one_teacher(place, refused, tmp_path):
    other = made(tmp_path / "other", place / "theirs", "--method.network.known=true")
    out, given = tmp_path / "out", ("--into", recipe(place), f"--data.root={place / 'mine'}", "--trust", "--device", "cpu")
    from somite.cli import main

    assert main([str(part) for part in ("distil", place / "teacher", *given, "--out", out)]) == 0
    (out / "training.json").unlink()
    refused(["distil", other, *given, "--out", out], "another weights", "choose another --out")
    refused(["distil", place / "teacher", *given, "--out", out, "--weight", 0.7], "was begun with another recipe", "weight")
