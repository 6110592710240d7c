r"""Draws docs/assets/demo-cases.png, zoo-nuclei.png and docs/assets/volume.png from trained runs, docs/assets/planes.png from a CT and its labels:

python docs/pictures.py demo runs/demo
python docs/pictures.py zoo runs/nuclei    (docs/how-to/share.md says how it is trained)
python docs/pictures.py volume runs/hippocampus
python docs/pictures.py ct FOLDER    (images/ct_sm.nii.gz and masks/ct_sm.nii.gz, the example of TotalSegmentator's repository)

The second run: Task04 of the Medical Segmentation Decathlon, both parts of the hippocampus as one mask, 1000 steps:

somite train ensemdiff/small --data.root TASK04 --data.mask_threshold 1 --out runs/hippocampus \
    --data.preprocess.channels 1 --method.network.image_channels 1 --data.preprocess.size [48,48] \
    --data.preprocess.normalise somite.data.normalise.Percentile --data.augment.flip false --data.foreground_rate 0.7 \
    --training.steps 1000 --training.rate 5e-4 --training.ema 0.99 --task.members 10
"""

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage

import somite
from somite.data.record import Case, read
from somite.evaluation import read_rows
from somite.metrics.overlap import overlap
from somite.predict.ensemble import Result
from somite.style import INK, styled
from somite.tasks.segmentation.brightness import brightness
from somite.tasks.segmentation.pictures import photograph
from somite.tasks.segmentation.planes import planes as three_planes

ASSETS = Path(__file__).parent / "assets"
COLUMNS = ("image", "truth", "mask", "probability", "spread")
PROBABILITY = mpl.colors.LinearSegmentedColormap.from_list("probability", ["white", "#043468"])
SPREAD = mpl.colors.LinearSegmentedColormap.from_list("spread", ["white", "#a03400"])


@styled
def demo(run: Path, name: str = "demo-cases.png") -> Path:
    """The test cases with the lowest, the median and the highest Dice."""
    opened = somite.load(run, device="cpu")
    cases = {case.id: case for case in opened.recipe.data.cases("test")}
    ranked = sorted(read_rows(run / "rows.csv"), key=lambda row: float(row["dice"]))
    chosen = [("lowest", ranked[0]), ("median", ranked[len(ranked) // 2]), ("highest", ranked[-1])]
    figure = Figure(figsize=(9.2, 5.5), facecolor="white")
    axes = figure.subplots(3, 5, gridspec_kw={"wspace": 0.04, "hspace": 0.06, "left": 0.085, "right": 0.995, "top": 0.94, "bottom": 0.01})
    for line, (rank, row) in zip(axes, chosen, strict=True):
        result = opened.predict(cases[row["case"]])
        show(line, np.moveaxis(stretched(result.record.image), 0, -1), planes(result), 0.5)
        line[0].set_ylabel(f"{rank} Dice\n{float(row['dice']):.2f}", fontsize=11, color=INK)
    return save(figure, axes[0], name)


def zoo(run: Path) -> Path:
    """The same of zoo/nuclei, from the folder that it was trained in."""
    return demo(run, "zoo-nuclei.png")


@styled
def volume(run: Path) -> Path:
    """The first test case by name, three planes through the middle of the true mask."""
    opened = somite.load(run, device="cpu")
    result = opened.predict(min(opened.recipe.data.cases("test"), key=lambda case: case.id))
    centre = [round(float(c)) for c in ndimage.center_of_mass(result.record.truth)]
    print(result.record.case.id, overlap(result.mask > 0, result.record.truth > 0), centre)
    names = ("sagittal", "coronal", "axial")
    shapes = [np.rot90(result.mask.take(centre[axis], axis)).shape for axis in range(3)]
    ratios = [height / width for height, width in shapes]
    figure = Figure(figsize=(9.2, 1.84 * sum(ratios) + 0.35), facecolor="white")
    grid = {"height_ratios": ratios, "wspace": 0.04, "hspace": 0.06, "left": 0.085, "right": 0.995, "top": 0.94, "bottom": 0.01}
    axes = figure.subplots(3, 5, gridspec_kw=grid)
    for axis, line in enumerate(axes):
        cut = [np.rot90(plane.take(centre[axis], axis)) for plane in planes(result)]
        show(line, np.rot90(stretched(result.record.image)[0].take(centre[axis], axis)), cut, 0.5)
        line[0].set_ylabel(names[axis], fontsize=11, color=INK)
    return save(figure, axes[0], "volume.png")


@styled
def ct(folder: Path) -> Path:
    """The planes and windows of a report, by what is outlined: liver, lungs, vertebrae."""
    figure = Figure(figsize=(8.6, 4.6), facecolor="white")
    parts = {"liver": [5], "lungs": [10, 11, 12, 13, 14], "vertebrae": list(range(25, 51))}
    columns = figure.subplots(1, 3, gridspec_kw={"wspace": 0.03, "left": 0.005, "right": 0.995, "top": 0.93, "bottom": 0.01})
    for ax, (name, values) in zip(columns, parts.items(), strict=True):
        case = Case("ct_sm", (folder / "images/ct_sm.nii.gz",), folder / "masks/ct_sm.nii.gz", "ct_sm")
        record = read(case, foreground=values)
        bright = brightness(record, record.truth > 0)
        shown = [np.asarray(photograph(record, plane, bright)) for plane in three_planes(record, record.truth > 0)]
        ax.imshow(np.concatenate([np.pad(one, ((0, 4), (0, 0), (0, 0)), constant_values=255) for one in shown]))
        ax.set_title(f"{name}\n{bright.name}", fontsize=9.5, color=INK)
        ax.axis("off")
    path = ASSETS / "planes.png"
    figure.savefig(path, dpi=100)
    return path


def stretched(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image, (0.5, 99.5))
    return np.clip((image - low) / (high - low), 0, 1)


def planes(result: Result) -> list[np.ndarray]:
    return [result.record.truth, result.mask, result.probability[0], result.spread[0]]


def show(line: np.ndarray, picture: np.ndarray, maps: list[np.ndarray], most: float) -> None:
    truth, mask, probability, spread = maps
    line[0].imshow(picture, cmap="gray", vmin=0, vmax=1)
    line[1].imshow(truth, cmap="gray_r", vmin=0, vmax=1.4)
    line[2].imshow(mask, cmap="gray_r", vmin=0, vmax=1.4)
    line[3].imshow(probability, cmap=PROBABILITY, vmin=0, vmax=1)
    line[4].imshow(spread, cmap=SPREAD, vmin=0, vmax=most)
    for ax in line:
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
        ax.spines[:].set_visible(True)


def save(figure: Figure, top: np.ndarray, name: str) -> Path:
    for ax, title in zip(top, COLUMNS, strict=True):
        ax.set_title(title, fontsize=12, color=INK, pad=6)
    path = ASSETS / name
    figure.savefig(path, dpi=100)
    return path


if __name__ == "__main__":
    print({"demo": demo, "zoo": zoo, "volume": volume, "ct": ct}[sys.argv[1]](Path(sys.argv[2])))
