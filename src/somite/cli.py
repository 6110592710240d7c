"""The command line: what can be typed. What is done is in commands.py, which imports torch, so that help answers at once."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .cli_analyses import add_analyses, add_studies
from .cli_options import PROGRAM, RUN, SAMPLING, Parser, engines, offer
from .errors import InputError
from .files import full_disk, unreadable

DESCRIPTION = "Diffusion models for medical images: train on your own data, get masks with calibrated uncertainty and an honest report."
FOOTER = "exit codes: 0 done, 2 your input needs a change (one line says which), 1 a fault of somite's (doctor: errors in the data). Research use only."
TRAIN = """usage: somite train RECIPE [--data.root DIR] [--out RUN] [--any.option VALUE ...]

Trains a recipe; the same line again resumes a run that was stopped. Every argument of a recipe is an option:
--data.root DIR, --training.steps 5000, --method.sampler.steps 10, --data.preprocess.size 256, ...
--backbone RUN: whose features a probe reads.

somite recipes                list the recipes
somite train RECIPE --help    all options of one recipe"""


def parser() -> Parser:
    made = Parser(prog="somite", description=DESCRIPTION, epilog=FOOTER)
    made.add_argument("--version", action="store_true", help="print the version")
    # What opening a run asks for, where a command does not offer it:
    made.set_defaults(
        folds=[],
        members=None,
        steps=None,
        sampler=None,
        convolutions=None,
        benefit=None,
        readout=None,
        calibrated=False,
        plain=False,
        tolerance=None,
        precision="32",
        firing=None,
        tile=None,
        updates=None,
        heredity=None,
        overlap=None,
        guidance=None,
        extractor=None,
        seed=0,
        device="cpu",
    )
    commands = made.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)

    demo = commands.add_parser("demo", help="train, predict, evaluate and report on the bundled real images (minutes)")
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), help="run folder (default: runs/demo)")
    demo.add_argument("--seed", type=int, default=0, help="of the training and the answers (default: 0)")

    doctor = commands.add_parser(
        "doctor",
        help="check a data set before training: files, pairs, masks, leakage, and what a recipe takes here",
        epilog="exit codes: 0 nothing forbids training, 1 there are errors to mend first, 2 a wrong call. Options of the data are those of train, "
        "as --data.labels [0,1,2].",
    )
    doctor.add_argument("data", help="folder, CSV or nnU-Net raw folder, as --data.root of train")
    doctor.add_argument("--recipe", help="also try a step of this recipe: time, memory, disk on this machine")
    doctor.add_argument("--quick", action="store_true", help="read the pixels of a sample alone (200 cases at most)")
    doctor.add_argument("--full", action="store_true", help="read the pixels of all files, however many (default: of 1.5 GB of files)")
    doctor.add_argument("--workers", type=int, help="processes that look at files (default: one a core, at most 8)")
    doctor.add_argument("--json", type=Path, metavar="FILE", help="also write the findings as JSON, with all files that they name")

    train = commands.add_parser("train", add_help=False, help="train a recipe on your data; the same line again resumes")
    train.add_argument("recipe", nargs="?")
    train.add_argument("--out", type=Path)
    train.add_argument("-h", "--help", action="store_true")

    distil = commands.add_parser(
        "distil",
        help="a run teaches a compact one; every argument of the compact one's recipe is an option, the same line again goes on",
    )
    offer(distil, *RUN, "--with", *SAMPLING, "--calibrated")
    distil.add_argument("--into", required=True, metavar="RECIPE", help="the pupil: a bundled recipe or a YAML file")
    distil.add_argument(
        "--unlabelled", type=Path, metavar="FOLDER", help="further images without masks, of which the teacher says what it sees"
    )
    distil.add_argument(
        "--weight", type=float, default=0.5, help="the teacher's share of the loss, up to 1 (default: 0.5); masks have the rest"
    )
    distil.add_argument(
        "--temperature", type=float, default=1.0, help="by which teacher and pupil are softened (default: 1; 2 or 4 are usual)"
    )
    distil.add_argument("--compare", action="store_true", help="also train the pupil untaught, and test it, the taught one and the teacher")
    distil.add_argument("--out", type=Path, required=True, help="the pupil's run folder")

    evaluate = commands.add_parser("evaluate", help="score a run on its own data: rows.csv, metrics.json, report.html")
    offer(evaluate, *RUN, "--with", *SAMPLING, "--calibrated", "--plain")
    evaluate.add_argument("--split", default="test", help='default: test; "all" takes every labelled case')
    evaluate.add_argument("--data", help="another data set in place of the run's own")
    evaluate.add_argument("--tolerance", type=float, help="of NSD, in mm for volumes and px for images (default: the recipe's)")
    evaluate.add_argument(
        "--extractor", type=Path, metavar="PATH", help="by what generated images are compared: a vision model's folder, or a run"
    )
    evaluate.add_argument("--out", type=Path, help="default: the run folder (for --split test), else RUN/SPLIT")

    predict = commands.add_parser("predict", help="masks for images, volumes or folders of them")
    offer(predict, *RUN, "--with", *SAMPLING, "--calibrated", "--plain")
    predict.add_argument(
        "inputs",
        metavar="IMAGE",
        nargs="+",
        type=Path,
        help="PNG, JPG, TIFF, NIfTI, NRRD or MHA files, folders of a DICOM series, or folders of any of these; of DICOM also a patient, a whole export or its DICOMDIR",
    )
    predict.add_argument("--out", type=Path, default=Path("predictions"), help="folder for the outputs (default: predictions)")
    predict.add_argument("--channel-files", type=int, default=1, metavar="N", help="files of one image: x_0000, x_0001 ... (nnU-Net)")
    predict.add_argument(
        "--save",
        help="of mask,probability,spread,members (default: the first three), and of a DICOM series dicom-seg,dicom-fractional,dicom-labelmap",
    )
    engines(predict)
    predict.add_argument("--overwrite", action="store_true", help="make outputs again that are there already")

    sample = commands.add_parser("sample", help="images from a run of synthesis, a sheet of them, and a table of what was asked for")
    offer(sample, "run", "--seed", "--steps", "--sampler", "--firing", "--device", "--trust")
    sample.add_argument(
        "-n", dest="count", metavar="N", type=int, default=16, help="images (default: 16); image i is a function of (seed, i)"
    )
    sample.add_argument("--first", type=int, default=0, help="number of the first image, to draw a part of many (default: 0)")
    sample.add_argument("--labels", help="what every image is to show, separated by commas (default: one class after the other)")
    sample.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="in pixels (default: as trained)")
    sample.add_argument("--updates", type=int, help="of cells, a step (default: the recipe's)")
    sample.add_argument("--heredity", choices=["anew", "inherited"], help="of cells, from step to step (default: the recipe's)")
    sample.add_argument("--guidance", type=float, help="how strongly labels count; 1 is none (default: the recipe's)")
    engines(sample)
    sample.add_argument("--out", type=Path, required=True, help="folder for the images; the same line again goes on")

    calibrate = commands.add_parser(
        "calibrate", help="on the validation cases: a temperature, a threshold that keeps a risk, or a quality that needs no truth"
    )
    offer(calibrate, *RUN, *SAMPLING, "--calibrated")
    calibrate.add_argument(
        "--control",
        metavar="RISK=SHARE",
        help="a threshold that keeps fnr=0.10, fpr=0.01 or fdr=0.2 for new patients, which predict then takes; none takes it away; "
        "temperature: a temperature, for --calibrated (what is fitted where nothing is asked for)",
    )
    calibrate.add_argument("--delta", type=float, default=0.1, help="how often calibrating fdr may fail (default: 0.1)")
    calibrate.add_argument(
        "--quality", action="store_true", help="how good an answer is likely to be, with an interval: predict then says it of each case"
    )
    calibrate.add_argument(
        "--sign",
        choices=["members", "convergence", "expected"],
        help="by which it is foretold (default: members where there are several, convergence of cells, else expected)",
    )
    calibrate.add_argument("--level", type=float, default=0.9, help="how often the interval of a quality is to hold (default: 0.9)")

    compare = commands.add_parser("compare", help="paired differences of two evaluated runs, case by case")
    compare.add_argument("first", type=Path)
    compare.add_argument("second", type=Path)
    compare.add_argument("--out", type=Path, help="also write the table as CSV")

    report = commands.add_parser("report", help="several evaluated runs in one page, with paired differences from the first")
    report.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="two or more, evaluated on the same cases; the first is the reference"
    )
    report.add_argument("--split", default="test", help="whose evaluations, RUN/SPLIT where it is not test (default: test)")
    report.add_argument(
        "--cases", type=int, default=6, metavar="N", help="cases to show, those that differ most; 0: none, no run is opened"
    )
    report.add_argument(
        "--out", type=Path, default=Path("comparison.html"), help="the page; its numbers as CSV beside it (default: comparison.html)"
    )
    offer(report, "--device", "--trust")

    runs = commands.add_parser("runs", help="a table of runs: recipe, data, steps, score with its interval")
    runs.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="of runs, or runs (default: runs/ and this folder)")
    runs.add_argument("--sort", choices=["score", "date", "steps", "recipe", "run"], default="score", help="default: score, the best first")
    form = runs.add_mutually_exclusive_group()
    form.add_argument("--json", dest="form", action="store_const", const="json", help="for machines: all that is known of each run")
    form.add_argument("--csv", dest="form", action="store_const", const="csv", help="the same as CSV")

    import_ = commands.add_parser("import", help="published weights become a run")
    import_.add_argument(
        "checkpoints",
        nargs="+",
        metavar="[KIND] FILE",
        help="the authors' files, told by their names, or KIND first: mednca (model0.pth model1.pth), ensemdiff, segdiff, medsegdiff, sdseg, "
        "geca, dit, vox2vec, ape",
    )
    import_.add_argument("--out", type=Path, required=True, help="run folder")
    import_.add_argument("--heads", type=int, help="attention heads, where they are not the published ones (files do not tell)")
    import_.add_argument(
        "--raw", action="store_true", help="the weights as trained last, where a checkpoint holds their average too (sdseg, geca, dit)"
    )
    import_.add_argument(
        "--autoencoder",
        metavar="SOURCE",
        help="whose latents a checkpoint makes: a folder, file, run or hub id (geca, dit; default: stabilityai/sd-vae-ft-ema)",
    )

    export = commands.add_parser(
        "export", help="a run as one program from image to mask (ONNX, torch), or latent diffusion as folders for diffusers"
    )
    offer(export, "run", *PROGRAM)
    export.add_argument("--out", type=Path, required=True, help="folder, new or empty; or a file that ends in .onnx or .pt2")
    export.add_argument(
        "--format",
        choices=["diffusers", "onnx", "torch"],
        default="diffusers",
        help="onnx: one file for onnxruntime; torch: one file of torch.export; diffusers (default): folders of SDSeg's parts",
    )

    web = commands.add_parser("web", help="a folder with a page that segments in the browser; images never leave the machine")
    offer(web, "run", *PROGRAM)
    web.add_argument("--members", type=int, help="that the page draws by default (default: the recipe's)")
    web.add_argument("--out", type=Path, help="folder, new or empty (default: RUN/web)")
    web.add_argument(
        "--runtime",
        type=Path,
        metavar="PATH",
        help="onnxruntime-web's package, unpacked or as .tgz, where the npm registry cannot be reached (default: fetched once)",
    )
    web.add_argument("--serve", action="store_true", help="then show it on this machine, at http://localhost")
    web.add_argument("--port", type=int, default=8765, help="of --serve (default: 8765)")

    push = commands.add_parser("push", help="give a run to the Hugging Face hub, with its card")
    push.add_argument("run", type=Path, help="a run folder")
    push.add_argument("repository", metavar="ORG/NAME", help="made where it is not there yet, and private")
    push.add_argument("--public", action="store_true", help="for everybody to see")
    push.add_argument(
        "--about", type=Path, metavar="FILE", help="Markdown on the data (origin, licence, limits) for the card; its first line says all"
    )
    push.add_argument("--licence", metavar="ID", help="of the weights, as the hub names licences: cc-by-4.0, apache-2.0 ...")
    push.add_argument("--dry-run", type=Path, metavar="DIR", help="write there what would be pushed, and push nothing")
    push.add_argument("--trust", action="store_true", help="build classes from outside somite that the run names")

    pack = commands.add_parser("pack", help="copy the frozen parts that a run needs (an autoencoder, a backbone) into its folder")
    pack.add_argument("run", type=Path)

    plan = commands.add_parser("plan", help="nnU-Net's way: look at the data and write the recipe that fits them")
    plan.add_argument("data", help="folder, CSV or nnU-Net raw folder")
    plan.add_argument("--out", type=Path, required=True, help="the recipe to write, a YAML file")
    plan.add_argument("--dims", type=int, choices=[2, 3], default=2)
    plan.add_argument("--fold", type=int, help="0 to 4 of a five-fold cross-validation (default: the data's own split)")
    plan.add_argument("--hours", type=float, help="that training may take on this machine: fewer steps, then smaller patches")
    plan.add_argument("--memory", type=float, metavar="GB", help="that training may take (default: 8, as nnU-Net plans)")
    plan.add_argument("--labels", type=int, nargs="+", help="values of the classes in mask files, background first")

    add_analyses(commands)
    add_studies(commands)
    commands.add_parser("zoo", help="list the trained runs that come with somite: `somite predict zoo/nuclei IMAGE`")
    commands.add_parser("recipes", help="list the bundled recipes")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    # Threads that wait for work must not spin: beside other programs on the same cores, spinning is many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported
    try:
        code = run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # who reads has seen enough: somite recipes | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell says of a program that SIGPIPE ended
    except InputError as error:
        message = str(error).rpartition("InputError: ")[2]  # a worker process sends its traceback along
        print(f"error: {message.strip()}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "interrupted; the same command makes what is missing (train, predict, study and demo go on from where they were)",
            file=sys.stderr,
        )
        return 130
    except OSError as error:
        explained = full_disk(error) or unreadable(error)
        if explained is None:
            raise
        print(f"error: {explained}", file=sys.stderr)
        return 2


def run(argv: list[str]) -> int:
    made = parser()
    options, overrides = made.parse_known_args(argv)
    if options.version:
        from . import __version__

        print(__version__)
    elif options.command is None:
        if overrides:
            raise InputError(f"unknown option {overrides[0]}; somite --help lists those that there are")
        from .overview.advice import advice

        print(advice())
    elif options.command == "runs" and not overrides:
        from .overview.table import overview

        print(overview(options.folders, options.sort, options.form))
    elif options.command == "train" and options.recipe is None:
        print(TRAIN)
    elif overrides and options.command not in ("train", "distil", "doctor"):
        command = f"{options.command} {options.analysis}" if options.command == "analyse" else options.command
        raise InputError(f"unknown option {overrides[0]}; somite {command} --help lists those that there are")
    else:
        if options.command == "demo":  # cells this small are no work to share; the other core prepares the images
            os.environ.setdefault("OMP_NUM_THREADS", "1")
        from .commands import COMMANDS

        options.overrides = overrides
        return COMMANDS[options.command](options) or 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
