"""Work that ends its process, in a module that workers import without torch."""

import os

from somite.checkup.case import examine


def die_of_case_5(jobs):
    """Real looks at cases, but one ends its process, as a library does that is out of memory."""
    if any(job.case.id == "case005" for job in jobs):
        os._exit(9)
    return [examine(job) for job in jobs]
