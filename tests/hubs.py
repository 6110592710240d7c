"""A stand-in of the Hugging Face hub on this machine: of its HTTP interface what its own client needs to make, fill and read repositories."""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

RIGHTS = {"writes": {"read", "write"}, "reads": {"read"}}  # of tokens


@dataclass
class Repository:
    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # all files of each, oldest first

    def commit(self, **files):
        before = list(self.commits.values())[-1] if self.commits else {}
        name = hashlib.sha1(f"{len(self.commits)}".encode()).hexdigest()
        self.commits[name] = before | files
        return name

    def at(self, revision):
        return list(self.commits)[-1] if revision == "main" and self.commits else revision if revision in self.commits else None


class Hub(ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answering)
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}  # files of LFS by SHA-256
        self.seen: list[str] = []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


class Answering(BaseHTTPRequestHandler):
    WAYS = (  # of the hub's documentation and its client
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("POST", r"/api/models/(\w+/\w+)/preupload/main", "preupload"),
        ("POST", r"/(\w+/\w+)\.git/info/lfs/objects/batch", "batch"),
        ("PUT", r"/large/(\w+)", "upload"),
        ("POST", r"/api/models/(\w+/\w+)/commit/main", "commit"),
        ("GET", r"/api/models/(\w+/\w+)(?:/revision/(.+))?", "info"),
        ("GET", r"/api/models/(\w+/\w+)/tree/(\w+)", "tree"),
        ("GET", r"/(\w+/\w+)/resolve/(\w+)/(.+)", "resolve"),
    )

    def answer_it(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.server.seen.append(f"{self.command} {path}")
        for command, pattern, name in self.WAYS:
            found = re.fullmatch(pattern, path)
            if found and command == self.command.replace("HEAD", "GET"):
                getattr(self, name)(*found.groups())
                return
        self.say(404, {"error": f"the stand-in knows no {self.command} {path}"})

    do_GET = do_HEAD = do_POST = do_PUT = answer_it

    def may(self, right):
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token not in RIGHTS:
            self.say(401, {"error": "no"}, **({"X-Error-Message": "Invalid credentials in Authorization header"} if token else {}))
        elif right not in RIGHTS[token]:
            self.say(403, {"error": "the token may not"})
        else:
            return True
        return False

    def known(self, name):
        """The repository, where it is and may be seen; the hub does not tell these two apart."""
        there = self.server.repositories.get(name)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if there and name == "org/gated":
            self.say(403, {"error": "gated"}, **{"X-Error-Code": "GatedRepo"})
        elif there and (not there.private or token in RIGHTS):
            return there
        else:
            self.say(404 if token in RIGHTS else 401, {"error": "not found"}, **{"X-Error-Code": "RepoNotFound"})
        return None

    def create(self):
        told = json.loads(self.body)
        name = f"{told['organization']}/{told['name']}"
        if self.may("write"):
            if name in self.server.repositories:
                self.say(409, {"error": "it is there", "url": f"{self.server.address}/{name}"})
            else:
                self.server.repositories[name] = Repository(told.get("visibility") == "private" or bool(told.get("private")))
                self.say(200, {"url": f"{self.server.address}/{name}"})

    def validate(self):
        head = json.loads(self.body)["content"].split("---\n")[1]
        self.say(200 if isinstance(yaml.safe_load(head), dict) else 400, {"errors": [], "warnings": []})

    def preupload(self, name):
        if self.may("write"):
            files = [file["path"] for file in json.loads(self.body)["files"]]
            modes = ["lfs" if path.endswith(".safetensors") else "regular" for path in files]
            self.say(200, {"files": [{"path": p, "uploadMode": mode, "shouldIgnore": False} for p, mode in zip(files, modes, strict=True)]})

    def batch(self, name):
        if self.may("write"):
            rows = json.loads(self.body)["objects"]
            for row in rows:
                row["actions"] = {"upload": {"href": f"{self.server.address}/large/{row['oid']}"}}
            self.say(200, {"transfer": "basic", "objects": rows})

    def upload(self, oid):
        right = hashlib.sha256(self.body).hexdigest() == oid
        if right:
            self.server.large[oid] = self.body
        self.say(200 if right else 400, {})

    def commit(self, name):
        if self.may("write"):
            files = {}
            for line in self.body.splitlines():
                match json.loads(line):
                    case {"key": "file", "value": {"path": path, "content": content, "encoding": "base64"}}:
                        files[path] = base64.b64decode(content)
                    case {"key": "lfsFile", "value": {"path": path, "oid": oid}}:
                        files[path] = self.server.large[oid]
            made = self.server.repositories[name].commit(**files)
            self.say(200, {"success": True, "commitUrl": f"{self.server.address}/{name}/commit/{made}", "commitOid": made})

    def info(self, name, revision):
        there = self.known(name)
        if there:
            commit = there.at(revision or "main")
            if revision and commit is None:
                self.say(404, {"error": "no such revision"}, **{"X-Error-Code": "RevisionNotFound"})
            else:
                names = [{"rfilename": path} for path in there.commits.get(commit, {})]
                self.say(200, {"id": name, "sha": commit, "private": there.private, "siblings": names})

    def tree(self, name, revision):
        there = self.known(name)
        if there:
            files = there.commits[revision].items()
            self.say(200, [{"type": "file", "path": p, "size": len(d), "oid": hashlib.sha1(d).hexdigest()} for p, d in files])

    def resolve(self, name, revision, path):
        there = self.known(name)
        if there:
            data = there.commits[revision][path]
            self.say(200, data, **{"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": revision})

    def say(self, status, body, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        self.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_): ...
