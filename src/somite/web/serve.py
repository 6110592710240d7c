"""A page on this machine alone. Browsers open no modules, workers and WebAssembly from file://, whose pages have no origin, so it takes a server."""

from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

from ..errors import InputError


class Isolated(SimpleHTTPRequestHandler):
    """Says that the page is isolated from others, by which browsers let WebAssembly have several threads."""

    extensions_map: ClassVar = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".js": "text/javascript",
        ".wasm": "application/wasm",
    }

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """Of a folder, for this machine. Raises InputError where the port is taken."""
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(Isolated, directory=str(folder)))
    except (OSError, OverflowError) as error:
        raise InputError(f"--port {port} cannot be used ({error}); choose another, 8766 say") from error


def serve(folder: Path, port: int, say: Callable[[str], None]) -> None:
    """Until it is interrupted."""
    with server(folder, port) as one:
        say(f"http://localhost:{one.server_port}/ shows the page, on this machine alone; Ctrl-C ends it")
        try:
            one.serve_forever()
        except KeyboardInterrupt:
            say("ended")
