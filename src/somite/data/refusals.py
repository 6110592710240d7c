"""What of a data set's description does not go together."""

from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from .dataset import Data


def refuse(data: "Data") -> None:
    """Raises InputError for parts that do not go together."""
    deep = data.preprocess.dims == 3 and data.preprocess.orientation == "RAS"
    for name, part in (("coordinates", data.coordinates), ("views", data.views)):
        if part is not None and not deep:
            raise InputError(
                f"--data.{name} is of volumes whose axes are known: set --data.preprocess.dims 3 and --data.preprocess.orientation RAS"
            )
    if data.soft is not None and (data.views is not None or data.raters):
        raise InputError("--data.soft is what a teacher says of masks, and not for --data.views or --data.raters: leave one of them out")
    beside = {"crop": data.crop, "augment": data.augment, "foreground_rate": data.foreground_rate, "raters": data.raters}
    given = [name for name, value in beside.items() if value]
    if data.views is not None and given:
        raise InputError(f"--data.{given[0]} is not for --data.views, which cuts and changes views in its own way: leave one of them out")
