"""What a task must satisfy."""

# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false

import torch

from ..diffusion.methods import Diffusion
from ..errors import InputError
from ..predict.ensemble import Model
from ..sampling import Sampling
from ..tasks.task import Task


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
