"""The page to write patterns in, served to this machine's browser alone.

Owns the server and whom it answers: by the loopback address, with a random token in the address's path, asked by its
own page and by no other. What it answers is `respond`'s; it also saves the text to the one file that it was opened
with.
"""

from __future__ import annotations

import gc
import json
import secrets
import socket
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic
from typing import Any

from ..files import write_whole
from . import page
from .respond import respond

HOST = "127.0.0.1"
QUIET = 5.0  # seconds without a key
MOST = 4_000_000  # bytes of a request: two texts of the greatest length, and as much again

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class EditedFile:
    """What the page opens with.

    Attributes:
        text: the pattern; of a file, that which is in it now counts.
        name: what it is called, for the title and exported files.
        path: where it is saved; None: the page offers it as a download.
        settings: given beside the text.
    """

    text: str
    name: str = "pattern"
    path: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def opened(self) -> dict[str, Any]:
        """For the page; `seen` is what it saves over."""
        known: dict[str, Any] = {"name": self.name, "settings": dict(self.settings)}
        if self.path is None:
            return known | {"text": self.text, "file": None, "seen": ""}
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeError):
            text = self.text
        return known | {"text": text, "file": str(self.path), "seen": self._on_disk()}

    def save(self, text: Any, seen: str | None) -> dict[str, Any]:
        """Write the file, unless it is no longer what the page has seen; None: whatever it is."""
        if self.path is None:
            return {"ok": False, "problem": "the pattern was not opened from a file"}
        if not isinstance(text, str):
            return {"ok": False, "problem": "text is what to save"}
        if seen is not None and self._on_disk() != seen:
            return {"ok": False, "changed": True, "problem": f"{self.path} has changed since it was opened here"}
        try:
            write_whole(self.path, self._with_its_line_ends(text))
        except OSError as error:
            return {"ok": False, "problem": f"cannot write {self.path}: {error.strerror}"}
        except UnicodeError:  # half of a sign of two UTF-16 units, which a browser lets stand alone
            return {"ok": False, "problem": f"cannot write {self.path}: the text has a broken character"}
        return {"ok": True, "seen": self._on_disk()}

    def _with_its_line_ends(self, text: str) -> str:
        """A browser's text area has \\n alone; a file with \\r\\n at the end of each line keeps that."""
        if self.path is None or not self.path.is_file():
            return text
        before = self.path.read_bytes()
        windows = b"\r\n" in before and before.count(b"\n") == before.count(b"\r\n")
        return text.replace("\r\n", "\n").replace("\n", "\r\n") if windows else text

    def _on_disk(self) -> str:
        try:
            return "" if self.path is None else sha256(self.path.read_bytes()).hexdigest()
        except OSError:
            return ""


class Server(ThreadingHTTPServer):
    """Serves one document's page.

    Args:
        port: 0 takes any that is free.
        token: in the address; by default a random one.
    """

    daemon_threads = True

    def __init__(self, document: EditedFile, port: int = 0, token: str | None = None) -> None:
        self.document, self.token = document, secrets.token_urlsafe(24) if token is None else token
        self.connections: set[socket.socket] = set()
        self.answered = 0.0  # when it last answered, if it has since it looked for garbage
        self.working = threading.Lock()  # one answer at a time: two would only wait for one another
        super().__init__((HOST, port), _Handler)

    @cached_property
    def origin(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}"

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"{self.origin}/{self.token}/"

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Python looks for garbage in circles while nobody writes.

        It would do so in the middle of answers: one of 2,000 blocks makes a hundred thousand objects, of which next to
        none are in circles, and looking through them takes as long as the answer.
        """
        was = gc.isenabled()
        gc.disable()
        try:
            super().serve_forever(poll_interval)
        finally:
            if was:
                gc.enable()

    def service_actions(self) -> None:
        super().service_actions()
        if self.answered and monotonic() - self.answered > QUIET:
            self.answered = 0.0
            with self.working:
                gc.collect()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a browser that has left before its answer
            super().handle_error(request, client_address)

    def cut(self) -> None:
        """End the connections that browsers hold open."""
        for connection in [*self.connections]:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        with self.working:
            if request.get("do") == "open":
                return {"ok": True, **self.document.opened()}
            if request.get("do") == "save":
                return self.document.save(request.get("text"), request.get("seen", ""))
            try:
                return respond(request)
            finally:
                self.answered = monotonic()


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"  # one connection for all keys
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    timeout = 600

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        with suppress(OSError):  # a browser that has left
            super().finish()

    def do_GET(self) -> None:
        name = self._asked()
        if name is None:
            return
        try:
            content, type = page.file_content(name or "page.html")
        except FileNotFoundError:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such file")
            return
        self._send(HTTPStatus.OK, content, type)

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        body = self.rfile.read(int(length)) if length.isdecimal() and int(length) <= MOST else None
        name = self._asked()
        if name is None:
            return
        if self.headers.get("Origin") != self.server.origin:
            self._refuse(HTTPStatus.FORBIDDEN, "another page asks")
            return
        if name != "respond" or self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such request")
            return
        try:
            request = json.loads(body or b"")
        except (ValueError, RecursionError):  # no JSON, or lists in lists without end
            request = None
        if not isinstance(request, dict):
            self._refuse(HTTPStatus.BAD_REQUEST, "the request is no JSON, or too long")
            return
        answer = json.dumps(self.server.answer(request), separators=(",", ":"))
        self._send(HTTPStatus.OK, answer.encode(), "application/json")

    def _asked(self) -> str | None:
        """The name that a request is for; None where it has been refused."""
        port = self.server.server_address[1]
        if self.headers.get("Host") != f"{HOST}:{port}":
            self._refuse(HTTPStatus.FORBIDDEN, "the page is at the address that `blockdsl edit` printed")
            return None
        own = self.headers.get("Origin", self.server.origin) == self.server.origin
        if not own or self.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            self._refuse(HTTPStatus.FORBIDDEN, "another page asks")
            return None
        _, token, *rest = [*self.path.partition("?")[0].split("/"), ""][:4]
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN, "the page is at the address that `blockdsl edit` printed")
            return None
        return rest[0]

    def _refuse(self, status: HTTPStatus, words: str) -> None:
        self.close_connection = True
        self._send(status, f"{words}\n".encode(), "text/plain")

    def _send(self, status: HTTPStatus, content: bytes, type: str) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{type}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def version_string(self) -> str:
        return "blockdsl"

    def log_message(self, format: str, *arguments: Any) -> None:
        """A line for each key would hide what the terminal is for."""
