"""Heads on another run's features: frozen, tuned, begun afresh; whole, in windows, and through the command line."""

import pytest
import torch
import yaml
from safetensors.torch import load_file

import somite
from scanned import trained
from somite.cli import main
from somite.contracts import NetworkContract
from somite.data.phantoms import write_phantoms
from somite.diffusion.features import features, field
from somite.diffusion.opened import opened
from somite.errors import InputError
from somite.networks.probe import Probe
from somite.nn.frozen import Part
from somite.predict.tiling import Windows

ABAR = {10: 0.997806572507846, 30: 0.9877104203823749, 60: 0.9583214064229061}  # by diffusers' and MONAI's schedules


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("data"), 5, (12, 10, 8), 1)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return trained("ctpretrain/small", data, tmp_path_factory.mktemp("runs") / "ct")


@pytest.fixture(scope="module")
def part(run):
    return Part(str(run))


def asked(network, **cond):
    """The value for a condition, of which x and t do not matter."""
    image = cond["image"]
    return network(image, torch.zeros(len(image), dtype=torch.long), network.encode(cond)).value


class TestProbe(NetworkContract):
    image_channels, mask_channels = 1, 2
    spaces = {3: [(8, 8, 8), (7, 9, 5)]}  # noqa: RUF012

    @pytest.fixture(autouse=True)
    def _run(self, part):
        self.part = part

    def make(self, dims):
        return Probe(self.part, mask_channels=2, head="linear", tune="all", side="both")


def test_what_the_head_reads_are_the_backbones_maps_at_the_timesteps(part, run):
    network, image, where = Probe(part, noise="none").eval(), torch.rand(2, 1, 8, 6, 4), torch.rand(2, 3, 8, 6, 4)
    backbone = opened(run).method.network
    found = network.features({"image": image, "coordinates": where})
    for level, maps in enumerate(found):
        alone = [
            backbone.pyramid(abar**0.5 * (2 * image - 1), torch.full((2,), t), {"coordinates": where})[level] for t, abar in ABAR.items()
        ]
        torch.testing.assert_close(maps, torch.cat(alone, 1), rtol=1e-4, atol=1e-4)


def test_fixed_noise_belongs_to_places_and_to_the_seed(part):
    image = torch.rand(1, 1, 12, 10, 8)
    one, again, other = (Probe(part, seed=seed).eval() for seed in (0, 0, 1))
    first, second, third = (network.features(network.encode({"image": image})) for network in (one, again, other))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], third[0])
    whole = one.whole({"image": image})
    assert torch.equal(whole["noise/0/30"], field((1, 12, 10, 8), 0, 30, "0"))
    part_ = {name: value[:, :, 4:, 2:, :6] for name, value in whole.items()}
    assert torch.equal(one.encode(part_)["noise/0/30"], whole["noise/0/30"][:, :, 4:, 2:, :6])  # a window's own share is kept


def test_draws_are_averaged_and_fresh_noise_differs(part):
    image = torch.rand(1, 1, 8, 8, 8)
    three = Probe(part, draws=3, timesteps=[60]).eval()
    known = three.encode({"image": image})
    single = [features(three.backbone, 2 * image - 1, {}, three.schedule, [60], [known[f"noise/{draw}/60"]])[0] for draw in range(3)]
    torch.testing.assert_close(three.features(known)[0], sum(single) / 3, rtol=1e-4, atol=1e-4)
    fresh = Probe(part, noise="fresh").eval()
    assert not torch.equal(fresh.features({"image": image})[0], fresh.features({"image": image})[0])


@pytest.mark.parametrize(("tune", "side"), [("nothing", "encoder"), ("all", "encoder"), ("all", "both"), ("decoder", "both")])
def test_what_is_tuned_changes_and_nothing_else_does(part, tune, side):
    """Acceptance fact 13: after training a head the backbone is the same to the bit, its buffers too."""
    network = Probe(part, tune=tune, side=side)
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1)
    for _ in range(3):
        image = torch.rand(2, 1, 8, 8, 8)
        value = asked(network.train(), image=image, coordinates=torch.rand(2, 3, 8, 8, 8))
        (value - 1).square().mean().backward()
        optimizer.step()
    changed = {name for name, value in network.backbone.state_dict().items() if not torch.equal(value, before[name])}
    up = ("fpn.up_blocks", "fpn.skip_blocks", "fpn.right_blocks")
    assert all(p.grad is None for p in network.backbone.out.parameters())
    assert not any(name.startswith("out.") for name in changed)
    assert any(name.startswith(up) for name in changed) == (side == "both" and tune != "nothing")
    assert any(name.startswith("fpn.left_blocks") for name in changed) == (tune == "all")
    if tune == "nothing":
        assert not changed and not any("held" in name for name in network.state_dict())


def test_the_backbone_thaws_when_it_is_told_to(part):
    network = Probe(part, tune="all", thaw=2).train()
    seen = []
    for _ in range(4):
        network.zero_grad(set_to_none=True)
        asked(network, image=torch.rand(1, 1, 8, 8, 8)).sum().backward()
        seen.append(network.backbone.fpn.first_conv.weight.grad is not None)
    assert seen == [False, False, True, True]


def test_afresh_is_another_network_of_the_same_shape(part):
    torch.manual_seed(0)
    one = Probe(part, tune="all", afresh=True)
    torch.manual_seed(1)
    other = Probe(part, tune="all", afresh=True)
    trained_ = Probe(part, tune="all")
    shapes = {name: value.shape for name, value in trained_.state_dict().items()}
    assert {name: value.shape for name, value in one.state_dict().items()} == shapes
    assert not torch.equal(one.backbone.fpn.first_conv.weight, other.backbone.fpn.first_conv.weight)
    assert "held.fpn.first_conv.weight" in Probe(part, afresh=True).state_dict()  # random features have to be kept


def test_a_linear_heads_windows_are_the_mean_of_features(part):
    """Counts of acceptance fact 14, and the window of a network with coordinates and noise tied to places."""
    network = Probe(part, mask_channels=13, head="linear").eval()
    channels = [3 * 8, 3 * 16]
    assert sum(p.numel() for p in network.head.parameters()) == sum(channels) * 13 + 13
    image, where = torch.rand(1, 1, 12, 8, 8), torch.rand(1, 3, 12, 8, 8)
    windows = Windows(network, [8, 8, 8], overlap=0.5, blend="constant").eval()
    x, t = torch.zeros(1, 13, 12, 8, 8), torch.zeros(1, dtype=torch.long)
    with torch.no_grad():
        whole = windows(x, t, windows.encode({"image": image, "coordinates": where})).value
        known = network.whole({"image": image, "coordinates": where})
        cut = [network(x, t, {name: value[:, :, a : a + 8] for name, value in known.items()}).value for a in (0, 4)]
    mean = torch.cat([cut[0][:, :, :4], (cut[0][:, :, 4:] + cut[1][:, :, :4]) / 2, cut[1][:, :, 4:]], 2)
    torch.testing.assert_close(whole, mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recipe", ["probe/small", "probe/fine-tuned", "probe/scratch"])
def test_it_goes_from_the_command_line_and_takes_preprocessing_from_its_backbone(recipe, data, run, tmp_path):
    out = trained(recipe, data, tmp_path / "probe", f"--backbone={run}")
    told = yaml.safe_load((out / "recipe.yaml").read_text())["data"]
    theirs = yaml.safe_load((run / "recipe.yaml").read_text())["data"]
    assert told["preprocess"] == theirs["preprocess"] and told["coordinates"] == theirs["coordinates"] is not None
    assert any("head" in name for name in load_file(out / "weights.safetensors"))
    assert main(["evaluate", str(out)]) == 0
    case = somite.load(out, device="cpu").recipe.data.cases("test")[0]
    opened_, moved = somite.load(out, device="cpu"), tmp_path / "frozen"
    assert moved.is_dir()  # what is frozen lies beside the runs, so the backbone's own folder is not needed
    answer = opened_.predict(case)
    assert answer.mask.shape == (12, 10, 8)


def test_noise_levels_are_timesteps(part, run, tmp_path):
    """MR has no HU, but a ratio; 10, 30 and 60 by their SNR."""
    snr = [f"{abar / (1 - abar):.4f} SNR" for abar in ABAR.values()]
    assert Probe(part, timesteps=snr).timesteps == [10, 30, 60]


def test_contrast_and_restoration_are_read_without_noise(data, tmp_path):
    for recipe in ("ctpretrain/restore", "ctpretrain/contrast"):
        part = Part(str(trained(recipe, data, tmp_path / recipe.replace("/", "-"))))
        with pytest.raises(InputError, match=r"timesteps \[0\] and --method.network.noise none"):
            Probe(part)
        network = Probe(part, timesteps=[0], noise="none", side="both").eval()
        image = torch.rand(1, 1, 8, 8, 8)
        assert asked(network, image=image).shape == image.shape


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"draws": 0}, "one draw at least"),
        ({"draws": 2, "noise": "none"}, "only where there is noise"),
        ({"tune": "decoder"}, "set side both"),
        ({"timesteps": [1000]}, "none of this schedule's"),
    ],
)
def test_what_makes_no_sense_is_refused(part, options, words):
    with pytest.raises(InputError, match=words):
        Probe(part, **options)


def test_what_is_no_backbone_is_told(data, part, tmp_path, capsys):
    bodyparts = trained("bodyparts/small", data, tmp_path / "bodyparts")
    with pytest.raises(InputError, match="gives no features"):
        Probe(Part(str(bodyparts)))
    with pytest.raises(InputError, match="no run folder"):
        Probe(Part(str(data)))
    network = Probe(part, placed=True)
    with pytest.raises(InputError, match=r"set --data\.coordinates"):
        asked(network, image=torch.rand(1, 1, 8, 8, 8))
    assert main(["train", "probe/small", f"--data.root={data}", "--out", str(tmp_path / "y")]) == 2
    assert "named by --backbone RUN" in capsys.readouterr().err
    assert main(["train", "mednca/hippocampus", f"--backbone={bodyparts}", "--out", str(tmp_path / "x")]) == 2
    assert "leave --backbone out" in capsys.readouterr().err
