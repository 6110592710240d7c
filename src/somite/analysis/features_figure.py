"""How features separate organs by timestep."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from ..style import COLOURS, DASHES, GREY, styled
from ..tasks.task import Row

SHOWN = ("encoder", "decoder", "both")


@styled
def by_timestep(table: Sequence[Row]) -> Figure:
    """Dice against the timestep for the encoder's maps, the decoder's and both, a panel for each size of organ; on the right all timesteps
    side by side.
    """
    organs = list(dict.fromkeys(row["organs"] for row in table))
    times = list(dict.fromkeys(str(row["t"]) for row in table))
    made = Figure(figsize=(1.4 + 3.1 * len(organs), 3.1), layout="constrained")
    for axes, name in zip(made.subplots(1, len(organs), sharey=True, squeeze=False)[0], organs, strict=True):
        for index, maps in enumerate(SHOWN):
            dice = {str(row["t"]): row["dice"] for row in table if row["organs"] == name and row["maps"] == maps}
            alone = [t for t in times if t in dice and t.isdigit()]
            look = {"color": COLOURS[index], "marker": "os^"[index]}
            axes.plot([times.index(t) for t in alone], [dice[t] for t in alone], linestyle=DASHES[index], label=maps, **look)
            rest = [t for t in times if t in dice and not t.isdigit()]
            axes.plot([times.index(t) for t in rest], [dice[t] for t in rest], linestyle="", **look)
        if not times[-1].isdigit():
            axes.axvline(len(times) - 1.5, color=GREY, linewidth=0.8)
        axes.set_xticks(range(len(times)), ["all" if not t.isdigit() else t for t in times])
        axes.set(xlabel="timestep", title="all organs" if name == "all" else f"{name} organs")
    made.axes[0].set_ylabel("Dice of a closed-form probe")
    made.axes[0].legend()
    return made
