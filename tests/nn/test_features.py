"""What images are compared by: pixels against torch's own pooling, a local vision model against transformers itself."""

import pytest
import torch
from torch.nn import functional as F
from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

from somite.errors import InputError
from somite.nn.features import MEAN, STD, Latents, Pixels, Pretrained
from somite.nn.kl import kl_autoencoder


def test_pixels_are_means_of_squares():
    image = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(Pixels(1)(image), Pixels(1)(image.mean((2, 3), keepdim=True).expand(-1, -1, 16, 16)), atol=0.1, rtol=0)
    assert Pixels()(image).shape == (2, 192)
    assert torch.equal(Pixels(16)(image), image.flatten(1))


@pytest.fixture
def dino(tmp_path):
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(tmp_path / "dino")
    return tmp_path / "dino"


def test_a_local_vision_model_is_asked_as_transformers_asks_it(dino):
    model, asks = Dinov2Model.from_pretrained(dino).eval(), BitImageProcessorPil(size={"shortest_edge": 28}, crop_size=28)
    asks.save_pretrained(dino)
    extractor, pixels = Pretrained(dino), torch.randint(256, (2, 3, 28, 28), dtype=torch.uint8)
    with torch.no_grad():
        wanted = model(**asks(list(pixels), return_tensors="pt")).pooler_output
        torch.testing.assert_close(extractor(pixels / 255), wanted, atol=1e-5, rtol=1e-4)
        grey = pixels[:, :1] / 255
        torch.testing.assert_close(extractor(grey), extractor(grey.expand(-1, 3, -1, -1)))
    assert extractor.name == "Dinov2Model"
    assert not any(p.requires_grad for p in extractor.parameters())


def test_a_model_without_advice_is_asked_as_imagenets(dino):
    model, extractor, image = Dinov2Model.from_pretrained(dino).eval(), Pretrained(dino), torch.rand(1, 3, 224, 224)
    standard = (image - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(extractor(image), model(pixel_values=standard).pooler_output)


@torch.no_grad()
def test_latents_are_pooled_to_few_places(tmp_path):
    torch.manual_seed(0)
    model = kl_autoencoder(32, (1, 2), 1, latent_channels=3, image_channels=1).eval()
    model.save_pretrained(tmp_path)
    image = torch.rand(2, 1, 31, 16)
    mean = model.encode(2 * torch.cat([image, image[:, :, -1:]], 2) - 1).latent_dist.mean  # the far edge repeated to 32
    torch.testing.assert_close(Latents(tmp_path)(image), F.avg_pool2d(mean, (4, 2)).flatten(1))
    torch.testing.assert_close(Latents(tmp_path, 1)(image), mean.mean((2, 3)))
    torch.testing.assert_close(Latents(tmp_path)(image.expand(-1, 3, -1, -1)), Latents(tmp_path)(image))  # colours as luminance
    assert Latents(tmp_path)(image[:, :, :2, :2]).shape == (2, 3)  # fewer places than asked for


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="holds no vision model"):
        Pretrained(tmp_path)
