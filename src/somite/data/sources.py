"""Which cases a folder or table holds, recognised by what is there.

- a folder with `images/` and `masks/` (or as people also call them), matched by name, where a DICOM series is a folder in `images/`; `splits.json` and
  `groups.csv` beside them are heeded;
- one folder of images with their masks beside them (`x.png`, `x_mask.png`);
- a CSV table with the columns image and mask, and where wanted id, group, split;
- nnU-Net's raw layout (in `nnunet.py`).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import InputError, one_line
from ..files import read_json
from . import dicom_export, nnunet
from .dicom import is_series
from .listing import NO_IMAGES, FlawError, Hear, Source, by_stem, check_splits, in_order, listing, rows, stop, together
from .record import Case, stem, suffix_of, unknown

NUCLEI = Path(__file__).with_name("nuclei")  # the bundled demonstration set
# What folders of images and of masks are called, in capitals or not; the first name comes before all others.
IMAGES = ("images", "image", "imgs", "img")
MASKS = ("masks", "mask", "msks", "msk", "labels", "label", "annotations", "segmentations", "ground_truth", "groundtruth", "gt")
MASK_ENDINGS = ("_mask", "-mask", "_segmentation", "_Segmentation", "_lesion")
NOTES = (
    ".csv",
    ".json",
    ".txt",
    ".md",
    ".yaml",
    ".yml",
    ".xml",
    ".xlsx",
    ".html",
    ".pdf",
    ".ini",
    ".db",
    ".log",
)  # what lies beside images
LAYOUTS = (
    "images/ and masks/ (or img/ and msk/, ...) with files of the same names, images with x_mask.png beside x.png, "
    "a CSV table with the columns image and mask, or nnU-Net's imagesTr/ and labelsTr/ with dataset.json"
)


def find(root: str | Path, masks: bool = True, hear: Hear = stop) -> Source:
    """All cases of a folder or table, and the splits that it brings. masks: each image has one, else masks are passed over.

    hear: is told what is wrong with some files or ids, of which the others are none the worse. Raises InputError where there is no set.
    """
    root = Path(root)
    if not root.exists():
        raise InputError(f"{root} does not exist; check the path of the data")
    if root.is_file():
        if root.suffix.lower() != ".csv":
            raise InputError(
                f"{root} is a file but no CSV table: give a folder or a CSV with columns {'image, mask' if masks else 'image'}"
            )
        return _table(root, masks, hear)
    if nnunet.is_raw(root):
        return nnunet.find(root, hear)
    if (root / IMAGES[0]).is_dir():
        return annotated(root, _pairs(root, root / IMAGES[0], hear) if masks else _alone(root, root / IMAGES[0], hear), hear)
    if any(_bare(stem(path)) for path in listing(root)) or (listing(root) and not masks):
        return annotated(root, _side_by_side(root, hear) if masks else _alone(root, root, hear), hear)
    images = called(root, IMAGES)
    if images is not None:
        return annotated(root, _pairs(root, images, hear) if masks else _alone(root, images, hear), hear)
    if not any(root.iterdir()):
        raise InputError(f"{root} is empty: it should hold {LAYOUTS}")
    if next(dicom_export.series_below(root), None) or is_series(root):
        raise InputError(
            f"{root} holds DICOM without masks: somite predict takes it as it is; to train or to be looked at, put the slices of each scan "
            f"into {root.name}/images/CASE and its mask into {root.name}/masks/CASE.nii.gz"
        )
    raise InputError(f"{root} is in no layout that somite knows: it should hold {LAYOUTS}")


def called(root: Path, names: Sequence[str]) -> Path | None:
    """The folder in `root` that has one of these names, if any. Raises InputError where two have, neither of them the first name.

    Under another than the first name it holds what somite reads: labels/ may be of text files.
    """
    if (root / names[0]).is_dir():
        return root / names[0]
    likely = (path for path in root.iterdir() if path.is_dir() and path.name.lower() in names)
    found = sorted(path for path in likely if listing(path) or next(dicom_export.series_below(path), None) or is_series(path))
    if len(found) > 1:
        raise InputError(f"{root} has {found[0].name}/ and {found[1].name}/: call the one that counts {names[0]}/")
    return found[0] if found else None


def find_inputs(paths: Sequence[str | Path], channels: int = 1, hear: Callable[[str], None] = lambda _: None) -> list[Case]:
    """Images without masks, for prediction: from files, folders of them, DICOM series and folders of those, however deep these lie.

    channels: how many files make one image; more than one are told apart by nnU-Net's endings _0000, _0001. hear: is told which DICOM
    series of a folder were left out because they are no scans (reports, localisers, screenshots).
    """
    if channels < 1:
        raise InputError(f"an image has one file or more, not {channels}: correct --channel-files")
    named: dict[str, Path] = {}
    for given in map(Path, paths):
        named = together(named, _inputs(given, hear).items())
    if not named:
        raise InputError("no images were given: name files or folders")
    if channels == 1:
        return [Case(name, (path,), None, name) for name, path in named.items()]
    found: dict[str, dict[int, Path]] = {}
    for name, path in named.items():
        key, channel = name[:-5], name[-5:]
        if not (channel[:1] == "_" and channel[1:].isdigit()):
            raise InputError(f"{path} is one of {channels} channels: call the files of an image x_0000, x_0001 ...")
        found.setdefault(key, {})[int(channel[1:])] = path
    return [Case(name, in_order(name, parts, channels), None, name) for name, parts in sorted(found.items())]


def _inputs(path: Path, hear: Callable[[str], None]) -> dict[str, Path]:
    """The images that one path gives, by the names of their cases."""
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path")
    if path.is_file() and path.name.upper() == dicom_export.INDEX:
        path = path.parent
    if path.is_file() and not suffix_of(path):
        raise unknown(path)
    if not path.is_dir() or is_series(path):
        return by_stem([path if path.name not in ("", "..") else path.resolve()])
    inside = listing(path)
    left: dict[Path, str] = {one: kind for one in inside if one.is_dir() and (kind := dicom_export.no_scan(one))}
    found = by_stem(one for one in inside if one not in left)
    if not inside:
        found, left = dicom_export.scans_below(path)
    inner = next((one.parent for one in left if suffix_of(one) and not found), None)
    if inner:
        raise InputError(f"{path} has no images right in it, but {inner} has: give that folder")
    if left:
        hear(one_line(f"left out: {', '.join(f'{one.relative_to(path)} ({kind})' for one, kind in left.items())}"))
    if not found:
        raise InputError(f"{path} {NO_IMAGES}")
    return found


def passed_over(paths: Sequence[str | Path]) -> list[str]:
    """Names in these folders that `find_inputs` does not read, as photographs of another kind and folders of folders; notes and tables are not meant."""
    found = []
    for folder in (path for path in map(Path, paths) if path.is_dir() and not is_series(path)):
        read = set(listing(folder))
        found += sorted(set(folder.iterdir()) - read) if read else []
    odd = (one for one in found if not one.name.startswith(".") and one.suffix.lower() not in NOTES)
    return [one_line(f"{one.name}/" if one.is_dir() else one.name) for one in odd]


def _alone(root: Path, folder: Path, hear: Hear) -> dict[str, Case]:
    """Images without masks; those that `splits.json` excludes, and files that are named as masks, are left out."""
    left_out = excluded(root)
    named = {name: path for name, path in by_stem(listing(folder), hear).items() if name not in left_out and not _bare(name)}
    if not named:
        raise _no_images(folder)
    return {name: Case(name, (path,), None, name) for name, path in sorted(named.items())}


def _no_images(folder: Path) -> InputError:
    if is_series(folder):
        return InputError(f"{folder} holds DICOM slices right in it: a case is one folder of slices, {folder.name}/CASE")
    deep = next(dicom_export.series_below(folder), None)
    if deep is None:
        return InputError(f"{folder} {NO_IMAGES}")
    return InputError(f"{folder} holds DICOM too deep, in {deep.relative_to(folder)}: a case is one folder of slices, {folder.name}/CASE")


def _pairs(root: Path, folder: Path, hear: Hear) -> dict[str, Case]:
    """folder: of the images; that of the masks is found beside it."""
    marked = called(root, MASKS)
    if marked is None:
        raise InputError(f"{root} has {folder.name}/ but no {MASKS[0]}/: put the masks there under the images' names")
    images = by_stem(listing(folder), hear)
    masks = by_stem(listing(marked), hear)
    if not images:
        raise _no_images(folder)
    if is_series(marked):
        hear(FlawError(str(dicom_export.masks_refused(marked)), "mask-unreadable", (marked,)))
    return _matched(root, images, masks, hear)


def _side_by_side(root: Path, hear: Hear) -> dict[str, Case]:
    named = by_stem(listing(root), hear)
    masks = {name: path for name, path in named.items() if _bare(name) in named}
    orphans = {name: path for name, path in named.items() if _bare(name) and name not in masks}
    for path in orphans.values():
        hear(orphan(path))
    images = {name: path for name, path in named.items() if name not in masks and name not in orphans}
    return _matched(root, images, masks, hear)


def orphan(mask: Path) -> FlawError:
    return FlawError(f"{mask} is a mask without an image: add the image or remove the mask", "mask-without-image", (mask,))


def _bare(name: str) -> str:
    """A mask's name without the ending that marks it as one; nothing if it has none."""
    return next((name[: -len(end)] for end in MASK_ENDINGS if name.endswith(end)), "")


def _matched(root: Path, images: Mapping[str, Path], masks: Mapping[str, Path], hear: Hear) -> dict[str, Case]:
    """Images with their masks; those that `splits.json` excludes are left out before anything is complained of."""
    left_out = excluded(root)
    mine: dict[str, Path] = {}
    for name, path in masks.items():
        key = name if name in images else _bare(name)
        if name in left_out or key in left_out:
            continue
        if key not in images:
            hear(orphan(path))
        elif key in mine:
            hear(FlawError(f"{mine[key]} and {path} are both masks of {key}: keep one", "two-masks", (mine[key], path)))
        else:
            mine[key] = path
    kept = {name: path for name, path in images.items() if name not in left_out}
    bare = [path for name, path in kept.items() if name not in mine]
    if bare:
        more = f" (and {len(bare) - 1} more)" if len(bare) > 1 else ""
        text = f"{bare[0]} is an image without a mask{more}: add the mask, remove the image, or exclude it in splits.json"
        hear(FlawError(text, "image-without-mask", bare))
    return {name: Case(name, (path,), mine.get(name), name) for name, path in sorted(kept.items())}


def excluded(root: Path) -> frozenset[str]:
    """The ids that `splits.json` leaves out."""
    path = root / "splits.json"
    content = read_json(path) if path.is_file() else {}
    named = content.get("excluded", {}) if isinstance(content, dict) else None
    if not isinstance(named, dict | list) or not all(isinstance(name, str) for name in named):
        raise InputError(f'{path} should hold {{"train": [ids], "val": [ids], "test": [ids], "excluded": {{id: why}}}}')
    return frozenset(named)


def annotated(root: Path, cases: dict[str, Case], hear: Hear = stop) -> Source:
    """Cases with the groups of `groups.csv` and the splits of `splits.json`."""
    path = root / "groups.csv"
    if path.is_file():
        groups: dict[str, str] = {}
        for row in rows(path, ("id", "group")):
            if groups.setdefault(row["id"], row["group"]) != row["group"]:
                hear(FlawError(f"{path} puts {row['id']!r} into two groups: keep one", "two-groups", (row["id"],)))
        for name, case in cases.items():
            if not groups.get(name):
                hear(FlawError(f"{path} has no group for {name!r}: add a row `{name},patient`", "no-group", (name,)))
            cases[name] = replace(case, group=groups.get(name) or name)
    path = root / "splits.json"
    if not path.is_file():
        return Source(cases)
    content = read_json(path)
    assert isinstance(content, dict)  # `excluded` has seen it
    splits = {name: ids for name, ids in content.items() if name not in ("note", "excluded")}
    for name, ids in splits.items():
        if not isinstance(ids, list) or not all(isinstance(i, str) for i in ids):
            raise InputError(f'{path} has something else than a list of ids under "{name}": write ["id", ...]')
    return Source(cases, check_splits(path, splits, cases, hear), excluded(root))


def _table(path: Path, masked: bool, hear: Hear) -> Source:
    table = rows(path, ("image", "mask") if masked else ("image",))
    if not table:
        raise InputError(f"{path} has no rows: add one for each image")
    cases: dict[str, Case] = {}
    splits: dict[str, list[str]] = {}
    for line, row in enumerate(table, start=2):
        try:
            case = _table_case(path, line, row, masked)
        except FlawError as flaw:
            hear(flaw)
            continue
        if case.id in cases:
            places = " and ".join(split for split, ids in splits.items() if case.id in ids)
            known = f" (already in {places})" if places else ""
            hear(FlawError(f"{path}, line {line}, has the id {case.id!r} again{known}: give each row its own id", "same-name", (case.id,)))
            continue
        cases[case.id] = case
        if row.get("split"):
            splits.setdefault(row["split"], []).append(case.id)
    masks = Counter(case.mask for case in cases.values() if case.mask is not None)
    for shared in [mask for mask, count in masks.items() if count > 1]:
        hear(FlawError(f"{path} gives {shared} as the mask of {masks[shared]} images: each image has its own", "two-masks", (shared,)))
    bare = next((line for line, row in enumerate(table, start=2) if not row.get("split")), None)
    if splits and bare:
        text = f"{path}, line {bare}, has no split but other rows have: fill the column in for all rows, or empty it"
        hear(FlawError(text, "no-split", [row["image"] for row in table if not row.get("split")]))
    return Source(cases, check_splits(path, splits, cases, hear))


def _table_case(path: Path, line: int, row: Mapping[str, str], masked: bool) -> Case:
    """One row; several channel files of an image are separated by semicolons."""
    for column in ("image", "mask") if masked else ("image",):
        if not row[column]:
            raise FlawError(f"{path}, line {line}, has no {column}: fill it in or remove the row", f"no-{column}", (f"line {line}",))
    files = tuple(path.parent / name.strip() for name in row["image"].split(";"))
    mask = path.parent / row["mask"] if masked else None
    for file in (*files, *([mask] if mask else [])):
        if not (file.is_file() or is_series(file)):
            kind = "no-mask" if file == mask else "no-image"
            raise FlawError(f"{path}, line {line}, names {file}, which does not exist (relative to the table)", kind, (file,))
    name = row.get("id") or stem(files[0])
    if any(char in name for char in "/\\\0"):
        raise FlawError(f"{path}, line {line}, has the id {name!r}: ids become file names, write them without slashes", "bad-id", (name,))
    return Case(name, files, mask, row.get("group") or name)
