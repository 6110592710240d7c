"""Whatever is wrong with what the user gave: one line on stderr that names the file and the mend, exit code 2, nothing half-written."""

import gc
import json
import os
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from PIL import Image

from runs import TINY, somite, tiny
from somite.cli import main
from somite.data.phantoms import write_phantoms


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("data"), 6, (32, 32))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return tiny(data, tmp_path_factory.mktemp("run") / "run", "--training.steps=2")


@pytest.fixture
def root(data, tmp_path):
    """A copy to spoil."""
    return Path(shutil.copytree(data, tmp_path / "data"))


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) if folder.exists() else []


def training(root, out, *more):
    return ["train", "medsegdiffnca/demo", f"--data.root={root}", "--out", out, *TINY, "--training.steps=2", *more]


# ---- spoilt files, for training (each takes a copy of good data, spoils it, and returns the words to be said)


def truncated(root):
    path = root / "images" / "case000.png"
    path.write_bytes(path.read_bytes()[:300])
    return path, "truncated", "copy it again"


def no_bytes(root):
    path = root / "images" / "case000.png"
    path.write_bytes(b"")
    return path, "empty", "copy it again"


def other_size(root):
    path = root / "masks" / "case000.png"
    Image.open(path).resize((20, 20)).save(path)
    return path, root / "images" / "case000.png", "20 x 20", "32 x 32", "resample"


def three_values(root):
    path = root / "masks" / "case000.png"
    mask = np.array(Image.open(path))
    mask[0, :2] = 1
    Image.fromarray(mask).save(path)
    return path, "0, 1, 255", "--data.labels"


def transparent(root):
    path = root / "images" / "case000.png"
    image = Image.open(path).convert("RGBA")
    image.putpixel((3, 3), (1, 2, 3, 100))
    image.save(path)
    return path, "transparent", "flatten"


def empty_folder(root):
    shutil.rmtree(root)
    root.mkdir()
    return root, "is empty", "images/ and masks/"


def no_images(root):
    shutil.rmtree(root / "images")
    (root / "images").mkdir()
    return root / "images", "no images"


def lost_file(root):
    (root / "images" / "case000.png").unlink()
    (root / "masks" / "case000.png").unlink()
    return root / "splits.json", "case000", "add its files or drop the id"


def all_empty(root):
    for path in (root / "masks").iterdir():
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(path)
    return root, "foreground", "check that the masks"


def no_root(root):
    shutil.rmtree(root)
    return root, "does not exist"


SPOILT = [truncated, no_bytes, other_size, three_values, transparent, empty_folder, no_images, lost_file, all_empty, no_root]


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda f: f.__name__)
def test_training_on_spoilt_data(root, data, tmp_path, refused, spoil):
    words = spoil(root)
    out = tmp_path / "run"
    refused(training(root, out), *words)
    assert not [name for name in files(out) if name.startswith(("weights", "checkpoints", "training"))]
    assert main([str(part) for part in training(data, out)]) == 0  # and the mended line runs in the same folder


def test_a_volume_with_nan(tmp_path, refused):
    root = write_phantoms(tmp_path / "data", 4, (8, 8, 8), channels=1)
    for path in sorted((root / "images").iterdir())[:2]:
        image = nib.load(path)
        array = image.get_fdata(dtype=np.float32)
        array[1, 2, 3] = np.nan
        nib.save(nib.Nifti1Image(array, image.affine, image.header), path)
    line = training(root, tmp_path / "run", "--data.preprocess.channels=1", "--method.network.image_channels=1", "--data.crop=8")
    refused(line, root / "images" / "case00", "NaN", "replace")


def test_prediction_of_spoilt_files(root, run, tmp_path, refused):
    for spoil in (transparent, truncated, no_bytes):
        path, *words = spoil(root)
        refused(["predict", run, path, "--out", tmp_path / "out"], path, *words)
    volume = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), np.nan, np.float32), np.eye(4)), volume)
    refused(["predict", run, volume, "--out", tmp_path / "out"], volume, "NaN")
    (tmp_path / "notes.txt").write_text("x")
    refused(["predict", run, tmp_path / "notes.txt", "--out", tmp_path / "out"], "notes.txt", "convert")
    (tmp_path / "nothing").mkdir()
    refused(["predict", run, tmp_path / "nothing", "--out", tmp_path / "out"], "nothing", "no images")
    assert not (tmp_path / "out").exists()


def test_a_bad_one_stops_none_of_the_others(root, run, tmp_path, refused):
    """And the same line, after the mend, makes it too."""
    whole = (root / "images" / "case001.png").read_bytes()
    (root / "images" / "case001.png").write_bytes(whole[:200])
    line = ["predict", run, root / "images", "--out", tmp_path / "out", "--members", "1"]
    refused(line, "1 of 6 inputs could not be answered", "case001.png", "truncated")
    made = files(tmp_path / "out")
    assert len(made) == 3 * 5 + 2
    assert not [name for name in made if name.startswith("case001")]
    (root / "images" / "case001.png").write_bytes(whole)
    assert main([str(part) for part in line]) == 0
    assert len(files(tmp_path / "out")) == 3 * 6 + 2


def test_images_of_the_same_name_in_two_folders(root, run, tmp_path, refused):
    other = tmp_path / "other"
    shutil.copytree(root / "images", other)
    refused(["predict", run, root / "images", other, "--out", tmp_path / "out"], other / "case000.png", "same name", "rename")
    assert not (tmp_path / "out").exists()


def test_evaluation_of_spoilt_data(root, run, tmp_path, refused):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / "masks" / "case005.png")
    refused(["evaluate", run, "--data", root, "--out", tmp_path / "out", "--members", "1"], "case005.png", "8 x 8")
    refused(["evaluate", run, "--split", "holdout"], "'holdout'", "train (")
    refused(["compare", run, tmp_path], "rows.csv is missing", "somite evaluate")
    assert not (tmp_path / "out" / "rows.csv").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("case,group,label,colour\na,a,1,red\n", "none of the metrics"),
        ("case,group,label,dice\n{case},{case},1,red\n", "no numbers in the column dice"),
        ("a,b\n1,2\n", "is no table of an evaluation"),
        ("", "is no table of an evaluation"),
    ],
)
def test_comparison_with_another_table(run, data, tmp_path, refused, content, words):
    assert main(["evaluate", str(run), "--out", str(tmp_path / "mine"), "--members", "1"]) == 0
    case = (tmp_path / "mine" / "rows.csv").read_text().splitlines()[1].split(",")[0]
    other = tmp_path / "other"
    other.mkdir()
    (other / "metrics.json").write_text((tmp_path / "mine" / "metrics.json").read_text())
    text = content.replace("{case}", case).replace("\na,a,1", f"\n{case},{case},1")
    (other / "rows.csv").write_text(text)
    refused(["compare", tmp_path / "mine", other], other / "rows.csv", words, "somite evaluate")


@pytest.mark.parametrize("option", ["--data.crop=0", "--data.crop=[8,0]", "--method.network.levels=0", "--method.network.updates=0"])
def test_sizes_of_nothing(data, tmp_path, refused, option):
    refused([*training(data, tmp_path / "run"), option], option.partition("=")[0])
    assert not (tmp_path / "run").exists()


# ---- options


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--members", "0"], ["--members 0", "at least one"]),
        (["--members", "two"], ["--members", "two", "--help"]),
        (["--steps", "2000"], ["--steps 2000", "1 to 1000"]),
        (["--steps", "0"], ["--steps 0"]),
        (["--save", "nonsense"], ["--save nonsense", "mask, probability, spread, members"]),
        (["--device", "cuda:77"], ["--device cuda:77", "leave --device out"]),
        (["--device", "abacus"], ["--device abacus"]),
        (["--firing", "never"], ["never", "expected"]),
        (["--tile", "0"], ["tile 0", "at least 1"]),
        (["--tile", "64", "--firing", "stochastic"], ["--firing hashed or expected"]),
        (["--colour", "red"], ["--colour", "somite predict --help"]),
    ],
    ids=lambda x: " ".join(x) if x[0].startswith("--") else "",
)
def test_wrong_options_of_predict(run, data, tmp_path, refused, more, words):
    refused(["predict", run, data / "images", "--out", tmp_path / "out", *more], *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--training.stepz=3"], ["training", "stepz", "--help"]),
        (["--training.rate=fast"], ["training.rate", "fast"]),
        (["--method.network.channels=abc"], ["method.network.channels", "abc"]),
        (["--method.network.channels=3"], ["channels"]),
        (["--training.steps=0"], ["--training.steps 0"]),
        (["--training.ema=2"], ["--training.ema 2"]),
        (["--method.sampler.steps=5000"], ["5000", "1 to 1000"]),
        (["--data.preprocess.channels=2"], ["case", "3 channels", "takes 2"]),
        (["--data.preprocess.channels=1"], ["image_channels"]),
        (["--data.labels=[0,1,255]"], ["--data.labels names 3 classes", "OneHot"]),
        (["--data.crop=[8,8,8]"], ["--data.crop [8, 8, 8]"]),
        (["--training.lightning={devices: 77, accelerator: gpu}"], ["--training.lightning"]),
        (["--training.lightning={colour: red}"], ["--training.lightning", "colour"]),
        (["--method.codec=os.system"], ["method.codec", "os.system"]),
    ],
    ids=lambda x: x[0] if x[0].startswith("--") else "",
)
def test_wrong_overrides_of_train(data, tmp_path, refused, more, words):
    out = tmp_path / "run"
    refused(training(data, out, *more), *words)
    assert not [name for name in files(out) if name.startswith(("weights", "checkpoints", "training"))]


@pytest.mark.parametrize("recipe", ["ensemdiff/small", "segdiff/small"])
@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("--method.network.channels=48", ["channels 48", "multiple of 32", "choose channels"]),
        ("--method.network.heads=3", ["heads 3", "128 channels", "choose a divisor"]),
        ("--method.network.heads=0", ["heads 0"]),
    ],
)
def test_unets_of_sizes_that_cannot_work(data, tmp_path, refused, recipe, more, words):
    out = tmp_path / "run"
    refused(["train", recipe, f"--data.root={data}", "--out", out, more], *words)
    assert not out.exists()


def test_a_patient_in_two_splits(root, tmp_path, refused):
    """Whatever brings the lists; phantoms have two cases of patient000 and more, all in one split."""
    splits = json.loads((root / "splits.json").read_text())
    moved = splits["train"].pop(0)
    splits["test"].append(moved)
    (root / "splits.json").write_text(json.dumps(splits))
    refused(training(root, tmp_path / "run"), root / "splits.json", moved, "'patient000'", "in one split")


def test_a_recipe_that_failed_in_its_first_steps_may_be_mended_in_the_same_folder(data, tmp_path, refused):
    out = tmp_path / "run"
    refused(training(data, out, "--data.preprocess.channels=1"), "image_channels")
    assert (out / "recipe.yaml").exists()  # it fitted together as far as could be told
    mended = training(data, out, "--data.preprocess.channels=1", "--method.network.image_channels=1")
    assert main([str(part) for part in mended]) == 0
    refused(training(data, out), "begun with another recipe", "data.preprocess.channels is 1 there and 3 here")
    (out / "recipe.yaml").unlink()
    refused(mended, "no recipe.yaml", "choose another --out")


def test_other_mistakes(data, run, tmp_path, refused):
    refused(["train", "medsegdiffnca/nope"], "medsegdiffnca/nope", "somite recipes")
    refused(["train", "nope.yaml"], "nope.yaml")
    refused(["train", "medsegdiffnca/ph2", "--out", tmp_path / "run"], "--data.root")
    refused(["paint"], "paint", "--help")
    refused(["predict", run, "--out", tmp_path / "out"], "IMAGE")
    refused(["predict", tmp_path, data / "images", "--out", tmp_path / "out"], "no recipe.yaml", "somite train")
    assert not (tmp_path / "run").exists()


# ---- runs


@pytest.fixture
def broken(run, tmp_path):
    folder = tmp_path / "broken"
    folder.mkdir()
    for name in ("recipe.yaml", "weights.safetensors"):
        shutil.copy(run / name, folder)
    return folder


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_run_without_weights(broken, data, tmp_path, refused, command):
    (broken / "weights.safetensors").unlink()
    line = {"predict": ["predict", broken, data / "images", "--out", tmp_path / "out"], "evaluate": ["evaluate", broken]}[command]
    refused(line, broken / "weights.safetensors", "is missing", "restore")
    assert files(broken) == ["recipe.yaml"]
    assert not (tmp_path / "out").exists()


def test_a_strangers_run(broken, data, tmp_path, refused):
    tree = yaml.safe_load((broken / "recipe.yaml").read_text())
    tree["method"]["init_args"]["codec"] = {"class_path": "os.system", "init_args": {"command": f"touch {tmp_path}/flag"}}
    (broken / "recipe.yaml").write_text(yaml.safe_dump(tree))
    refused(["predict", broken, data / "images", "--out", tmp_path / "out"], broken / "recipe.yaml", "os.system", "--trust")
    assert not (tmp_path / "flag").exists()
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_is_broken_or_a_strangers(run, data, tmp_path, refused):
    """Resuming reads last.ckpt without unpickling code."""
    import torch

    class Stranger:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/flag",)

    out = Path(shutil.copytree(run, tmp_path / "run"))
    (out / "training.json").unlink()
    torch.save({"global_step": 1, "x": Stranger()}, out / "checkpoints" / "last.ckpt")
    refused(training(data, out), out / "checkpoints" / "last.ckpt", "delete it")
    assert not (tmp_path / "flag").exists()
    (out / "checkpoints" / "last.ckpt").write_bytes(b"half")
    refused(training(data, out), "last.ckpt cannot be read")


# ---- a full disk


@pytest.fixture
def small_disk(tmp_path):
    """A tmpfs of a given size; where root may mount one."""
    mounted = []

    def mount(size):
        path = tmp_path / "disk"
        path.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("cannot mount a tmpfs here")
        mounted.append(path)
        return path

    yield mount
    gc.collect()  # a trainer that ran in this process is a ring of objects, which holds its log open until somebody looks
    for path in mounted:
        subprocess.run(["umount", path], check=True)


def test_predict_on_a_full_disk(run, data, small_disk, refused):
    disk = small_disk("40k")
    line = ["predict", run, data / "images", "--out", disk / "out", "--members", "1"]
    refused(line, "the disk is full", disk / "out", "free some space", "run the same command again")
    left = files(disk)
    assert 1 < len(left) < 19
    for name in left:  # what is there is whole
        if name.endswith(".png"):
            with Image.open(disk / name) as image:
                image.load()
    assert not [name for name in left if Path(name).name.startswith(".")]
    subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
    assert main([str(part) for part in line]) == 0
    assert len(files(disk)) == 3 * 6 + 2


@pytest.mark.parametrize("size", [pytest.param("24k", marks=pytest.mark.slow), "120k"])
def test_train_on_a_full_disk(data, small_disk, size):
    """In a process of its own: TensorBoard writes from a thread, and Lightning on the way out."""
    disk = small_disk(size)
    done = somite(*training(data, disk / "run", "--training.checkpoint=1"))
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "the disk is full" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not [name for name in files(disk) if Path(name).name.startswith(".")]
    subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
    assert main([str(part) for part in training(data, disk / "run", "--training.checkpoint=1")]) == 0
