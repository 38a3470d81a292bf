"""How tokens are drawn: the sampler of the hf engines, and what both stages tell vLLM before they make an engine."""

import contextlib
import functools
import os

import torch
from torch import Tensor
from transformers import LogitsProcessor


def nucleus(logprobs: Tensor, top_p: Tensor | float) -> Tensor:
    """logprobs (rows, V) with -inf outside the nucleus: the likeliest tokens that together have top_p, a number or
    (rows, 1), and those as likely as the last of them (arXiv 1904.09751). The likeliest 1,024 are sorted, and 16 times
    as many of the rows where these are not enough: sorting 64 x 152,000 numbers takes 25 times as long."""
    top_p = torch.as_tensor(top_p, device=logprobs.device).expand(len(logprobs), 1)
    least, rows, size = torch.empty_like(logprobs[:, :1]), torch.arange(len(logprobs), device=logprobs.device), 1024
    while len(rows):
        some = logprobs if len(rows) == len(logprobs) else logprobs[rows]
        ranked = some.topk(min(size, some.shape[-1])).values
        mass = ranked.exp().cumsum(-1)
        inside = mass - ranked.exp() < top_p[rows]
        least[rows] = ranked.masked_fill(~inside, torch.inf).amin(-1, keepdim=True)
        rows, size = rows[(mass[:, -1] < top_p[rows, 0]) & (size < some.shape[-1])], 16 * size
    return logprobs.masked_fill(logprobs < least, -torch.inf)


class SeededSampler(LogitsProcessor):
    """Draws each row's token with the row's own generator, so that a sample depends on its seed alone and not on its
    batch; keeps the logprob of the drawn token. Penalty, temperature (0 is greedy), top_k, top_p come in vLLM's order.
    To generate() it leaves that one token. real: (rows, prompt length) bool, False on padding."""

    def __init__(self, seeds: list[int], temperature: float, top_p: float = 1.0, top_k: int = 0, penalty: float = 1.0,
                 real: Tensor | None = None):
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.temperature, self.top_p, self.top_k, self.penalty, self.real = temperature, top_p, top_k, penalty, real
        self.seen, self.logprobs, self.uniforms = None, [], []

    def penalise(self, ids: Tensor, scores: Tensor) -> Tensor:
        self.seen = (torch.zeros_like(scores).scatter_add_(1, ids, self.real.to(scores.dtype)) > 0 if self.seen is None
                     else self.seen.scatter_(1, ids[:, -1:], True))
        return torch.where(self.seen, torch.where(scores > 0, scores / self.penalty, scores * self.penalty), scores)

    def keep(self, rows: list[int]) -> None:  # the other rows have left the batch
        self.generators, self.uniforms = [self.generators[k] for k in rows], [u[rows] for u in self.uniforms]

    def draw(self, ids: Tensor, scores: Tensor) -> Tensor:  # (rows, length), (rows, V) -> (rows, 1)
        x = self.penalise(ids, scores.float()) if self.penalty != 1 else scores.float()
        logprobs = (x / self.temperature if self.temperature not in (0, 1) else x).log_softmax(-1)
        if 0 < self.top_k < x.shape[-1]:
            logprobs = logprobs.masked_fill(x < x.topk(self.top_k).values[:, -1:], -torch.inf).log_softmax(-1)
        if self.top_p < 1:
            logprobs = nucleus(logprobs, self.top_p).log_softmax(-1)
        token = logprobs.argmax(-1, keepdim=True)
        if self.temperature:  # one number a token: noise for each of 150,000 would cost a fifth of a small model's time
            if not self.uniforms:
                drawn = [torch.rand(64, generator=each, dtype=torch.float64) for each in self.generators]
                self.uniforms = list(torch.stack(drawn, 1)[:, :, None])
            below = logprobs.exp().cumsum(-1, dtype=torch.float64)
            level = self.uniforms.pop(0).to(x.device) * below[:, -1:]
            token = torch.searchsorted(below, level, right=True).clamp(max=x.shape[-1] - 1)
        self.logprobs.append(logprobs.gather(-1, token))
        return token

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:  # (rows, length), (rows, V) -> (rows, V)
        return torch.full_like(scores, -torch.inf).scatter_(-1, self.draw(ids, scores), 0.0)


def vllm_options(gpu: bool, length: int) -> dict:
    """Sets vLLM's environment, and returns its options for a CPU ({} for a GPU); to be called before it is imported."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # the engine shares our process and its weights
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if gpu:
        return {}
    with contextlib.suppress(ImportError, AttributeError):  # another version may have it elsewhere, and sorts
        from vllm.v1.sample.ops import topk_topp_sampler as ops

        # without top_k it would sort the vocabulary for top_p at every token: six tenths of a 0.5B model's time
        sort = ops.apply_top_k_top_p_pytorch
        if not hasattr(sort, "__wrapped__"):
            ops.apply_top_k_top_p_pytorch = functools.wraps(sort)(lambda logits, k, p, **options: (
                nucleus(logits.log_softmax(-1), p[:, None]) if k is None and p is not None else
                sort(logits, k, p, **options)))
    # a prompt cut over two steps makes vLLM turn back its sample's generator, which torch cannot do on a CPU
    return dict(enforce_eager=True, enable_chunked_prefill=False, max_num_batched_tokens=max(8192, length))
