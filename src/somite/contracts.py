"""What every network, codec, sampler, term and task must satisfy, to be inherited: `class TestMine(NetworkContract)` with a `make`.

For pytest, in somite's own tests as in those of others (`pip install 'somite[test]'`); nothing of somite imports it.
"""

# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false

import pytest
import torch
from safetensors.torch import load, save

from .diffusion.codec import Codec, OneHot, Signed
from .diffusion.methods import Diffusion
from .diffusion.samplers import DDIM, Sampler
from .diffusion.schedule import cosine, linear
from .diffusion.terms import Term
from .errors import InputError
from .predict.ensemble import Model
from .rng import seeded
from .sampling import Sampling
from .tasks.task import Task
from .types import Network, Noised, Output, Prediction


def alive(network):
    """Weights that start at zero hide everything behind them: give them values."""
    with torch.no_grad():
        for p in network.parameters():
            if p.ndim > 1 and not p.any():
                p.normal_(std=0.1)
    return network


class NetworkContract:
    """`make(dims)` returns a tiny network for images of `image_channels` and masks of `mask_channels`.

    spaces: sizes to run, by dimension, the first of them even and square; odd ones where the network takes them. A network of one
    dimension leaves the other out. The first is trained on, in batches of 2 and 4: where it shrinks to one pixel in front of a
    normalisation over the batch, nothing before that learns, so take one that leaves the deepest level 2 x 2 or more.
    """

    image_channels = 3
    mask_channels = 1
    spaces = {2: [(16, 16), (13, 18), (9, 11)], 3: [(8, 8, 8), (9, 7, 10)]}  # noqa: RUF012
    tolerance = 1e-5

    def make(self, dims) -> Network:
        raise NotImplementedError

    def given(self, b, space):
        return torch.randn(b, self.mask_channels, *space), torch.randint(1000, (b,)), {"image": torch.rand(b, self.image_channels, *space)}

    def network(self, dims):
        torch.manual_seed(1)
        return alive(self.make(dims))

    def cases(self):
        return [(dims, space) for dims, spaces in self.spaces.items() for space in spaces]

    def run(self, network, x, t, cond, names=None) -> Output:
        with torch.no_grad(), seeded(0, names or list(range(len(x)))):
            return network(x, t, network.encode(cond))

    def test_any_batch_and_size(self):
        for dims, space in self.cases():
            network = self.network(dims).eval()
            for b in (1, 2, 5):
                given = self.given(b, space)
                out = self.run(network, *given)
                told = f"of {b} images of {space}"
                assert out.value.shape == given[0].shape, f"{told}, x of {tuple(given[0].shape)} gave {tuple(out.value.shape)}"
                assert out.value.isfinite().all(), told
                assert all(len(aux) == b and aux.isfinite().all() for aux in out.aux.values())

    def test_gradients_reach_every_parameter(self):
        for dims in self.spaces:
            network = self.network(dims).train()
            x, t, cond = self.given(4, self.spaces[dims][0])
            out = network(x, t, network.encode(cond))
            torch.stack([(part**2).sum() for part in (out.value, *out.aux.values())]).sum().backward()
            for name, p in network.named_parameters():
                if not p.requires_grad:
                    continue
                told = f"{name}, at {self.spaces[dims][0]}"
                assert p.grad is not None, f"{told}: not used"
                assert p.grad.isfinite().all(), f"{told}: the gradient is not finite"
                assert p.grad.any(), f"{told}: the gradient is zero; see `spaces`"

    def test_evaluation_is_a_function_of_the_seed(self):
        for dims in self.spaces:
            network, given = self.network(dims).eval(), self.given(2, self.spaces[dims][0])
            first = self.run(network, *given).value
            torch.rand(7)
            assert torch.equal(self.run(network, *given).value, first)

    def test_a_batch_is_its_rows(self):
        for dims, space in self.cases():
            network = self.network(dims).eval()
            x, t, cond = self.given(3, space)
            whole = self.run(network, x, t, cond, ["a", "b", "c"])
            for rows, names in (([1], ["b"]), ([2, 0], ["c", "a"])):
                part = self.run(network, x[rows], t[rows], {k: v[rows] for k, v in cond.items()}, names)
                torch.testing.assert_close(part.value, whole.value[rows], rtol=self.tolerance, atol=self.tolerance)
                for key, aux in part.aux.items():
                    torch.testing.assert_close(aux, whole.aux[key][rows], rtol=self.tolerance, atol=self.tolerance)

    @pytest.mark.parametrize("training", [False, True])
    def test_nothing_given_is_changed(self, training):
        for dims in self.spaces:
            network = self.network(dims).train(training)
            x, t, cond = self.given(2, self.spaces[dims][0])
            before = x.clone(), t.clone(), {k: v.clone() for k, v in cond.items()}
            self.run(network, x, t, cond)
            assert torch.equal(x, before[0])
            assert torch.equal(t, before[1])
            assert set(cond) == set(before[2])
            assert all(torch.equal(cond[k], v) for k, v in before[2].items())

    def test_weights_survive_safetensors(self):
        for dims in self.spaces:
            network, given = self.network(dims).eval(), self.given(2, self.spaces[dims][0])
            other = self.make(dims).eval()
            other.load_state_dict(load(save({k: v.contiguous() for k, v in network.state_dict().items()})))
            assert torch.equal(self.run(other, *given).value, self.run(network, *given).value)

    def test_it_trains_in_bfloat16(self):
        for dims in self.spaces:
            network = self.network(dims).train()
            x, t, cond = self.given(2, self.spaces[dims][0])
            trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
            optimizer = torch.optim.AdamW(trained.values(), lr=1e-3)
            before = {name: p.detach().clone() for name, p in trained.items()}
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out = network(x, t, network.encode(cond))
                loss = torch.stack([(part.float() ** 2).mean() for part in (out.value, *out.aux.values())]).sum()
            loss.backward()
            assert loss.isfinite()
            odd = [name for name, p in trained.items() if not p.grad.isfinite().all()]
            assert not odd, f"the gradient of {odd} is not finite in bfloat16"
            optimizer.step()
            still = [name for name, p in trained.items() if torch.equal(before[name], p)]
            assert not still, f"{still} did not move in bfloat16, at {x.shape[2:]} in a batch of 2; see `spaces`"


class CodecContract:
    """`make()` returns a codec, `targets()` a few batches of targets in data space, of odd sizes too; `tolerance` of a round trip."""

    tolerance = 1e-5

    def make(self) -> Codec:
        raise NotImplementedError

    def targets(self) -> list[torch.Tensor]:
        raise NotImplementedError

    def test_a_round_trip_gives_the_target_at_its_own_size(self):
        codec = self.make()
        for target in self.targets():
            shape = tuple(target.shape)
            back = codec.decode(codec.encode(target), shape)
            assert back.shape == (len(target), codec.maps, *shape[2:])
            torch.testing.assert_close(back, codec.probabilities(target), rtol=0, atol=self.tolerance)

    def test_the_shape_in_model_space_is_foretold(self):
        codec = self.make()
        for target in self.targets():
            z = codec.encode(target)
            assert tuple(z.shape) == codec.shape(tuple(target.shape))
            assert z.shape[1] == codec.channels
            assert z.is_floating_point()

    def test_no_target_leaves_the_bound(self):
        codec = self.make()
        largest = max(float(codec.encode(target).abs().max()) for target in self.targets())
        assert codec.bound is None or largest <= codec.bound + 1e-6

    def test_a_target_of_other_channels_is_refused_and_never_broadcast(self):
        codec, target = self.make(), self.targets()[0]
        wrong = (len(target), target.shape[1] + 1, *target.shape[2:])
        with pytest.raises(InputError):
            codec.shape(wrong)
        method = Diffusion(Told(torch.zeros(1)), linear(), {}, DDIM(1), codec)
        with pytest.raises(ValueError, match="the noise has"):
            method.corrupt(target, torch.zeros(len(target), dtype=torch.long), torch.randn(codec.shape(tuple(target.shape)))[..., :-1])

    def test_a_perfect_network_is_read_back_through_a_whole_sampling(self):
        """Diffusion of the encoded target by a network that knows it, clipped by the codec's bound, ends at the target."""
        codec = self.make()
        for target in self.targets():
            method = Diffusion(Told(codec.encode(target)), linear(), {}, DDIM(5), codec, predicts="x0")
            found = method.sample({}, tuple(target.shape))
            torch.testing.assert_close(found, codec.probabilities(target), rtol=0, atol=max(self.tolerance, 1e-4))


class Told(Network):
    """Answers with what it was told, whatever it is asked; counts the evaluations of a trajectory in its state."""

    def __init__(self, answer):
        super().__init__()
        self.answer = torch.nn.Parameter(answer.float())

    def forward(self, x, t, cond, state=None):
        return Output(self.answer, state=1 if state is None else state + 1)


class SamplerContract:
    """`make(steps, **options)` returns a sampler."""

    def make(self, steps, **options) -> Sampler:
        raise NotImplementedError

    def walk(self, sampler, answer, schedule, bound=None, names="abc"):
        """All steps of a trajectory towards `answer`, and the state at each evaluation."""
        states = []

        def denoise(x, t, state):
            states.append(state)
            alpha, sigma = schedule.at(int(t[0]))
            return Prediction(answer, (x - alpha * answer) / sigma, Output(answer, state=(state or 0) + 1))

        with seeded(0, names[: len(answer)]):
            x = torch.stack(
                [torch.randn(answer.shape[1:], generator=torch.Generator().manual_seed(ord(name))) for name in names[: len(answer)]]
            )
            return list(sampler.trajectory(denoise, schedule, x, bound)), states

    @pytest.mark.parametrize("shape", [(2, 1, 5, 7), (2, 3, 4, 4), (1, 4, 3, 5, 2)], ids=str)
    @pytest.mark.parametrize("steps", [1, 2, 5])
    def test_it_starts_at_the_last_timestep_and_ends_at_what_the_network_knows(self, steps, shape):
        """Masks, images and latents of any number of channels."""
        answer = 2 * torch.rand(shape) - 1
        for schedule in (linear(), cosine(100)):
            walked, _ = self.walk(self.make(steps), answer, schedule, bound=1.0)
            assert walked[0].t == len(schedule) - 1
            assert walked[-1].t == -1
            assert len(walked) == steps + 1
            torch.testing.assert_close(walked[-1].x, answer, rtol=0, atol=0.05)

    def test_a_networks_state_makes_the_round_trip(self):
        answer = torch.zeros(1, 1, 4, 4)
        _, states = self.walk(self.make(4), answer, linear(), 1.0)
        assert states == [None, 1, 2, 3]
        _, fresh = self.walk(self.make(4, inherit_state=False), answer, linear(), 1.0)
        assert fresh == [None] * 4

    def test_it_clips_by_the_codec_by_a_number_or_not_at_all(self):
        answer = torch.full((1, 1, 4, 4), 3.0)
        for clip, bound, largest in (("codec", 0.5, 0.5), ("codec", None, 3.0), (2.0, 0.5, 2.0), (None, 0.5, 3.0)):
            walked, _ = self.walk(self.make(1, clip=clip), answer, linear(), bound)
            assert float(walked[0].pred.x0.max()) == pytest.approx(largest)

    def test_a_row_does_not_depend_on_its_batch(self):
        answer = 2 * torch.rand(3, 1, 4, 4) - 1
        whole, _ = self.walk(self.make(3), answer, linear(), 1.0, "abc")
        part, _ = self.walk(self.make(3), answer[[2, 0]], linear(), 1.0, "ca")
        torch.testing.assert_close(part[-1].x, whole[-1].x[[2, 0]], rtol=0, atol=1e-5)


class TermContract:
    """`make()` returns a term; `channels` of the target. zero: whether it is 0 where the prediction is the target."""

    channels = 1
    zero = True

    def make(self) -> Term:
        raise NotImplementedError

    def example(self, perfect=False):
        """A prediction and what it was made from: three examples of 6 x 5 pixels, with every part that a term may ask for."""
        k = self.channels
        target = OneHot(k).probabilities(torch.randint(k, (3, 1, 6, 5))) if k > 1 else (torch.rand(3, 1, 6, 5) > 0.5).float()
        x0, eps = Signed(channels=k).encode(target), torch.randn(3, k, 6, 5)
        schedule, t = linear(), torch.tensor([0, 300, 900])
        alpha, sigma = (c.view(-1, 1, 1, 1) for c in schedule(t))
        x_t = alpha * x0 + sigma * eps
        ex = Noised(target, x0, eps, x_t, t, schedule.posterior(t))
        guess = x0.clone() if perfect else x0 + 0.3 * torch.randn_like(x0)
        value = guess.requires_grad_()
        logits = 30 * value if perfect else 2 * value
        var = torch.zeros_like(x0).requires_grad_()
        aux = {"map": (value + 1) / 2, "deep": logits[:, None].expand(-1, 2, *logits.shape[1:])}
        return Prediction(value, (x_t - alpha * value) / sigma, Output(value, var, aux), logits), ex, value, var

    def test_one_finite_value_an_example_with_a_gradient(self):
        pred, ex, value, var = self.example()
        loss = self.make()(pred, ex)
        assert loss.shape == (3,)
        assert loss.isfinite().all()
        loss.sum().backward()
        grads = [g for g in (value.grad, var.grad) if g is not None]
        assert any(bool(g.any()) for g in grads)
        assert all(g.isfinite().all() for g in grads)

    def test_what_is_right_costs_nothing_and_what_is_wrong_something(self):
        if self.zero:
            pred, ex, *_ = self.example(perfect=True)
            assert float(self.make()(pred, ex).detach().abs().max()) < 1e-3
            pred, ex, *_ = self.example()
            assert float(self.make()(pred, ex).detach().max()) > 1e-2

    def test_an_example_does_not_depend_on_its_neighbours(self):
        pred, ex, *_ = self.example()
        whole = self.make()(pred, ex)
        rows = [2, 0]
        aux = {name: part[rows] for name, part in pred.output.aux.items()}
        output = Output(pred.output.value[rows], pred.output.var[rows], aux)
        some = Prediction(pred.x0[rows], pred.eps[rows], output, pred.logits[rows])
        posterior = type(ex.posterior)(*(part[rows] for part in vars(ex.posterior).values()))
        few = Noised(ex.target[rows], ex.x0[rows], ex.eps[rows], ex.x_t[rows], ex.t[rows], posterior)
        torch.testing.assert_close(self.make()(some, few), whole[rows])


def admitted(task: Task, case, kind: str) -> bool:
    """Whether a case can have a file of this kind; some are for DICOM series alone."""
    try:
        task.admit(case, [kind])
    except InputError:
        return False
    return True


class TaskContract:
    """`make()` returns a task, `data(folder)` the Data of a few cases that it can be asked about, `method()` an untrained method for it."""

    def make(self) -> Task:
        raise NotImplementedError

    def data(self, folder):
        raise NotImplementedError

    def method(self) -> Diffusion:
        raise NotImplementedError

    def test_the_condition_is_the_same_in_training_and_for_answers(self, tmp_path):
        task, data = self.make(), self.data(tmp_path).needing(self.make().needs)
        case = data.cases("test")[0]
        _, trained = task.split(data.loaded(case))
        asked = task.cond(data.sample(data.read(case), task.given))
        assert trained.keys() == asked.keys()
        assert all(torch.equal(trained[name], asked[name]) for name in asked)

    def test_the_targets_shape_is_known_without_it(self, tmp_path):
        task, data = self.make(), self.data(tmp_path).needing(self.make().needs)
        case = data.cases("test")[0]
        assert tuple(task.target(data.loaded(case)).shape) == task.shape(data.sample(data.read(case), task.given))

    def answered(self, task, data, members=2, seed=0):
        record = data.read(data.cases("test")[0])
        sample = data.sample(record, task.given)
        model = Model(self.method().eval(), data.preprocess, task.cond(sample), task.shape(sample))
        return task.answer([model], record, Sampling(members, seed), keep=True)

    def test_scores_are_rows_of_numbers_under_named_keys(self, tmp_path):
        task, data = self.make(), self.data(tmp_path).needing(self.make().needs)
        scored = task.score(self.answered(task, data))
        for row in task.stratified(scored.rows):
            assert {"case", "group"} <= set(row)
            metrics = [name for name in row if name not in task.keys]
            assert metrics
            assert all(isinstance(row[name], float | int) for name in metrics)
        assert isinstance(task.conclude(task.stratified(scored.rows), scored.tables), dict)

    def test_an_answer_is_a_function_of_the_seed(self, tmp_path):
        task, data = self.make(), self.data(tmp_path).needing(self.make().needs)
        first, again, other = (task.score(self.answered(task, data, seed=seed)).rows for seed in (0, 0, 1))
        assert first == again
        assert first != other

    def test_its_files_are_those_that_it_foretells(self, tmp_path):
        task, data = self.make(), self.data(tmp_path).needing(self.make().needs)
        answer = self.answered(task, data)
        task.admit(data.cases("test")[0], task.by_default)
        for kinds in (task.by_default, [kind for kind in task.saves if admitted(task, data.cases("test")[0], kind)]):
            out = tmp_path / f"out{len(kinds)}"
            paths = task.write(answer, out, kinds)
            wanted = task.files(data.cases("test")[0].id, kinds, data, self.method().codec, 2)
            assert sorted(path.name.split(".")[0] for path in paths) == sorted(wanted)
            assert all(path.is_file() for path in paths)

    def test_a_glimpse_has_a_score_and_pictures(self, tmp_path):
        task, data = self.make(), self.data(tmp_path).needing(self.make().needs)
        case = data.cases("val")[0]
        glimpse = task.glimpse(self.method().eval(), data.loaded(case), case.id)
        assert isinstance(glimpse.score, float)
        assert all(panel.ndim in (2, 3) for panel in glimpse.panels.values())
