"""What a folder of runs says of itself: written by hand as training, evaluation and calibration leave it, and the frozen run of 0.1.0."""

import csv
import io
import json
import shlex
import shutil
from pathlib import Path

import pytest

from somite.cli import main, parser
from somite.overview.advice import advice, beginning, following
from somite.overview.folder import BEGUN, BROKEN, EVALUATED, HALFWAY, IMPORTED, TRAINED, found_here, read, runs_in
from somite.overview.table import as_csv, as_json, as_text, grouped, listed

REFERENCE = Path(__file__).parent / "reference" / "run-0.1.0"


def recipe(task="Segmentation", steps=100):
    return f"task:\n  class_path: somite.tasks.x.{task}\ndata:\n  root: photos\ntraining:\n  steps: {steps}\n"


def begun(path, task="Segmentation", date="2026-01-01T00:00:00+00:00"):
    path.mkdir(parents=True)
    (path / "recipe.yaml").write_text(recipe(task))
    (path / "environment.json").write_text(json.dumps({"recipe": "paper/data", "date": date}))
    return path


def halfway(path, step=39):
    begun(path)
    (path / "metrics.csv").write_text("step,metric,value\n" + "".join(f"{i},train/loss,1.0\n" for i in range(step + 1)))
    return path


def trained(path, **told):
    begun(path, **told)
    (path / "weights.safetensors").write_bytes(b"")
    (path / "training.json").write_text(json.dumps({"steps": 100}))
    return path


def evaluated(path, mean, digest="a" * 64, split="test", metric="dice", **told):
    trained(path, **told)
    found = {"mean": mean, "low": mean - 0.1, "high": mean + 0.05, "cases": 8, "groups": 8}
    summary = {"split": split, "root": "photos", "metrics": {metric: found}, "data": {"digest": digest}}
    folder = path if split == "test" else path / split
    folder.mkdir(exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(summary))
    return path


def test_how_far_a_run_has_come(tmp_path):
    assert read(begun(tmp_path / "a")).state == BEGUN
    half = read(halfway(tmp_path / "b"))
    assert (half.state, half.done, half.planned, half.recipe, half.data, half.task) == (
        HALFWAY,
        40,
        100,
        "paper/data",
        "photos",
        "Segmentation",
    )
    done = trained(tmp_path / "c")
    assert (read(done).state, read(done).done) == (TRAINED, 100)
    (done / "environment.json").unlink()
    (done / "training.json").unlink()
    assert read(done).state == IMPORTED
    scored = evaluated(tmp_path / "d", 0.5)
    assert (read(scored).state, read(scored).calibrated) == (EVALUATED, ())
    (scored / "temperature.json").write_text("{}")
    assert read(scored).calibrated == ("temperature",)
    assert (read(scored).score.mean, read(scored).score.low) == (0.5, 0.4)


def test_half_a_training_stays_that_when_it_is_evaluated(tmp_path):
    path = evaluated(tmp_path / "a", 0.5)
    (path / "training.json").unlink()
    assert (read(path).state, read(path).score.mean) == (HALFWAY, 0.5)
    assert "evaluated as it was then: dice 0.500" in advice(tmp_path)
    assert "0.500" in as_text([read(path)], "score")


def test_another_split_is_told_as_such(tmp_path):
    assert read(evaluated(tmp_path / "a", 0.5, split="val")).score.split == "val"


def test_suggestions_say_trust_where_a_class_is_somebody_elses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        evaluated(Path("runs") / name, 0.5)
    assert "--trust" not in advice()
    told = Path("runs/a/recipe.yaml")
    told.write_text(told.read_text() + "method:\n  class_path: mynet.Method\n")
    assert "somite calibrate runs/a --trust" in advice()
    assert "somite calibrate runs/b\n" in advice()
    report = next(line for line in advice().splitlines() if "somite report" in line)
    assert report.endswith(" --trust")


def test_a_run_of_version_0_1_0():
    stopped, finished = (read(REFERENCE / name) for name in ("stopped", "finished"))
    assert (stopped.state, stopped.done) == (HALFWAY, 10)
    told = json.loads((REFERENCE / "finished" / "metrics.json").read_text())
    assert finished.state == EVALUATED
    assert finished.calibrated
    assert finished.score.mean == told["metrics"]["dice"]["mean"]
    assert finished.score.low is None  # one group


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("recipe.yaml", "task: [", "recipe"),
        ("recipe.yaml", "just a word", "no recipe"),
        ("recipe.yaml", "a: &a [*a]", "no end"),
        ("metrics.json", "{", "JSON"),
        ("metrics.json", "[1]", "none of somite's"),
        ("metrics.json", '{"metrics": 3}', "names no metrics"),
        ("metrics.json", '{"metrics": {"dice": {"mean": NaN}}}', "no number for dice"),
        ("metrics.json", '{"metrics": {"dice": "good"}}', "no number for dice"),
        ("environment.json", "\x00", "JSON"),
        ("training.json", "7", "none of somite's"),
    ],
)
def test_a_broken_run_is_named_and_stops_nothing(tmp_path, monkeypatch, capsys, name, content, words):
    monkeypatch.chdir(tmp_path)
    evaluated(Path("runs/good"), 0.5)
    (evaluated(Path("runs/bad"), 0.7) / name).write_text(content)
    for line in ([], ["runs"], ["runs", "--json"]):
        assert main(line) == 0
        told = capsys.readouterr().out
        assert words in told
        assert "runs/good" in told and "bad" in told
    assert read(Path("runs/bad")).state == BROKEN


def test_missing_weights_are_named(tmp_path):
    path = trained(tmp_path / "a")
    (path / "weights.safetensors").unlink()
    assert "weights.safetensors is missing" in read(path).fault
    (evaluated(tmp_path / "b", 0.5) / "recipe.yaml").unlink()
    assert "no recipe.yaml" in read(tmp_path / "b").fault


def test_where_runs_are_looked_for(tmp_path):
    inner = ["runs/a", "runs/paper/data", "runs/study/ph2/job", "mine"]
    for name in [*inner, "deep/er/run", "runs/a/teacher", "runs/.hidden"]:
        trained(tmp_path / name)
    assert {str(run.path.relative_to(tmp_path)) for run in found_here(tmp_path)} == set(inner)
    assert list(runs_in(tmp_path / "runs/a", 2)) == [tmp_path / "runs/a"]
    assert {path.name for path in runs_in(tmp_path / "deep", 2)} == {"run"}


def test_what_to_do_next(tmp_path):
    assert following(read(halfway(tmp_path / "a"))) == f"somite train {tmp_path}/a/recipe.yaml --out {tmp_path}/a"
    assert following(read(trained(tmp_path / "b"))) == f"somite evaluate {tmp_path}/b"
    scored = evaluated(tmp_path / "c", 0.5)
    assert following(read(scored)) == f"somite calibrate {scored}"
    (scored / "temperature.json").write_text("{}")
    assert following(read(scored)) == f"somite predict {scored} IMAGE --out masks --calibrated"
    (scored / "control.json").write_text("{}")
    assert following(read(scored)) == f"somite predict {scored} IMAGE --out masks"
    drawn = evaluated(tmp_path / "d", 0.5, metric="brightness", task="Synthesis")
    assert following(read(drawn)) == f"somite sample {drawn} --out images"
    odd = trained(tmp_path / "e; rm -rf x")
    assert shlex.split(following(read(odd))) == ["somite", "evaluate", str(odd)]


@pytest.mark.parametrize("task", ["Segmentation", "Classification", "Synthesis", "Pretraining", "Reconstruction", "BodyParts"])
def test_every_next_command_is_one_that_there_is(tmp_path, task):
    makers = (begun, trained, lambda path, task: evaluated(path, 0.5, task=task))
    for i, make in enumerate(makers):
        words = shlex.split(following(read(make(tmp_path / str(i), task=task))))
        assert words[0] == "somite"
        options, _ = parser().parse_known_args(words[1:])  # raises for what the parser does not know
        assert options.command == words[1]


def test_the_folders_recipe_goes_on_with_its_run(tmp_path, monkeypatch, capsys):
    """The line that `somite` prints for a run that stopped is understood by `train`; here of a run that has nothing left to do."""
    path = shutil.copytree(REFERENCE / "finished", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(path / "recipe.yaml"), "--out", str(path)]) == 0
    assert "trained already" in capsys.readouterr().out


def test_an_empty_folder_says_how_to_begin(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0
    told = capsys.readouterr().out
    lines = [line.split("  ")[1] for line in told.splitlines() if line.startswith("  somite")]
    assert [line.split()[1] for line in lines] == ["predict", "demo", "doctor", "train", "recipes"]
    assert main(["runs"]) == 0
    assert "no runs here" in capsys.readouterr().out


def test_runs_of_the_same_cases_are_offered_for_comparison(tmp_path):
    for name, digest, split in (("a", "1", "test"), ("b", "2", "test"), ("c", "1", "test"), ("d", "1", "val")):
        evaluated(tmp_path / "runs" / name, 0.5, digest, split)
    line = next(line for line in advice(tmp_path).splitlines() if "somite report" in line)
    assert {Path(word).name for word in line.split()[2:]} == {"a", "c"}


def test_many_runs_are_counted_and_the_newest_shown(tmp_path):
    for i in range(9):
        trained(tmp_path / "runs" / f"run{i}", date=f"2026-01-0{i + 1}T00:00:00+00:00")
    told = advice(tmp_path)
    assert "run8" in told and "run3" in told and "run2" not in told
    assert "and 3 more runs" in told


def test_runs_are_ranked_within_their_cases_alone(tmp_path):
    for name, mean, digest in (("a", 0.5, "1"), ("b", 0.9, "2"), ("c", 0.7, "1"), ("e", 0.6, "2"), ("f", 0.65, "1")):
        evaluated(tmp_path / name, mean, digest)
    trained(tmp_path / "d")
    runs = listed([tmp_path])
    order = [[run.path.name for run in some] for some in grouped(runs, "score").values()]
    assert order == [["c", "f", "a"], ["b", "e"], ["d"]]
    text = as_text(runs, "score")
    assert "scores of different groups do not compare" in text
    assert "0.700 [0.600, 0.750]" in text
    assert "do not compare" not in as_text([run for run in runs if run.path.name in "acf"], "score")


def test_orders(tmp_path):
    for i, name in enumerate("cab"):
        evaluated(tmp_path / name, 0.5, date=f"2026-0{i + 1}-01")

    def order(sort):
        return "".join(run.path.name for some in grouped(listed([tmp_path]), sort).values() for run in some)

    assert (order("run"), order("date")) == ("abc", "bac")


def test_machines_read_the_numbers_as_they_are(tmp_path):
    evaluated(tmp_path / "a", 1 / 3)
    halfway(tmp_path / "b")
    runs = listed([tmp_path])
    first, second = json.loads(as_json(runs, "score"))
    assert (first["mean"], first["metric"], first["group"], first["split"]) == (1 / 3, "dice", 1, "test")
    assert (second["mean"], second["group"], second["state"], second["steps"]) == (None, 0, "half way", 40)
    rows = list(csv.DictReader(io.StringIO(as_csv(runs, "score"))))
    assert float(rows[0]["mean"]) == 1 / 3
    assert rows[1]["mean"] == ""


def test_a_terminal_obeys_no_run(tmp_path):
    path = trained(tmp_path / "a")
    (path / "environment.json").write_text(json.dumps({"recipe": "\x1b[2Jgone\n", "date": "2026"}))
    assert read(path).recipe == "[2Jgone"


def test_a_folder_that_is_not_there(tmp_path, capsys):
    assert main(["runs", str(tmp_path / "nowhere")]) == 2
    assert "nowhere is no folder" in capsys.readouterr().err
    assert main(["runs", "--odd"]) == 2
    assert "unknown option --odd" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("found", "typed", "next_"),
    [
        ({}, [], "somite train medsegdiffnca/small '--data.root=my data' --out runs/mine (or"),
        ({}, ["--data.foreground", "[1]"], "'--data.root=my data' --data.foreground '[1]' --out"),
        ({"spacing_mm": [1, 1, 2]}, [], "somite plan 'my data' --dims 3 --out plan.yaml, which"),
        (
            {"classes": {"class 1": {}, "class 2": {}}, "labels": [0, 1, 2]},
            [],
            "somite plan 'my data' --labels 0 1 2 --out plan.yaml, which",
        ),
        ({"spacing_mm": [1, 1, 2]}, ["--data.foreground", "[1]"], ""),
        ({"masks": 0}, [], ""),
    ],
    ids=["flat", "options", "volumes", "classes", "volumes-options", "no-masks"],
)
def test_what_trains_on_checked_data(found, typed, next_):
    summary = {"root": "my data", "masks": 9, "spacing_mm": None, "labels": None, "classes": {"foreground": {}}}
    told = beginning({**summary, **found}, typed)
    assert next_ in told if next_ else told == ""
