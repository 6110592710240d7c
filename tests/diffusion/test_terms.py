"""Truth: MONAI's DiceCELoss, torch's cross-entropy, and sums written out."""

import pytest
import torch
from monai.losses import DiceCELoss, DiceLoss
from torch.nn import functional as F

from somite.contracts import TermContract
from somite.diffusion.methods import FeedForward
from somite.diffusion.terms import Aux, Clean, CrossEntropy, DeepSupervision, Dice, DiceCE, Early, Noise, Term, Variational
from somite.errors import InputError
from somite.types import Network, Noised, Output, Prediction


def example(k=1, b=3, levels=2, size=(8, 6)):
    """Something for every term to look at."""
    labels = torch.randint(max(k, 2), (b, *size))
    target = labels[:, None].float() if k == 1 else F.one_hot(labels, k).movedim(-1, 1).float()
    logits = 2 * torch.randn(b, k, *size)
    aux = {"rgb": torch.rand(b, 3, *size), "deep": torch.randn(b, levels, k, *size), "early": torch.randn(b, k, *size)}
    pred = Prediction(torch.randn(b, k, *size), torch.randn(b, k, *size), Output(logits, aux=aux), logits)
    return pred, Noised(target, 2 * target - 1, torch.randn(b, k, *size), torch.randn(b, k, *size), torch.zeros(b).long())


TERMS = [
    Noise(),
    Clean(),
    Clean(power=1.0),
    Aux("rgb"),
    Aux("rgb", channels=1),
    CrossEntropy(),
    Dice(),
    DiceCE(),
    DeepSupervision(),
    Early(),
]


@pytest.mark.parametrize("term", TERMS, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("size", [(8, 6), (5, 4, 3)])
def test_an_example_counts_for_itself_alone(term, size):
    pred, ex = example(size=size)
    values = term(pred, ex)
    assert values.shape == (3,)
    one = slice(1, 2)
    row = Prediction(
        pred.x0[one], pred.eps[one], Output(pred.output.value[one], aux={k: v[one] for k, v in pred.output.aux.items()}), pred.logits[one]
    )
    alone = term(row, Noised(ex.target[one], ex.x0[one], ex.eps[one], ex.x_t[one], ex.t[one]))
    torch.testing.assert_close(alone, values[1:2])


def test_noise_and_clean_written_out():
    pred, ex = example()
    for i in range(3):
        assert float(Noise()(pred, ex)[i]) == pytest.approx(float(((pred.eps[i] - ex.eps[i]) ** 2).sum() / 48), rel=1e-5)
        assert float(Clean()(pred, ex)[i]) == pytest.approx(float(((pred.x0[i] - ex.x0[i]) ** 2).sum() / 48), rel=1e-5)
        assert float(Clean(power=1.0)(pred, ex)[i]) == pytest.approx(float((pred.x0[i] - ex.x0[i]).abs().sum() / 48), rel=1e-5)


@pytest.mark.parametrize("size", [(8, 6), (5, 4, 3)])
@pytest.mark.parametrize("smooth", [1e-5, 1.0])
def test_binary_dice_ce_equals_monai(size, smooth):
    pred, ex = example(size=size)
    reference = DiceCELoss(sigmoid=True, smooth_nr=smooth, smooth_dr=smooth)
    torch.testing.assert_close(DiceCE(smooth=smooth)(pred, ex).mean(), reference(pred.logits, ex.target))
    dice = DiceLoss(sigmoid=True, smooth_nr=smooth, smooth_dr=smooth)
    torch.testing.assert_close(Dice(smooth=smooth)(pred, ex).mean(), dice(pred.logits, ex.target))


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("size", [(8, 6), (5, 4, 3)])
def test_multi_class_dice_ce_equals_monai_without_background(k, size):
    pred, ex = example(k, size=size)
    reference = DiceCELoss(softmax=True, include_background=False, smooth_nr=1e-5, smooth_dr=1e-5)
    torch.testing.assert_close(DiceCE()(pred, ex).mean(), reference(pred.logits, ex.target))
    dice = DiceLoss(softmax=True, include_background=False, smooth_nr=1e-5, smooth_dr=1e-5)
    torch.testing.assert_close(Dice()(pred, ex).mean(), dice(pred.logits, ex.target))


def test_cross_entropy_equals_torch():
    pred, ex = example()
    torch.testing.assert_close(CrossEntropy()(pred, ex).mean(), F.binary_cross_entropy(pred.logits.sigmoid(), ex.target))
    pred, ex = example(4)
    torch.testing.assert_close(CrossEntropy()(pred, ex).mean(), F.cross_entropy(pred.logits, ex.target.argmax(1)))


@pytest.mark.parametrize("k", [1, 3])
def test_deep_supervision_halves_each_level(k):
    pred, ex = example(k, levels=3)
    options = {"sigmoid": True} if k == 1 else {"softmax": True, "include_background": False}
    reference = DiceCELoss(smooth_nr=1e-5, smooth_dr=1e-5, **options)
    wanted = sum(0.5 ** (i + 1) * reference(pred.output.aux["deep"][:, i], ex.target) for i in range(3))
    torch.testing.assert_close(DeepSupervision()(pred, ex).mean(), wanted)


@pytest.mark.parametrize("k", [1, 3])
def test_an_enlarged_logit_is_compared_with_the_mean_of_its_block(k):
    """So nothing is lost by comparing at full size: the sums are those of coarse logits against masks reduced by their mean."""
    target = torch.rand(2, k, 12, 8) if k == 1 else torch.nn.functional.one_hot(torch.randint(k, (2, 12, 8)), k).movedim(-1, 1).float()
    coarse, wide = torch.randn(2, k, 3, 2), {"deep": None}
    wide["deep"] = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)[:, None]

    def given(logits, mask, aux):
        ex = Noised(mask, mask, mask, mask, torch.zeros(2).long())
        return Prediction(mask, mask, Output(logits, aux=aux), logits), ex

    found = DeepSupervision()(*given(wide["deep"][:, 0], target, wide))
    small = DiceCE()(*given(coarse, F.avg_pool2d(target, 4), {}))
    torch.testing.assert_close(found, small / 2, rtol=1e-5, atol=1e-5)


def test_deep_supervision_without_heads_is_told():
    pred, ex = example()
    pred.output.aux = {}
    with pytest.raises(InputError, match=r"--method.network.deep true \(MedSegDiffNCA\)"):
        DeepSupervision()(pred, ex)


@pytest.mark.parametrize("k", [1, 3])
def test_confident_and_right_costs_nothing(k):
    pred, ex = example(k)
    right = 200 * ex.target - 100
    pred = Prediction(ex.x0, ex.eps, Output(right, aux={"deep": right[:, None], "rgb": ex.target}), right)
    for term in (Noise(), Clean(), CrossEntropy(), Dice(), DiceCE(), DeepSupervision(), Aux("rgb")):
        torch.testing.assert_close(term(pred, ex), torch.zeros(3), rtol=0, atol=1e-5)


def maps(count=4, side=64):
    masks = (torch.rand(count, 1, side, side) > 0.5).float()
    return masks, Noised(masks, masks, masks, masks, torch.zeros(count).long())


def aux(cal, ex, **options):
    return Aux("cal", **options)(Prediction(ex.x0, ex.eps, Output(ex.x0, aux={"cal": cal})), ex).mean()


def test_fact_a13_paired():
    masks, ex = maps()
    order = torch.tensor([2, 0, 3, 1])
    cal = masks + 0.1 * torch.randn_like(masks)
    joint = Noised(*[part[order] for part in (ex.target, ex.x0, ex.eps, ex.x_t, ex.t)])
    assert float(aux(masks, ex)) == 0
    torch.testing.assert_close(aux(cal[order], joint), aux(cal, ex))
    assert float(aux(cal[order], ex)) > 10 * float(aux(cal, ex))


def test_fact_a13_the_official_slip():
    """(b, h, w) against (b, 1, h, w): what torch's own broadcasting makes of it."""
    masks, ex = maps()
    cal = torch.rand(4, 1, 64, 64)
    torch.testing.assert_close(aux(cal, ex, paired=False), ((cal[:, 0] - masks) ** 2).mean())
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(aux(cal[order], ex, paired=False), aux(cal, ex, paired=False))
    assert float(aux(masks, ex, paired=False)) == pytest.approx(0.375, abs=0.01)  # (1 - 1/b) 2 p (1 - p), not 0
    mean = masks.mean(0, keepdim=True).expand(4, -1, -1, -1).clone().requires_grad_()
    aux(mean, ex, paired=False).backward()
    torch.testing.assert_close(mean.grad, torch.zeros_like(mean), rtol=0, atol=1e-8)  # its minimiser


def test_aux_keeps_the_first_channels():
    masks, ex = maps()
    cal = torch.rand(4, 3, 64, 64)
    torch.testing.assert_close(aux(cal, ex, channels=1), ((cal[:, :1] - masks) ** 2).mean())
    torch.testing.assert_close(aux(cal, ex), ((cal - masks) ** 2).mean())


def test_refusals():
    pred, ex = example()
    for term in (CrossEntropy(), Dice(), DiceCE()):
        with pytest.raises(InputError, match="logits"):
            term(Prediction(pred.x0, pred.eps, pred.output), ex)
    pred, ex = example(4)
    with pytest.raises(InputError, match="4 classes"):
        Aux("rgb")(pred, ex)


def contract(term, channels=1, zero=True):
    """A test class for a term."""
    return type("Contract", (TermContract,), {"make": lambda self: term, "channels": channels, "zero": zero})


class TestNoise(contract(Noise())):
    pass


class TestClean(contract(Clean(power=1))):
    pass


class TestAux(contract(Aux("map"))):
    pass


class TestVariational(contract(Variational(), zero=False)):
    """Its zero is reached by the variance alone, which the example does not set."""


class TestCrossEntropy(contract(CrossEntropy())):
    pass


class TestDice(contract(Dice())):
    pass


class TestDiceCE(contract(DiceCE(), channels=3)):
    pass


class TestDeepSupervision(contract(DeepSupervision())):
    pass


def test_what_is_said_early_learns_from_what_is_said_at_last_and_not_the_other_way():
    value, early = torch.randn(2, 1, 4, 4, requires_grad=True), torch.randn(2, 1, 4, 4, requires_grad=True)
    found = Early()(Prediction(value, value, Output(value, aux={"early": early})), example()[1])
    torch.testing.assert_close(found, ((early - value) ** 2).flatten(1).mean(1))
    found.sum().backward()
    assert value.grad is None
    torch.testing.assert_close(early.grad, 2 * (early - value).detach() / 16)
    with pytest.raises(InputError, match=r"--method\.network\.early true"):
        Early()(Prediction(value, value, Output(value)), example()[1])


def test_a_term_of_ones_own_counts_once_unless_it_says_otherwise():
    class Plain(Term):
        def __call__(self, pred, ex):
            return (pred.x0 - ex.x0).square().flatten(1).mean(1)

    class Zero(Network):
        def forward(self, x, t, cond, state=None):
            return Output(torch.zeros_like(x))

    target = torch.zeros(2, 1, 4, 4)  # -1 for the network, which says 0
    losses = FeedForward(Zero(), {"plain": Plain()}, predicts="x0").loss(target, {"image": torch.rand(2, 3, 4, 4)})
    assert float(losses["loss"]) == float(losses["plain"]) == 1
