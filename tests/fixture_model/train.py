"""Trains the fixture model within a given time, on a GPU if there is one.

Processes make rows of tokens as they are needed; the learning rate and the curriculum follow the clock. Writes
`OUT/weights.npz` (float16) every minute and at the end, and prints how well pass keys are found inside the window.

    PYTHONPATH=../.. python train.py --corpus corpus.txt --tokenizer tokenizer.json --out OUT --seconds 300
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import time
from multiprocessing.queues import Queue
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from muon import Muon
from network import Network, Shape
from tasks import Filler, passkey_prompt, row
from tokenizers import Tokenizer

CHUNK = 64
WARM_UP, DECAY_FROM = 0.02, 0.4
Rows = tuple[np.ndarray, np.ndarray]


def make_rows(queue: Queue[Rows], progress: Synchronized[float], corpus: Path, tokenizer: Path, length: int, seed: int) -> None:
    """Put chunks of rows, token ids and weights, each of shape (CHUNK, length + 1), into the queue for ever."""
    loaded = Tokenizer.from_file(str(tokenizer))
    filler = Filler.load(corpus, loaded, seed)
    rng = random.Random(seed)
    while True:
        rows = [row(rng, filler, loaded, length + 1, progress.value) for _ in range(CHUNK)]
        queue.put((np.array([t for t, _ in rows], np.uint16), np.array([w for _, w in rows], np.uint8)))


def learning_rate(progress: float) -> float:
    """The factor of the learning rates: a short rise, a plateau, and a straight line to zero."""
    return min(1.0, progress / WARM_UP, (1.02 - progress) / (1.02 - DECAY_FROM))


def sharpness(batch: int, device: str) -> torch.Tensor:
    """Factors of the attention scores. Scores that are too low stand in for a text with many more keys than the window holds."""
    return 1 - 0.4 * torch.rand(batch, device=device) * (torch.rand(batch, device=device) < 0.6)


def save(network: Network, path: Path) -> None:
    arrays = {name: p.detach().float().cpu().numpy().astype(np.float16) for name, p in network.named_parameters()}
    np.savez(path, **arrays)


def train(args: argparse.Namespace, network: Network, device: str) -> None:
    context = multiprocessing.get_context("spawn")
    queue: Queue[Rows] = context.Queue(maxsize=args.workers * 8)
    progress = context.Value("d", 0.0)
    workers = [
        context.Process(target=make_rows, args=(queue, progress, args.corpus, args.tokenizer, network.shape.window, i), daemon=True)
        for i in range(args.workers)
    ]
    for worker in workers:
        worker.start()
    matrices = [p for n, p in network.named_parameters() if p.ndim == 2 and n != "token_embd"]
    others = [p for n, p in network.named_parameters() if p.ndim < 2 or n == "token_embd"]
    optimizers = [
        Muon(matrices, lr=args.lr, weight_decay=0.05),
        torch.optim.AdamW(others, lr=0.15 * args.lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    rates = [o.param_groups[0]["lr"] for o in optimizers]
    forward = torch.compile(network) if args.compile else network
    started = saved = time.monotonic()
    step = waited = 0
    while (done := (time.monotonic() - started) / args.seconds) < 1 and step < args.steps:
        before = time.monotonic()
        chunks = [queue.get() for _ in range(args.batch // CHUNK)]
        waited += time.monotonic() - before
        progress.value = done
        tokens = torch.from_numpy(np.concatenate([c[0] for c in chunks]).astype(np.int64)).to(device, non_blocking=True)
        weights = torch.from_numpy(np.concatenate([c[1] for c in chunks])).to(device, non_blocking=True)[:, 1:].float()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            logits = forward(tokens[:, :-1], sharpness(args.batch, device))
            nll = F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="none").view(weights.shape)
        loss = (nll * weights).sum() / weights.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * learning_rate(done)
            optimizer.step()
            optimizer.zero_grad()
        step += 1
        if step % args.log == 0:
            parts = " ".join(f"{w}:{nll[weights == w].mean().item():.3f}" for w in (1, 3, 12))
            seconds = time.monotonic() - started
            speed = step * args.batch * network.shape.window / seconds / 1e6
            print(f"{step} {seconds:.0f}s {parts} {speed:.3f} Mtok/s waited {waited:.1f}s", flush=True)
        if time.monotonic() - saved > 60:
            saved = time.monotonic()
            save(network, args.out / "weights.npz")
    for worker in workers:
        worker.terminate()
    save(network, args.out / "weights.npz")


@torch.no_grad()
def evaluate(network: Network, tokenizer: Tokenizer, device: str, per_depth: int = 32) -> None:
    """Print the share of pass keys found (greedy, every digit) at depths of a text that nearly fills the window."""
    network.eval()
    rng = random.Random(1)
    for depth in range(0, 11, 2):
        found = 0
        for _ in range(per_depth):
            prompt, key = passkey_prompt(rng, n_lines=17, depth=depth / 10)
            ids = tokenizer.encode(prompt, add_special_tokens=False).ids
            prompt_length = len(ids)
            while len(ids) < prompt_length + len(key) + 1:
                ids.append(int(network(torch.tensor([ids], device=device))[0, -1].argmax()))
            found += tokenizer.decode(ids[prompt_length:]).strip() == key
        print(f"depth {depth / 10}: {found}/{per_depth} of {prompt_length} tokens", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--batch", type=int, default=128, help="rows in a step, a multiple of 64")
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--log", type=int, default=50)
    parser.add_argument("--layers", type=int, default=Shape.n_layer)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = Network(Shape(n_layer=args.layers)).to(device)
    print(f"{sum(p.numel() for p in network.parameters()):,} parameters on {device}", flush=True)
    train(args, network, device)
    evaluate(network, Tokenizer.from_file(str(args.tokenizer)), device)


if __name__ == "__main__":
    main()
