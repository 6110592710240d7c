"""What `somite analyse` does, with the options that cli_analyses.py read."""

from argparse import Namespace
from pathlib import Path

from . import pipeline
from .analysis.calibration import analyse_calibration
from .analysis.features import analyse_features
from .analysis.features import table as features_table
from .analysis.fingerprint import analyse_fingerprint
from .analysis.placement import analyse_placement
from .analysis.raters import analyse_raters
from .analysis.stability import analyse_stability
from .analysis.stability import table as stability_table
from .analysis.timesteps import analyse_timesteps
from .data.sources import NUCLEI
from .files import read_json
from .opening import open_run
from .places import own
from .progress import tracked


def analyse(options: Namespace) -> None:
    match options.analysis:
        case "timesteps":
            out = options.out or own(options.run) / "timesteps"
            found = analyse_timesteps(
                open_run(options), options.split, out, options.count, options.draws, options.limit, seed=options.seed, progress=tracked
            )
        case "raters":
            out = options.out or own(options.run) / "raters"
            found = analyse_raters(open_run(options), out, options.split, options.sizes, options.limit, tracked)
        case "stability":
            out, asked = options.out or own(options.run) / "stability", (options.seeds, options.limit, options.lpips, options.published)
            found = analyse_stability(open_run(options), out, options.split, *asked, tracked)
            print(stability_table(read_json(found["summary"])))
        case "placement":
            out = options.out or own(options.run) / "placement"
            found = analyse_placement(open_run(options), options.table, out, options.counts, options.split, options.limit, tracked)
        case "fingerprint":
            roots = [NUCLEI if root == "nuclei" else Path(root) for root in options.data]
            found = analyse_fingerprint(roots, options.out, options.size, options.train, seed=options.seed, progress=tracked)
        case "features":
            out, given = options.out or own(options.run) / "features", (options.timesteps, options.voxels, options.noise, options.labels)
            found = analyse_features(open_run(options), options.data, out, options.split, options.limit, *given, options.seed, tracked)
            print(features_table(read_json(found["summary"])))
        case _:
            runs = [pipeline.load(path, options.trust).at(seed=options.seed) for path in options.runs]
            found = analyse_calibration(runs, options.out, options.split, options.sizes, tracked)
    print("\n".join(str(path) for path in found.values()))
