"""A server that answers `huggingface_hub` as the hub does: repositories in a folder, LFS, cards that are checked.

python tests/support/fake_hub.py FOLDER
"""

import base64
import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

WRITES, READS = "hf_may_write", "hf_may_read"
"""Tokens that it knows."""
COMMIT = "0123456789" * 4


class Hub(BaseHTTPRequestHandler):
    """One request; state is files: FOLDER/OWNER/NAME, visibility beside it, LFS objects in FOLDER/lfs."""

    root: Path

    def do_GET(self) -> None:
        found = re.fullmatch(r"/api/models/([\w./-]+)", self.path)
        if found and (mark := (self.root / found[1]).with_suffix(".visibility")).exists():
            private = mark.read_text() == "private"
            self._answer(200, {"id": found[1], "private": private, "sha": COMMIT, "siblings": []})
        else:
            self._answer(404, {"error": f"no such page: {self.path}"})

    def do_PUT(self) -> None:
        (self.root / "lfs").mkdir(exist_ok=True)
        (self.root / "lfs" / self.path.rpartition("/")[2]).write_bytes(self._body())
        self._answer(200, {})

    def do_POST(self) -> None:
        token, body = self.headers.get("Authorization", ""), self._body()
        if token != f"Bearer {WRITES}":
            status = 403 if token == f"Bearer {READS}" else 401
            self._answer(status, {"error": "this token may not do that"})
            return
        for pattern, answer in PAGES.items():
            if found := re.fullmatch(pattern, self.path):
                self._answer(*answer(self, body, *found.groups()))
                return
        self._answer(404, {"error": f"no such page: {self.path}"})

    def create(self, body: bytes) -> tuple[int, Any]:
        asked = json.loads(body)
        name = f"{asked['organization'] or 'me'}/{asked['name']}"
        mark, there = (self.root / name).with_suffix(".visibility"), (self.root / name).exists()
        (self.root / name).mkdir(parents=True, exist_ok=True)
        if not there:
            mark.write_text(asked["visibility"])
        return (409 if there else 200), {"url": f"{self._url()}/{name}", "name": name, "error": "it exists"}

    def check(self, body: bytes) -> tuple[int, Any]:
        head = yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
        wrong = [
            name for name in ("license", "base_model") if name in head and not re.fullmatch(r"[\w./-]+", head[name])
        ]
        errors = [{"message": f"{name} is wrong"} for name in wrong]
        return (400 if errors else 200), {"errors": errors, "warnings": []}

    def preupload(self, body: bytes, repo: str) -> tuple[int, Any]:
        def mode(path: str) -> str:
            return "lfs" if path.endswith(".safetensors") else "regular"

        files = json.loads(body)["files"]
        return 200, {
            "files": [{"path": f["path"], "uploadMode": mode(f["path"]), "shouldIgnore": False} for f in files]
        }

    def batch(self, body: bytes, repo: str) -> tuple[int, Any]:
        def upload(oid: str) -> dict[str, Any]:
            return {"upload": {"href": f"{self._url()}/lfs/{oid}", "header": {}}}

        objects = json.loads(body)["objects"]
        return 200, {"transfer": "basic", "objects": [{**each, "actions": upload(each["oid"])} for each in objects]}

    def commit(self, body: bytes, repo: str) -> tuple[int, Any]:
        lines = [json.loads(line) for line in body.splitlines()]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                continue
            data = self.root / "lfs" / value["oid"] if line["key"] == "lfsFile" else None
            content = data.read_bytes() if data else base64.b64decode(value["content"])
            (self.root / repo / value["path"]).write_bytes(content)
        with (self.root / repo).with_suffix(".commits").open("a") as log:
            log.write(f"{lines[0]['value']['summary']}\n")
        return 200, {"commitUrl": f"{self._url()}/{repo}/commit/{COMMIT}", "commitOid": COMMIT}

    def _url(self) -> str:
        return f"http://{self.headers['Host']}"

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, status: int, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing of requests."""


PAGES = {
    r"/api/repos/create": Hub.create,
    r"/api/validate-yaml": Hub.check,
    r"/api/models/([\w./-]+)/preupload/main": Hub.preupload,
    r"/([\w./-]+)\.git/info/lfs/objects/batch": Hub.batch,
    r"/api/models/([\w./-]+)/commit/main": Hub.commit,
}


if __name__ == "__main__":
    Hub.root = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    print(f"Serving http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
