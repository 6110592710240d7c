"""The whole of it: the teacher answers, the pupil is trained. The same call again goes on, or finds nothing to do."""

from collections.abc import Callable, Iterable

from ..pipeline import Run, built, load
from ..recipe import settled
from ..report.card import write_card
from ..store import begun
from ..trainer.run import finished, train
from .answers import answer
from .checks import check, segmenting
from .compare import compare
from .lesson import SOFT, Lesson


def distil(teacher: Callable[[], Run], lesson: Lesson, comparing: bool = False, progress: Callable[[Iterable], Iterable] = iter) -> None:
    """Train the pupil into `lesson.out`, an ordinary run folder. teacher: opens the teacher, where it is needed.

    comparing: also train it untaught, and evaluate both and the teacher on the test split.
    """
    out = lesson.out
    asked = teacher() if comparing or not finished(out) else None
    if asked is not None:
        segmenting(asked, lesson)
        pupil = built(begun(settled(lesson.taught, out), out))
        check(asked, pupil, lesson)
        if comparing:
            pupil.data.cases("test")  # before hours of training
        if not finished(out):
            cases = pupil.data.cases("train")
            made = answer(asked, cases, out / SOFT, progress)
            print(f"{asked.path} has answered {len(cases)} training images ({made} of them now): {out / SOFT}")
    train(lesson.taught, out, lesson.name)
    if finished(out):
        write_card(load(out, trust=True, device="cpu"))
    if comparing and asked is not None:
        print(compare(asked, lesson, progress))
        print(f"as a table and a page: {out / 'comparison.csv'}, {out / 'comparison.md'}")
