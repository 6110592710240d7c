"""Files of somebody who means harm: each would leave a mark, `mark` in the test's folder, or markup that a browser runs. None does.

Elsewhere: pickles in checkpoints (tests/weights/test_unets.py, tests/test_bad_input.py), recipes that name strangers' classes and nested
aliases (tests/test_trust.py, tests/test_bad_input.py), `../` in ids of tables (tests/data/test_sources.py).
"""

import contextlib
import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from known import RECIPE
from somite.checkpoint import tensors
from somite.cli import main
from somite.data import images, labelled, sources
from somite.data.phantoms import write_phantoms
from somite.errors import InputError
from somite.recipe import build, dump, parse
from somite.trainer.metrics_csv import rewind
from somite.trust import no_links

ID = "<script>alert(1)<img src=x onerror=alert(2)>&\"'"


class Marking:
    """Unpickled, it runs a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def mark(tmp_path):
    path = tmp_path / "mark"
    yield path
    assert not path.exists()


def pickled(value) -> bytes:
    buffer = io.BytesIO()
    pickle.dump(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("wrap", [lambda evil: evil, lambda evil: {"state_dict": {"a": torch.zeros(1)}, "x": evil}, lambda evil: {"a": evil}],
                         ids=["bare", "beside weights", "as weights"])  # fmt: skip
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code(tmp_path, mark, wrap, zipped):
    path = tmp_path / "a.pth"
    torch.save(wrap(Marking(mark)), path, _use_new_zipfile_serialization=zipped)
    with contextlib.suppress(InputError):
        assert all(isinstance(value, torch.Tensor) for value in tensors(path).values())  # the weights may be had, the rest is inert


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".safetensors"])
def test_a_plain_pickle_under_the_name_of_weights(tmp_path, mark, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(pickled(Marking(mark)))
    with pytest.raises(InputError, match="cannot be read"):
        tensors(path)


def test_arrays_of_objects_in_an_npz(tmp_path, mark):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, {"descr": "|O", "fortran_order": False, "shape": (1,)})
        for name in ("train_images", "train_labels"):
            archive.writestr(f"{name}.npy", head.getvalue() + pickled(Marking(mark)))
    with pytest.raises(InputError, match="npz"):
        labelled.find(tmp_path / "a.npz")


# ---- more than it seems


def png(width: int, height: int, rows: bytes) -> bytes:
    def chunk(tag: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [30_000, 2**31 - 1])
def test_a_picture_of_kilobytes_that_promises_gigabytes(tmp_path, side):
    path = tmp_path / "a.png"
    path.write_bytes(png(side, side, zlib.compress(bytes(2**20), 9)))
    with pytest.raises(InputError, match=r"too many pixels|damaged"):
        images.read_image(path)


def test_an_npz_whose_header_promises_more_than_memory(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (2**44,)})
        for name in ("train_images", "train_labels"):
            archive.writestr(f"{name}.npy", head.getvalue() + bytes(2**20))
    with pytest.raises(InputError, match="npz"):
        labelled.find(tmp_path / "a.npz")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000], ids=["lists", "objects"])
def test_json_in_which_brackets_never_end(tmp_path, text):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / part / "a.png")
    (tmp_path / "splits.json").write_text(text)
    with pytest.raises(InputError, match="not valid JSON"):
        sources.find(tmp_path)


# ---- ways out


def test_ids_never_lead_out_of_the_output_folder(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    for name in ("../up", "/tmp/x", "a\\..\\b", "a/b", "a\0b"):
        (tmp_path / "list.csv").write_text(f"image,mask,id\na.png,a.png,{name}\n")
        with pytest.raises(InputError, match="without slashes"):
            sources.find(tmp_path / "list.csv")
    for part in ("images", "masks"):
        (tmp_path / "set" / part).mkdir(parents=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "set" / part / "a.png")
    (tmp_path / "set" / "splits.json").write_text(json.dumps({"train": ["../../a"]}))
    with pytest.raises(InputError, match="no such case"):
        sources.find(tmp_path / "set")


def test_links_out_of_a_strangers_run_folder(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    (run / "checkpoints").mkdir(parents=True)
    (elsewhere / "mine").mkdir(parents=True)
    (run / "inside").symlink_to(run / "checkpoints")
    (run / "file.txt").symlink_to(elsewhere / "mine")
    no_links(tmp_path / "run" / "checkpoints")
    (run / "file.txt").unlink()
    no_links(run)  # a link that stays within does no harm
    (run / "answers").symlink_to(elsewhere)
    with pytest.raises(InputError, match="answers is a link out of the run folder"):
        no_links(run)


def test_a_log_that_is_a_link_is_not_written_through(tmp_path):
    victim, log = tmp_path / "victim", tmp_path / "metrics.csv"
    victim.write_text("mine")
    log.symlink_to(victim)
    rewind(log, 0)
    assert victim.read_text() == "mine" and not log.is_symlink()


# ---- a case with a name that is markup


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.scripts, self.handlers, self.text = [], [], ""
        self.inside = False

    def handle_starttag(self, tag, attrs):
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.inside = tag == "script"

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.scripts.append(data)
        self.text += data


def test_a_case_named_by_a_script(tmp_path, capsys):
    data, run = write_phantoms(tmp_path / "data", 8, (16, 20)), tmp_path / ID.replace("/", "")
    table = ["image,mask,id,group,split"]
    for index in range(8):
        name = f'"{index}{ID}"'.replace('&"', '&""')
        split = "test" if index < 4 else "val" if index < 6 else "train"
        table.append(f"images/case{index:03d}.png,masks/case{index:03d}.png,{name},{name},{split}")
    (data / "list.csv").write_text("\n".join(table))
    (tmp_path / "linear.yaml").write_text(RECIPE)
    run.mkdir()
    config = parse(tmp_path / "linear.yaml", [f"--data.root={data / 'list.csv'}", "--method.network.known=true"])
    (run / "recipe.yaml").write_text(dump(config))
    save_file(build(config).method.state_dict(), run / "weights.safetensors")
    assert main(["evaluate", str(run), "--trust", "--device", "cpu"]) == 0, capsys.readouterr().err
    page = Tags()
    page.feed((run / "report.html").read_text())
    assert f"0{ID}" in page.text or f"3{ID}" in page.text  # it is told, as text
    assert not page.handlers and not any("alert" in script for script in page.scripts)
    card = (run / "README.md").read_text().split("```")
    assert all("<script" not in part for part in card[::2])


def test_names_that_steer_a_terminal_or_break_the_line(tmp_path, refused):
    path = tmp_path / "a\x1b[2J\nerror: all is well.txt"
    path.write_text("x")
    refused(["predict", tmp_path, path, "--out", tmp_path / "out"], r"\x1b[2J\nerror: all is well.txt")
