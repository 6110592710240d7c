"""A run from its folder: what goes in, what comes out, and what is refused before anything is run."""

import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

import somite
from runs import tiny
from somite.data.phantoms import write_phantoms
from somite.data.record import Case
from somite.errors import InputError
from somite.sampling import overrides


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    root = write_phantoms(tmp_path_factory.mktemp("data"), 6, (40, 40))
    return tiny(root, tmp_path_factory.mktemp("run") / "run", "--training.steps=4")


@pytest.fixture(scope="module")
def run(path):
    return somite.load(path, device="cpu")


@pytest.fixture
def copy(path, tmp_path):
    for name in ("recipe.yaml", "weights.safetensors"):
        (tmp_path / name).write_bytes((path / name).read_bytes())
    return tmp_path


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_weights_are_those_of_the_folder(path, run):
    state = run.method.state_dict()
    for name, value in load_file(path / "weights.safetensors").items():
        assert torch.equal(state[name], value)
    assert not run.method.training


@pytest.mark.parametrize("shape", [(24, 30), (24, 30, 3)], ids=["grey", "colour"])
def test_an_array_and_a_file_of_the_same_pixels_give_the_same(run, tmp_path, shape):
    """Named alike, for the noise is a function of the name; an array is called "array"."""
    Image.fromarray(pixels(*shape)).save(tmp_path / "array.png")
    file, array = (run.predict(given, members=3) for given in (tmp_path / "array.png", pixels(*shape)))
    assert np.array_equal(file.members, array.members)
    assert np.array_equal(run.predict(str(tmp_path / "array.png"), members=3).members, array.members)
    case = Case("array", (tmp_path / "array.png",), None, "array")
    assert np.array_equal(run.predict(case, members=3).members, array.members)
    assert file.mask.shape == (24, 30)
    assert file.probability.shape == file.spread.shape == (1, 24, 30)
    assert file.members.shape == (3, 1, 24, 30)
    assert np.abs(run.predict(array.record.image, seed=1, members=3).members - array.members).max() > 1e-5


@pytest.mark.parametrize(
    "turn",
    [
        lambda x: x.astype(np.uint16) * 257,
        lambda x: x.astype(np.float64) / 255,
        lambda x: (x / 255).astype(np.float32),
        lambda x: np.moveaxis(x, -1, 0),
        lambda x: np.moveaxis(x, -1, 0) / 255,
        lambda x: np.concatenate([x, np.full((*x.shape[:2], 1), 255, np.uint8)], -1),
    ],
    ids=["uint16", "float64", "float32", "channels first", "float channels first", "opaque alpha"],
)
def test_arrays_of_every_kind_are_the_same_image(run, turn):
    plain = run.predict(pixels(24, 30, 3), members=1)
    assert np.allclose(run.predict(turn(pixels(24, 30, 3)), members=1).members, plain.members, atol=1e-5)


def test_pictures_and_tensors_are_taken_as_arrays_are(run):
    plain = run.predict(pixels(24, 30, 3), members=1)
    for given in (Image.fromarray(pixels(24, 30, 3)), torch.from_numpy(np.moveaxis(pixels(24, 30, 3), -1, 0).copy())):
        assert np.array_equal(run.predict(given, members=1).members, plain.members)


@pytest.mark.parametrize("given", [None, 3, [[1, 2], [3, 4]], {"image": 1}, b"png"], ids=str)
def test_what_is_no_image_gets_a_sentence(run, given):
    with pytest.raises(InputError) as error:
        run.predict(given)
    assert "\n" not in str(error.value)


def test_weights_that_are_no_numbers_are_told_by_name(copy):
    state = load_file(copy / "weights.safetensors")
    name = sorted(state)[3]
    state[name] = torch.full_like(state[name], float("nan"))
    save_file(state, copy / "weights.safetensors")
    with pytest.raises(InputError, match=rf"weights.safetensors holds NaN or infinite weights, first in {name}; restore"):
        somite.load(copy)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 3, 4, 5, 6)), "is no image"),
        (np.zeros(7), "is no image"),
        (np.full((8, 8), np.nan), "NaN"),
        (np.zeros((8, 8, 4), np.uint8), "transparent"),
        (np.zeros((2, 8, 8), np.float32), "2 channels"),
    ],
)
def test_arrays_that_are_no_image_are_refused(run, array, words):
    with pytest.raises(InputError, match=words):
        run.predict(array)


@pytest.mark.parametrize("members", [0, -1])
def test_no_members_are_refused(run, members):
    with pytest.raises(InputError, match="at least one"):
        run.predict(pixels(16, 16, 3), members=members)


def test_expected_firing_leaves_the_noise_alone_random(run, path):
    fresh = somite.load(path, device="cpu")
    stochastic = fresh.predict(pixels(16, 16, 3), members=2)
    mean_field = fresh.at(firing="expected")
    expected = mean_field.predict(pixels(16, 16, 3), members=2)
    assert np.abs(expected.members - stochastic.members).max() > 1e-6
    assert np.array_equal(mean_field.predict(pixels(16, 16, 3), members=2).members, expected.members)
    assert np.array_equal(fresh.predict(pixels(16, 16, 3), members=2).members, stochastic.members)


def test_other_steps_are_taken_or_refused(path):
    fresh = somite.load(path, device="cpu")
    one = fresh.predict(pixels(16, 16, 3), members=1)
    three = fresh.at(steps=3)
    assert np.abs(three.predict(pixels(16, 16, 3), members=1).members - one.members).max() > 1e-7
    assert np.array_equal(fresh.predict(pixels(16, 16, 3), members=1).members, one.members)
    with pytest.raises(InputError, match="2000"):
        fresh.at(steps=2000)


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_devices_that_are_not_there_are_refused(path, device):
    with pytest.raises(InputError, match=f"--device {device}"):
        somite.load(path, device=device)


def test_what_is_missing_or_broken_is_said(copy, tmp_path):
    file = copy / "weights.safetensors"
    whole = file.read_bytes()
    with pytest.raises(InputError, match=r"no recipe.yaml"):
        somite.load(tmp_path / "nowhere")
    file.write_bytes(whole[:1000])
    with pytest.raises(InputError, match=r"weights.safetensors is broken.*restore"):
        somite.load(copy)
    file.unlink()
    with pytest.raises(InputError, match=r"weights.safetensors is missing.*somite train"):
        somite.load(copy)
    file.write_bytes(whole)
    (copy / "recipe.yaml").write_text("task: [")
    with pytest.raises(InputError, match=r"recipe.yaml cannot be read"):
        somite.load(copy)


@pytest.mark.parametrize("change", ["shape", "missing", "extra"])
def test_weights_of_another_recipe_are_refused(copy, change):
    state = load_file(copy / "weights.safetensors")
    name = sorted(state)[-1]
    state |= {"shape": {name: torch.zeros(2, 3)}, "missing": {}, "extra": {"other": torch.zeros(1)}}[change]
    if change == "missing":
        del state[name]
    save_file(state, copy / "weights.safetensors")
    with pytest.raises(
        InputError, match=r"and recipe.yaml do not fit: 1 entries differ, the first is " + ("other" if change == "extra" else name)
    ):
        somite.load(copy)


CODEC = ("method", "init_args", "codec")
STRANGERS = {
    "class path": (CODEC, {"class_path": "stranger.Codec"}),
    "short": (CODEC, "stranger.Codec"),
    "deep": (("method", "init_args", "network", "init_args", "firing"), {"class_path": "stranger.Codec", "init_args": {"a": 1}}),
    "in a dict": (("method", "init_args", "terms", "more"), {"class_path": "stranger.Codec"}),
    "in a dict, short": (("method", "init_args", "terms", "more"), "stranger.Codec"),
    "as JSON": (CODEC, '{"class_path": "stranger.Codec"}'),
    "as YAML": (CODEC, 'class_path: "stranger\\x2eCodec"'),
    "in a file": (CODEC, "other.yaml"),
    "in a file without suffix": (CODEC, "other"),
    "the method in a file": (("method",), "other"),
    "another recipe": (("config",), "other"),
    "dotted key": (("method.init_args.codec.class_path",), "stranger.Codec"),
    "lightning": (("training", "lightning"), {"x": {"class_path": "stranger.Codec"}}),
    "system": (CODEC, {"class_path": "os.system", "init_args": {"command": "touch flag"}}),
    "augment": (("data", "augment"), "stranger.make"),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_a_strangers_classes_are_not_even_imported(copy, kind, monkeypatch):
    """Importing is running: the module raises a flag when it is imported."""
    monkeypatch.syspath_prepend(str(copy))
    monkeypatch.chdir(copy)
    flag = copy / "flag"
    (copy / "stranger.py").write_text(f"open({str(flag)!r}, 'w')\nclass Codec: pass\ndef make(): pass\n")
    for name in ("other", "other.yaml"):
        (copy / name).write_text("class_path: stranger.Codec\n")
    tree = yaml.safe_load((copy / "recipe.yaml").read_text())
    (*where, last), value = STRANGERS[kind]
    place = tree
    for key in where:
        place = place[key]
    place[last] = value
    (copy / "recipe.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(InputError, match=r"recipe.yaml names .* not somite's.*--trust"):
        somite.load(copy)
    assert not flag.exists()
    assert "stranger" not in sys.modules


def test_trusted_classes_are_built(copy, monkeypatch):
    monkeypatch.syspath_prepend(str(copy))
    (copy / "friend.py").write_text("from somite.predict.fusion import Mean\nclass Fusion(Mean): pass\n")
    tree = yaml.safe_load((copy / "recipe.yaml").read_text())
    tree["task"]["init_args"]["fusion"] = {"class_path": "friend.Fusion"}
    (copy / "recipe.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(InputError, match=r"friend\.Fusion"):
        somite.load(copy)
    assert type(somite.load(copy, trust=True, device="cpu").recipe.task.fusion).__name__ == "Fusion"


def test_where_the_data_lie_is_never_taken_for_a_class(copy):
    tree = yaml.safe_load((copy / "recipe.yaml").read_text())
    tree["data"]["root"] = "pairs.csv"
    (copy / "recipe.yaml").write_text(yaml.safe_dump(tree))
    assert somite.load(copy, device="cpu").recipe.data.root == "pairs.csv"


def test_convolutions_are_of_the_codec_and_of_the_network_if_it_has_them(run):
    latent = {"class_path": "somite.diffusion.latent.Autoencoder", "init_args": {"convolutions": "winograd"}}
    vision = {"class_path": "somite.networks.sdseg.SDSeg", "init_args": {"convolutions": "winograd"}}
    tree = yaml.safe_load(run.source)
    with pytest.raises(InputError, match="--convolutions is for"):
        overrides(tree, convolutions="direct")
    tree["method"]["init_args"]["codec"] = latent
    assert overrides(tree, convolutions="direct") == {"--method.codec.convolutions": "direct"}
    tree["method"]["init_args"]["network"] = vision
    assert overrides(tree, convolutions="direct") == {"--method.codec.convolutions": "direct", "--method.network.convolutions": "direct"}


def test_the_overlap_is_of_windows_around_the_network(run):
    tree = yaml.safe_load(run.source)
    with pytest.raises(InputError, match=r"not in windows; leave --overlap out"):
        overrides(tree, overlap=0.25)
    windows = {"class_path": "somite.predict.tiling.Windows", "init_args": {"patch": [8, 8], "overlap": 0.5}}
    windows["init_args"]["network"], tree["method"]["init_args"]["network"] = tree["method"]["init_args"]["network"], windows
    assert overrides(tree, overlap=0.25) == {"--method.network.overlap": "0.25"}


def test_automata_only_options_are_refused_for_other_networks(run):
    tree = yaml.safe_load(run.source)
    assert overrides(tree, arithmetic="bfloat16") == {"--method.network.arithmetic": "bfloat16"}
    tree["method"]["init_args"]["network"] = {"class_path": "somite.networks.baselines.DynUNet", "init_args": {"channels": [4, 8, 8]}}
    with pytest.raises(InputError, match=r"--precision .* no cells"):
        overrides(tree, arithmetic="bfloat16")
