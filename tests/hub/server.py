"""A small Hugging Face hub on loopback, which serves folders by the hub's own protocol."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_loopback"  # noqa: S105 - opens nothing but the server of a test


@dataclass
class Repository:
    """One repository.

    Attributes:
        revisions: Folder of each commit, oldest first, by its 40 hex digits.
        branches: Commit of each branch or tag.
        private: Whether only ``TOKEN`` opens it.
    """

    revisions: dict[str, Path] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    private: bool = False

    def resolve(self, revision: str) -> str | None:
        """Return the commit of a branch, a tag or a commit; None where there is none."""
        commit = self.branches.get(revision, revision)
        return commit if commit in self.revisions else None


@dataclass
class Hub:
    """The state of the server; tests change it while it runs.

    Attributes:
        address: URL, for ``HF_ENDPOINT``.
        repositories: By kind and id, such as ("models", "org/name").
        renamed: New id of each repository that has moved.
        limited: How many of the next requests are answered with 429, too many requests.
        cut: Names of files whose next download stops in the middle.
        requests: Method and path of every request so far.
        sent: Names of the files that were downloaded whole.
    """

    address: str
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    limited: int = 0
    cut: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)

    def push(self, kind: str, name: str, folder: Path, *, branch: str = "main") -> str:
        """Add a folder as the newest commit of a repository, and return the commit."""
        content = "".join(
            f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}"
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        )
        commit = hashlib.sha1(f"{name} {content}".encode(), usedforsecurity=False).hexdigest()
        repository = self.repositories.setdefault((kind, name), Repository())
        repository.revisions[commit] = folder
        repository.branches[branch] = commit
        return commit

    @contextmanager
    def offline(self) -> Iterator[None]:
        """Refuse every connection for as long as the context lasts."""
        self._stop()
        try:
            yield
        finally:
            self._start()

    def _start(self) -> None:
        address = urlsplit(self.address)
        self._server = ThreadingHTTPServer((str(address.hostname), address.port or 0), _Handler)
        self._server.state = self  # type: ignore[attr-defined]
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, args=(0.05,), daemon=True)
        self._thread.start()

    def _stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def hub() -> Iterator[Hub]:
    """Run a server on a free port for as long as the context lasts."""
    state = Hub("http://127.0.0.1:0")
    state._start()
    try:
        yield state
    finally:
        state._stop()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def state(self) -> Hub:
        return self.server.state  # type: ignore[attr-defined, no-any-return]

    def do_GET(self) -> None:
        self._route()

    def do_HEAD(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def log_message(self, *_: Any) -> None:
        """Stay silent."""

    def _route(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.sent_with = self.rfile.read(length)
        path = unquote(urlsplit(self.path).path)
        self.state.requests.append(f"{self.command} {path}")
        if path == "/":
            self._send(b"")
        elif self.state.limited > 0:
            self.state.limited -= 1
            self._refuse(429, "", "too many requests", {"Retry-After": "0"})
        elif path.startswith("/api/"):
            self._api(path.split("/")[2:])
        else:
            self._file(path.strip("/").split("/"))

    def _api(self, parts: list[str]) -> None:
        kind, name, rest = parts[0], "/".join(parts[1:3]), parts[3:]
        if kind not in {"models", "datasets"}:
            self._refuse(404, "", "no such address")
            return
        repository = self._open(kind, name, f"/api/{kind}/")
        if repository is None:
            return
        action, revision = (rest[0], rest[1]) if len(rest) > 1 else ("revision", "main")
        commit = repository.resolve(revision)
        if commit is None:
            self._refuse(404, "RevisionNotFound", f"no revision {revision}")
            return
        below = "/".join(rest[2:])
        if action == "revision":
            self._json(_about(name, commit, repository.revisions[commit]))
        elif action == "tree":
            self._tree(repository.revisions[commit], below)
        elif action == "paths-info":
            self._paths(repository.revisions[commit])
        elif action == "commits":
            self._json([_commit(found) for found in reversed(repository.revisions)])
        else:
            self._refuse(404, "", f"no action {action}")

    def _open(self, kind: str, name: str, before: str) -> Repository | None:
        """Return the repository, or answer why there is none."""
        if name in self.state.renamed:
            place = self.path.replace(before + name, before + self.state.renamed[name], 1)
            self.send_response(307)
            self.send_header("Location", place)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        found = self.state.repositories.get((kind, name))
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if found is None or (found.private and not allowed):
            self._refuse(401, "RepoNotFound", "Repository not found")
            return None
        return found

    def _tree(self, folder: Path, below: str) -> None:
        start = folder / below
        if not start.is_dir():
            self._refuse(404, "EntryNotFound", f"no folder {below}")
            return
        deep = "recursive=true" in self.path.lower()
        paths = sorted(start.rglob("*") if deep else start.iterdir())
        self._json([_entry(path, folder) for path in paths])

    def _paths(self, folder: Path) -> None:
        asked = self.sent_with.decode()
        try:
            wanted = json.loads(asked)["paths"]
        except ValueError:
            pairs = (pair.partition("=") for pair in asked.split("&"))
            wanted = [unquote(value) for key, _, value in pairs if key == "paths"]
        wanted = [wanted] if isinstance(wanted, str) else wanted
        found = [folder / path for path in wanted]
        self._json([_entry(path, folder) for path in found if path.exists() and path != folder])

    def _file(self, parts: list[str]) -> None:
        kind = "datasets" if parts[0] == "datasets" else "models"
        parts = parts[1:] if kind == "datasets" else parts
        name = "/".join(parts[:2])
        repository = self._open(kind, name, "/datasets/" if kind == "datasets" else "/")
        if repository is None:
            return
        if len(parts) < 5 or parts[2] != "resolve":
            self._refuse(404, "", "no such address")
            return
        commit = repository.resolve(parts[3])
        if commit is None:
            self._refuse(404, "RevisionNotFound", f"no revision {parts[3]}")
            return
        path = repository.revisions[commit].joinpath(*parts[4:])
        if not path.is_file():
            self._refuse(404, "EntryNotFound", f"no file {path.name}", {"X-Repo-Commit": commit})
            return
        self._send_file(path, commit)

    def _send_file(self, path: Path, commit: str) -> None:
        body = path.read_bytes()
        start, end = _range(self.headers.get("Range", ""), len(body))
        headers = {
            "ETag": f'"{hashlib.sha256(body).hexdigest()}"',
            "X-Repo-Commit": commit,
            "Accept-Ranges": "bytes",
        }
        partial = (start, end) != (0, len(body))
        if partial:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(body)}"
        stops = self.command == "GET" and path.name in self.state.cut
        self._send(body[start:end], 206 if partial else 200, headers, stops=stops)
        if stops:
            self.state.cut.discard(path.name)
        elif self.command == "GET":
            self.state.sent.append(path.name)

    def _json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), headers={"Content-Type": "application/json"})

    def _refuse(
        self, status: int, code: str, message: str, headers: dict[str, str] | None = None
    ) -> None:
        body = json.dumps({"error": message}).encode()
        about = {"Content-Type": "application/json", "X-Error-Message": message}
        if code:
            about["X-Error-Code"] = code
        self._send(body, status, about | (headers or {}))

    def _send(
        self,
        body: bytes,
        status: int = 200,
        headers: dict[str, str] | None = None,
        *,
        stops: bool = False,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if stops else body)
        if stops:
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()


def _range(header: str, size: int) -> tuple[int, int]:
    if not header.startswith("bytes="):
        return 0, size
    first, _, last = header.removeprefix("bytes=").partition("-")
    return int(first or 0), min(int(last) + 1, size) if last else size


def _about(name: str, commit: str, folder: Path) -> dict[str, Any]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    siblings = [{"rfilename": path.relative_to(folder).as_posix()} for path in files]
    return {"id": name, "sha": commit, "siblings": siblings, "private": False, "tags": []}


def _commit(commit: str) -> dict[str, Any]:
    when = "2026-01-01T00:00:00.000Z"
    return {"id": commit, "authors": [], "title": "push", "message": "", "date": when}


def _entry(path: Path, folder: Path) -> dict[str, Any]:
    oid = hashlib.sha1(str(path).encode(), usedforsecurity=False).hexdigest()
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": oid, "size": 0}
    body = path.read_bytes()
    return {"type": "file", "path": name, "oid": oid, "size": len(body)}
