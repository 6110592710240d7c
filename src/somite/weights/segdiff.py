"""Checkpoints of the official SegDiff program."""

import re
from typing import Any

from .importer import State
from .unets import UNetImporter, body


class SegDiffImporter(UNetImporter):
    kind, system, mark, recipe, heads = "segdiff", "SegDiff", "rrdb.conv_first", "segdiff/official", 4
    origin = "SegDiff, Amit et al. 2022 (arXiv 2112.00390), tomeramit/SegDiff", "no licence stated"

    def architecture(self, state: State) -> dict[str, Any]:
        """The image has an encoder of its own, whose trunk has so many blocks."""
        trunk = {int(found[1]) for name in state if (found := re.match(r"rrdb\.RRDB_trunk\.(\d+)\.", name))}
        own = {"rrdb_blocks": len(trunk), "image_channels": state["rrdb.conv_first.weight"].shape[1]}
        return {name: value for name, value in body(state).items() if name != "learn_variance"} | own


IMPORTERS = [SegDiffImporter()]
