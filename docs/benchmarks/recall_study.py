"""Forms of recall in float32, by torch: what each gives before it is built. Any Llama model of GGUF, its weights as float32.

    python docs/benchmarks/recall_study.py MODEL.gguf TEXT.txt TASK --tokens N --form w=1024,fetched=1024,looks=32

TASK: nll, keys, facts, as in recall.py beside this file, which also makes the texts. Prints one JSON object a form. Needs torch (a GPU
for more than a few thousand tokens) and gguf besides the package. Figures: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import gguf
import llama_cpp as api
import numpy as np
import recall
import torch
import torch.nn.functional as F

from selfextend_local.positions import choose

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MICRO_BATCH = 512
torch.set_grad_enabled(False)


@dataclass(frozen=True)
class Form:
    """How far text is read. Lengths in tokens."""

    w: int = 1024
    r: int = 512
    sinks: int = 64
    fetched: int = 2048
    span: int = 32
    looks: int = 32  # queries of a choice that look, at most
    means: int = 0  # 1: looks are means of neighbours, 2: with the length of those; 0: the last of each stretch
    chunk: int = MICRO_BATCH  # queries that share a choice
    per_head: int = 0  # each key head makes its own choice
    sentences: int = 0  # spans end where sentences do
    coarse: int = 0  # what isn't fetched is seen as the mean key and value of so many tokens
    coarse_weight: float = 1.0  # that counts as this power of their number
    near: int = 0  # shares are of near text too
    at: int = 0  # the distance from which is looked, w if 0
    rare: int = 0  # of each stretch looks: 1 the token with the highest number, 2 the one that came least before, 3 (1) of those that
    # came before, 4 (1) each token once, 5 (1) at the end of words; 6: (1) of all queries, not of each stretch
    stagger: int = 0  # each layer asks other queries of the stretches
    longest: int = 0  # the longest queries look
    sharp: float = 1.0  # scores are multiplied by it
    power: float = 1.0  # shares are raised to it before heads are summed
    value: int = 0  # shares are multiplied by the length of the values
    norm: float = 0.0  # looks are summed as powers, 0: the largest counts
    mass: float = 0.0  # spans count by their best token and so much of their sum
    decay: float = 0.0  # what the micro-batch before looked at still counts so much
    layers: int = 1  # layers that share a choice
    plain_until: int = 0  # nothing is left out of a shorter text
    groups: int = 0  # no recall: progressive groups, as the package chooses them for so many tokens
    string: int = 0  # no recall: STRING (arXiv:2410.18745), distances from here on begin again ...
    string_w: int = 128  # ... here
    yarn: float = 0.0  # no recall: YaRN (arXiv:2309.00071) of a text so many windows long, as llama.cpp computes it
    yarn_temperature: int = 1

    @classmethod
    def of(cls, text: str) -> Form:
        types = {field.name: type(field.default) for field in fields(cls)}
        return cls(**{key: types[key](value) for key, _, value in (part.partition("=") for part in text.split(",") if part)})


class Reader:
    """As recall.Reader."""

    def __init__(self, path: str, form: Form, n_ctx: int) -> None:
        api.llama_backend_init()
        self._quiet = api.llama_log_callback(lambda level, text, data: None)
        api.llama_log_set(self._quiet, ctypes.c_void_p(0))
        params = api.llama_model_default_params()
        params.vocab_only = True
        self.model = api.llama_model_load_from_file(path.encode(), params)
        self.vocab = api.llama_model_get_vocab(self.model)
        self.reading = self.asking = ""
        file = gguf.GGUFReader(path)

        def figure(name: str) -> Any:
            return file.fields[f"llama.{name}"].contents()

        self.n_head, self.n_kv = figure("attention.head_count"), figure("attention.head_count_kv")
        self.n_layer, self.window = figure("block_count"), figure("context_length")
        self.base, self.eps = figure("rope.freq_base"), figure("attention.layer_norm_rms_epsilon")
        self.weights = {t.name[:-7]: torch.tensor(gguf.dequantize(t.data, t.tensor_type), device=DEVICE) for t in file.tensors}
        self.d = self.weights["blk.0.attn_k"].shape[0] // self.n_kv
        self.form, self.n = form, 0
        self.turns, self.magnitude = self._frequencies()
        shape = (self.n_layer, n_ctx, self.n_kv, self.d)
        self.k, self.v = torch.zeros(shape, device=DEVICE), torch.zeros(shape, device=DEVICE)
        self.ends = torch.zeros(n_ctx, dtype=torch.bool, device=DEVICE)  # does a sentence end there?
        self.choices: dict[int, tuple[tuple[int, int], torch.Tensor]] = {}
        self.before: dict[int, torch.Tensor] = {}
        self.looking: tuple[tuple[int, int], torch.Tensor] = ((-1, -1), self.k)
        self.ids = torch.zeros(n_ctx, dtype=torch.long, device=DEVICE)

    tokens, text, say = recall.Reader.tokens, recall.Reader.text, recall.Reader.say

    def scheme(self, name: str) -> None:
        """One form holds for all."""

    def forget(self, first: int = 0) -> None:
        self.n = min(self.n, first)
        self.choices.clear()
        self.before.clear()

    def read(self, tokens: list[int], first: int, logits: str = "last") -> np.ndarray:
        assert first == self.n
        rows = []
        for start in range(0, len(tokens), MICRO_BATCH):
            x = self._micro_batch(tokens[start : start + MICRO_BATCH])
            if logits == "all" or start + MICRO_BATCH >= len(tokens):
                rows.append((x if logits == "all" else x[-1:]) @ self.weights.get("output", self.weights["token_embd"]).T)
        found = torch.cat(rows).cpu().numpy()
        return found if logits == "all" else found[0]

    def _micro_batch(self, tokens: list[int]) -> torch.Tensor:
        w, a, b = self.weights, self.n, self.n + len(tokens)
        x = w["token_embd"][torch.as_tensor(tokens, device=DEVICE)]
        self.n, self.at = b, self._places(a, b)
        self.ids[a:b] = torch.as_tensor(tokens, device=DEVICE)
        if self.form.sentences:
            self.ends[a:b] = torch.as_tensor([any(c in self.text([token]) for c in ".!?\n") for token in tokens], device=DEVICE)
        for il in range(self.n_layer):
            p = f"blk.{il}."
            h = F.rms_norm(x, x.shape[-1:], w[p + "attn_norm"], self.eps)
            q, self.k[il, a:b], self.v[il, a:b] = ((h @ w[p + name].T).view(b - a, -1, self.d) for name in ("attn_q", "attn_k", "attn_v"))
            chunk = self.form.chunk
            o = torch.cat([self._attend(il, q[i : i + chunk], a, a + i) for i in range(0, b - a, chunk)])
            x = x + o.reshape(b - a, -1) @ w[p + "attn_output"].T
            h = F.rms_norm(x, x.shape[-1:], w[p + "ffn_norm"], self.eps)
            x = x + (F.silu(h @ w[p + "ffn_gate"].T) * (h @ w[p + "ffn_up"].T)) @ w[p + "ffn_down"].T
        return F.rms_norm(x, x.shape[-1:], w["output_norm"], self.eps)

    def _places(self, first: int, end: int) -> torch.Tensor:
        """The position of each token up to `end` for a micro-batch that begins at `first`."""
        if not self.form.groups:
            return torch.arange(end, device=DEVICE)
        ga = choose(self.form.groups, self.window, progressive=True)
        borders = ga.borders(first)
        return torch.tensor([ga.rotation(j, borders) for j in range(end)], device=DEVICE)

    def _frequencies(self) -> tuple[torch.Tensor, float]:
        """Radians a position of each pair of dimensions, and what queries and keys are multiplied by."""
        exponents, s = torch.arange(0, self.d, 2, device=DEVICE) / self.d, self.form.yarn
        usual = self.base**-exponents
        if not s:
            return usual, 1.0
        first, last = (math.log(self.window / (2 * math.pi * turns), self.base) * self.d / 2 for turns in (32, 1))
        first, last = max(0, math.floor(first)), min(self.d // 2 - 1, math.ceil(last))
        kept = 1 - ((torch.arange(self.d // 2, device=DEVICE) - first) / max(0.001, last - first)).clamp(0, 1)
        return usual / s * (1 - kept) + usual * kept, 1 + 0.1 * math.log(s) if self.form.yarn_temperature else 1.0

    def _rope(self, x: torch.Tensor, at: torch.Tensor | int) -> torch.Tensor:
        """x [tokens, heads, d] at positions."""
        turn = torch.as_tensor(at, device=DEVICE, dtype=torch.float32).expand(len(x))[:, None, None] * self.turns
        even, odd = x[..., 0::2], x[..., 1::2]
        return self.magnitude * torch.stack((even * turn.cos() - odd * turn.sin(), even * turn.sin() + odd * turn.cos()), -1).flatten(-2)

    def _scores(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        """q [n, heads, d], k [keys, key heads, d]: [key heads, heads of each, n, keys]"""
        rows = q.view(len(q), self.n_kv, -1, self.d).permute(1, 2, 0, 3)
        return (rows.flatten(1, 2) @ k.permute(1, 2, 0) / math.sqrt(self.d)).view(*rows.shape[:3], len(k))

    def _attention(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self._mixed(self._scores(q, k) + mask, v)

    def _mixed(self, scores: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        shares = scores.softmax(-1)
        return (shares.flatten(1, 2) @ v.permute(1, 0, 2)).view(*shares.shape[:3], self.d).permute(2, 0, 1, 3)

    def _attend(self, il: int, q: torch.Tensor, first: int, a: int) -> torch.Tensor:
        """q: queries from position a on, of a micro-batch that begins at `first`."""
        form, b = self.form, a + len(q)
        queries, keys = torch.arange(a, b, device=DEVICE), torch.arange(b, device=DEVICE)
        seen = torch.where(keys[None] <= queries[:, None], 0.0, -math.inf)
        border = max(0, (first - form.w) // form.r * form.r)
        if form.string:
            k = self._rope(self.k[il, :b], keys)
            near, far = (self._scores(self._rope(q, at), k) for at in (queries, queries - form.string + form.string_w))
            return self._mixed(torch.where(queries[:, None] - keys < form.string, near, far) + seen, self.v[il, :b])
        if form.groups or form.yarn or border <= form.sinks + form.fetched or b <= form.plain_until:
            return self._attention(self._rope(q, self.at[a:b]), self._rope(self.k[il, :b], self.at[:b]), self.v[il, :b], seen)
        far = slice(form.sinks, border)
        chosen = self._chosen(il, q, a, b, border)  # [key heads, fetched]
        k, v, weight = (self._far_with_coarse if form.coarse else self._far)(self.k[il, far], self.v[il, far], chosen)
        k = torch.cat([self.k[il, : form.sinks], k, self.k[il, border:b]])
        v = torch.cat([self.v[il, : form.sinks], v, self.v[il, border:b]])
        n_far = len(k) - (b - border)
        mask = torch.cat([weight[:, None, None].expand(-1, 1, len(q), -1), seen[:, border:].expand(self.n_kv, 1, -1, -1)], -1)
        mask = torch.cat([torch.zeros(self.n_kv, 1, len(q), form.sinks, device=DEVICE), mask], -1)
        return self._attention(self._rope(q, queries - border), self._rope(k, torch.arange(len(k), device=DEVICE) - n_far), v, mask)

    def _chosen(self, il: int, q: torch.Tensor, a: int, b: int, border: int) -> torch.Tensor:
        """Far tokens for each key head, counted from behind the sinks, in the order of the text."""
        form = self.form
        if il % form.layers and self.choices.get(il - 1, (None,))[0] == (a, b):
            chosen = self.choices[il - 1][1]
        else:
            shares = self._shares(il, q, a, border)
            if form.sentences:
                chosen = torch.stack([self._best_sentences(one, border) for one in shares])
            else:
                spans = shares.view(len(shares), -1, form.span)
                best = (spans.amax(-1) + form.mass * spans.sum(-1)).topk(form.fetched // form.span).indices.sort().values
                chosen = (best[..., None] * form.span + torch.arange(form.span, device=DEVICE)).flatten(1)
        self.choices[il] = (a, b), chosen
        return chosen.expand(self.n_kv, -1)

    def _shares(self, il: int, q: torch.Tensor, a: int, border: int) -> torch.Tensor:
        """The largest share that a look gives to each far token, summed over heads: of all, or of those of each key head."""
        form, stretch = self.form, 1
        while -(-len(q) // stretch) > max(form.looks, recall.END if len(q) <= recall.END else 0):
            stretch *= 2
        last = torch.arange(stretch - 1, len(q) + stretch - 1, stretch, device=DEVICE).clamp(max=len(q) - 1)
        if stretch > 1:
            if il == 0 or form.stagger or form.longest or self.looking[0] != (a, len(q)):
                self.looking = (a, len(q)), self._looking(il, q, a, stretch, last)
            last = self.looking[1]
        looks = q[last]
        if form.means and stretch > 1:
            parts = q.split(stretch)
            looks = torch.stack([part.mean(0) for part in parts])
            if form.means == 2:
                looks = looks * torch.stack([part.norm(dim=-1).mean(0) for part in parts])[..., None] / looks.norm(dim=-1)[..., None]
        scores = form.sharp * self._scores(self._rope(looks, form.at or form.w), self.k[il, form.sinks : border])
        if form.near:
            at = torch.arange(border, a + len(q), device=DEVICE)
            beside = self._scores(self._rope(looks, a + last), self._rope(self.k[il, at], at))
            beside = beside.masked_fill(at[None] > (a + last)[:, None], -math.inf)
            sinks = self._scores(self._rope(looks, form.w + form.fetched), self.k[il, : form.sinks])
            shares = (scores - torch.cat([scores, beside, sinks], -1).logsumexp(-1, keepdim=True)).exp()
        else:
            shares = scores.softmax(-1)
        if form.value:
            shares = shares * self.v[il, form.sinks : border].norm(dim=-1).T[:, None, None]
        shares = shares.pow(form.power).sum(1)
        shares = shares if form.per_head else shares.sum(0, keepdim=True)
        shares = shares.pow(form.norm).sum(1) if form.norm else shares.amax(1)
        if form.decay:
            before = self.before.get(il)
            self.before[il] = shares
            if before is not None and before.shape[1] <= shares.shape[1]:
                shares = torch.maximum(shares, form.decay * F.pad(before, (0, shares.shape[1] - before.shape[1])))
        return shares

    def _looking(self, il: int, q: torch.Tensor, a: int, stretch: int, last: torch.Tensor) -> torch.Tensor:
        """Which of the queries from position a on look; last: those at the ends of stretches."""
        form, n = self.form, len(q)
        if form.stagger:
            return (last - (il * 5) % stretch).clamp(min=0)
        if form.longest:
            return q.square().sum((1, 2)).topk(len(last)).indices.sort().values
        if not form.rare:
            return last
        ids = self.ids[a : a + n]
        worth, seen = ids.float(), self.ids[:a].bincount(minlength=len(self.weights["token_embd"]))[ids].float()
        if form.rare == 2:
            worth = -torch.where(seen == 0, torch.full_like(seen, 50.0), seen)
        elif form.rare == 3:
            worth = worth - 1e6 * (seen == 0)
        elif form.rare == 4:
            taken: set[int] = set()
            for part in (range(i, min(i + stretch, n)) for i in range(0, n, stretch)):
                fresh = [i for i in part if int(ids[i]) not in taken] or part
                best = max(fresh, key=lambda i: (int(ids[i]), i))
                taken.add(int(ids[best]))
                worth[best] += 1e6
        elif form.rare == 5:
            follows = [*ids.tolist()[1:], *self.tokens(" ")]
            worth = worth + 1e6 * torch.tensor([self.text([token])[:1].isspace() for token in follows], device=DEVICE)
        elif form.rare == 6:
            return worth.topk(len(last)).indices.sort().values
        padded = F.pad(worth, (0, len(last) * stretch - n), value=-math.inf).view(-1, stretch)
        return stretch - 1 - padded.flip(1).argmax(1) + torch.arange(len(last), device=DEVICE) * stretch  # of several the last one

    def _best_sentences(self, shares: torch.Tensor, border: int) -> torch.Tensor:
        """The tokens of the best sentences, of one more a part, so that they are as many as ever."""
        ends = self.ends[self.form.sinks : border].long()
        sentence = ends.cumsum(0) - ends
        lengths = sentence.bincount()
        worth = torch.zeros(len(lengths), device=DEVICE).scatter_reduce_(0, sentence, shares, "amax")
        order = worth.argsort(descending=True)
        place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=DEVICE))
        return place[sentence].argsort(stable=True)[: self.form.fetched].sort().values

    def _far(self, k: torch.Tensor, v: torch.Tensor, chosen: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rows = chosen.T[..., None].expand(-1, -1, self.d)
        return k.gather(0, rows), v.gather(0, rows), torch.zeros(chosen.shape, device=DEVICE)

    def _far_with_coarse(self, k: torch.Tensor, v: torch.Tensor, chosen: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Besides, the means of what none of is fetched: one place each, in the order of the text."""
        size, heads = self.form.coarse, []
        n = len(k) // size
        for head, fetched in enumerate(chosen):
            left = torch.ones(len(k), dtype=torch.bool, device=DEVICE)
            left[fetched] = False
            whole = left[: n * size].view(n, size).all(1).nonzero()[:, 0]
            order = torch.cat([fetched.float(), whole * size + size / 2]).argsort()
            means = [x[: n * size, head].view(n, size, self.d).mean(1)[whole] for x in (k, v)]
            weight = torch.cat([torch.zeros(len(fetched)), torch.full((len(whole),), self.form.coarse_weight * math.log(size))])
            both = [torch.cat([x[fetched, head], mean])[order] for x, mean in zip((k, v), means, strict=True)]
            heads.append((*both, weight.to(DEVICE)[order]))
        shortest = min(len(one[0]) for one in heads)
        ks, vs, weights = ([x[-shortest:] for x in part] for part in zip(*heads, strict=True))
        return torch.stack(ks, 1), torch.stack(vs, 1), torch.stack(weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("task", choices=("nll", "keys", "facts"))
    parser.add_argument("--form", action="append", required=True, help="fields of Form: w=1024,fetched=1024,looks=32")
    parser.add_argument("--tokens", type=int, default=32_768)
    parser.add_argument("--count", type=int, default=24, help="keys")
    options = parser.parse_args()
    n = options.tokens
    for form in options.form:
        reader = Reader(options.model, Form.of(form), n + 2048)
        words = reader.tokens(Path(options.text).read_text(encoding="utf-8"))
        begin = time.perf_counter()
        result = recall.keys(reader, n, options.count) if options.task == "keys" else getattr(recall, options.task)(reader, words, n)
        result |= {"seconds": round(time.perf_counter() - begin, 1)}
        print(json.dumps({"task": options.task, "form": form, "tokens": n} | result), flush=True)


if __name__ == "__main__":
    main()
