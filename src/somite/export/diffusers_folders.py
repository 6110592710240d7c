"""A run of latent diffusion (SDSeg) as folders that diffusers opens: vae, unet, scheduler, and the vision encoder beside them."""

from pathlib import Path
from string import Template
from typing import Any

import torch
from safetensors.torch import save

from ..diffusion.latent import Autoencoder
from ..diffusion.methods import Diffusion
from ..diffusion.pictures import Grey
from ..diffusion.schedule import Schedule
from ..errors import InputError
from ..files import read_json, replacing, write_json, write_text
from ..networks.sdseg import SDSeg
from ..nn.diffusers_library import diffusers_for
from ..pipeline import Run

PREDICTS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
README = Path(__file__).with_name("README.md.template")


def write_diffusers(run: Run, out: Path) -> None:
    method = run.method
    network, codec = method.network, method.codec
    if not (isinstance(method, Diffusion) and type(network) is SDSeg and type(codec) is Autoencoder):
        kinds = f"{type(method).__name__} of {type(network).__name__} with the codec {type(codec).__name__}"
        raise InputError(f"{run.path} is {kinds}; only latent diffusion, SDSeg with the codec Autoencoder, has a form in diffusers")
    if not network.concat:
        raise InputError(f"{run.path} has the fusion cross-attention, for which diffusers has no class of its own; export one with concat")
    if not isinstance(codec.picture, Grey) or network.classes:
        raise InputError(f"{run.path} answers for several classes, which the folders of diffusers cannot say; export a run of binary masks")
    kl = codec.kl
    unet: Any = network.unet
    kl.save_pretrained(out / "vae")
    write_json(out / "vae" / "config.json", {**read_json(out / "vae" / "config.json"), "scaling_factor": float(codec.scale)})
    unet.save_pretrained(out / "unet")
    scheduler(method.schedule, PREDICTS[method.predicts]).save_pretrained(out / "scheduler")
    write_encoder(network, out / "vision_encoder")
    heads = next(module.heads for module in unet.modules() if hasattr(module, "heads") and hasattr(module, "to_q"))
    told = {
        "heads": heads,
        "steps": method.steps,
        "channels": network.vision.image_channels,
        "latents": codec.channels,
        "reduction": codec.reduction,
        "multiple": codec.reduction * network.factor,
        "normalise": type(run.recipe.data.preprocess.normalise).__name__,
        "name": run.path.resolve().name,
    }
    write_text(out / "README.md", Template(README.read_text(encoding="utf-8")).substitute(told))


def write_encoder(network: SDSeg, folder: Path) -> None:
    """Its config are the arguments of diffusers' `Encoder`."""
    encoder = network.vision.encoder
    widths = [block.resnets[0].conv1.out_channels for block in encoder.down_blocks]
    write_json(
        folder / "config.json",
        {
            "in_channels": network.vision.image_channels,
            "out_channels": network.vision.out.out_channels,
            "down_block_types": ["DownEncoderBlock2D"] * len(widths),
            "block_out_channels": widths,
            "layers_per_block": len(encoder.down_blocks[0].resnets),
        },
    )
    with replacing(folder / "model.safetensors") as temporary:
        temporary.write_bytes(save({name: value.contiguous() for name, value in network.vision.state_dict().items()}))


def scheduler(schedule: Schedule, predicts: str) -> Any:  # noqa: ANN401 - of diffusers
    """DDIM as somite takes its steps: from T-1, to the clean target at the end, nothing clipped."""
    betas = torch.tensor(schedule.betas, dtype=torch.float64)
    total, start, end = len(betas), float(f"{betas[0]:.9g}"), float(f"{betas[-1]:.9g}")
    named = {
        "scaled_linear": torch.linspace(start**0.5, end**0.5, total, dtype=torch.float64) ** 2,
        "linear": torch.linspace(start, end, total, dtype=torch.float64),
    }
    kind = next((name for name, one in named.items() if torch.allclose(one, betas, rtol=1e-7, atol=0)), None)
    form = {"trained_betas": betas.tolist()} if kind is None else {"beta_schedule": kind, "beta_start": start, "beta_end": end}
    return diffusers_for("an export to diffusers").DDIMScheduler(
        num_train_timesteps=total,
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
        prediction_type=predicts,
        **form,
    )
