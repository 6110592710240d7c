"""The whole way in Python, and what is known of it before torch is imported."""

import json
import subprocess
import sys

import numpy as np
import pytest

import somite
from somite.data.phantoms import write_phantoms
from somite.errors import InputError

TINY = {
    "method__network__channels": 12,
    "method__network__hidden": 8,
    "method__network__updates": 2,
    "data__crop": 32,
    "data__preprocess__size": None,
    "training__steps": 2,
    "training__batch": 2,
    "training__validate": 2,
    "task__members": 3,
    "task__steps": [1, 2],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = write_phantoms(tmp_path_factory.mktemp("data"), 10, (32, 32))
    return somite.train("medsegdiffnca/demo", data=root, out=tmp_path_factory.mktemp("run") / "run", **TINY)


def test_the_names_are_known_without_torch():
    program = "import sys, somite; print(dir(somite), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{somite.__all__} False"]


def test_train_evaluate_report(run):
    summary = run.evaluate()
    assert summary["members"] == 3
    assert json.loads((run.path / "metrics.json").read_text())["metrics"] == json.loads(json.dumps(summary["metrics"]))
    page = run.report().read_text()
    assert f"{summary['metrics']['dice']['mean']:.3f}" in page
    assert "Evaluation" in (run.path / "README.md").read_text()
    run.evaluate("val")
    assert run.report("val") == run.path / "val" / "report.html"


def test_training_again_opens_what_is_there_and_another_recipe_is_refused(run):
    root = run.recipe.data.root
    before = (run.path / "weights.safetensors").stat().st_mtime_ns
    again = somite.train("medsegdiffnca/demo", data=root, out=run.path, **TINY)
    assert (again.path / "weights.safetensors").stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"training.rate is 0.002 there and 0.5 here"):
        somite.train("medsegdiffnca/demo", data=root, out=run.path, **TINY, training__rate=0.5)


def test_another_sampling_is_another_run_of_the_same_weights(run):
    image = np.random.default_rng(0).random((3, 24, 28), dtype=np.float32)
    before = run.predict(image).members
    other = run.at(members=2, steps=3, seed=5)
    assert type(other) is type(run)
    assert (other.sampling.members, other.sampling.seed, other.method.steps) == (2, 5, 3)
    assert other.told["overrides"] == ["--method.sampler.steps=3"]
    ours, theirs = run.method.state_dict(), other.method.state_dict()
    assert all(ours[name].data_ptr() == theirs[name].data_ptr() for name in ours)  # shared, not copied
    assert other.predict(image).members.shape[0] == 2
    assert np.array_equal(run.predict(image).members, before)
    with pytest.raises(InputError, match="has no option 'stepz'"):
        run.at(stepz=3)
    with pytest.raises(InputError, match="1 to 1000"):
        run.at(steps=0)
    with pytest.raises(InputError, match="do not fit"):
        run.under({"--method.network.hidden": "9"})
    with pytest.raises(InputError, match="no option of sampling"):
        run.under({"--data.crop": "9"})


def test_members_are_kept_where_they_are_asked_for(run):
    image = np.random.default_rng(0).random((3, 24, 28), dtype=np.float32)
    whole, lean = run.predict(image), run.predict(image, keep=False)
    assert lean.members is None
    assert lean.count == 3
    assert np.array_equal(lean.probability, whole.probability)
    assert np.array_equal(lean.spread, whole.spread)
    with pytest.raises(ValueError, match="keep=True"):
        lean.first(1, run.recipe.task.fusion)
