"""Body coordinates as another run has learned them (`diffusion.views.Positions`), for data whose samples bring them along."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn import functional as F

from ..data.coordinates import Coordinates
from ..data.record import Record
from ..errors import InputError
from ..nn.frozen import Part
from .opened import Opened, opened
from .views import Positions


class Learned(Coordinates):
    """regressor: a run of bodyparts. It sees each whole volume as it was trained to, by its own spacing and brightness; its map is resampled
    onto the grid that is asked for, between voxels. Raises InputError for a run of something else.
    """

    def __init__(self, regressor: Part) -> None:
        self.regressor = regressor

    @cached_property
    def run(self) -> Opened:
        """Opened when it is first asked: a run that brings no case asks nothing."""
        run = opened(Path(self.regressor.source))
        if not isinstance(run.method, Positions):
            raise InputError(
                f"{run.path} has learned no coordinates ({type(run.method).__name__}); name a run of bodyparts/small or bodyparts/ct"
            )
        return run

    @property
    def settings(self) -> object:
        return self.regressor.digest or self.regressor.source

    @property
    def name(self) -> str:
        return f"learned ({(self.regressor.digest or Path(self.regressor.source).name)[:8]})"

    @torch.no_grad()
    def __call__(
        self,
        image: Float[Tensor, "c h w d"],
        record: Record,
        spacing: tuple[float, ...] | None,
        body: Integer[Tensor, "1 h w d"] | None,
    ) -> Float[Tensor, "3 h w d"]:
        own = self.run.data.preprocess
        seen, theirs = own.image(record), own.spacing(record)
        self.check(record, image.shape[1:], spacing, seen.shape[2:], theirs)
        found = self.run.method.sample({"image": seen}, (1, 3, *seen.shape[2:]))
        return F.interpolate(found, size=tuple(image.shape[1:]), mode="trilinear", align_corners=False)[0]

    def check(
        self,
        record: Record,
        space: Sequence[int],
        spacing: Sequence[float] | None,
        other_space: Sequence[int],
        other_spacing: Sequence[float] | None,
    ) -> None:
        """Raises InputError where the two grids do not show the same part of the body, up to a voxel."""
        if spacing is None or other_spacing is None:
            return
        for n, mm, m, other in zip(space, spacing, other_space, other_spacing, strict=True):
            if abs(n * mm - m * other) > 2 * max(mm, other):
                raise InputError(
                    f"{record.case.id}: {self.run.path} looks at another part of volumes than these data ({m * other:.0f} and {n * mm:.0f} mm along an "
                    "axis); give both the same --data.preprocess.orientation and above"
                )
