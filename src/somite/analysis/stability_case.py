"""One case at many seeds: how far each seed's maps are from the first one's, and the masks from each other (see `stability`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.record import Case
from ..metrics import lpips as lpips_metric
from ..metrics import similarity
from ..metrics.uncertainty import disagreement, disputed
from ..pipeline import Run
from ..tasks.segmentation import scores

MAPS = ("psnr", "ssim", "ms_ssim", "lpips")  # of probability maps, image by image
SIDES = {"ssim": similarity.SSIM_SIDE, "ms_ssim": similarity.MS_SSIM_SIDE, "lpips": lpips_metric.SIDE}  # pixels, the least
Part = dict[str, Any]  # what is kept of one case, as JSON


@dataclass(frozen=True)
class Comparison:
    """How maps are compared. published: at 8 bits, and in each pair's own range."""

    lpips: lpips_metric.Lpips | None = None
    published: bool = False

    def __call__(self, maps: NDArray[np.floating], reference: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        """Images (n, h, w) in [0, 1] -> n numbers of each measure, NaN where it is not measured."""
        top, width = (255.0, None) if self.published else (1.0, 1.0)
        a, b = (np.floor(255.0 * x.astype(np.float64)) if self.published else x for x in (maps, reference))
        found = {name: np.full(len(maps), np.nan) for name in MAPS}
        for name, measure in (("psnr", similarity.psnr), ("ssim", similarity.ssim), ("ms_ssim", similarity.ms_ssim)):
            if min(maps.shape[1:]) >= SIDES.get(name, 1):
                found[name] = np.array([measure(one, other, width) for one, other in zip(a, b, strict=True)])
        if self.lpips is not None and len(maps) and min(maps.shape[1:]) >= lpips_metric.SIDE:
            found["lpips"] = self.lpips(a / top, b / top)
        return found


def of_case(run: Run, case: Case, seeds: Sequence[int], compare: Comparison) -> Part:
    """Numbers of each image that counts, averaged over seeds, and of all masks together. Maps are compared as they come, so that
    those of two seeds are in memory at a time, and the masks of all.
    """
    record, axis = run.recipe.data.read(case), run.recipe.data.preprocess.axis
    masks, dice, compared, filled = [], [], [], []
    reference = np.zeros(0)
    for seed in seeds:
        result = run.at(seed=seed).answer(record)
        labels = scores.labels_of(result)
        maps = images(result.probability[-len(labels) :].clip(0, 1), axis)
        masks.append(result.mask)
        dice.append(scores.dice(result))
        filled.append(images(np.stack([result.mask == label for label in labels]), axis).any((1, 2)))
        if len(masks) == 1:
            reference = maps[filled[0]]
        else:
            compared.append(compare(maps[filled[0]], reference))
    here, elsewhere, all_masks = filled[0], np.any(filled[1:], axis=0), np.stack(masks)
    psnr = np.stack([one["psnr"] for one in compared])
    return {
        "case": case.id,
        "group": case.group,
        "images": {name: over_seeds(np.stack([one[name] for one in compared])) for name in MAPS},
        "empty": int((~here).sum()),
        "empty_here_only": int((~here & elsewhere).sum()),
        "equal_pairs": int(np.isinf(psnr).sum()),
        "pairs": psnr.size,
        "pairwise_dice": float(np.mean([1 - disagreement(all_masks == label) for label in labels])),
        "disputed_pixels": disputed(all_masks),
        "dice": dice,
        "slice": int(images((all_masks != all_masks[0]).any(0)[None], axis).sum((1, 2)).argmax()),  # to look at
    }


def images(maps: NDArray, axis: int) -> NDArray:
    """(labels, *s) -> (n, h, w): a volume's slices along `axis`, class after class."""
    if maps.ndim == 3:
        return maps
    slices = np.moveaxis(maps, axis + 1, 1)
    return slices.reshape(-1, *slices.shape[2:])


def over_seeds(values: NDArray[np.float64]) -> list[float | None]:
    """(seeds, n) -> the mean of each image over the seeds at which it is finite; None where it never is."""
    known = np.isfinite(values)
    return [float(column[some].mean()) if some.any() else None for column, some in zip(values.T, known.T, strict=True)]
