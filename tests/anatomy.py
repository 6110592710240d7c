"""CT-like phantoms with an anatomy: what lies where is the same in every body, up to its size, place and jitter.

A body of soft tissue in air holds two organs as bright as each other, two kidneys as bright as each other, left and right, and a vessel along the
spine; only where they are tells them apart.
"""

import nibabel as nib
import numpy as np

from somite.files import write_json

SHAPE = (48, 48, 32)
AIR, TISSUE, ORGAN, KIDNEY, VESSEL = -1000.0, 20.0, 90.0, 160.0, 240.0
# label: brightness, centre and half-axes, as shares of the body's half-axes
PARTS = {
    1: (ORGAN, (0.42, 0.25, 0.35), (0.38, 0.38, 0.3)),
    2: (ORGAN, (-0.45, 0.2, 0.4), (0.26, 0.28, 0.24)),
    3: (KIDNEY, (0.42, -0.4, -0.25), (0.2, 0.2, 0.28)),
    4: (KIDNEY, (-0.42, -0.4, -0.3), (0.2, 0.2, 0.28)),
    5: (VESSEL, (0.06, -0.3, 0.0), (0.1, 0.1, 0.95)),
}


def body(index):
    """HU (48, 48, 32) and labels 0 .. 5 of a body."""
    random = np.random.default_rng(1000 + index)
    grid = np.stack(np.meshgrid(*[np.arange(n) + 0.5 for n in SHAPE], indexing="ij"), -1)
    middle = np.array(SHAPE) / 2 + random.uniform(-2, 2, 3)
    half = np.array([20, 18, 15]) * random.uniform(0.9, 1.08, 3)
    inside = ((grid - middle) / half) * [1, 1, 0.8]
    image = np.where((inside[..., :2] ** 2).sum(-1) < 1, TISSUE, AIR)
    labels = np.zeros(SHAPE, np.uint8)
    for label, (brightness, centre, axes) in PARTS.items():
        place = middle + half * (np.array(centre) + random.normal(0, 0.03, 3))
        size = half * np.array(axes) * random.uniform(0.9, 1.1, 3)
        there = (((grid - place) / size) ** 2).sum(-1) < 1
        image[there], labels[there] = brightness, label
    return (image + random.normal(0, 47, SHAPE)).astype(np.float32), labels


def write(root, train, test, first=0):
    """Volumes of 2 mm in RAS with masks, the first `train` of them for training and one more for validation."""
    names = [f"body{index:03d}" for index in range(first, first + train + 1 + test)]
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for index, name in enumerate(names, first):
        image, labels = body(index)
        for folder, array in (("images", image), ("masks", labels)):
            nib.save(nib.Nifti1Image(array, np.diag([2.0, 2, 2, 1])), root / folder / f"{name}.nii.gz")
    write_json(root / "splits.json", {"train": names[:train], "val": names[train : train + 1], "test": names[train + 1 :]})
    return root
