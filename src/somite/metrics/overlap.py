"""How much of one mask lies in another: Dice, IoU, precision and recall.

The rule for empty masks, here and in `surface` and `uncertainty`, never yields NaN, so no case drops out of a mean:
both empty is a perfect answer (dice = iou = precision = recall = nsd = 1, hd95 = 0); exactly one empty is the worst
(dice = iou = precision = recall = nsd = 0, hd95 = the diagonal of the image in the unit of the spacing).
"""

import numpy as np
from numpy.typing import NDArray

EMPTY_RULE = (
    "Empty masks: if both the prediction and the reference are empty, Dice, IoU, precision, recall and NSD are 1 and "
    "HD95 is 0; if exactly one is empty, Dice, IoU, precision, recall and NSD are 0 and HD95 is the diagonal of the "
    "image. No case is left out of a mean."
)


def overlap(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> dict[str, float]:
    """The shares of pixels that a mask and the truth agree on: dice, iou, precision and recall, each in [0, 1].

    With TP = |mask & truth|: dice = 2 TP / (|mask| + |truth|) (Dice 1945), iou = TP / |mask or truth| (Jaccard 1912),
    precision = TP / |mask|, recall = TP / |truth|. Boolean arrays of one shape, any dimension; empty masks follow
    EMPTY_RULE. Raises ValueError for other dtypes and for unequal shapes.
    """
    check_masks(mask, truth)
    both, predicted, present = (int(np.count_nonzero(m)) for m in (mask & truth, mask, truth))
    if predicted == 0 and present == 0:
        return {"dice": 1.0, "iou": 1.0, "precision": 1.0, "recall": 1.0}
    return {
        "dice": 2 * both / (predicted + present),
        "iou": both / (predicted + present - both),
        "precision": both / predicted if predicted else 0.0,
        "recall": both / present if present else 0.0,
    }


def check_masks(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
    """Raises ValueError unless both are boolean arrays of one shape (an integer `&` would count label bits)."""
    if mask.shape != truth.shape:
        raise ValueError(f"mask has shape {mask.shape} and truth {truth.shape}; want one shape: resample one of them")
    for name, array in (("mask", mask), ("truth", truth)):
        if array.dtype != np.bool_:
            raise ValueError(f"{name} has dtype {array.dtype}; want bool: compare first, e.g. {name} > 0.5")
