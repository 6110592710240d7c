"""What the images of a set have in common, and what sets some of them apart: files, channels, depth, brightness, spacing, orientation."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from ..data.dataset import Data
from ..wording import count
from .case import Exam
from .finding import KINDS, Finding, about, some

MENDS = {
    "unreadable": "copy these files again, or take them out",
    "killed": "take these out, or write them anew",
    "not-finite": "replace what is NaN, by 0 or the value of air",
    "mask-unreadable": "save the masks as PNG or NIfTI of integers from 0",
    "mask-mismatch": "resample one onto the other, or find the right file",
    "raters": "one file a rater and case, from 0 without a gap",
}
NAMED = 5  # messages of one kind that are shown whole
SPREAD = 1.5  # between the finest and the coarsest spacing along an axis
SCALES = 4.0  # between the brightest and the darkest image's 99th percentiles
DARK = 0.15  # mean of an image in [0, 1]
OFTEN = 0.9  # of the images
MANY = 20  # images from which on a habit is told of
POOR = 80  # quality of JPEG below which blocks are seen


def file_findings(exams: Sequence[Exam]) -> list[Finding]:
    """What is wrong with files by themselves."""
    told: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for exam in exams:
        for kind, message in exam.flaws:
            told[kind].append((exam.id, message))
    findings = []
    for kind, mine in told.items():
        assert kind in KINDS
        if len(mine) <= NAMED:
            findings += [Finding(kind, message, "", (name,)) for name, message in mine]
        else:
            names = tuple(name for name, _ in mine)
            findings.append(Finding(kind, f"{count(len(names), 'case')}: {some(names)}. The first: {mine[0][1]}", MENDS[kind], names))
    return findings


def image_findings(exams: Sequence[Exam], data: Data) -> list[Finding]:
    return [*kinds(exams), *space(exams, data), *brightness(exams), *compression(exams)]


def minority(groups: dict[Hashable, list[str]]) -> tuple[str, ...]:
    """All but the largest group's."""
    most = max(groups.values(), key=len)
    return tuple(name for names in groups.values() if names is not most for name in names)


def grouped(exams: Sequence[Exam], of: dict[str, Hashable]) -> dict[Hashable, list[str]]:
    groups: dict[Hashable, list[str]] = defaultdict(list)
    for exam in exams:
        if of.get(exam.id) is not None:
            groups[of[exam.id]].append(exam.id)
    return groups


def shares(groups: Mapping[Any, list[str]], word: str = "") -> str:
    often = sorted(groups.items(), key=lambda one: -len(one[1]))
    shown = ", ".join(f"{key}{word} ({len(names):,})" for key, names in often[:4])
    return shown + (f" and {len(often) - 4} more kinds" if len(often) > 4 else "")


def kinds(exams: Sequence[Exam]) -> list[Finding]:
    """Channels, depth, sizes."""
    findings = []
    channels = grouped(exams, {one.id: one.channels for one in exams})
    flat = all(one.shape is None or len(one.shape) == 2 for one in exams)
    if len(channels) > 1:
        convertible = set(channels) == {1, 3}
        findings.append(
            Finding(
                "mixed-channels" if convertible else "channels",
                f"images differ in channels: {shares(channels, ' channels')}",
                "somite makes grey of colour or colour of grey, as the recipe's channels say; for others give all cases the same",
                minority(channels),
            )
        )
    axes = grouped(exams, {one.id: None if one.shape is None else len(one.shape) for one in exams})
    if len(axes) > 1:
        findings.append(Finding("channels", "flat images and volumes are mixed", "make two data sets of them", minority(axes)))
    depth = grouped(exams, {one.id: "+".join(dict.fromkeys(h.stored for h in one.headers)) or None for one in exams})
    if len(depth) > 1:
        findings.append(
            Finding(
                "mixed-depth",
                f"images are stored as different types: {shares(depth)}",
                "make sure that equal numbers mean equal brightness; --data.preprocess.normalise somite.data.normalise.ZScore or Percentile evens it out",
                minority(depth),
            )
        )
    sizes = grouped(exams, {one.id: one.shape for one in exams})
    if len(sizes) > 1:
        told = {" x ".join(map(str, size)): names for size, names in sizes.items() if isinstance(size, tuple)}
        word = "images" if flat else "volumes"
        findings.append(
            Finding(
                "sizes", f"{word} of {len(sizes)} sizes: {shares(told)}", "fine with --data.crop or --data.preprocess.size", minority(sizes)
            )
        )
    return findings


def space(exams: Sequence[Exam], data: Data) -> list[Finding]:
    """Orientation and spacing of volumes, where the preprocessing does not even them out."""
    findings = []
    turned = grouped(exams, {one.id: one.orientation for one in exams})
    if len(turned) > 1 and data.preprocess.orientation is None:
        findings.append(
            Finding(
                "orientation",
                f"axes run in different directions: {shares(turned)}",
                "--data.preprocess.orientation RAS turns all alike; without it left and right are mixed up",
                minority(turned),
            )
        )
    known = {one.id: one.spacing for one in exams if one.spacing is not None}
    if known and data.preprocess.spacing_mm is None:
        sides = np.array(list(known.values()))
        low, high = sides.min(0), sides.max(0)
        if (high / low).max() >= SPREAD:
            usual = np.median(sides, 0)
            odd = tuple(name for name, one in known.items() if (np.maximum(one / usual, usual / one) >= SPREAD**0.5).any())
            told = " x ".join(f"{a:.3g} to {b:.3g}" if b > a else f"{a:.3g}" for a, b in zip(low, high, strict=True))
            findings.append(
                Finding(
                    "spacing",
                    f"voxels of different sizes: {told} mm",
                    f"--data.preprocess.spacing_mm [{','.join(f'{side:.3g}' for side in usual)}] makes all alike (the median)",
                    odd,
                )
            )
    return findings


def brightness(exams: Sequence[Exam]) -> list[Finding]:
    known = [(one.id, one.image) for one in exams if one.image is not None]
    constant = [name for name, image in known if image.low == image.high]
    findings = about("constant", constant, "image", "the same value throughout", "look at them: black, or a failed export")
    varied = [(name, image) for name, image in known if image.low < image.high]
    if not varied:
        return findings
    whole = grouped(exams, {name: (image.low, image.high) for name, image in varied})
    if len(varied) < MANY:
        return findings
    top = np.array([image.bright - min(image.low, 0) for _, image in varied])
    usual = float(np.median(top))
    far = [name for (name, _), one in zip(varied, top, strict=True) if one > SCALES * usual or SCALES * one < usual]
    if far:
        told = f"over {SCALES:g} times brighter or darker than the median image, 99th percentiles from {top.min():.3g} to {top.max():.3g}"
        findings += about("scale", far, "image", told, "--data.preprocess.normalise somite.data.normalise.Percentile or ZScore, by image")
    unit = all(image.low >= 0 and image.high <= 1 for _, image in varied)
    dark = [name for name, image in varied if image.mean < DARK]
    if unit and len(dark) > len(varied) / 4:
        told = f"dark, with a mean below {DARK:g} of white"
        findings += about("dark", dark, "image", told, "--data.preprocess.normalise somite.data.normalise.Percentile brightens each")
    own = max(whole.items(), key=lambda one: len(one[1]))
    if len(own[1]) >= OFTEN * len(varied) and all(one.channels == 1 and not one.orientation for one in exams):
        low, high = own[0] if isinstance(own[0], tuple) else (0, 1)
        told = f"{len(own[1]) / len(varied):.0%} of the images reach from {low:g} to {high:g}: each seems scaled to its own range, and brightness says nothing of the scanner's units (HU of CT are lost)"
        findings.append(Finding("own-range", told))
    framed = [name for name, image in varied if image.black_corners]
    if len(framed) > len(varied) / 4:
        told = "black corners: the frame of the instrument, by which images can be told apart"
        findings += about("frame", framed, "image", told)
    return findings


def compression(exams: Sequence[Exam]) -> list[Finding]:
    poor = [one.id for one in exams if any(header.quality and header.quality < POOR for header in one.headers)]
    quality = Counter(header.quality for one in exams for header in one.headers if header.quality and header.quality < POOR)
    told = f"JPEG of low quality ({' to '.join(map(str, sorted({min(quality), max(quality)})))} of 100)" if quality else ""
    return about("jpeg", poor, "image", told, "look for the originals: fine texture is gone")
