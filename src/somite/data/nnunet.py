"""nnU-Net's raw layout: dataset.json, imagesTr, labelsTr, imagesTs and where there are labels labelsTs.

The Medical Segmentation Decathlon's layout, which it grew out of, is the same with one file per case (no _0000).
Splits: fold 0 of `splits_final.json` if it lies beside, else all of imagesTr is "train"; labelled imagesTs are "test".
"""

import re
from pathlib import Path

from ..errors import InputError
from ..files import read_json
from .listing import FlawError, Hear, Source, by_stem, check_splits, in_order, listing, stop
from .record import Case

_CHANNEL = re.compile(r"(.+)_(\d{4})$")


def is_raw(root: Path) -> bool:
    return (root / "dataset.json").is_file() and (root / "imagesTr").is_dir()


def find(root: Path, hear: Hear = stop) -> Source:
    """All labelled cases, and their splits."""
    content = read_json(root / "dataset.json")
    if not isinstance(content, dict):
        raise InputError(f"{root / 'dataset.json'} should hold an object with channel_names and file_ending")
    names = content.get("channel_names", content.get("modality", {"0": "image"}))
    ending = str(content.get("file_ending", ".nii.gz"))
    train = _folder(root, "Tr", len(names), ending, hear)
    if not train:
        raise InputError(f"{root / 'imagesTr'} has no images that end in {ending} (file_ending in dataset.json)")
    test = _folder(root, "Ts", len(names), ending, hear) if (root / "labelsTs").is_dir() else {}
    both = sorted(set(train) & set(test))
    if both:
        hear(FlawError(f"{root} has {both[0]!r} in imagesTr and in imagesTs: keep it in one", "case-in-two-splits", both))
        train = {name: case for name, case in train.items() if name not in both}
    cases = {**train, **test}
    splits = _folds(root, train, hear)
    if test:
        splits = {**(splits or {"train": sorted(train)}), "test": sorted(test)}
    return Source(cases, splits)


def _folder(root: Path, part: str, channels: int, ending: str, hear: Hear) -> dict[str, Case]:
    """The cases of imagesTr and labelsTr, or imagesTs and labelsTs."""
    folders = root / f"images{part}", root / f"labels{part}"
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is missing: nnU-Net's layout has images{part} and labels{part}")
    images, labels = (by_stem((path for path in listing(f) if path.name.endswith(ending)), hear) for f in folders)
    found: dict[str, dict[int, Path]] = {}
    for name, path in images.items():
        match = None if name in labels else _CHANNEL.match(name)  # the decathlon has one file per case, of any name
        key, channel = (match[1], int(match[2])) if match else (name, 0)
        found.setdefault(key, {})[channel] = path
    cases = {}
    for key, parts in sorted(found.items()):
        whole = key in images  # one file that holds all channels
        if key not in labels:
            path = next(iter(parts.values()))
            hear(FlawError(f"{path} is an image without a mask: add {folders[1] / (key + ending)}", "image-without-mask", (path,)))
        try:
            cases[key] = Case(key, in_order(key, parts, 1 if whole else channels), labels.get(key), key)
        except FlawError as flaw:
            hear(flaw)
    for name in sorted(set(labels) - set(found)):
        hear(
            FlawError(f"{labels[name]} is a mask without an image: add the image or remove the mask", "mask-without-image", (labels[name],))
        )
    return cases


def _folds(root: Path, train: dict[str, Case], hear: Hear) -> dict[str, list[str]]:
    path = root / "splits_final.json"
    if not path.is_file():
        return {}
    folds = read_json(path)
    first = folds[0] if isinstance(folds, list) and folds else None
    if not isinstance(first, dict) or not {"train", "val"} <= set(first):
        raise InputError(f'{path} should hold a list of folds {{"train": [ids], "val": [ids]}}, as nnU-Net writes it')
    splits = {name: [str(i) for i in first[name]] for name in ("train", "val")}
    return check_splits(path, splits, train, hear)
