"""Truth: stored runs of the official program with its random draws replayed (reference/geca), and closed forms."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from official_geca import HERE, arrays, masks, replayed, small
from somite import rng
from somite.contracts import NetworkContract, alive
from somite.diffusion.codec import Signed
from somite.diffusion.guidance import Guided
from somite.diffusion.heredity import InSampling, Never
from somite.diffusion.methods import Diffusion
from somite.diffusion.samplers import Ancestral
from somite.diffusion.schedule import linear
from somite.diffusion.terms import Noise, Variational
from somite.errors import InputError
from somite.networks.geca import GeCA
from somite.nn.automaton import Expected, Stochastic
from somite.nn.conditioning import grid_positions, positions
from somite.nn.neighbours import neighbourhood
from somite.rng import seeded
from somite.weights.geca import GeCAImporter, architecture, translated


def tiny(**options):
    return GeCA(**{"width": 16, "heads": 2, "mlp": 24, "hidden": 5, "updates": 2, "classes": 3} | options)


class TestGeCA(NetworkContract):
    mask_channels = 4
    spaces = {2: [(8, 8), (6, 9)], 3: [(4, 4, 4), (3, 5, 4)]}  # noqa: RUF012

    def make(self, dims):
        return tiny(dims=dims, image_channels=3, checkpointing=True)

    def given(self, b, space):
        x, t, cond = super().given(b, space)
        return x, t, cond | {"labels": torch.randint(2, (b, 3)).float()}


class TestOfAllCells(TestGeCA):
    def make(self, dims):
        return tiny(dims=dims, image_channels=3, radius=None, firing=Stochastic(), border="null", learn_variance=False)


def close(found, want, tolerance):
    """Relative to the largest number, as the reference files' tolerances are."""
    torch.testing.assert_close(found / want.abs().max(), want / want.abs().max(), rtol=0, atol=tolerance)


def rows(extras):
    """(b, c, h, w) -> the state that holds it."""
    return extras.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("rate", [0.5, 1.0])
@pytest.mark.parametrize(("updates", "tolerance"), [(1, 1e-5), (3, 2e-5), (7, 2e-5)])
def test_updates_equal_the_official_program(updates, tolerance, rate, gradient):
    known = arrays("m_updates")
    name = f"rate1_M{updates}" if rate == 1 else f"M{updates}"
    network = small(updates=updates, update_rate=rate, hands_on="cells")
    fires = masks(known[f"uniform_M{updates}"])
    with replayed(uniform=fires), torch.set_grad_enabled(gradient):
        out = network(known["x"], known["t"], network.encode({"labels": known["y"]}), rows(known["extras"]))
    close(torch.cat([out.value, out.var], 1).detach(), known[f"rgb_out_{name}"], tolerance)
    close(out.state.detach(), rows(known[f"out_hidden_{name}"]), tolerance)


def test_one_update_and_the_condition_equal_the_official_program():
    known = arrays("one_update_8x8")
    network = small(updates=1, hands_on="cells")
    with torch.no_grad():
        close(network.t_embedder(known["t"]), known["t_emb"], 1e-5)
        close(network.encode({"labels": known["y"]})["labels"], known["y_emb"], 1e-5)
        close(positions("flat", (8, 8), 48, known["c"].device), known["pos_enc"], 1e-5)
        x, extras = known["cells"].split([4, 18], 1)
        with replayed(uniform=masks(known["uniform"][None])):
            out = network(x, known["t"], network.encode({"labels": known["y"]}), rows(extras))
    close(out.state, rows(known["out_rate05"][:, 4:]), 1e-5)


def official(network, steps, **options):
    sampler = Ancestral(steps, "learned", clip=None, spacing="linspace")
    return Diffusion(network, linear(), {"noise": Noise(), "bound": Variational(tanh_cdf=True)}, sampler, Signed(channels=4), **options)


def test_loss_and_gradients_equal_the_official_program():
    known = arrays("train_loss")
    network = Guided(small(), guidance=1.5, forget="entry").train()
    method = official(network, 10)
    with replayed([known["seed_center"]], [known["label_uniform"], *masks(known["uniform"])]):
        ex = noised(method, known)
        pred = method.denoise(ex.x_t, known["t"], network.encode({"labels": known["y"]}))
        losses = method.total(pred, ex)
    close(ex.x_t, known["x_t"], 1e-5)
    close(torch.cat([pred.output.value, pred.output.var], 1).detach(), known["model_output"], 1e-5)
    per_example = {name: term(pred, ex).detach() for name, term in method.terms.items()}
    close(per_example["noise"], known["mse"], 1e-5)
    close(per_example["bound"], known["vb"], 1e-5)
    assert float(losses["loss"].detach()) == pytest.approx(known["loss"], rel=1e-5)
    losses["loss"].backward()
    want = translated(load_file(HERE / "train_grads.safetensors"))
    found = {name: p.grad for name, p in network.network.named_parameters()}
    assert found.keys() == want.keys()
    for name, gradient in want.items():
        close(found[name], gradient, 1e-4)


def noised(method, known):
    """The stored example, whose x_start is in model space."""
    method.codec.encode = lambda target: target
    method.codec.probabilities = lambda target: target
    return method.corrupt(known["x_start"], known["t"], known["noise"])


@pytest.mark.parametrize("weights", ["small", "toy"])
@pytest.mark.parametrize("heredity", [InSampling(), Never()], ids=["inherited", "anew"])
def test_guided_trajectories_equal_the_official_program(weights, heredity):
    name = f"{'toy_' if weights == 'toy' else ''}sample_cfg15_{'ghg' if isinstance(heredity, InSampling) else 'noghg'}"
    known = arrays(name)
    steps = known["steps"]
    method = official(Guided(small(weights), known["cfg_scale"], shared_draws=False), steps, heredity=heredity).eval()
    normal, uniform = [known["z"]], []
    for seeds, fires, noise in zip(known["seed_center_steps"], known["uniform_steps"], known["noise_steps"], strict=True):
        for half in (slice(2), slice(2, 4)):  # the program asks for both in one batch
            normal.append(seeds[half])
            uniform += masks(fires[:, half])
        normal.append(noise[:2])  # the second half's noise is never used
    with replayed(normal[:-1], uniform):  # nor is the last step's
        walked = list(method.trajectory({"labels": known["labels"]}, (2, 4, 8, 8)))
    assert [step.t for step in walked[:-1]] == known["timestep_map"].flip(0).tolist()
    close(torch.stack([step.x for step in walked[1:]]), known["samples"][:, :2], 1e-4)
    close(torch.stack([step.pred.x0 for step in walked[:-1]]), known["pred_xstart"][:, :2], 1e-4)
    hidden = torch.stack([torch.cat(step.pred.output.state) for step in (walked[0], walked[-2])])
    close(hidden, torch.stack([rows(extras) for extras in known["extras"][[0, -1]]])[..., 8:], 1e-4)


@pytest.mark.parametrize(
    ("sizes", "classes", "count"),
    [
        ({}, 11, 13_312_584),
        ({}, 5, 13_307_976),
        ({"hidden": 32, "width": 384, "heads": 6, "mlp": 64}, 11, 2_255_720),
        ({"hidden": 32, "width": 384, "heads": 6, "mlp": 64}, 5, 2_253_416),
    ],
)
def test_the_published_counts_of_weights(sizes, classes, count):
    with torch.device("meta"):
        network = GeCA(classes=classes, **sizes)
    assert sum(p.numel() for p in network.parameters()) == count


def test_a_fresh_network_answers_with_its_seed():
    network = tiny().eval()
    x, t = torch.randn(2, 4, 6, 9), torch.tensor([5, 500])
    with seeded(0, "ab"):
        seed = rng.normal((2, 8), x.device)
    with torch.no_grad(), seeded(0, "ab"):
        out = network(x, t, network.encode({"labels": torch.zeros(2, 3)}))
    answer = torch.cat([out.value, out.var], 1)
    torch.testing.assert_close(answer[..., 3, 4], seed, rtol=0, atol=0)
    assert int(answer.any(1).sum()) == 2
    assert not out.state.any()


def free(**options):
    """A network whose cells know neither place nor edge, in double precision."""
    torch.manual_seed(0)
    return alive(tiny(**{"positions": "none", "classes": 0, "firing": Expected(), "update_rate": 1.0} | options)).double().eval()


def started(network, x, state=None):
    """The answer where no seed breaks the symmetry."""
    state = torch.zeros(len(x), x[0, 0].numel(), network.outputs + network.hidden, dtype=x.dtype) if state is None else state
    out = network(x, torch.full((len(x),), 500), {}, state)
    return out.value, out.state


@pytest.mark.parametrize("updates", [1, 3])
@pytest.mark.parametrize("radius", [1, 2])
def test_information_travels_by_the_radius_an_update(updates, radius):
    network = free(updates=updates, radius=radius, hands_on="cells").requires_grad_(True)
    x = torch.randn(1, 4, 15, 15, dtype=torch.float64, requires_grad=True)
    value, _ = started(network, x)
    value[0, :, 7, 7].sum().backward()
    reach, want = x.grad.abs().sum(1)[0] > 0, torch.zeros(15, 15, dtype=torch.bool)
    at = slice(7 - updates * radius, 8 + updates * radius)
    want[at, at] = True
    assert torch.equal(reach, want)


@pytest.mark.parametrize("radius", [1, None])
@pytest.mark.parametrize("border", ["masked", "null"])
def test_without_positions_cells_know_no_direction(border, radius):
    network, x = free(border=border, radius=radius, hands_on="cells").float(), torch.randn(1, 4, 7, 7)
    value, _ = (part.detach() for part in started(network, x))
    for turned in (lambda z: z.rot90(1, (2, 3)), lambda z: z.flip(3), lambda z: z.transpose(2, 3)):
        with torch.no_grad():
            torch.testing.assert_close(started(network, turned(x).contiguous())[0], turned(value), rtol=1e-5, atol=1e-5)


def test_two_calls_that_hand_on_all_are_one_longer_call():
    short, long, x = free(updates=2, hands_on="cells"), free(updates=5, hands_on="cells"), torch.randn(2, 4, 5, 6, dtype=torch.float64)
    _, state = started(short, x)
    short.updates = 3
    torch.testing.assert_close(started(short, x, state)[0], started(long, x)[0])


@pytest.mark.parametrize("border", ["masked", "null"])
def test_a_radius_that_reaches_everything_is_attention_to_everything(border):
    """All cells of a 3 x 3 grid are within 2 of each other; keys beyond the edge are not there, or have their share."""
    x, everything = torch.randn(1, 4, 3, 3, dtype=torch.float64), free(radius=None, hands_on="cells")
    found, want = started(free(radius=2, border=border, hands_on="cells"), x)[0], started(everything, x)[0]
    assert torch.allclose(found, want) == (border == "masked")


@pytest.mark.parametrize("options", [{}, {"radius": 2, "border": "null"}, {"radius": None}, {"image_channels": 2, "classes": 0}], ids=str)
@pytest.mark.parametrize("firing", [Stochastic(), Expected()], ids=["stochastic", "expected"])
def test_without_gradient_the_answer_is_the_same(options, firing):
    torch.manual_seed(0)
    network = alive(tiny(updates=4, firing=firing, **options)).eval()
    cond = {"labels": torch.eye(3)[:2], "image": torch.rand(2, 2, 6, 9)}
    x, t = torch.randn(2, 4, 6, 9), torch.tensor([5, 500])
    answers = []
    for gradient in (True, False):
        with torch.set_grad_enabled(gradient), seeded(0, "ab"):
            out = network(x, t, network.encode(cond), torch.ones(2, 54, 5))
            answers.append(torch.cat([out.value, out.var, rows_of(out.state)], 1).detach())
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-5)


def rows_of(state):
    return state.transpose(1, 2).unflatten(2, (6, 9))


def test_bfloat16_products_change_little():
    network, other = small(updates=12), small(updates=12, arithmetic="bfloat16")
    known = arrays("m_updates")
    found = []
    for one in (network, other):
        with torch.no_grad(), seeded(0, "ab"):
            found.append(one(known["x"], known["t"], one.encode({"labels": known["y"]})).value)
    assert 0 < float((found[1] - found[0]).std() / found[0].std()) < 0.02


def test_masked_edges_take_no_attention_and_null_ones_their_share():
    """With all logits zero, attention is a mean: over the 4 cells that a corner sees, or over 9 of which 5 are nothing."""
    values = torch.randn(9, 8)
    for border, count in (("masked", 4), ("null", 9)):
        around = neighbourhood((3, 3), 1, border, values.device)
        got = around.attention(torch.zeros(1, 8), torch.randn(9, 8), values, torch.tensor([0]), 9, 2)
        torch.testing.assert_close(got[0], values[[0, 1, 3, 4]].sum(0) / count)


def test_positions_of_a_grid_do_not_depend_on_its_size():
    small_, large = (grid_positions(space, 24, torch.device("cpu")).unflatten(0, space) for space in ((3, 4), (8, 9)))
    assert torch.equal(small_, large[:3, :4])
    assert torch.cdist(large.flatten(0, 1), large.flatten(0, 1)).fill_diagonal_(1).min() > 0.1


def test_checkpointing_changes_no_gradient_and_keeps_less():
    kept, grads = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = alive(tiny(updates=6, checkpointing=checkpointing)).train()
        x, t, known = torch.randn(2, 4, 8, 8), torch.tensor([5, 500]), network.encode({"labels": torch.eye(3)[:2]})
        sizes = {}

        def keep(tensor, sizes=sizes):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), seeded(0, "ab"):
            loss = (network(x, t, known).value ** 2).sum()
        loss.backward()
        kept.append(sum(sizes.values()))
        grads.append([p.grad for p in network.parameters()])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)
    assert kept[1] < kept[0] / 4


def test_the_estimate_is_begun_anew_and_hidden_numbers_are_inherited():
    network = alive(tiny()).eval()
    x, t, known = torch.randn(1, 4, 8, 8), torch.tensor([500]), network.encode({"labels": torch.zeros(1, 3)})
    with torch.no_grad():
        out = network(x, t, known)
        assert out.state.shape == (1, 64, 5)
        for state in (out.state, None):
            born = network.born(x, state)
            assert int(born[..., 4:12].any(2).sum()) == 1
            assert torch.equal(born[..., 12:], torch.zeros(1, 64, 5) if state is None else state)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"heads": 3}, "heads 3"),
        ({"updates": 0}, "updates 0"),
        ({"radius": 0}, "radius 0"),
        ({"hidden": 0}, "hidden 0"),
        ({"least": 3}, "least 3"),
        ({"early": True, "least": 1}, "before a single update"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        tiny(**options)


def test_wrong_inputs_are_refused():
    network, x, t = tiny(image_channels=3), torch.zeros(2, 4, 8, 8), torch.zeros(2, dtype=torch.long)
    labels = torch.zeros(2, 3)
    for cond, match in (
        ({"labels": labels, "image": torch.zeros(2, 3, 8, 9)}, re.escape("(8, 9) pixels")),
        ({"labels": labels, "image": torch.zeros(2, 1, 8, 8)}, "3 image channels"),
        ({"image": torch.zeros(2, 3, 8, 8)}, "3 class labels"),
        ({"labels": torch.zeros(2, 5), "image": torch.zeros(2, 3, 8, 8)}, "3 class labels"),
    ):
        with pytest.raises(InputError, match=match):
            network(x, t, network.encode(cond))
    with pytest.raises(InputError, match="4 channels"):
        network(x[:, :3], t, network.encode({"labels": labels, "image": torch.zeros(2, 3, 8, 8)}))


def test_a_checkpoint_is_told_by_its_names_and_its_sizes_are_read_off():
    state, path = load_file(HERE / "small_weights.safetensors"), Path("best_ckpt.pt")
    assert GeCAImporter().recognises(state)
    assert not GeCAImporter().recognises({"final_layer.linear.weight"})
    sizes = {"target_channels": 4, "hidden": 10, "width": 48, "heads": 4, "mlp": 96, "classes": 5}
    assert architecture(state, path, heads=4) == sizes
    assert (
        architecture(load_file(HERE / "small_weights.safetensors") | {"cell_to_embedding.weight": torch.zeros(768, 22)}, path)["heads"]
        == 12
    )
    with pytest.raises(InputError, match="give --heads"):
        architecture(state, path)
    with pytest.raises(InputError, match="part of a GeCA"):
        architecture({k: v for k, v in state.items() if ".net." not in k}, path)
    with pytest.raises(InputError, match=r"layers\.1"):
        architecture(state | {"transformer.layers.1.0.norm.weight": torch.zeros(48)}, path)


def test_what_it_says_early_is_what_a_shorter_loop_says_at_last():
    torch.manual_seed(0)
    long, shorter = alive(tiny(updates=4, early=True)).train(), [tiny(updates=updates).train() for updates in (1, 2, 3)]
    x, t, labels = torch.randn(2, 4, 8, 8), torch.tensor([5, 500]), {"labels": torch.eye(3)[:2]}
    met = set()
    for seed in range(12):
        with seeded(seed, "ab"):
            said = long(x, t, long.encode(labels)).aux["early"]
        for network in shorter:
            network.load_state_dict(long.state_dict())
            with seeded(seed, "ab"):
                if torch.allclose(network(x, t, network.encode(labels)).value, said, rtol=1e-4, atol=1e-5):
                    met.add(network.updates)
    assert met == {1, 2, 3}
    with torch.no_grad():
        out = long(x, t, long.encode(labels))
    assert out.aux["early"] is out.value


def test_training_may_vary_the_updates_and_answers_make_them_all():
    network = alive(tiny(updates=4, least=2))
    x, t, known, made = torch.randn(2, 4, 8, 8), torch.tensor([5, 500]), network.encode({"labels": torch.zeros(2, 3)}), []
    own = network.rule.updated
    network.rule.updated = lambda *given: made.append(1) or own(*given)
    counts = {True: set(), False: set()}
    for training in (True, False):
        for _ in range(40):
            made.clear()
            network.train(training)(x, t, known)
            counts[training].add(len(made))
    assert counts == {True: {2, 3, 4}, False: {4}}
