"""A stand-in for the hub on loopback: what huggingface_hub calls to create, commit, list and fetch, and nothing else."""

from __future__ import annotations

# ruff: noqa: RET502, RET503, ARG002 (every route has the same face, and ends with an answer)
import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_secretOfTheTests"
REPOSITORY = r"(?P<repository>[^/]+/[^/]+)"


@dataclass
class Repository:
    """Branches with their commits, and each commit's files."""

    private: bool = False
    refs: dict[str, str] = field(default_factory=dict)  # branch -> commit
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        """Add a commit, and return its name."""
        name = hashlib.sha1(repr((branch, sorted(files.items()), len(self.commits))).encode()).hexdigest()
        self.commits[name], self.refs[branch] = files, name
        self.messages.append(message)
        return name

    def find(self, revision: str) -> str | None:
        """Return the commit of a revision."""
        return self.refs.get(revision, revision if revision in self.commits else None)


@dataclass
class Hub:
    """All that the stand-in knows, and what it was sent."""

    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)  # sha256 -> what was uploaded as LFS
    calls: list[str] = field(default_factory=list)
    broken: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)  # begin of a path -> status and headers
    owners: tuple[str, ...] = ("ann",)

    def put(self, repository: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Make a repository with files, as if somebody had pushed it; return the commit."""
        return self.repositories.setdefault(repository, Repository()).commit(branch, files, "by hand")


class Handler(BaseHTTPRequestHandler):
    """One request."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def answer(self, status: int, content: Any = b"", **headers: str) -> None:
        """Send bytes, or json."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str, message: str = "") -> None:
        """Send an error as the hub does."""
        self.answer(status, {"error": message or code}, X_Error_Code=code, X_Error_Message=message or code)

    @property
    def token(self) -> str:
        """The token that came with the request."""
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def handle_any(self) -> None:
        """Find who answers."""
        path = unquote(urlsplit(self.path).path)
        self.hub.calls.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for begin, (status, headers) in self.hub.broken.items():
            if path.startswith(begin):
                # an error that repeats what it was sent, as a careless proxy might
                return self.answer(status, {"error": f"sent {self.token}"}, X_Error_Message=f"sent {self.token}", **headers)
        if self.token not in ("", TOKEN):
            return self.answer(401, {"error": "Invalid"}, X_Error_Message="Invalid credentials in Authorization header")
        for pattern, method in ROUTES.items():
            found = re.fullmatch(pattern, f"{self.command} {path}")
            if found:
                return getattr(self, method)(body, **found.groupdict())
        return self.refuse(404, "RepoNotFound")

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def seen(self, repository: str) -> Repository | None:
        """Return a repository that the token may read; else refuse."""
        found = self.hub.repositories.get(repository)
        if found is None or (found.private and self.token != TOKEN):
            self.refuse(404 if self.token else 401, "RepoNotFound")
            return None
        return found

    def may_write(self, owner: str) -> bool:
        """Refuse who may not write."""
        if self.token != TOKEN:
            self.refuse(401, "", "Invalid username or password.")
        elif owner not in self.hub.owners:
            self.refuse(403, "", "You don't have the rights")
        else:
            return True
        return False

    def create(self, body: bytes) -> None:
        """POST /api/repos/create."""
        wanted = json.loads(body)
        name = f"{wanted.get('organization') or 'ann'}/{wanted['name']}"
        if not self.may_write(name.split("/")[0]):
            return
        if name in self.hub.repositories:
            self.answer(409, {"error": "You already created this model repo", "url": f"{self.hub.endpoint}/{name}"})
            return
        made = Repository(private=wanted.get("visibility") == "private" or bool(wanted.get("private")))
        made.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        self.hub.repositories[name] = made
        self.answer(200, {"url": f"{self.hub.endpoint}/{name}", "name": name})

    def branch(self, body: bytes, repository: str, branch: str) -> None:
        """POST /api/models/…/branch/…."""
        found = self.seen(repository)
        if found and self.may_write(repository.split("/")[0]):
            if branch in found.refs:
                return self.answer(409, {"error": "Reference already exists"})
            found.refs[branch] = found.refs["main"]
            self.answer(200, {})

    def info(self, _: bytes, repository: str, revision: str | None = None) -> None:
        """GET /api/models/…."""
        found = self.seen(repository)
        if found is None:
            return
        commit = found.find(revision or "main")
        if commit is None:
            return self.refuse(404, "RevisionNotFound")
        siblings = [{"rfilename": name} for name in sorted(found.commits[commit])]
        self.answer(200, {"id": repository, "modelId": repository, "sha": commit, "siblings": siblings, "private": found.private})

    def tree(self, _: bytes, repository: str, revision: str) -> None:
        """GET /api/models/…/tree/…."""
        found = self.seen(repository)
        if found is None:
            return
        commit = found.find(revision)
        if commit is None:
            return self.refuse(404, "RevisionNotFound")
        rows = []
        for name, content in sorted(found.commits[commit].items()):
            row: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            if name.endswith(".safetensors"):
                row["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
            rows.append(row)
        self.answer(200, rows)

    def resolve(self, _: bytes, repository: str, revision: str, file: str) -> None:
        """GET and HEAD /…/resolve/…."""
        found = self.seen(repository)
        if found is None:
            return
        commit = found.find(revision)
        if commit is None:
            return self.refuse(404, "RevisionNotFound")
        content = found.commits[commit].get(file)
        if content is None:
            return self.refuse(404, "EntryNotFound")
        self.answer(200, content, X_Repo_Commit=commit, ETag=f'"{hashlib.sha256(content).hexdigest()}"')

    def validate(self, body: bytes) -> None:
        """POST /api/validate-yaml: the card must begin with yaml."""
        ok = json.loads(body)["content"].startswith("---\n")
        self.answer(200 if ok else 400, {"errors": [] if ok else [{"message": "no yaml"}], "warnings": []})

    def preupload(self, body: bytes, repository: str, revision: str) -> None:
        """POST /api/models/…/preupload/…: tensors go to LFS, the rest into the commit."""
        if self.may_write(repository.split("/")[0]):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self.answer(200, {"files": files})

    def lfs(self, body: bytes, repository: str) -> None:
        """POST /….git/info/lfs/objects/batch."""
        wanted = json.loads(body)["objects"]
        rows = [
            {**row, "authenticated": True, "actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{row['oid']}", "header": {}}}}
            for row in wanted
        ]
        self.answer(200, {"transfer": "basic", "objects": rows})

    def upload(self, body: bytes, oid: str) -> None:
        """PUT /lfs/…."""
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.large[oid] = body
        self.answer(200, {})

    def commit(self, body: bytes, repository: str, revision: str) -> None:
        """POST /api/models/…/commit/…, a json for each line."""
        found = self.seen(repository)
        if found is None or not self.may_write(repository.split("/")[0]):
            return
        rows = [json.loads(line) for line in body.splitlines() if line.strip()]
        header, *changes = rows
        parent = header["value"].get("parentCommit")
        if parent and parent != found.refs.get(revision):
            return self.refuse(412, "", "A commit has happened since")
        files = dict(found.commits[found.refs[revision]])
        for row in changes:
            value = row["value"]
            if row["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif row["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            else:
                files.pop(value["path"])
        commit = found.commit(revision, files, header["value"]["summary"])
        self.answer(200, {"commitUrl": f"{self.hub.endpoint}/{repository}/commit/{commit}", "commitOid": commit})


ROUTES = {
    r"POST /api/repos/create": "create",
    r"POST /api/validate-yaml": "validate",
    rf"GET /api/models/{REPOSITORY}": "info",
    rf"GET /api/models/{REPOSITORY}/revision/(?P<revision>.+)": "info",
    rf"GET /api/models/{REPOSITORY}/tree/(?P<revision>.+)": "tree",
    rf"POST /api/models/{REPOSITORY}/branch/(?P<branch>.+)": "branch",
    rf"POST /api/models/{REPOSITORY}/preupload/(?P<revision>.+)": "preupload",
    rf"POST /api/models/{REPOSITORY}/commit/(?P<revision>.+)": "commit",
    rf"POST /{REPOSITORY}\.git/info/lfs/objects/batch": "lfs",
    r"PUT /lfs/(?P<oid>\w+)": "upload",
    rf"(GET|HEAD) /{REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<file>.+)": "resolve",
}


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Answer on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def connect(hub: Hub, cache: str, monkeypatch: pytest.MonkeyPatch, token: str = TOKEN) -> None:
    """Let huggingface_hub talk to the stand-in, with a cache of its own: what its environment variables would say."""
    from huggingface_hub import constants

    from headwater.core.sharing import fetch

    for name, value in {
        "ENDPOINT": hub.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": cache,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_PROGRESS_BARS": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch, "_FETCHED", {})
