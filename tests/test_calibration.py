"""The temperature that `somite calibrate` leaves beside the weights."""

import json

import pytest

import somite
from runs import tiny
from somite import calibration
from somite.data.phantoms import write_phantoms
from somite.errors import InputError
from somite.predict.temperature import Tempered


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    root = write_phantoms(tmp_path_factory.mktemp("data"), 6, (32, 32))
    return tiny(root, tmp_path_factory.mktemp("run") / "run", "--training.steps=2", "--task.members=1")


def test_what_was_fitted_is_applied(path):
    run = somite.load(path, device="cpu")
    temperature = calibration.calibrate(run)
    softened = calibration.calibrated(run)
    fusion = softened.recipe.task.fusion
    assert isinstance(fusion, Tempered)
    assert fusion.temperature == temperature
    assert not isinstance(run.recipe.task.fusion, Tempered)
    assert any("Tempered" in text for text in softened.told["overrides"])


@pytest.mark.parametrize("content", ["[]", "{}", "3", '{"temperature": "warm"}', '{"temperature": NaN}', '{"temperature": 0}'])
def test_a_file_without_a_temperature(path, content):
    run = somite.load(path, device="cpu")
    file = calibration.path_of(path)
    file.write_text(content if "temperature" not in content else json.dumps({**calibration.settings(run), **json.loads(content)}))
    with pytest.raises(InputError, match=r"temperature.json holds no temperature; run `somite calibrate"):
        calibration.calibrated(run)
