"""Checkpoints of the official MedSegDiff program, of its two versions."""

from typing import Any

from .importer import State
from .unets import UNetImporter, body

PROJECTION = "hwm.emb_proj."


class MedSegDiffImporter(UNetImporter):
    kind, system, mark, recipe = "medsegdiff", "MedSegDiff", "hwm.", "medsegdiff/official"
    origin = "MedSegDiff, Wu et al. 2023 (arXiv 2211.00611), SuperMedIntel/MedSegDiff, version new", "MIT program"

    def architecture(self, state: State) -> dict[str, Any]:
        return {name: value for name, value in body(state).items() if name != "channels"}


class MedSegDiffV1Importer(UNetImporter):
    """The program draws its bottleneck projection anew at every call, saves none, and fuses by one decision for a whole batch. The run
    holds one draw, the same for every import, and decides image by image, so that answers are a function of (seed, case).
    """

    kind, system, mark, recipe = "medsegdiff", "MedSegDiff", "hwm.ffparser", "medsegdiff/v1-official"
    origin = "MedSegDiff, Wu et al. 2023 (arXiv 2211.00611), SuperMedIntel/MedSegDiff, version 1", "MIT program"

    def architecture(self, state: State) -> dict[str, Any]:
        size = 2 * state["hwm.ffparser.0.complex_weight"].shape[1]
        return body(state) | {"size": size, "random_projection": False}

    @property
    def mended(self) -> list[str]:
        return ["--method.readout.official=false"]

    def completed(self, state: State, built: State) -> State:
        return {name.removeprefix("network."): value for name, value in built.items() if PROJECTION in name} | state


IMPORTERS = [MedSegDiffImporter(), MedSegDiffV1Importer()]
