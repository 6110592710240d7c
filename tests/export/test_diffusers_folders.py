"""An exported run, opened with diffusers alone by the lines of its own README, gives the run's own answers."""

import re
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DModel

import somite
from official_sdseg import cases, close, state
from somite import rng
from somite.cli import main
from somite.diffusion.schedule import cosine, linear, scaled_linear
from somite.errors import InputError
from somite.export.diffusers_folders import scheduler, write_diffusers
from somite.networks.sdseg import SDSeg
from somite.nn.frozen import Start
from somite.weights.importer import import_run

CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("sdseg")
    torch.save({"state_dict": state()}, place / "model.ckpt")
    return import_run([place / "model.ckpt"], place / "run", "sdseg")


@pytest.fixture(scope="module")
def folder(run):
    assert main(["export", str(run), "--out", str(run.parent / "exported")]) == 0
    return run.parent / "exported"


@pytest.fixture
def names(folder, monkeypatch):
    """What the README's block leaves behind."""
    monkeypatch.chdir(folder)
    (code,) = CODE.findall(Path("README.md").read_text(encoding="utf-8"))
    assert "somite" not in re.sub(r"#.*", "", code)
    found: dict = {}
    exec(compile(code, "README.md", "exec"), found)
    return found


def test_one_step(run, names, monkeypatch):
    case = cases()
    answer = names["segment"](case["image"], case["init_noise"])
    monkeypatch.setattr(rng, "normal", lambda shape, device: case["init_noise"])
    opened = somite.load(run, device="cpu")
    assert (answer - opened.method.sample({"image": case["image"]}, (1, 1, 64, 64))).abs().max() < 1e-5
    close(answer[:, 0], case["infer_prob_ema"])
    names["scheduler"].set_timesteps(3)
    assert names["scheduler"].timesteps.tolist() == [*opened.method.sampler.timesteps(1000), 666, 332]
    three = opened.at(steps=3).method.sample({"image": case["image"]}, (1, 1, 64, 64))
    # diffusers multiplies a thousand betas in float32, and random weights make much of little
    assert (names["segment"](case["image"], case["init_noise"]) - three).abs().max() < 2e-3
    assert (answer - three).abs().max() > 0.02


def test_the_trap_is_one(folder, names):
    """Without the README's lines diffusers answers otherwise, and says nothing."""
    x, t = cases()["unet_x"], cases()["unet_t"]
    with torch.no_grad():
        trapped = UNet2DModel.from_pretrained(folder / "unet").eval()(x, t).sample
        assert (trapped - names["unet"](x, t).sample).abs().max() > 0.01


def test_latents_have_the_runs_scale(run, names):
    assert names["vae"].config.scaling_factor == pytest.approx(0.2)
    assert somite.load(run, device="cpu").method.codec.kl.config.scaling_factor == pytest.approx(0.18215)  # it is not changed
    assert names["scheduler"].config.beta_schedule == "scaled_linear"
    assert names["scheduler"].timesteps.tolist() == [999]


def test_training_can_start_from_it(folder):
    sizes = {"channels": 32, "mults": (1, 2, 2), "attention": (1, 2), "encoder_channels": 32, "encoder_mults": (1, 2, 2, 2)}
    network = SDSeg(**sizes, unet_start=Start(str(folder)), encoder_start=Start(str(folder)))
    with torch.no_grad():
        case = cases()
        answer = network.eval()(case["unet_x"][:, :4], case["unet_t"], {"features": case["unet_x"][:, 4:]}).value
    assert answer.shape == case["unet_out"].shape and answer.any()


@pytest.mark.parametrize("given", [linear(1000), linear(100), scaled_linear(1000, 0.0015, 0.0155), scaled_linear(50), cosine(200)])
def test_schedules(given, tmp_path):
    scheduler(given, "v_prediction").save_pretrained(tmp_path)
    found = DDIMScheduler.from_pretrained(tmp_path)
    ours = torch.tensor([given.at(t)[0] ** 2 for t in range(len(given))])
    torch.testing.assert_close(found.alphas_cumprod.float(), ours, rtol=1e-4, atol=1e-8)
    assert found.config.prediction_type == "v_prediction" and not found.config.clip_sample


@pytest.fixture
def refused(capsys):
    def check(*line):
        assert main([str(part) for part in line]) == 2
        told = capsys.readouterr().err
        assert len(told.splitlines()) == 1
        return told

    return check


def test_a_folder_that_holds_something_is_left_alone(run, tmp_path, refused):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("mine")
    assert "holds something already; name a folder that is new or empty" in refused("export", run, "--out", tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "a"]
    (tmp_path / "out" / "a").unlink()
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"vae", "unet", "vision_encoder", "scheduler", "README.md"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failure_leaves_nothing(run, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError

    monkeypatch.setattr("somite.export.diffusers_folders.write_encoder", broken)
    with pytest.raises(RuntimeError):
        main(["export", str(run), "--out", str(tmp_path / "out")])
    assert not list(tmp_path.iterdir())


def test_other_runs_are_refused(run, tmp_path, refused):
    older = Path(__file__).parents[1] / "reference" / "run-0.1.0" / "finished"
    assert "only latent diffusion, SDSeg with the codec Autoencoder, has a form in diffusers" in refused(
        "export", older, "--out", tmp_path / "o"
    )
    assert not list(tmp_path.iterdir())
    crossed = somite.load(run, device="cpu")
    crossed.method.network.concat = False
    with pytest.raises(InputError, match="cross-attention"):
        write_diffusers(crossed, tmp_path)
