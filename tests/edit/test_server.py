"""Whom the server of the page answers, and what it saves."""

from __future__ import annotations

import gc
import http.client
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import blockdsl
from blockdsl import UserError
from blockdsl.editor import page
from blockdsl.editor.server import HOST, MOST, EditedFile, Server
from xt_blocks.cli import edit, parser


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    path = tmp_path / "model.pattern"
    path.write_text("(a f)*6\n")
    server = Server(EditedFile(path.read_text(), path.name, path))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def send(server: Server, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, Any]:
    """As no browser would: every header is the caller's."""
    connection = http.client.HTTPConnection(HOST, server.server_address[1], timeout=10)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    own = {"Host": f"{HOST}:{server.server_address[1]}"} | {n.replace("_", "-"): v for n, v in headers.items()}
    for name, value in own.items():
        connection.putheader(name, value)
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content, answer.headers


def ask(server: Server, request: Any, **headers: str) -> tuple[int, Any]:
    own = {"Origin": server.origin, "Content_Type": "application/json"} | headers
    status, content, _ = send(server, "POST", f"/{server.token}/respond", json.dumps(request).encode(), **own)
    return status, json.loads(content) if status == 200 else content.decode()


def test_garbage_is_looked_for_while_nobody_writes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def note(phase: str, about: dict[str, int]) -> None:
        looked.append(phase)

    gc.callbacks.append(note)
    try:
        assert ask(server, {"do": "look", "text": "a(heads=2) f " * 200})[1]["ok"]
        assert not looked
        monkeypatch.setattr("blockdsl.editor.server.QUIET", 0.0)
        until = time.monotonic() + 10
        while "stop" not in looked and time.monotonic() < until:
            time.sleep(0.01)
        assert looked == ["start", "stop"]
        time.sleep(0.1)
        assert len(looked) == 2, "once for all answers"
    finally:
        gc.callbacks.remove(note)
    server.shutdown()
    assert gc.isenabled()


def test_a_browser_that_leaves_before_its_answer_is_no_error(
    server: Server, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    left, answered = threading.Event(), threading.Event()

    def answer(request: Any) -> dict[str, Any]:
        left.wait(10)
        answered.set()
        return {"ok": True, "text": "x" * 10_000_000}

    monkeypatch.setattr("blockdsl.editor.server.respond", answer)
    connection = http.client.HTTPConnection(HOST, server.server_address[1], timeout=10)
    headers = {"Origin": server.origin, "Content-Type": "application/json"}
    connection.request("POST", f"/{server.token}/respond", b"{}", headers)
    assert connection.sock is not None
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close by a reset
    connection.close()
    left.set()
    assert answered.wait(10)
    until = time.monotonic() + 10
    while server.connections and time.monotonic() < until:
        time.sleep(0.01)
    assert not server.connections
    assert capfd.readouterr().err == ""
    monkeypatch.undo()
    assert ask(server, {"do": "format", "text": "a  f"})[1]["text"] == "a f\n"


def test_it_is_on_the_loopback_address_alone(server: Server) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"
    assert server.address.startswith("http://127.0.0.1:")


def test_every_file_of_the_page_is_served_with_headers_that_let_nothing_else_in(server: Server) -> None:
    for name in ("", *page.file_names()):
        status, content, headers = send(server, "GET", f"/{server.token}/{name}")
        assert status == 200
        assert content == page.file_content(name or "page.html")[0]
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "Access-Control-Allow-Origin" not in headers


def test_the_token_is_random_and_long(server: Server) -> None:
    with Server(EditedFile("a")) as other:
        assert other.token != server.token
        assert len(other.token) >= 32


@pytest.mark.parametrize(
    "path", ["/", "/page.html", "/wrong/", "/wrong/page.html", "/wrong/respond", "//", "/{}x/", "*"]
)
def test_nothing_is_answered_without_the_token(server: Server, path: str) -> None:
    path = path.format(server.token)
    assert send(server, "GET", path)[0] == 403
    body = json.dumps({"do": "open"}).encode()
    status, content, _ = send(server, "POST", path, body, Origin=server.origin, Content_Type="application/json")
    assert status == 403
    assert b"(a f)" not in content


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost:{}", "evil.example:{}"])
def test_another_host_is_refused(server: Server, host: str) -> None:
    """A name that an attacker makes lead here (DNS rebinding)."""
    host = host.format(server.server_address[1])
    assert send(server, "GET", f"/{server.token}/", Host=host)[0] == 403
    assert ask(server, {"do": "open"}, Host=host)[0] == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1", "http://localhost:{}", ""])
def test_another_origin_is_refused(server: Server, origin: str) -> None:
    origin = origin.format(server.server_address[1])
    assert send(server, "GET", f"/{server.token}/", Origin=origin)[0] == 403
    assert ask(server, {"do": "open"}, Origin=origin)[0] == 403
    assert ask(server, {"do": "save", "text": "x"}, Origin=origin)[0] == 403
    assert server.document.path is not None
    assert server.document.path.read_text() == "(a f)*6\n"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_another_page_loads_is_refused(server: Server, site: str) -> None:
    assert send(server, "GET", f"/{server.token}/page.css", Sec_Fetch_Site=site)[0] == 403


def test_settings_are_judged_by_what_they_are(server: Server) -> None:
    """`true` and 1 are equal to Python, and only one of them is a value of `causal`."""

    def faults(settings: dict[str, Any]) -> list[str]:
        answer = ask(server, {"do": "read", "text": "a f", "settings": settings})[1]
        return [fault["message"] for fault in answer["text"]["faults"]]

    assert faults({"causal": True}) == []
    assert faults({"causal": 1}) == ["causal must be true or false, not 1"]
    assert faults({"dim": {}}) == ["dim must be a whole number of at least 1, not {}"]
    assert faults({"dim": 64}) == []
    assert faults({"dim": 64.0}) == ["dim must be a whole number of at least 1, not 64.0"]


def test_other_requests_are_refused_in_words(server: Server) -> None:
    assert send(server, "GET", f"/{server.token}/../server.py")[0] == 404
    assert send(server, "GET", f"/{server.token}/nothing.js")[0] == 404
    assert ask(server, {"do": "open"}, Content_Type="text/plain")[0] == 404
    own = {"Origin": server.origin, "Content_Type": "application/json"}
    for body in (b"{", b"[]", b"\xff", b"1", b"[" * 200_000):
        assert send(server, "POST", f"/{server.token}/respond", body, **own)[0] == 400
    long = send(server, "POST", f"/{server.token}/respond", None, Content_Length=str(MOST + 1), **own)
    assert long[0] == 400
    assert send(server, "PUT", f"/{server.token}/respond", b"")[0] == 501
    assert ask(server, {"do": "nothing"})[1]["problem"].startswith("there is no request 'nothing'; there are ")
    listed = ask(server, {"do": "look", "text": "a", "settings": [1]})[1]
    assert listed == {"ok": False, "problem": "settings must be an object of names and values, not list"}


def test_opening_and_saving(server: Server) -> None:
    path = server.document.path
    assert path is not None
    status, opened = ask(server, {"do": "open"})
    assert status == 200
    seen = opened.pop("seen")
    for unsaid in ({}, {"text": None, "seen": seen}, {"text": ["a"], "seen": None}, {"text": "a"}):
        assert not ask(server, {"do": "save"} | unsaid)[1]["ok"]
    assert path.read_text() == "(a f)*6\n"
    assert opened == {"ok": True, "text": "(a f)*6\n", "name": "model.pattern", "file": str(path), "settings": {}}
    answer = ask(server, {"do": "save", "text": "a f  # × 🙂\r\n", "seen": seen})[1]
    assert answer["ok"]
    assert path.read_bytes() == "a f  # × 🙂\r\n".encode()
    assert ask(server, {"do": "open"})[1]["seen"] == answer["seen"] != seen


def test_what_another_program_or_tab_wrote_is_not_lost(server: Server) -> None:
    path = server.document.path
    assert path is not None
    seen = ask(server, {"do": "open"})[1]["seen"]
    path.write_text("f*3\n")
    assert ask(server, {"do": "open"})[1]["text"] == "f*3\n"
    answer = ask(server, {"do": "save", "text": "a", "seen": seen})[1]
    assert (answer["ok"], answer["changed"]) == (False, True)
    assert answer["problem"] == f"{path} has changed since it was opened here"
    assert path.read_text() == "f*3\n"
    saved = ask(server, {"do": "save", "text": "a", "seen": None})[1]
    assert ask(server, {"do": "save", "text": "a f", "seen": saved["seen"]})[1]["ok"]
    assert path.read_text() == "a f"
    path.unlink()
    assert ask(server, {"do": "save", "text": "a", "seen": saved["seen"]})[1]["changed"]


def test_a_name_that_no_file_has_is_a_new_file_and_a_pipe_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "new.pattern"
    new = edit.document(parser().parse_args(["edit", str(path)]))
    opened = new.opened()
    assert (opened["text"], opened["file"], path.exists()) == ("(a f)*6\n", str(path), False)
    assert new.save("a f\n", opened["seen"])["ok"]
    assert path.read_text() == "a f\n"
    for other in (tmp_path / "no" / "new.pattern", tmp_path / "new.txt"):
        with pytest.raises(UserError, match="there is no file"):
            edit.document(parser().parse_args(["edit", str(other)]))
    if Path("/dev/fd").exists():
        read, write = os.pipe()
        os.write(write, b"f*3\n")
        os.close(write)
        piped = edit.document(parser().parse_args(["edit", f"/dev/fd/{read}"]))
        os.close(read)
        assert (piped.opened()["text"], piped.path) == ("f*3\n", None)


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    path = tmp_path / "no" / "model.pattern"
    answer = EditedFile("a", "model", path).save("a", None)
    assert not answer["ok"]
    assert answer["problem"].startswith(f"cannot write {path}: ")
    assert EditedFile("a").save("a", "")["problem"] == "the pattern was not opened from a file"


def test_costs_are_of_the_length_that_is_asked_for(server: Server) -> None:
    graph = blockdsl.compile("a f", dim=64, heads=2)
    for length in (8, 512, 8):
        request = {"do": "look", "text": "a f", "settings": {"dim": 64, "heads": 2}, "seq_len": length}
        _, answer = ask(server, request)
        assert answer["costs"]["total"]["flops"][1] == f"{round(graph.flops(length) / length):,}"
