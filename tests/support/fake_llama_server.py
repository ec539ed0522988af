"""A program that passes for llama-server: it listens to a socket file, says what it was asked, and ends or is slow when told to."""

from __future__ import annotations

import json
import os
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

SLOW_S = 0.05
LAST_WORDS = "error: the fake was told to end"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(200, {"path": self.path})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        asked = json.loads(body)
        if asked.get("end"):
            print(LAST_WORDS, file=sys.stderr, flush=True)
            os._exit(3)
        if asked.get("stream"):
            self._stream()
        else:
            self._send(418 if asked.get("refuse") else 200, {"path": self.path, "body": asked, "key": self.headers.get("authorization")})

    def _send(self, status: int, found: object) -> None:
        data = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self) -> None:
        """Without end, until the client has left; a file says so."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.close_connection = True
        try:
            while True:
                self.wfile.write(b"data: {}\n\n")
                self.wfile.flush()
                time.sleep(SLOW_S)
        except OSError:
            Path(sys.argv[1]).write_text("left", encoding="utf-8")

    def address_string(self) -> str:
        return "socket"

    def log_message(self, *_: object) -> None:
        pass


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


if __name__ == "__main__":
    Server(sys.argv[sys.argv.index("--host") + 1], Handler).serve_forever()
