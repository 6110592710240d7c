"""How large is each bundled recipe, and what does a training example cost on a CPU? The numbers of docs/recipes.md.

    python benchmarks/recipes.py             # all but those of more than 100 million weights
    python benchmarks/recipes.py mednca      # those whose names begin so

Prints a line a recipe: weights, training size, and the seconds of process time (one thread) that forward and backward of
one example take, the median of three batches of two after one to warm up; where a batch takes over 20 s, the first.
Random images and masks: time does not depend on them.
"""

import statistics
import sys
import time

import torch

from somite.recipe import Recipe, build, bundled, parse

BATCH, ROUNDS, LARGE, SLOW = 2, 3, 100_000_000, 20.0


def training_size(recipe: Recipe) -> list[int]:
    given = recipe.data.crop or recipe.data.preprocess.size
    assert given is not None
    return [given] * recipe.data.preprocess.dims if isinstance(given, int) else list(given)


def seconds(recipe: Recipe, size: list[int]) -> float:
    """Of one example."""
    torch.manual_seed(0)
    method = recipe.method.train()
    image = torch.rand(BATCH, recipe.data.preprocess.channels, *size)
    mask = (torch.rand(BATCH, 1, *size) > 0.5).long()
    taken = []
    for _ in range(1 + ROUNDS):
        start = time.process_time()
        method.loss(mask, {"image": image})["loss"].backward()
        method.zero_grad()
        taken.append((time.process_time() - start) / BATCH)
        if taken[0] * BATCH > SLOW:
            return taken[0]
    return statistics.median(taken[1:])


def main(prefix: str = "") -> None:
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, 1 thread")
    for name, path in bundled().items():
        if not name.startswith(prefix):
            continue
        recipe = build(parse(path))
        weights, size = sum(p.numel() for p in recipe.method.parameters() if p.requires_grad), training_size(recipe)
        told = "GPU" if weights > LARGE else f"{seconds(recipe, size):.3g}"
        print(f"{name:28} {weights:>12,} {' x '.join(map(str, size)):>14} batch {recipe.training.batch:<3} {told}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
