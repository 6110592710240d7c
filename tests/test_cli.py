"""The command line from end to end, in this process; in another one only what cannot be seen here."""

import errno
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from runs import TINY, somite, tiny, untrained
from somite import opening
from somite.cli import main
from somite.data.phantoms import write_phantoms

COMMANDS = ["demo", "train", "evaluate", "predict", "calibrate", "compare", "import", "recipes"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("data"), 6, (32, 32))


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    return tiny(root, tmp_path_factory.mktemp("run") / "run", "--training.steps=4")


def images(root, *numbers):
    return [str(root / "images" / f"case{n:03d}.png") for n in numbers]


def outputs(out):
    return {path.name: path.stat().st_mtime_ns for path in out.iterdir()}


def test_train_evaluate_predict_compare(root, tmp_path, capsys):
    one, two = tmp_path / "one", tmp_path / "two"
    for out, seed in ((one, 0), (two, 1)):
        line = [
            "train",
            "medsegdiffnca/demo",
            f"--data.root={root}",
            "--out",
            str(out),
            *TINY,
            "--training.steps=2",
            f"--training.seed={seed}",
        ]
        assert main(line) == 0
        assert main(["evaluate", str(out), "--members", "2", "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert "2 members, 1 reverse step(s)" in told
    assert f"report: {one / 'report.html'}" in told
    assert main(line) == 0
    assert "trained already (2 steps)" in capsys.readouterr().out
    assert main(["compare", str(one), str(two), "--out", str(tmp_path / "table.csv")]) == 0
    assert " shared cases; mean difference" in capsys.readouterr().out
    assert (tmp_path / "table.csv").read_text().startswith("metric,first,second,")
    assert main(["evaluate", str(one), "--split", "val", "--members", "2"]) == 0
    assert (one / "val" / "report.html").is_file()
    assert json.loads((one / "metrics.json").read_text())["split"] == "test"


def test_predict_writes_goes_on_and_overwrites(root, run, tmp_path, capsys):
    out = tmp_path / "out"
    line = ["predict", str(run), *images(root, 0, 1), "--out", str(out), "--members", "2", "--save", "mask,members"]
    assert main(line) == 0
    expected = {f"case{n:03d}_{what}.png" for n in (0, 1) for what in ("mask", "member-00", "member-01")}
    before = outputs(out)
    assert before.keys() == expected | {"prediction.json", "cases.csv"}
    pixels = {name: (out / name).read_bytes() for name in expected}
    (out / "case001_member-01.png").unlink()  # killed while the second case was written
    capsys.readouterr()
    assert main(line) == 0
    assert "1 of 2 are done already" in capsys.readouterr().out
    after = outputs(out)
    assert all(after[name] == before[name] for name in expected if name.startswith("case000"))
    assert all((out / name).read_bytes() == pixels[name] for name in expected)
    assert main([*line, "--overwrite"]) == 0
    assert all(outputs(out)[name] != before[name] for name in expected)
    assert all((out / name).read_bytes() == pixels[name] for name in expected)  # the same settings, the same bits
    assert main(["predict", str(run), str(root / "images"), *line[-6:]]) == 0  # more cases into the same folder
    assert len(list(out.glob("*_mask.png"))) == 6


@pytest.mark.parametrize("gone", ["mask", "probability", "spread"])
@pytest.mark.parametrize("save", ["mask,probability,spread", "spread,probability,mask"])
def test_whichever_output_is_missing_is_made(root, run, tmp_path, gone, save):
    line = ["predict", str(run), *images(root, 0), "--out", str(tmp_path), "--members", "1", "--save", save]
    assert main(line) == 0
    (tmp_path / f"case000_{gone}.png").unlink()
    assert main(line) == 0
    assert (tmp_path / f"case000_{gone}.png").is_file()


@pytest.mark.parametrize(
    "change", [["--seed", "1"], ["--members", "2"], ["--steps", "2"], ["--firing", "expected"], ["--precision", "bf16"], ["--save", "mask"]]
)
def test_other_settings_go_into_another_folder(root, run, tmp_path, capsys, change, monkeypatch):
    monkeypatch.setattr(opening, "has_bfloat16", lambda device: True)
    line = ["predict", str(run), *images(root, 0), "--out", str(tmp_path), "--members", "1"]
    assert main(line) == 0
    before = outputs(tmp_path)
    assert main([*line, *change]) == 2
    assert f"made with another {change[0].strip('-')}" in capsys.readouterr().err
    assert outputs(tmp_path) == before
    assert main([*line, *change, "--overwrite"]) == 0


def test_a_prediction_is_that_of_python(root, run, tmp_path):
    import somite as package

    assert main(["predict", str(run), *images(root, 3), "--out", str(tmp_path), "--members", "3", "--seed", "5"]) == 0
    result = package.load(run).predict(images(root, 3)[0], members=3, seed=5)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "case003_mask.png")), result.mask * 255)
    assert np.abs(np.asarray(Image.open(tmp_path / "case003_probability.png")) / 65535 - result.probability[0]).max() < 1e-5


def test_tiles_change_no_byte(run, tmp_path, capsys):
    """Two levels and attention, an image of several windows; members, masks and probabilities as files."""
    image = write_phantoms(tmp_path / "wide", 3, (150, 90)) / "images" / "case000.png"
    line = ["predict", str(run), str(image), "--members", "2", "--save", "mask,probability,spread,members", "--out"]
    for name, more in (("whole", ["--firing", "hashed"]), ("tiles", ["--tile", "32"]), ("random", [])):
        assert main([*line, str(tmp_path / name), *more]) == 0, capsys.readouterr().err
    files = sorted(path.name for path in (tmp_path / "whole").glob("*.png"))
    assert len(files) == 5
    assert all((tmp_path / "tiles" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in files)
    assert any((tmp_path / "random" / name).read_bytes() != (tmp_path / "whole" / name).read_bytes() for name in files)
    assert json.loads((tmp_path / "tiles" / "prediction.json").read_text())["overrides"] == ["--method.network.tile=32"]


def test_no_tiles_without_cells(tmp_path, refused):
    other = untrained("dynunet/demo", tmp_path / "run", "--method.network.channels=[4,8,8,8]")
    image = write_phantoms(tmp_path / "data", 3, (32, 32)) / "images" / "case000.png"
    refused(["predict", other, image, "--tile", "64", "--out", tmp_path / "out"], "--tile is for cellular automata that segment")


def test_evaluating_other_data(run, tmp_path, capsys):
    other = write_phantoms(tmp_path / "other", 4, (24, 24), seed=9)
    assert main(["evaluate", str(run), "--data", str(other), "--members", "1", "--out", str(tmp_path / "scores")]) == 0
    assert len((tmp_path / "scores" / "rows.csv").read_text().splitlines()) == 2


def test_steps_placed_by_the_benefit(root, run, tmp_path, capsys):
    (tmp_path / "benefit.csv").write_text("t,benefit\n0,0\n400,1\n999,0\n")
    line = ["evaluate", str(run), "--members", "1", "--out", str(tmp_path / "out"), "--benefit", str(tmp_path / "benefit.csv")]
    assert main([*line, "--steps", "3"]) == 0, capsys.readouterr().err
    told = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert told["steps"] == len(told["timesteps"]) == 3
    assert told["timesteps"][0] == 999
    assert main([*line[:-1], str(tmp_path / "nowhere.csv")]) == 2
    assert "nowhere.csv" in capsys.readouterr().err


NOT_HEEDED = {
    "calibrate": ["--with x"],
    "analyse timesteps": ["--with x", "--members 7", "--steps 3", "--benefit x.csv", "--readout cal", "--calibrated"],
    "analyse placement": ["--benefit x.csv", "--calibrated", "--counts 2"],
    "analyse raters": ["--with x", "--calibrated", "--sizes 2"],
    "analyse calibration": ["--with x", "--firing expected", "--steps 3", "--calibrated"],
}


@pytest.mark.parametrize(("command", "option"), [(name, option) for name, options in NOT_HEEDED.items() for option in options])
def test_a_command_takes_no_option_that_it_would_not_heed(run, tmp_path, capsys, command, option):
    more = [str(tmp_path / "benefit.csv")] if command.endswith("placement") else []
    out = ["--out", str(tmp_path / "out")] if command.startswith("analyse") else []
    assert main([*command.split(), str(run), *more, *out, *option.split()]) == 2
    assert f"unknown option {option.split()[0]}; somite {command} --help" in capsys.readouterr().err


def test_analyses_heed_what_they_take(root, run, tmp_path, capsys):
    rows = []
    for more in ([], ["--firing", "expected"], ["--seed", "1"]):
        assert main(["analyse", "timesteps", str(run), "--count", "3", "--draws", "1", "--out", str(tmp_path / "t"), *more]) == 0
        rows.append((tmp_path / "t" / "timesteps.csv").read_text())
    assert len(set(rows)) == 3
    assert json.loads((tmp_path / "t" / "summary.json").read_text())["split"] == "val"  # what it finds places steps for test cases
    (tmp_path / "benefit.csv").write_text("t,benefit\n0,0\n400,1\n999,0\n")
    line = ["analyse", "placement", str(run), str(tmp_path / "benefit.csv"), "--out", str(tmp_path / "p")]
    assert main([*line, "--steps", "2", "4", "--members", "2"]) == 0, capsys.readouterr().err
    told = json.loads((tmp_path / "p" / "summary.json").read_text())
    assert (list(told["placed"]), told["members"]) == (["2", "4"], 2)
    assert main([*line, "--members", "0"]) == 2


@pytest.mark.parametrize("tolerance", ["-1", "nan"])
def test_a_tolerance_that_is_no_distance(run, tmp_path, capsys, tolerance):
    assert main(["evaluate", str(run), "--out", str(tmp_path / "out"), "--tolerance", tolerance]) == 2
    assert "tolerance" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_steps_are_no_default(run, tmp_path, capsys):
    (tmp_path / "benefit.csv").write_text("t,benefit\n0,0\n400,1\n999,0\n")
    line = ["evaluate", str(run), "--benefit", str(tmp_path / "benefit.csv"), "--steps", "0", "--out", str(tmp_path / "out")]
    assert main(line) == 2
    assert "--steps 0" in capsys.readouterr().err


def test_an_answer_that_the_network_does_not_have(root, run, tmp_path, capsys):
    assert main(["predict", str(run), *images(root, 0), "--out", str(tmp_path / "out"), "--readout", "cal"]) == 2
    assert "no map 'cal' to read (it has: rgb)" in capsys.readouterr().err


def test_recipes_are_listed(capsys):
    assert main(["recipes"]) == 0
    listed, begin = capsys.readouterr().out.split("\n\nbegin with\n")
    assert "medsegdiffnca/demo" in listed
    assert all(len(line.split(None, 1)) == 2 for line in listed.splitlines())
    assert {line.split()[0] for line in begin.splitlines()} <= {line.split()[0] for line in listed.splitlines()}


@pytest.mark.parametrize("line", [["--help"], [], ["--version"], ["train"], *([command, "--help"] for command in COMMANDS)], ids=" ".join)
def test_help_answers_at_once(line):
    """Without torch, and in less than a second (the quickest of three: the machine may be busy)."""
    script = "import sys; from somite.cli import main; code = 0\ntry: code = main(sys.argv[1:])\nexcept SystemExit as e: code = e.code\n"
    script += "assert not {'torch', 'numpy', 'lightning', 'monai'} & sys.modules.keys(), 'slow imports'; sys.exit(code)"
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", script, *line], capture_output=True, text=True, check=False)
        times.append(time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout) > 4
        if times[-1] < 1:
            break
    assert min(times) < 1


def test_help_of_a_recipe_names_its_options(capsys):
    assert main(["train", "medsegdiffnca/demo", "--help"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("A compact MedSegDiffNCA")
    assert "--training.steps" in told
    assert "--data.root" in told


@pytest.mark.slow  # like a training in a process of its own, which tests/trainer/test_resume.py kills
def test_in_a_process_of_its_own(root, run, tmp_path):
    done = somite("predict", run, *images(root, 0), "--out", tmp_path / "out", "--members", "1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "case000_mask.png").is_file()


def test_a_refusal_in_a_process_of_its_own(run, tmp_path):
    done = somite("predict", run, tmp_path / "nothing.png", "--out", tmp_path / "other")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "other").exists()


def test_faults_of_ours_keep_their_traceback(monkeypatch):
    from somite import commands

    monkeypatch.setitem(commands.COMMANDS, "recipes", lambda options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["recipes"])


def test_an_interruption_says_how_to_go_on(monkeypatch, capsys):
    from somite import commands

    def stop(options):
        raise KeyboardInterrupt

    monkeypatch.setitem(commands.COMMANDS, "recipes", stop)
    assert main(["recipes"]) == 130
    assert "go on from where they were" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["predit", "zoo/nuclei", "a.png"], "there is no command 'predit': did you mean predict?"),
        (["train", "medsegdiffnca/smaal"], "there is no recipe 'medsegdiffnca/smaal': did you mean medsegdiffnca/small?"),
        (["train", "medsegdiffnca/small", "--steps", "5"], "did you mean --training.steps?"),
        (["train", "medsegdiffnca/small", "--training.stepz=5"], "did you mean --training.steps?"),
        (["train", "medsegdiffnca/small", "--data-root", "x"], "did you mean --data.root?"),
        (["train", "medsegdiffnca/small", "--batch=5"], "did you mean --training.batch?"),
        (["train", "medsegdiffnca/small", "--members=5"], "did you mean --task.members?"),
        (["--traim"], "unknown option --traim; somite --help lists"),
        (["zoo/nuclei"], "there is no command 'zoo/nuclei'; somite --help lists them"),
    ],
)
def test_what_was_mistyped_is_guessed(typed, meant, capsys):
    assert main(typed) == 2
    assert meant in capsys.readouterr().err


def test_a_folder_that_may_not_be_opened_is_the_users_to_mend(root, tmp_path, monkeypatch, capsys):
    """Root may open everything, so the system's answer is played."""
    (tmp_path / "P1" / "se\ncret").mkdir(parents=True)
    listed = os.scandir

    def scandir(path="."):
        if "cret" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert main(["predict", "zoo/nuclei", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "cannot be opened (Permission denied): change its permissions" in told
