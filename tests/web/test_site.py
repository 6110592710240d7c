"""The folder that `somite web` makes, and where it has onnxruntime-web from."""

import hashlib
import io
import json
import re
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import pytest

import somite
from programs import COMPACT, shaken
from somite.cli import main
from somite.web import runtime as source
from somite.web.serve import server

PAGE = Path(somite.__file__).parent / "web" / "page"


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A package of small files in place of onnxruntime-web's, and an empty cache."""
    contents = {name: name.encode() * 3 for name in source.FILES}
    monkeypatch.setattr(source, "FILES", {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()})
    monkeypatch.setenv("SOMITE_STORE", str(tmp_path / "cache" / "frozen"))
    return contents


def packed(contents):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as package:
        for name, content in contents.items():
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(content)
            package.addfile(entry, io.BytesIO(content))
    return raw.getvalue()


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A stand-in of the npm registry, of a folder; yields where the package belongs."""
    place = tmp_path / "registry" / "onnxruntime-web" / "-" / f"onnxruntime-web-{source.VERSION}.tgz"
    place.parent.mkdir(parents=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "registry"))) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"http://127.0.0.1:{one.server_port}/")
        yield place
        one.shutdown()


def test_the_runtime_is_fetched_once(small, registry):
    registry.write_bytes(packed(small))
    folder = source.runtime()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == small
    registry.unlink()
    assert source.runtime() == folder


@pytest.mark.parametrize("kind", ["tgz", "package", "dist"])
def test_the_runtime_can_be_given(small, kind, tmp_path):
    (tmp_path / "given.tgz").write_bytes(packed(small))
    with tarfile.open(tmp_path / "given.tgz") as package:
        package.extractall(tmp_path / "given", filter="data")
    given = {"tgz": "given.tgz", "package": "given/package", "dist": "given/package/dist"}[kind]
    folder = source.runtime(tmp_path / given)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == small


def test_a_runtime_that_is_none_is_refused(small, registry, tmp_path):
    run = tmp_path / "run"
    refused = pytest.raises(somite.errors.InputError)
    with refused as told:
        source.runtime()
    assert "npm pack onnxruntime-web@" in str(told.value) and "--runtime" in str(told.value)
    first = next(iter(small))
    registry.write_bytes(packed({**small, first: b"another"}))
    with pytest.raises(somite.errors.InputError, match=f"{re.escape(first)} of .* is not that of onnxruntime-web"):
        source.runtime()
    registry.write_bytes(b"no package")
    with pytest.raises(somite.errors.InputError, match="is not the package onnxruntime-web"):
        source.runtime()
    with pytest.raises(somite.errors.InputError, match="no such file or folder"):
        source.runtime(run)
    run.mkdir()
    with pytest.raises(somite.errors.InputError, match="has no ort"):
        source.runtime(run)
    assert not list(tmp_path.glob("cache/**/*.mjs"))


def test_the_folder(small, tmp_path, capsys, refused):
    (tmp_path / "given").mkdir()
    for name, content in small.items():
        (tmp_path / "given" / name).write_bytes(content)
    run = shaken("compact/feed-forward", tmp_path / "run", *COMPACT)
    line = ["web", str(run), "--out", str(tmp_path / "site"), "--runtime", str(tmp_path / "given")]
    assert main(line) == 0
    assert "index.html" in capsys.readouterr().out
    there = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*") if path.is_file()}
    assert there == {path.name for path in PAGE.iterdir()} | {"model.onnx", "model.json"} | {f"runtime/{name}" for name in small}
    told = json.loads((tmp_path / "site" / "model.json").read_text())
    assert told["inputs"] == ["image"] and told["classes"] == [0, 1, 2] and told["axis"] == 2 and told["size"] is None
    before = (tmp_path / "site" / "model.onnx").stat().st_mtime_ns
    assert main(line) == 0  # it is made already
    assert (tmp_path / "site" / "model.onnx").stat().st_mtime_ns == before
    (tmp_path / "site" / "model.json").unlink()
    refused(line, "holds something already; name a folder that is new or empty")


def test_a_page_of_a_run_without_a_program_is_refused(small, tmp_path, refused):
    run = shaken("medsegdiffnca/hippocampus", tmp_path / "run")
    refused(["web", run, "--out", tmp_path / "site"], "cannot be exported as one program", "works on volumes")
    assert [one.name for one in tmp_path.iterdir()] == ["run"]


def test_the_page_names_no_other_machine():
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', (PAGE / "index.html").read_text())[1]
    assert "default-src 'self'" in policy and "connect-src 'self';" in policy and "'unsafe-inline'" not in policy
    for path in PAGE.iterdir():
        found = re.findall(r"https?://[^\s\"'`]+", path.read_text())
        assert not [one for one in found if not one.startswith("http://www.w3.org/")], path


def test_the_server_isolates_the_page(tmp_path):
    (tmp_path / "a.mjs").write_text("1")
    with server(tmp_path, 0) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        assert one.server_address[0] == "127.0.0.1"
        with urlopen(f"http://127.0.0.1:{one.server_port}/a.mjs") as answer:
            told = answer.headers
        one.shutdown()
    assert told["Content-Type"] == "text/javascript"
    assert told["Cross-Origin-Opener-Policy"] == "same-origin" and told["Cross-Origin-Embedder-Policy"] == "require-corp"
