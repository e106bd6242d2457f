"""A Hugging Face Hub on this machine: the part of its protocol that fetching and pushing a model needs."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

SHA = "a" * 40  # the commit of all models


class Server(ThreadingHTTPServer):
    """Models {"owner/name": {path: bytes}}; a push needs the token "good"."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.models, self.fetched = {}, []
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def reply(self, content=b"", code=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        path = unquote(urlsplit(self.path).path).strip("/").removeprefix("api/models/")
        name, what = "/".join(path.split("/")[:2]), path.split("/")[2:] or ["info"]
        files = self.server.models.get(name)
        if files is None:
            return self.reply({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        if len(what) > 1 and what[1] not in ("main", SHA):
            return self.reply({"error": "Invalid rev id"}, 404, X_Error_Code="RevisionNotFound")
        if what[0] == "tree":
            return self.reply([{"type": "file", "path": path, "size": len(data), "oid": _oid(data)}
                               for path, data in files.items()])  # fmt: skip
        if what[0] == "resolve":
            data = files["/".join(what[2:])]
            self.server.fetched += ["/".join(what[2:])] if self.command == "GET" else []
            return self.reply(data, ETag=f'"{_oid(data)}"', X_Repo_Commit=SHA)
        return self.reply({"id": name, "sha": SHA, "siblings": [{"rfilename": path} for path in files]})

    do_HEAD = do_GET

    def do_POST(self):
        body, path = self.rfile.read(int(self.headers["Content-Length"] or 0)), urlsplit(self.path).path.strip("/")
        if path == "api/validate-yaml":
            return self.reply({"errors": [], "warnings": []})
        if self.headers["Authorization"] != "Bearer good":
            return self.reply({"error": "Invalid username or password."}, 401)
        if path == "api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.models.setdefault(name, {})
            return self.reply({"url": f"{self.server.url}/{name}", "id": name})
        _, _, owner, name, what, _ = path.split("/")
        if what == "preupload":
            return self.reply({"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                                         for file in json.loads(body)["files"]]})  # fmt: skip
        files = self.server.models[f"{owner}/{name}"]
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del files[line["value"]["path"]]
        return self.reply({"commitUrl": f"{self.server.url}/{owner}/{name}/commit/{SHA}", "commitOid": SHA})


def _oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
