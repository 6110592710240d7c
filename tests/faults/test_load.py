"""Many small images, or a large one in windows, take no more memory than a few."""

import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("load_benchmark", Path(__file__).parents[2] / "benchmarks" / "load.py")
load = importlib.util.module_from_spec(spec)
spec.loader.exec_module(load)


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.timeout(1200)
def test_memory_does_not_grow_with_the_images_that_are_done(tmp_path):
    found = load.many(tmp_path, 500, 32)
    assert found["MiB last tenth"] < found["MiB first tenth"] + 20  # 450 images more; their masks alone are 0.5 MiB


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.timeout(1200)
def test_a_large_image_costs_itself_and_a_window(tmp_path):
    small, large = (load.large(tmp_path, side, 256) for side in (512, 2048))
    pixels = 2048**2 - 512**2
    # Image and what is given of it, noise, logits, probabilities: 12 numbers a pixel; the cells' states would be hundreds.
    assert large["MiB"] - small["MiB"] < 15 * 4 * pixels / 2**20
