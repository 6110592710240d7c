"""What does not go together is said in a sentence, before anything is computed."""

from collections.abc import Collection, Iterable, Sequence
from hashlib import sha256 as hashed
from pathlib import Path

from ..data.dataset import Data
from ..data.record import Case
from ..diffusion.methods import Method
from ..errors import InputError
from ..files import sha256
from ..pipeline import Run
from ..recipe import Recipe
from ..sampling import class_path
from ..tasks.segmentation import Segmentation
from .lesson import Lesson


def check(teacher: Run, pupil: Recipe, lesson: Lesson) -> None:
    """Raises InputError. `pupil` is built of the recipe with the teacher's share."""
    pupil.method.begin()
    if lesson.temperature != 1 and not logits(pupil.method):
        raise InputError(
            f"--temperature {lesson.temperature:g} is of logits, which the method of {lesson.into} does not predict: leave it out, or set "
            "--method.predicts logits"
        )
    train = pupil.data.own("train")
    same_classes(teacher, pupil, lesson)
    for run in teacher.runs:
        same_images(run, pupil.data, train[0], lesson)
    more = lesson.soft.cases()
    test = split(pupil.data, "test")
    known = prints([*split(pupil.data, "val"), *test])
    unseen(teacher, pupil.data, test, known)
    both = twice(more, known)
    if both:
        raise InputError(
            f"{both[0].images[0]} is the image of {both[1].id}, a case that the pupil is validated or tested on: remove it from --unlabelled"
        )
    for run in teacher.runs:  # what reading an image would complain of, for the first of each kind
        for case in [train[0], *more[:1]]:
            run.model(run.data.read(bare(case)))


def segmenting(teacher: Run, lesson: Lesson) -> None:
    """Both are segmentations: asked before the pupil is built."""
    for what, task in ((teacher.path, class_path(type(teacher.recipe.task))), (lesson.into, lesson.untaught.task.class_path)):
        if task != class_path(Segmentation):
            raise InputError(f"{what} is no segmentation (its task is {task.split('.')[-1]}): what is taught are probabilities of masks")


def logits(method: Method) -> bool:
    """Whether the method, or the one that it is around, predicts logits."""
    inner = getattr(method, "method", method)
    return getattr(inner, "predicts", None) == "logits"


def same_classes(teacher: Run, pupil: Recipe, lesson: Lesson) -> None:
    ours, theirs = pupil.data, teacher.data
    named = [data.labels for data in (theirs, ours) if data.labels is not None]
    alike = theirs.labels == ours.labels or (len(named) == 1 and len(named[0]) == 2 and named[0][0] == 0)  # a binary mask, named or not
    if not alike or theirs.foreground != ours.foreground:
        told = [described(data) for data in (theirs, ours)]
        raise InputError(
            f"{teacher.path} answers with {told[0]} and {lesson.into} learns {told[1]}: a teacher teaches its own classes; set --data.labels "
            "or --data.foreground of the pupil to the teacher's"
        )
    maps = (teacher.method.codec.maps, pupil.method.codec.maps)
    if maps[0] != maps[1] and sorted(maps) != [1, 2]:
        raise InputError(
            f"{teacher.path} answers with {maps[0]} maps and the codec of {lesson.into} has {maps[1]}: give the pupil "
            f"--method.codec somite.diffusion.codec.OneHot --method.codec.classes {maps[0]} --method.network.mask_channels {maps[0]}"
        )


def described(data: Data) -> str:
    named = "a binary mask" if data.labels is None else f"the labels {data.labels}"
    return named if data.foreground is None else f"the mask values {data.foreground}"


def same_images(run: Run, data: Data, case: Case, lesson: Lesson) -> None:
    """Axes and channels; grey and colour are converted on purpose, as everywhere."""
    theirs, ours = run.data.preprocess, data.preprocess
    volumes = data.read(case).spacing is not None
    if ours.dims == 3 and theirs.dims == 2 and not of_volumes(run):
        raise InputError(
            f"{run.path} is a teacher of 2D images and {lesson.into} a recipe for volumes: choose a teacher that was trained on volumes"
        )
    if theirs.dims == 3 and not volumes:
        raise InputError(f"{run.path} is a teacher of volumes and {data.path} holds 2D images: choose a teacher of images")
    if theirs.channels != ours.channels and (volumes or {theirs.channels, ours.channels} != {1, 3}):
        raise InputError(
            f"{run.path} was trained on {theirs.channels} channels and {lesson.into} learns from {ours.channels}: a teacher sees what its "
            f"pupil sees; set --data.preprocess.channels {theirs.channels} where the images have them, or choose another teacher"
        )


def of_volumes(run: Run) -> bool:
    """Whether a run of slices was trained on those of volumes; where its data are gone, nobody can tell."""
    try:
        data = run.trained_on
        return data.read(data.cases("train")[0]).spacing is not None
    except InputError:
        return False


def split(data: Data, name: str) -> list[Case]:
    """The cases of a split that there may not be."""
    try:
        return data.own(name)
    except InputError:
        return []


def unseen(teacher: Run, data: Data, test: Sequence[Case], known: dict[str, Case]) -> None:
    """No run of the teacher was trained or validated on the pupil's test cases, nor on others of their patients."""
    groups = {case.group: case for case in test}
    mine = {print_: case for print_, case in known.items() if groups.get(case.group) and case in test}
    for run in teacher.runs:
        try:
            seen = [case for name in ("train", "val") for case in run.trained_on.cases(name)]
        except InputError:
            print(f"{run.path}: the data that it was trained on are not here, so nobody can tell whether it has seen the test cases")
            continue
        pair = twice(seen, mine)
        if pair is None and same_place(run.trained_on, data):
            pair = next(((case, groups[case.group]) for case in seen if case.group in groups), None)
        if pair is not None:
            raise InputError(
                f"{run.path} was trained or validated on {pair[0].id}, which is the pupil's test case {pair[1].id} or of the same patient: what it teaches "
                "would be tested on what it knows; train both on one split (--data.splits, --data.fold), or choose a teacher that has not seen it"
            )


def same_place(one: Data, other: Data) -> bool:
    return one.path.resolve() == other.path.resolve()


def prints(cases: Iterable[Case]) -> dict[str, Case]:
    """Cases by the contents of their images."""
    return {print_of(case): case for case in cases}


def print_of(case: Case) -> str:
    return hashed("".join(sha256(file) for file in case.files).encode()).hexdigest()


def twice(cases: Sequence[Case], known: dict[str, Case]) -> tuple[Case, Case] | None:
    """The first of these whose image is one of the known, and which. Only files as long as a known one are read."""
    sizes = {length(case.files) for case in known.values()}
    for case in cases:
        if length(case.files) in sizes and (print_ := print_of(case)) in known:
            return case, known[print_]
    return None


def length(files: Collection[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def bare(case: Case) -> Case:
    """Without its mask, which a teacher need not be able to read."""
    return Case(case.id, case.images, None, case.group)
