"""Work for worker processes, in a module of its own because they must be able to import it."""

import os
import time

from somite.cohort import work as answer_of
from somite.study.jobs import work


def killed_once(job):
    """Real work, except that the first worker of the feed-forward job waits to be killed."""
    note = job.folder.parent / "victim"
    if job.folder.name.endswith("feed-forward-0") and not note.exists():
        note.write_text(str(os.getpid()))
        time.sleep(300)
    return work(job)


def linger(note):
    """Tell who works here, and do not end."""
    note.write_text(str(os.getpid()))
    time.sleep(300)


def answer_killed_once(asked):
    """Real answers, except that the first worker of case002 waits to be killed."""
    note = asked.out.parent / "victim"
    if asked.case.id == "case002" and not note.exists():
        note.write_text(str(os.getpid()))
        time.sleep(300)
    return answer_of(asked)


def hold(folder, ready):
    """Take a run folder and do not end."""
    from somite.trainer.lock import alone

    with alone(folder):
        ready.write_text("")
        time.sleep(300)
