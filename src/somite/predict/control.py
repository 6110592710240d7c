"""A mask at a threshold that controls a risk, in place of 0.5 (`somite calibrate --control`)."""

from typing import Literal

import numpy as np

from ..errors import InputError
from ..metrics.risk import RISKS, guarantee
from .fusion import Fusion, Map, Mean, Tally

Risk = Literal["fnr", "fpr", "fdr"]


class Controlled(Fusion):
    """Another fusion, of one map, whose mask is where it reaches `threshold`: chosen for `risk` to be at most `target`, which travel with
    it so that every record of an answer says what its mask was made for. delta: how often that may fail, of FDR.
    """

    def __init__(self, threshold: float, risk: Risk, target: float, fusion: Fusion | None = None, delta: float = 0.1) -> None:
        if risk not in RISKS:
            raise InputError(f"risk {risk}: a threshold controls one of {', '.join(RISKS)}")
        if not 0 <= threshold <= 1 or not 0 < target < 1:
            raise InputError(f"threshold {threshold} and target {target}: give a probability, and a share between 0 and 1")
        self.threshold, self.risk, self.target, self.delta, self.fusion = threshold, risk, target, delta, fusion or Mean()
        self.local = self.fusion.local

    @property
    def guarantee(self) -> str:
        return guarantee(self.risk, self.target, self.delta)

    def start(self) -> Tally:
        return self.fusion.start()

    def decide(self, probability: Map) -> np.ndarray:
        """(1, *s) -> (*s) uint8. Raises InputError for several classes, whose mask no threshold makes."""
        if len(probability) != 1:
            raise InputError(
                f"a threshold makes the mask of one class, not of {len(probability)} maps; leave the control out (--plain), "
                "or train one class with --data.foreground"
            )
        return (probability[0] >= np.float32(self.threshold)).astype(np.uint8)
