"""Trains one seed of the ruler model within a given time, on a GPU if there is one, and says how it answers inside its window.

As `fixture_model.train`: processes make rows as they are needed; the learning rate and the curriculum follow the clock, which
starts when the network is compiled. Writes `OUT/seed-N.npz` (matrices in q8_0's blocks) and `OUT/seed-N.txt`, the scores.

    PYTHONPATH=..:../.. python -m ruler_model.train --corpus corpus.txt --tokenizer tokenizer.json --out OUT --seconds 300 --seed 0
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import queue as queues
import random
import time
from multiprocessing.queues import Queue
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from fixture_model.muon import Muon
from fixture_model.network import Network, Shape
from fixture_model.tasks import END, Filler
from ruler_model.practice import TASKS, WINDOW, Practice, _encoded, row
from tokenizers import Tokenizer

SHAPE = Shape(n_vocab=4096, n_layer=8, n_embd=384, n_head=6, n_head_kv=3, n_ff=1024, window=WINDOW, dropout=0.0)
CHUNK = 16
WARM_UP, DECAY_FROM = 0.02, 0.4
Rows = tuple[np.ndarray, np.ndarray]


def make_rows(queue: Queue[Rows], progress: Synchronized[float], corpus: Path, tokenizer: Path, seed: int) -> None:
    """Put chunks of rows, token ids and weights, each of shape (CHUNK, WINDOW + 1), into the queue for ever."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    loaded = Tokenizer.from_file(str(tokenizer))
    practice = Practice(Filler.load(corpus, loaded, seed), loaded, seed)
    rng = random.Random(f"rows/{seed}")
    while True:
        rows = [row(rng, practice, WINDOW + 1, progress.value) for _ in range(CHUNK)]
        queue.put((np.array([t for t, _ in rows], np.uint16), np.array([w for _, w in rows], np.uint8)))


def learning_rate(progress: float) -> float:
    """The factor of the learning rates: a short rise, a plateau, and a straight line to zero."""
    return min(1.0, progress / WARM_UP, (1.02 - progress) / (1.02 - DECAY_FROM))


def save(network: Network, path: Path) -> None:
    """Matrices as q8_0 does them: blocks of 32 along a row, a float16 scale and 32 int8 each."""
    arrays: dict[str, np.ndarray] = {}
    for name, p in network.named_parameters():
        values = p.detach().float().cpu().numpy()
        if values.ndim == 1:
            arrays[name] = values
            continue
        blocks = values.reshape(values.shape[0], -1, 32)
        scales = (np.abs(blocks).max(-1, keepdims=True) / 127).astype(np.float16)
        arrays[f"{name}/scales"] = scales[..., 0]
        arrays[f"{name}/q8"] = np.round(blocks / np.maximum(scales.astype(np.float32), 1e-12)).clip(-127, 127).astype(np.int8)
    np.savez(path, **arrays)


def train(args: argparse.Namespace, network: Network, device: str) -> None:
    context = multiprocessing.get_context("spawn")
    queue: Queue[Rows] = context.Queue(maxsize=args.workers * 8)
    progress = context.Value("d", 0.0)
    workers = [
        context.Process(target=make_rows, args=(queue, progress, args.corpus, args.tokenizer, 1000 * args.seed + i), daemon=True)
        for i in range(args.workers)
    ]
    for worker in workers:
        worker.start()
    matrices = [p for n, p in network.named_parameters() if p.ndim == 2 and n != "token_embd"]
    others = [p for n, p in network.named_parameters() if p.ndim < 2 or n == "token_embd"]
    optimizers = [
        Muon(matrices, lr=args.lr, weight_decay=0.02),
        torch.optim.AdamW(others, lr=0.15 * args.lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    rates = [o.param_groups[0]["lr"] for o in optimizers]
    forward = torch.compile(network) if args.compile else network
    pool: list[Rows] = []
    rng = random.Random(args.seed)
    started = time.monotonic()
    step = drawn = 0
    while (done := (time.monotonic() - started) / args.seconds) < 1 and step < args.steps:
        if step == 3:
            started = time.monotonic()
            done = 0.0
        progress.value = done
        chunks = []
        for _ in range(args.batch // CHUNK):
            # Where the processes are too slow, a chunk is practised again.
            try:
                fresh = queue.get(timeout=None if len(pool) < 64 else 0.0005)
                drawn += 1
                pool.append(fresh)
                if len(pool) > 4096:
                    pool.pop(rng.randrange(2048))
            except queues.Empty:
                fresh = pool[rng.randrange(max(0, len(pool) - 1024), len(pool))]
            chunks.append(fresh)
        tokens = torch.from_numpy(np.concatenate([c[0] for c in chunks]).astype(np.int64)).to(device, non_blocking=True)
        weights = torch.from_numpy(np.concatenate([c[1] for c in chunks])).to(device, non_blocking=True)[:, 1:].float()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            logits = forward(tokens[:, :-1])
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
            parts = " ".join(f"{w}:{nll[weights == w].mean().item():.3f}" for w in (1, 3, 30))
            seconds = time.monotonic() - started
            speed = (step - 3) * args.batch * WINDOW / seconds / 1e6
            fresh_share = drawn * CHUNK / step / args.batch
            print(f"seed {args.seed}: {step} {seconds:.0f}s {parts} {speed:.3f} Mtok/s, fresh {fresh_share:.2f}", flush=True)
    for worker in workers:
        worker.terminate()


@torch.no_grad()
def evaluate(network: Network, tokenizer: Tokenizer, practice: Practice, device: str, samples: int) -> list[str]:
    """For each task the share of answers that are right word for word, greedy, in documents that nearly fill the window."""
    network.eval()
    rng = random.Random("evaluate")
    end = tokenizer.token_to_id(END)
    lines = []
    names = [*(f"ruler/{name}" for name in _NAMES), "babilong", "gap", "facts", "document", "fact list", "pass key"]
    for name, (task, _) in zip(names, TASKS, strict=False):
        wanted, prompts = [], []
        while len(prompts) < samples:
            parts = task(rng, practice, WINDOW - 130)
            asked = [i for i, (_, weight) in enumerate(parts) if weight == 30][-1:]
            if not asked:
                continue
            prompt, _ = _encoded(practice, parts[: asked[0]])
            answer = tokenizer.encode(parts[asked[0]][0], add_special_tokens=False).ids
            prompt = prompt[:-1]  # without END
            if len(prompt) + len(answer) <= WINDOW:
                prompts.append(prompt)
                wanted.append(answer)
        longest = max(map(len, wanted))
        width = max(map(len, prompts))
        tokens = torch.full((samples, width + longest), end, device=device)
        for i, prompt in enumerate(prompts):
            tokens[i, width - len(prompt) : width] = torch.tensor(prompt, device=device)
        for at in range(width, width + longest):
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                tokens[:, at] = network(tokens[:, max(0, at - WINDOW) : at])[:, -1].argmax(-1)
        said = [tokens[i, width : width + len(answer)].tolist() for i, answer in enumerate(wanted)]
        right = sum(a == b for a, b in zip(said, wanted, strict=True))
        tokenwise = np.mean([np.mean([x == y for x, y in zip(a, b, strict=True)]) for a, b in zip(said, wanted, strict=True)])
        lines.append(f"{name}: {right}/{samples}, tokens {tokenwise:.3f}, {int(np.mean([len(p) for p in prompts]))} tokens of prompt")
    return lines


_NAMES = (
    "niah_single_1", "niah_single_2", "niah_single_3", "niah_multikey_1", "niah_multikey_2", "niah_multikey_3", "niah_multivalue",
    "niah_multiquery", "vt", "cwe", "fwe",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--batch", type=int, default=64, help="rows in a step, a multiple of 16")
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--log", type=int, default=200)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = Network(SHAPE).to(device)
    print(f"{sum(p.numel() for p in network.parameters()):,} parameters on {device}", flush=True)
    train(args, network, device)
    save(network, args.out / f"seed-{args.seed}.npz")
    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    lines = evaluate(network, tokenizer, Practice(Filler.load(args.corpus, tokenizer), tokenizer, 10**6), device, args.samples)
    (args.out / f"seed-{args.seed}.txt").write_text("\n".join(lines) + "\n")
    print("\n".join(f"seed {args.seed}: {line}" for line in lines), flush=True)


if __name__ == "__main__":
    main()
