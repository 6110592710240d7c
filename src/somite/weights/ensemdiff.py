"""Checkpoints of the official EnsemDiff program."""

from typing import Any

from .importer import State
from .unets import UNetImporter, body


class EnsemDiffImporter(UNetImporter):
    kind, system, mark, recipe = "ensemdiff", "EnsemDiff", None, "ensemdiff/official"
    origin = "EnsemDiff, Wolleb et al. 2022 (arXiv 2112.03145), JuliaWolleb/Diffusion-based-Segmentation", "MIT program"

    def architecture(self, state: State) -> dict[str, Any]:
        return body(state)


IMPORTERS = [EnsemDiffImporter()]
