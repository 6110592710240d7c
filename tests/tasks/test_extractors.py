"""By what images are compared: a run of classification against its own predictions, names that follow the contents."""

import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import somite
from runs import classifier, untrained
from somite.errors import InputError
from somite.nn.frozen import Part
from somite.tasks.synthesis.extractors import extractor_of, features_of


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    centred = "--data.preprocess.normalise=somite.data.normalise.Centred"
    return classifier(tmp_path_factory.mktemp("extractors") / "run", centred, "--data.preprocess.size=[24,20]")


def test_a_classifier_is_read_before_its_last_layer(classified):
    """Its last layer on the features is what the run itself predicts, from images of another size and of grey."""
    run, extractor = somite.load(classified, device="cpu"), extractor_of(Part(str(classified)))
    for image in np.random.default_rng(0).random((2, 3, 30, 40), np.float32), np.random.default_rng(1).random((2, 1, 24, 20), np.float32):
        found = features_of(extractor, list(torch.from_numpy(image)), 2)
        assert found.shape == (2, 8)
        p = run.method.network.head.out(found).softmax(1).detach().numpy()
        np.testing.assert_allclose(p, [run.predict(one).probability for one in image], atol=1e-5)
    assert not any(parameter.requires_grad for parameter in extractor.parameters())


def test_images_of_several_sizes_are_looked_at_one_by_one(classified):
    extractor, images = extractor_of(None), [torch.rand(3, 8, 8), torch.rand(3, 16, 8)]
    assert torch.equal(features_of(extractor, images, 2), torch.cat([extractor(image[None]) for image in images]))


def test_a_name_is_of_the_contents(classified, tmp_path):
    name = extractor_of(Part(str(classified))).name
    assert name.startswith("classifier ResNet ")
    shutil.copytree(classified, tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "metrics.csv").write_text("of its training")
    assert extractor_of(Part(str(tmp_path / "elsewhere"))).name == name
    weights = load_file(classified / "weights.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, tmp_path / "elsewhere" / "weights.safetensors")
    assert extractor_of(Part(str(tmp_path / "elsewhere"))).name != name


def test_a_run_that_trained_an_autoencoder(tmp_path):
    small = ["--method.network.channels=32", "--method.network.mults=[1,1]"]
    extractor = extractor_of(Part(str(untrained("autoencoder/small", tmp_path / "run", *small))))
    assert extractor.name.startswith("latents of AutoencoderKL ")
    assert extractor(torch.rand(1, 3, 16, 16)).shape == (1, 4 * 16)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("data", "preprocess"), {"class_path": "elsewhere.Preprocess"}, "not somite's"),
        (("data", "preprocess", "init_args", "normalise"), {"class_path": "torch.nn.Identity"}, "not somite's"),
        (("data", "preprocess", "init_args", "normalise"), {"class_path": "somite.data.normalise.torch"}, "not somite's"),
        (("method", "init_args", "network", "class_path"), "somite.networks.classifier.Network", "a classifier of somite's own"),
        (("method", "init_args", "network", "class_path"), "elsewhere.Network", "something else than an autoencoder"),
        (("method", "init_args", "network", "init_args", "stem"), 4, "do not fit"),
        (("method",), None, "has no method"),
    ],
)
def test_what_is_no_extractor(classified, tmp_path, place, value, message):
    shutil.copytree(classified, tmp_path / "run")
    tree = yaml.safe_load((classified / "recipe.yaml").read_text())
    part = tree
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = value
    (tmp_path / "run" / "recipe.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(InputError, match=message):
        extractor_of(Part(str(tmp_path / "run")))
