"""Parts by hub id, fetched from a stand-in of the hub on this machine; offline they are found again, or said where to put."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from somite.errors import InputError
from somite.store import digest_of, find

COMMIT = "a" * 40
FILES = {
    "README.md": b"read me",
    "config.json": b"{}",
    "vae/config.json": b'{"a": 1}',
    "vae/diffusion_pytorch_model.safetensors": b"numbers",
    "vae/diffusion_pytorch_model.fp16.safetensors": b"fewer",
    "vae/diffusion_pytorch_model.bin": b"a pickle",
    "run/recipe.yaml": b"task: {}",
    "run/weights.safetensors": b"weights",
}


class Hub(BaseHTTPRequestHandler):
    """Of the hub's interface what a download needs."""

    def do_GET(self):
        self.server.seen.append(self.path)
        name = self.path.partition(f"/resolve/{COMMIT}/")[2]
        if name in FILES:
            self.answer(FILES[name], ETag=f'"{hashlib.sha1(FILES[name]).hexdigest()}"', **{"X-Repo-Commit": COMMIT})
        elif self.path.startswith(f"/api/models/org/name/tree/{COMMIT}"):
            rows = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()} for name, data in FILES.items()
            ]
            self.answer(json.dumps(rows).encode(), **{"Content-Type": "application/json"})
        elif self.path.startswith("/api/models/org/name/"):
            told = {"id": "org/name", "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES]}
            self.answer(json.dumps(told).encode(), **{"Content-Type": "application/json"})
        else:
            self.send_error(403 if "gated" in self.path else 404)

    do_HEAD = do_GET

    def answer(self, body, **headers):
        self.send_response(200)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_): ...


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.seen = []
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("SOMITE_STORE", str(tmp_path / "store"))
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def offline(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")


def test_a_folder_is_fetched_once_and_without_pickles(hub, tmp_path):
    found = find("org/name/vae", None, tmp_path / "run")
    assert {path.name: path.read_bytes() for path in found.rglob("*")} == {
        name: FILES[f"vae/{name}"] for name in ("config.json", "diffusion_pytorch_model.safetensors")
    }
    assert found.is_relative_to(tmp_path / "store")
    asked = len(hub.seen)
    assert find("org/name/vae", digest_of(found), tmp_path / "run") == found
    assert len(hub.seen) == asked  # not even a question
    assert {path.name for path in found.parent.iterdir()} == {found.name}
    assert {path.name for path in find("org/name/run", None, tmp_path / "run").iterdir()} == {"recipe.yaml", "weights.safetensors"}


def test_another_content_than_was_trained_with_is_refused(hub, tmp_path):
    with pytest.raises(InputError, match="not the part that"):
        find("org/name/vae", "0" * 64, tmp_path / "run")


@pytest.mark.parametrize(("source", "why"), [("org/other", "404"), ("org/gated", "403"), ("org/name", "as org/name/vae")])
def test_what_is_not_to_be_had_is_said_where_to_put(hub, tmp_path, source, why):
    with pytest.raises(InputError, match="no path here, and could not be had from the Hugging Face hub") as error:
        find(source, None, tmp_path / "run")
    folder = tmp_path / "store" / "hub" / source.replace("/", "--")
    assert why in str(error.value) and str(folder) in str(error.value) and "\n" not in str(error.value)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert find(source, None, tmp_path / "run") == folder


def test_offline(offline, tmp_path):
    with pytest.raises(InputError, match=r"could not be had from the Hugging Face hub \(.*refused"):
        find("org/name/vae", None, tmp_path / "run")


@pytest.mark.parametrize("source", ["/org/name", "name", "org/name.safetensors/", "../name/x", "org/name/../x", "runs/model.ckpt"])
def test_other_paths_are_no_ids(hub, tmp_path, source):
    with pytest.raises(InputError, match="which is not here: download it and put it at"):
        find(source, None, tmp_path / "run")
    assert not hub.seen
