"""Every bundled recipe, made tiny: it builds, trains two steps on phantoms, samples and is evaluated."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import somite
from runs import tiny
from scanned import SMALL as SCANNED
from scanned import trained
from somite.data.phantoms import write_phantoms
from somite.errors import InputError
from somite.evaluation import evaluate
from somite.nn.kl import kl_autoencoder
from somite.recipe import build, dump, parse, path_of
from somite.tasks.bodyparts import Contrasted
from somite.tasks.classification import Classification
from somite.tasks.segmentation import Segmentation

ROOT = Path(str(files("somite") / "recipes"))
NAMES = sorted(path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.rglob("*.yaml"))
SMALL = {"channels": 32, "hidden": 8, "updates": 2, "mults": [1, 1, 1, 1, 1], "res_blocks": 1, "rrdb_blocks": 1}
SMALL |= {"blocks": 1, "width": 8, "encoder_channels": 32, "encoder_mults": [1, 1], "encoder_blocks": 1}
TRANSFORMER = {"heads": 2, "depth": 1, "mlp": 8}  # whose width is so many heads'


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    """An autoencoder for the recipes that stand on one."""
    folder = tmp_path_factory.mktemp("vae")
    kl_autoencoder(32, (1, 1), 1).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A pretrained run for the recipes that read another's features."""
    data = write_phantoms(tmp_path_factory.mktemp("scans"), 5, (12, 10, 8), 1)
    return trained("ctpretrain/small", data, tmp_path_factory.mktemp("pretrained") / "ct")


def shrunk_volumes(name: str, backbone: Path) -> list[str]:
    """The same for pretraining, body coordinates and probes, whose sizes have other names."""
    config = parse(path_of(name))
    small = SCANNED.get(name) or next(options for other, options in SCANNED.items() if other.split("/")[0] == name.split("/")[0])
    out = [*small, "--training.steps=2", "--training.batch=2", "--data.cache_gb=1", "--training.workers=0"]
    if name.startswith("probe"):
        binary = (
            ["--data.labels=[0,1]", "--method.codec.classes=2", "--method.network.network.mask_channels=1"] if config.data.labels else []
        )
        return [*out, *binary, f"--method.network.network.backbone.source={backbone}", "--task.members=2"]
    if config.data.preprocess.init_args.spacing_mm:
        out.append("--data.preprocess.spacing_mm=[1,1,2]")
    return out


def shrunk(name: str, channels: int, vae: Path) -> list[str]:  # noqa: C901 - one line a kind of part
    """Overrides that make any recipe tiny: the network's known sizes, two steps of everything."""
    config = parse(path_of(name))
    network, place = config.method.init_args.network, "--method.network"
    if network.class_path.endswith(("Guided", "Windows")):
        network, place = network.init_args.network, f"{place}.network"
    arguments = vars(network.init_args)
    small = {
        key: value
        for key, value in (SMALL | (TRANSFORMER if "heads" in arguments and "width" in arguments else {})).items()
        if key in arguments
    }
    if isinstance(arguments.get("channels"), list) and "updates" not in arguments:
        small["channels"] = [4, 8, 8, 8]
    if network.class_path.endswith("Multigrid"):
        small |= {"hidden": "8", "down": "1", "up": "1"}
    if arguments.get("levels", 0) > 4 and config.data.preprocess.init_args.dims == 3:
        small["levels"] = 3  # crops of 16 hold no five
    if channels != config.data.preprocess.init_args.channels:
        small["image_channels"] = channels
    if "encoder_mults" in small:  # whose latents are small already
        small |= {"mults": [1, 1], "attention": [2]}
    if name == "autoencoder/tiny":
        small["teacher.source"] = vae
    out = [f"{place}.{key}={value}" for key, value in small.items()]
    codec = config.method.init_args.get("codec")
    sampler = config.method.init_args.get("sampler")
    if sampler and sampler.init_args.steps > 1:
        out.append("--method.sampler.steps=2")
    if codec and codec.class_path.endswith("Autoencoder"):
        out.append(f"--method.codec.weights.source={vae}")
    if config.data.splits or config.data.foreground:
        out += ["--data.splits=null", "--data.foreground=null"]  # the phantoms are other data
    if config.data.augment:
        out.append("--data.augment.rate=1.0")
    if config.data.raters:
        out.append("--data.raters=false")  # the phantoms have none
    size = "null" if config.data.preprocess.init_args.dims == 3 else "[32,32]"
    crop = "16" if config.data.crop else "null"
    out += [f"--data.preprocess.size={size}", f"--data.preprocess.channels={channels}", f"--data.crop={crop}"]
    if config.task.class_path.endswith("Segmentation"):
        out += ["--task.members=2", f"--task.steps={'[1,2]' if sampler else 'null'}"]
    return [*out, "--training.steps=2", "--training.batch=2"]


# The same network and method as another recipe's, on other data or at another size, or parts that other recipes have tested between them.
LIKE_ANOTHER = {
    "sdseg/btcv",
    "sdseg/cvc",
    "sdseg/kvasir",
    "sdseg/refuge2",
    "sdseg/sts3d",
    "medsegdiff/images",
    "medsegdiff/official",
    "medsegdiff/v1",
    "segdiff/images",
    "ensemdiff/images",
    "geca/official",
    "dit/labels",
    "dit/latents",
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in LIKE_ANOTHER else ()) for name in NAMES])
def test_it_trains_samples_and_is_evaluated(name, vae, backbone, tmp_path):
    data, of_scans = parse(path_of(name)).data, name.split("/")[0] in ("ctpretrain", "bodyparts", "probe", "vox2vec")
    channels, classes = 1 if of_scans or data.preprocess.init_args.channels == 1 else 3, 1 if of_scans else len(data.labels or [0, 1]) - 1
    size = (36, 32) if channels == 3 else (18, 20, 8)
    root = write_phantoms(tmp_path / "data", 5, size, channels, classes)
    options = shrunk_volumes(name, backbone) if of_scans else shrunk(name, channels, vae)
    try:
        out = tiny(root, tmp_path / "run", *options, recipe=name)
    except InputError as error:
        if "pip install" not in str(error):
            raise
        pytest.skip(str(error))
    run = somite.load(out, device="cpu")
    assert (run.path / "training.json").is_file()
    if isinstance(run.recipe.task, Contrasted):
        return  # features, of which there is nothing to evaluate
    if isinstance(run.recipe.task, Classification):
        assert evaluate(run, "test", run.path)["metrics"]["nll"]["mean"] < 10
        assert run.predict(run.recipe.data.cases("test")[0]).names == ("large", "small")
        return
    if not isinstance(run.recipe.task, Segmentation):
        assert all(np.isfinite(one["mean"]) for one in evaluate(run, "test", run.path)["metrics"].values())
        return
    result = run.predict(run.recipe.data.cases("test")[0])
    assert result.mask.shape == size
    assert result.members.shape == (2, run.method.codec.maps, *size)
    assert np.isfinite(result.members).all()
    summary = evaluate(run, "test", run.path)
    dice = []
    for case in run.recipe.data.cases("test"):
        mask, truth = run.predict(case).mask, run.recipe.data.read(case).truth
        both = [(mask == label, truth == label) for label in range(1, classes + 1)]
        dice += [2 * (one & other).sum() / (one.sum() + other.sum()) for one, other in both]
    assert summary["metrics"]["dice"]["mean"] == pytest.approx(np.mean(dice), abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is_and_how_to_run_it(name):
    lines = (ROOT / f"{name}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ")
    assert any(line.startswith(f"# somite train {name} ") for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_a_resolved_recipe_reads_back_as_itself(name, tmp_path):
    text = dump(parse(path_of(name)))
    (tmp_path / "recipe.yaml").write_text(text)
    again = dump(parse(tmp_path / "recipe.yaml"))
    assert again == text


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("--training.stepz=3", "stepz"),
        ("--training.steps=abc", r"training\.steps: Expected an? int.*abc"),
        ("--method.network.channels=abc", r"method\.network\.channels: Expected an? int.*abc"),
        ("--method.sampler.stepz=3", r"method\.sampler: Option 'stepz' is not accepted"),
        ("--method.predicts=noise", r"method\.predicts: .*'eps'.*noise"),
        ("--data.preprocess.size=abc", r"data\.preprocess\.size: .*abc"),
        ("--data.preprocess.axis=3", r"data\.preprocess\.axis"),
        ("--method.codec=Nope", r"method\.codec: .*Nope"),
        ("--method.network=nowhere.Net", r"method\.network: .*No module named 'nowhere'; put the folder of nowhere\.py on PYTHONPATH"),
        ("--method.sampler=somite.diffusion.codec.Euler", r"no attribute 'Euler'; its classes are Codec, .*Signed"),
    ],
)
def test_a_wrong_override_is_named_in_full_on_one_line(override, words):
    with pytest.raises(InputError, match=words) as error:
        parse(path_of("medsegdiffnca/demo"), [override])
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("dynunet/images", ["--method.network.channels=[4,8]", "--method.network.deep_heads=2"], "^deep supervision"),
        ("medsegdiffnca/demo", ["--data.preprocess.normalise.low=200"], "^percentiles"),
        ("medsegdiffnca/demo", ["--training.steps=0"], "^--training.steps 0"),
        ("medsegdiffnca/demo", ["--method.codec=somite.diffusion.codec.OneHot", "--method.codec.classes=1"], "^a one-hot codec"),
    ],
)
def test_what_a_constructor_refuses_is_said_in_its_own_words(name, overrides, words):
    with pytest.raises(InputError, match=words) as error:
        build(parse(path_of(name), overrides))
    assert "\n" not in str(error.value)


def test_overrides_reach_the_constructors():
    recipe = build(
        parse(
            path_of("medsegdiffnca/demo"),
            ["--data.crop=[16,32]", "--method.sampler.eta=0.5", "--task.fusion=somite.predict.fusion.Majority"],
        )
    )
    assert recipe.data.crop == [16, 32]
    assert recipe.method.sampler.eta == 0.5
    assert type(recipe.task.fusion).__name__ == "Majority"


def test_recipes_that_are_not_there():
    with pytest.raises(InputError, match="somite recipes lists"):
        path_of("medsegdiffnca/nope")
    with pytest.raises(InputError, match=r"nope.yaml is not there"):
        path_of("nope.yaml")
