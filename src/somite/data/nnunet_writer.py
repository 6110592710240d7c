"""A data set in nnU-Net's raw layout, so that the original nnU-Net trains on the very same cases and folds.

One file a channel, `imagesTr/ID_0000.png`; 8- or 16-bit PNG for images, NIfTI (float32) for volumes. Training and validation
cases go to imagesTr, test cases to imagesTs, folds by patient to `splits_final.json`. Labels are written as 0, 1, 2 ...
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import write_json
from .images import write_png
from .nifti import write_volume
from .record import Case, Record, read
from .split import folds


def write_raw(
    cases: Mapping[str, Sequence[Case]],
    out: Path,
    labels: Sequence[int] | None = None,
    mask_threshold: int | None = None,
    channels: Sequence[str] | None = None,
    n: int = 5,
    seed: int = 0,
) -> Path:
    """Write the splits "train", "val" and "test" of labelled cases (as `Data.find` gives them) to the folder `out`.

    labels, mask_threshold: as of `Data`. channels: their names, on which nnU-Net's normalisation depends ("CT", "MR" ...);
    n, seed: the folds, those that `Data(folds=n, split_seed=seed)` makes.
    """
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty; choose a new folder, Dataset001_NAME in nnUNet_raw say")
    train = sorted([*cases.get("train", []), *cases.get("val", [])], key=lambda case: case.id)
    if not train:
        raise InputError(f"there are no training cases to write to {out}")
    parts = folds(train, n, seed)  # before anything is written: it may refuse
    kinds = [
        written(case, out, part, labels, mask_threshold) for part, some in (("Tr", train), ("Ts", cases.get("test", []))) for case in some
    ]
    odd = next((case for case, kind in zip([*train, *cases.get("test", [])], kinds, strict=True) if kind != kinds[0]), None)
    if odd is not None:
        raise InputError(
            f"{odd.images[0]} has other channels or is of another kind than {train[0].images[0]}: nnU-Net wants all cases alike"
        )
    count, ending = kinds[0]
    names = list(channels or (("R", "G", "B") if (count, ending) == (3, ".png") else [f"channel {index}" for index in range(count)]))
    if len(names) != count:
        raise InputError(f"{len(names)} names for {count} channels: {', '.join(names)}; give one a channel")
    classes = [f"label {value}" for value in labels[1:]] if labels else ["foreground"]
    write_json(out / "splits_final.json", [{name: [case.id for case in some] for name, some in part.items()} for part in parts])
    write_json(
        out / "dataset.json",
        {
            "channel_names": {str(index): name for index, name in enumerate(names)},
            "labels": {"background": 0, **{name: index for index, name in enumerate(classes, 1)}},
            "numTraining": len(train),
            "file_ending": ending,
        },
    )
    return out


def written(case: Case, out: Path, part: str, labels: Sequence[int] | None, mask_threshold: int | None) -> tuple[int, str]:
    """Write one case; returns its number of channels and the ending of its files."""
    record = read(case, labels, mask_threshold)
    if record.geometry is not None:
        for index, channel in enumerate(record.image):
            write_volume(out / f"images{part}" / f"{case.id}_{index:04d}.nii.gz", channel, record.geometry)
        write_volume(out / f"labels{part}" / f"{case.id}.nii.gz", record.truth, record.geometry)
        return len(record.image), ".nii.gz"
    for index, channel in enumerate(pixels(record)):
        write_png(out / f"images{part}" / f"{case.id}_{index:04d}.png", channel)
    write_png(out / f"labels{part}" / f"{case.id}.png", record.truth)
    return len(record.image), ".png"


def pixels(record: Record) -> np.ndarray:
    """The integers that the file held: of 8 bits where they suffice, else of 16."""
    for kind in (np.uint8, np.uint16):
        top = np.float32(np.iinfo(kind).max)
        whole = np.rint(record.image * top).clip(0, top).astype(kind)
        if np.array_equal(whole.astype(np.float32) / top, record.image):
            return whole
    raise InputError(
        f"{record.case.images[0]} holds floating-point numbers, which PNG does not: save the images as NIfTI volumes or 16-bit PNG"
    )
