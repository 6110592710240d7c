"""STAPLE (Warfield et al. 2004): members as raters of unknown quality, by SimpleITK's expectation maximisation."""

import numpy as np
import SimpleITK

from .fusion import Fusion, Map, Tally, vote


class Staple(Fusion):
    """The probability that a pixel is foreground given the members' masks, each weighted by its own estimated sensitivity and
    specificity; for several classes one label against the rest, normalised. Where all members agree, their common mask.
    The weights are of the whole case, so all masks are held until the last has come: a byte a pixel, class and member.
    """

    local = False

    def __init__(self, iterations: int = 50) -> None:
        self.iterations = iterations

    def start(self) -> Tally:
        return Masks(self.iterations)


class Masks(Tally):
    def __init__(self, iterations: int) -> None:
        self.iterations = iterations
        self.masks: list[np.ndarray] = []

    def add(self, member: Map) -> None:
        self.masks.append(vote(member))

    def value(self) -> Map:
        masks = np.stack(self.masks)  # (m, k, *s)
        fused = np.stack([self.one(masks[:, label]) for label in range(masks.shape[1])]).astype(np.float32)
        return fused if len(fused) == 1 else fused / np.maximum(fused.sum(0, keepdims=True), 1e-6)

    def one(self, masks: np.ndarray) -> np.ndarray:
        """(m, *s) bool -> (*s)"""
        if (masks == masks[0]).all():  # also one member; EM has nothing to weigh and divides by zero on empty masks
            return masks[0].astype(np.float32)
        images = [SimpleITK.GetImageFromArray(mask.astype(np.uint8)) for mask in masks]
        weight, foreground = 1.0, 1.0
        return SimpleITK.GetArrayFromImage(SimpleITK.STAPLE(images, weight, foreground, self.iterations))
