"""`--token-file`: what subcommands that talk to a server present to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cluster.__main__ import main
from tests.cluster import scans

REFUSAL = b'{"type": "about:blank", "title": "no", "status": 403, "detail": "this server knows nobody"}'


@contextmanager
def listening() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """A server that refuses everyone, its address, and what it was asked: path and Authorization."""
    heard: list[tuple[str, str | None]] = []

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append((self.path.partition("?")[0], self.headers["authorization"]))
            self.rfile.read(int(self.headers["content-length"] or 0))
            self.send_response(403)
            self.send_header("content-type", "application/problem+json")
            self.send_header("content-length", str(len(REFUSAL)))
            self.end_headers()
            self.wfile.write(REFUSAL)

        do_POST = do_DELETE = do_GET

        def log_message(self, *_words: object) -> None:
            """Nobody reads it."""

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", heard
        finally:
            server.shutdown()
            thread.join()


COMMANDS = {
    "submit": ("/v1/scans", "{file}"),
    "scan": ("/v1/scans", "brain-se", "--speed", "0"),
    "status": ("/v1/cluster",),
    "jobs": ("/v1/scans",),
    "cancel": ("/v1/scans/x", "x"),
    "requeue": ("/v1/scans/x", "x"),
    "log": ("/v1/scans/x", "x"),
    "images": ("/v1/scans/x", "x", "--out", "x.h5"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_token_is_presented(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token, scan = tmp_path / "token", tmp_path / "scan.mrd"
    token.write_text("  open-sesame\n", encoding="utf-8")
    scan.write_bytes(scans.stream(scans.frames(1)))
    path, *words = COMMANDS[command]
    with listening() as (url, heard):
        assert main([command, *(word.format(file=scan) for word in words), "--server", url]) != 0
        assert main([command, *(word.format(file=scan) for word in words), "--server", url, "--token-file", str(token)])
    assert heard == [(path, None), (path, "Bearer open-sesame")]
    assert capsys.readouterr().err.count("this server knows nobody") == 2


def test_a_token_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", "--token-file", str(tmp_path / "none")]) == 2
    assert f"the token file {tmp_path / 'none'} cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["requeue", "cancel", "log", "images"])
@pytest.mark.parametrize("scan", ["../cluster", "x/y", "", "x?y", "x" * 65, "%2e%2e"])
def test_what_is_no_id_goes_to_no_server(command: str, scan: str, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--out", "new.h5"] if command == "images" else []
    with listening() as (url, heard):
        assert main([command, scan, *more, "--server", url]) == 2
    assert heard == []
    assert f"{scan[:40]!r} is no scan's id, expected letters and digits as `recon-cluster jobs` lists them" in (
        capsys.readouterr().err
    )
