"""An HTTP server on this machine that sends one file, whole or in one of the ways to fail."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """What is sent, and what was asked for.

    Args:
        content: the file.
        status: status code of every answer.
        sent_bytes: so many bytes are sent, then the connection is closed; None for all.
        announced_bytes: size in the header; None for none.
        stall: whether the server falls silent after `sent_bytes` instead, until `released` is set.
        requests: paths that were asked for; whole addresses where it is asked as a proxy.
    """

    content: bytes
    status: int = 200
    sent_bytes: int | None = None
    announced_bytes: int | None = None
    stall: bool = False
    requests: list[str] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    address: str = ""


@contextlib.contextmanager
def serve(content: bytes) -> Iterator[FileServer]:
    """Serve a file on a free port of this machine."""
    state = FileServer(content, announced_bytes=len(content))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append(self.path)
            self.send_response(state.status)
            if state.announced_bytes is not None:
                self.send_header("Content-Length", str(state.announced_bytes))
            self.end_headers()
            self.wfile.write(state.content[: state.sent_bytes])
            if state.stall:
                self.wfile.flush()
                state.stalled.set()
                state.released.wait(60)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        state.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
