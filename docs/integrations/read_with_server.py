"""llama-cpp-python's own server, and the openai client: python read_with_server.py MODEL TEXT [N_CTX] [SERVER ...]

SERVER is what starts it: python -m llama_cpp.server.
"""

import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
from openai import OpenAI

model, text, n_ctx = sys.argv[1], Path(sys.argv[2]).read_text(encoding="utf-8"), (sys.argv[3:] or ["4096"])[0]

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
start = sys.argv[4:] or [sys.executable, "-m", "llama_cpp.server"]
server = subprocess.Popen([*start, "--model", model, "--n_ctx", n_ctx, "--port", str(port)])
try:
    client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", timeout=None, max_retries=0)
    while server.poll() is None:
        try:
            httpx.get(f"http://127.0.0.1:{port}/v1/models")
            break
        except httpx.TransportError:
            time.sleep(0.2)
    answer = client.chat.completions.create(
        model="any", messages=[{"role": "user", "content": text}], max_tokens=64, temperature=0, stream=True
    )
    for chunk in answer:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()
finally:
    server.terminate()
    server.wait()
