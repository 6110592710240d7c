"""The part of the command line that asks of finished runs and trains grids of them: `analyse`, `study`."""

from pathlib import Path
from typing import Any

from .cli_options import RUN, Parser, engines, offer


def add_analyses(commands: Any) -> None:  # noqa: ANN401 - argparse keeps the type to itself
    analyse = commands.add_parser(
        "analyse", help="timesteps, placement, fingerprint, calibration, raters, stability, features: CSV and figures"
    )
    kinds = analyse.add_subparsers(dest="analysis", metavar="ANALYSIS", parser_class=Parser, required=True)

    timesteps = kinds.add_parser("timesteps", help="loss by timestep of a diffusion run, with the image, another's and none")
    offer(timesteps, *RUN)
    timesteps.add_argument("--split", default="val", help="default: val, so that what the table places is scored on other cases")
    timesteps.add_argument("--draws", type=int, default=4, help="noise draws a case and timestep")
    timesteps.add_argument("--count", type=int, default=25, help="timesteps")
    timesteps.add_argument("--limit", type=int, help="the first so many cases")
    timesteps.add_argument("--out", type=Path, help="default: RUN/timesteps")

    placement = kinds.add_parser("placement", help="few reverse steps, equally spaced or where the image is worth most")
    offer(placement, *RUN, "--with", "--readout")
    placement.add_argument("table", type=Path, metavar="CSV", help="benefit.csv of `analyse timesteps RUN`")
    placement.add_argument("--split", default="test")
    placement.add_argument(
        "--steps", dest="counts", metavar="N", type=int, nargs="+", default=[2, 3, 5, 10], help="numbers of reverse steps to compare at"
    )
    placement.add_argument("--members", type=int, default=1, help="ensemble size (default: 1)")
    placement.add_argument("--limit", type=int, help="the first so many cases")
    placement.add_argument("--out", type=Path, help="default: RUN/placement")

    fingerprint = kinds.add_parser("fingerprint", help="at what noise data sets lose their masks; without training")
    fingerprint.add_argument("data", nargs="+", help="folders, CSVs or nnU-Net raw folders, compared in one figure")
    fingerprint.add_argument("--size", type=int, default=64, help="masks are resized to this square")
    fingerprint.add_argument("--train", type=int, default=0, metavar="STEPS", help="also train a mask-only network for so many steps")
    fingerprint.add_argument("--seed", type=int, default=0)
    fingerprint.add_argument("--out", type=Path, required=True)

    calibration = kinds.add_parser("calibration", help="ECE of runs by members, raw and temperature-scaled, at equal cost")
    calibration.add_argument("runs", nargs="+", type=Path)
    calibration.add_argument("--split", default="test")
    calibration.add_argument("--members", dest="sizes", metavar="N", type=int, nargs="+", default=[1, 2, 5, 10], help="ensemble sizes")
    calibration.add_argument("--seed", type=int, default=0)
    calibration.add_argument("--trust", action="store_true", help="build classes from outside somite that the runs name")
    calibration.add_argument("--out", type=Path, required=True)

    raters = kinds.add_parser("raters", help="does an ensemble vary as several raters do? GED, matched IoU, collective insight")
    offer(raters, *RUN, "--steps", "--benefit", "--readout", "--overlap")
    raters.add_argument("--split", default="test")
    raters.add_argument("--members", dest="sizes", metavar="N", type=int, nargs="+", default=[1, 4, 8, 16], help="ensemble sizes")
    raters.add_argument("--limit", type=int, help="the first so many cases")
    raters.add_argument("--out", type=Path, help="default: RUN/raters")

    stability = kinds.add_parser("stability", help="does a run give the same answer twice? PSNR, SSIM, LPIPS, Dice over seeds")
    offer(stability, *RUN, "--with", "--steps", "--benefit", "--readout", "--overlap")
    stability.add_argument("--split", default="test")
    stability.add_argument("--seeds", type=int, default=10, metavar="N", help="so many, from --seed on (default: 10)")
    stability.add_argument("--members", type=int, default=1, help="ensemble size of each answer (default: 1)")
    stability.add_argument("--limit", type=int, help="the first so many cases")
    stability.add_argument("--lpips", type=Path, metavar="FILE", help="torchvision's AlexNet, .pth or .safetensors: measures LPIPS too")
    stability.add_argument(
        "--published", action="store_true", help="SDSeg's arithmetic: maps of 8 bits, the range of each pair's own values"
    )
    stability.add_argument("--out", type=Path, help="default: RUN/stability")

    features = kinds.add_parser("features", help="which timesteps and maps of a pretrained network separate which organs; no training")
    offer(features, "run", "--seed", "--device", "--trust")
    features.add_argument("--data", required=True, help="labelled volumes, prepared as the run's own were")
    features.add_argument("--split", default="train", help="default: train, so that what is chosen is scored on other cases")
    features.add_argument("--limit", type=int, default=4, help="the first so many cases (default: 4)")
    features.add_argument(
        "--timesteps",
        nargs="+",
        metavar="LEVEL",
        default=["0", "5", "10", "30", "60", "100", "200", "400"],
        help="30, '131 HU' or '80 SNR'",
    )
    features.add_argument("--voxels", type=int, default=300, metavar="N", help="of each class and case (default: 300)")
    features.add_argument("--noise", action="store_true", help="noise the picture; by default it is read as the schedule leaves it")
    features.add_argument(
        "--labels", type=int, nargs="+", help="values of the classes in mask files (default: those that these masks have)"
    )
    features.add_argument("--out", type=Path, help="default: RUN/features")


def add_studies(commands: Any) -> None:  # noqa: ANN401
    study = commands.add_parser("study", help="a grid of runs that answers a paper's question; the same line again goes on")
    study.add_argument("name", choices=studies(), help="one of them")
    study.add_argument("--data", required=True, help='folder, CSV or nnU-Net raw folder; "nuclei" is the bundled set')
    study.add_argument("--budget", choices=["smoke", "cpu", "paper"], default="cpu", help="minutes, hours on two cores, days on a GPU")
    study.add_argument("--seeds", type=int, nargs="+", help="default: the budget's")
    study.add_argument("--steps", type=int, help="training steps of every job (default: the budget's)")
    study.add_argument("--only", nargs="+", default=[], metavar="CELL", help="networks, or NETWORK/METHOD")
    engines(study)
    study.add_argument("--threads", type=int, default=1, help="CPU threads a job")
    study.add_argument("--out", type=Path, help="default: runs/NAME")


def studies() -> list[str]:
    """A study is a file of that name; none is imported for its name."""
    return sorted(path.stem.replace("_", "-") for path in Path(__file__).with_name("studies").glob("[!_]*.py"))
