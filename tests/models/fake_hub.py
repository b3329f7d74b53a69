"""A hub of Hugging Face on this machine: the few answers that the real client asks for."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FakeHub:
    """Repositories as commits of folders; a branch names a commit. `asked`: the paths that were asked for."""

    def __init__(self) -> None:
        self.commits: dict[str, Path] = {}
        self.branches: dict[str, str] = {}
        self.asked: list[str] = []
        self.url = ""

    def push(self, folder: Path, branch: str = "main") -> str:
        """Make a commit of a folder and move the branch to it; return the commit."""
        commit = hashlib.sha1(f"{len(self.commits)}".encode()).hexdigest()
        self.commits[commit] = folder
        self.branches[branch] = commit
        return commit

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a path of the repository org/tiny."""
        self.asked.append(path)
        path = path.partition("?")[0]
        missing = (404, {"X-Error-Code": "RepoNotFound"}, b"{}")
        if path.startswith("/api/models/org/tiny/revision/"):
            revision = path.rpartition("/")[2]
            commit = self.branches.get(revision, revision)
            if commit not in self.commits:
                return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
            return 200, {}, json.dumps({"id": "org/tiny", "sha": commit, "siblings": []}).encode()
        if path.startswith("/api/models/org/tiny/tree/"):
            files = self.commits[path.rpartition("/")[2]].iterdir()
            entries = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": _oid(file)} for file in sorted(files)
            ]
            return 200, {}, json.dumps(entries).encode()
        if path.startswith("/org/tiny/resolve/"):
            commit, _, name = path.removeprefix("/org/tiny/resolve/").partition("/")
            file = self.commits[commit] / name
            return 200, {"ETag": f'"{_oid(file)}"', "X-Repo-Commit": commit}, file.read_bytes()
        return missing


def _oid(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    """A hub that answers on the loopback as long as the block."""
    hub = FakeHub()

    class HubHandler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = hub.answer(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), HubHandler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
