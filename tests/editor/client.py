"""A client of the Language Server Protocol that knows nothing of pygls: messages over the pipes of a real process."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

URI = "file:///model.pattern"


class Client:
    """`blockdsl lsp` with one document; `said` are the diagnostics that it published, by version of the document."""

    def __init__(self, encodings: list[str] | None = None) -> None:
        command = [sys.executable, "-m", "blockdsl", "lsp"]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, **pipes)
        self.requests = self.version = 0
        self.said: dict[int, list[dict[str, Any]]] = {}
        can: dict[str, Any] = {"textDocument": {"rename": {"prepareSupport": True}}}
        if encodings is not None:
            can["general"] = {"positionEncodings": encodings}
        self.can = self.ask("initialize", {"processId": None, "rootUri": None, "capabilities": can})["capabilities"]
        self.tell("initialized", {})

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def send(self, message: dict[str, Any]) -> None:
        raw = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(raw) + raw)
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        pipe = self.process.stdout
        assert pipe is not None
        length = 0
        while (line := pipe.readline()) != b"\r\n":
            assert line, "the server has ended"
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        message: dict[str, Any] = json.loads(pipe.read(length))
        if message.get("method") == "textDocument/publishDiagnostics":
            self.said[message["params"].get("version")] = message["params"]["diagnostics"]
        return message

    def tell(self, method: str, params: Any) -> None:
        self.send({"method": method, "params": params})

    def ask_raw(self, method: str, params: Any) -> dict[str, Any]:
        """The whole answer, which may be an error."""
        self.requests += 1
        self.send({"id": self.requests, "method": method, "params": params})
        while (message := self.receive()).get("id") != self.requests:
            pass
        return message

    def ask(self, method: str, params: Any) -> Any:
        answer = self.ask_raw(method, params)
        assert "error" not in answer, answer
        return answer["result"]

    # The document ----------------------------------------------------------------------------------------------------

    def open(self, text: str) -> list[dict[str, Any]]:
        """Open it with this text; returns its diagnostics."""
        self.version += 1
        document = {"uri": URI, "languageId": "pattern", "version": self.version, "text": text}
        self.tell("textDocument/didOpen", {"textDocument": document})
        return self.diagnostics()

    def change(self, text: str) -> None:
        self.version += 1
        document = {"uri": URI, "version": self.version}
        self.tell("textDocument/didChange", {"textDocument": document, "contentChanges": [{"text": text}]})

    def diagnostics(self) -> list[dict[str, Any]]:
        """Those of the newest version."""
        while self.version not in self.said:
            self.receive()
        return self.said[self.version]

    def at(self, what: str, line: int, character: int, **more: Any) -> Any:
        """Ask about a position."""
        where = {"line": line, "character": character}
        return self.ask(f"textDocument/{what}", {"textDocument": {"uri": URI}, "position": where, **more})

    def of(self, what: str, **more: Any) -> Any:
        """Ask about the whole."""
        return self.ask(f"textDocument/{what}", {"textDocument": {"uri": URI}, **more})


def span(line: int, start: int, end: int, last: int | None = None) -> dict[str, Any]:
    """A range as JSON has it."""
    ends = ((line, start), (line if last is None else last, end))
    return dict(zip(("start", "end"), ({"line": at, "character": units} for at, units in ends), strict=True))
