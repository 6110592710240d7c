"""What images are compared by: pixels against torch's own pooling, a local vision model against transformers itself."""

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from somite.errors import InputError
from somite.nn.features import MEAN, STD, Pixels, Pretrained


def test_pixels_are_means_of_squares():
    image = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(Pixels(1)(image), Pixels(1)(image.mean((2, 3), keepdim=True).expand(-1, -1, 16, 16)), atol=0.1, rtol=0)
    assert Pixels()(image).shape == (2, 192)
    assert torch.equal(Pixels(16)(image), image.flatten(1))


def test_a_local_vision_model(tmp_path):
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    model = Dinov2Model(config).eval()
    model.save_pretrained(tmp_path / "dino")
    extractor = Pretrained(tmp_path / "dino", size=28)
    assert extractor.name == "Dinov2Model of dino"
    image = torch.rand(2, 3, 28, 28)
    standard = (image - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(extractor(image), model(pixel_values=standard).pooler_output)
        torch.testing.assert_close(extractor(image[:, :1]), extractor(image[:, :1].expand(-1, 3, -1, -1)))
    assert not any(p.requires_grad for p in extractor.parameters())


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="holds no vision model"):
        Pretrained(tmp_path)
