"""Networks that tell classes apart, from MONAI: ResNet (He et al. 2016, arXiv 1512.03385) and DenseNet (Huang et al. 2017, arXiv 1608.06993).

They see the image alone: x and t are ignored, so they belong into `FeedForward`. An image is encoded once, however many members are drawn.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from .. import rng
from ..errors import InputError
from ..types import Cond, Maps, Network, Output, State, Timesteps

FEATURES = "features"


class Head(nn.Module):
    """Features (b, c) -> logits (b, classes), behind dropout that is drawn for each example by itself.

    sampled: it is drawn in inference too, so that the members of an ensemble differ (Gal & Ghahramani 2016, arXiv 1506.02142).
    """

    def __init__(self, width: int, classes: int | None, dropout: float, sampled: bool) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise InputError(f"--method.network.dropout {dropout}: the share of dropped features lies in [0, 1); 0.2 is usual")
        self.dropout, self.sampled = dropout, sampled
        self.out = nn.Linear(width, 2 if classes is None else classes)

    def forward(self, features: Tensor) -> Tensor:
        if self.dropout and (self.training or self.sampled):
            kept = rng.uniform(tuple(features.shape), features.device) >= self.dropout
            features = features * kept / (1 - self.dropout)
        return self.out(features)


class Classifier(Network):
    """What the two have in common. classes: how many; in a recipe null is as many as the data have, elsewhere two."""

    def __init__(self, backbone: nn.Module, width: int, image_channels: int, classes: int | None, dropout: float, sampled: bool) -> None:
        super().__init__()
        self.image_channels = image_channels
        self.backbone = backbone
        self.head = Head(width, classes, dropout, sampled)

    def encode(self, cond: Cond) -> Cond:
        image = cond["image"]
        if image.shape[1] != self.image_channels:
            raise InputError(
                f"this network takes {self.image_channels} image channels, got {image.shape[1]}; set --method.network.image_channels or --data.preprocess.channels"
            )
        return {FEATURES: self.backbone(image).flatten(2).mean(2)}

    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        return Output(self.head(cond[FEATURES]))


class ResNet(Classifier):
    """Of basic blocks; the defaults are ResNet-18.

    channels, depths: of the four stages, each of which but the first halves the image. stem: how much the first layer shrinks it: 4 as
    published (a 7 x 7 convolution and a maximum, each by 2), 2 without the maximum, 1 by nothing (3 x 3) for images of few pixels.
    dropout: of features before the last layer, in training; sampled: in inference too, so that members differ.
    """

    def __init__(
        self,
        classes: int | None = None,
        channels: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (2, 2, 2, 2),
        stem: Literal[1, 2, 4] = 4,
        image_channels: int = 3,
        dims: Literal[2, 3] = 2,
        dropout: float = 0.0,
        sampled: bool = False,
    ) -> None:
        from monai.networks.nets import ResNet as MonaiResNet

        if len(channels) != 4 or len(depths) != 4:
            raise InputError(f"a ResNet has four stages, got --method.network.channels {list(channels)} and depths {list(depths)}")
        whole = MonaiResNet(
            "basic",
            list(depths),
            list(channels),
            spatial_dims=dims,
            n_input_channels=image_channels,
            conv1_t_size=3 if stem == 1 else 7,
            conv1_t_stride=1 if stem == 1 else 2,
            no_max_pool=stem != 4,
            feed_forward=False,
            bias_downsample=False,  # as published: batch normalisation follows, which takes a bias away again
        )
        super().__init__(Unpooled(whole), channels[-1], image_channels, classes, dropout, sampled)


class Unpooled(nn.Module):
    """MONAI's ResNet up to its last stage: (b, c, *s), where MONAI's own forward ends with a flat vector."""

    def __init__(self, whole: nn.Module) -> None:
        super().__init__()
        pool = [] if whole.no_max_pool else [whole.maxpool]
        self.stem = nn.Sequential(whole.conv1, whole.bn1, whole.act, *pool)  # type: ignore[arg-type]
        self.stages = nn.Sequential(*[getattr(whole, f"layer{stage}") for stage in (1, 2, 3, 4)])

    def forward(self, image: Tensor) -> Tensor:
        return self.stages(self.stem(image))


class DenseNet(Classifier):
    """The defaults are DenseNet-121.

    depths: layers of each dense block; between two blocks the image is halved, after it was shrunk by 4 at the beginning. growth: channels
    that each layer adds to the first `width`. dropout, sampled: as of `ResNet`.
    """

    def __init__(
        self,
        classes: int | None = None,
        width: int = 64,
        growth: int = 32,
        depths: Sequence[int] = (6, 12, 24, 16),
        image_channels: int = 3,
        dims: Literal[2, 3] = 2,
        dropout: float = 0.0,
        sampled: bool = False,
    ) -> None:
        from monai.networks.nets import DenseNet as MonaiDenseNet

        whole = MonaiDenseNet(dims, image_channels, 1, width, growth, tuple(depths))
        backbone = nn.Sequential(whole.features, nn.ReLU(inplace=True))
        super().__init__(backbone, whole.class_layers.out.in_features, image_channels, classes, dropout, sampled)  # type: ignore[union-attr]
