"""Evaluation: avg@n with error bars on AIME, HMMT, MATH-500, GSM8K, LiveCodeBench or your own file.

    python eval.py                                                    # embedded default: toy model, sums of five, CPU
    python eval.py --model Kwai-Klear/Klear-Reasoner-8B --data aime24 aime25 hmmt25 --n 64 --k 1 8 64
    accelerate launch --num_processes 8 eval.py --model ...           # data parallel: one engine a GPU, same results
    python eval.py --model ... --max_tokens 65536 --yarn_factor 2.5 --top_k 20 --repetition_penalty 1.05   # 64K
    python eval.py --engine api --api_base http://localhost:8000/v1 --model NAME ...    # any OpenAI-compatible server
    python eval.py --score_only FILE.jsonl --output_dir runs/rescored # any tool's generations, no model; rows {"id",
        # "response" or "messages", "answer" or "ground_truth"}, or only {"id", "response"} with --data BENCHMARK
    python eval.py --compare runs/a runs/b                            # paired difference of two evaluations

`data` is a list of benchmark names (BENCHMARKS in klear/rows.py), files (JSONL, Parquet), folders of files, hub names,
toy:math, toy:code, or NAME=PATH: a local copy that counts as that benchmark. Rows (see klear/rows.py): {"messages" |
"prompt" | "problem" | "question", "answer"}, LiveCodeBench's, and RL rows {"data_source", "prompt", "reward_model"}.

output_dir: config.yaml (the settings; other settings are refused), generations.jsonl (a row per sample, appended as it
goes; a stopped run continues there), results.json, results.png, report.html (self-contained, every sample one click
away). What is measured, and its error bars, stand in klear/scores.py.

Differs from the paper: its prompts for code are not published; the LiveCodeBench prompt is LiveCodeBench's in content.
"""

import asyncio
import contextlib
import dataclasses
import functools
import hashlib
import importlib.util
import itertools
import json
import math
import os
import queue
import random
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from tqdm import tqdm

import rewards
import toy
from klear import report
from klear.folders import read_settings, take
from klear.rows import (ask, livecodebench_tests, prompt_of, read_benchmark, read_source, render, responses_of, row_id,
                  truth_of, without_think)
from klear.scores import SETTINGS, compare, markdown, same_answers, summarise, table
from runs import (DISK_ERRORS, Amount, Count, Names, NonNegative, Positive, Seed, Share, catch_signals, die,
                  last_line, one_line, read_config, seed_of, signals)

# policy.py, torch, transformers and vLLM are imported where an engine needs them: score_only, compare and the reward
# workers start without.
RANK, WORLD_SIZE, LOCAL_RANK = (int(os.environ.get(key, default)) for key, default in
                                (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
LOCAL_RANKS = int(os.environ.get("LOCAL_WORLD_SIZE", WORLD_SIZE))


# --------------------------------------------------------------------------------------------------------------- config
@dataclass
class Config:
    # model and benchmarks
    model: str = "toy"  # Hugging Face folder or hub name; "toy" makes the tiny model and warms it up by sft.py
    data: Names = "toy:math"  # benchmarks: names, files, folders, hub names, toy:*, NAME=PATH
    limit: Amount = 0  # only the first problems of each benchmark; 0 = all
    n: Count = 4  # samples a problem (paper: 64 for AIME and HMMT, 8 for LiveCodeBench)
    k: Names = "1"  # list for pass@k, e.g. 1 8 64
    output_dir: str = "runs/eval"  # see above
    # sampling
    temperature: NonNegative = 0.6  # 0 = greedy
    top_p: Annotated[float, ("above 0 and at most 1", lambda x: 0 < x <= 1)] = 0.95  # nucleus
    top_k: Amount = 0  # 0 = off (64K run of the paper: 20)
    repetition_penalty: Positive = 1.0  # 64K run of the paper: 1.05
    max_tokens: Count = 32768  # longest response; toy: 64
    yarn_factor: Annotated[float, ("above 1 (or 0 for none)", lambda x: x == 0 or 1 < x < 1e3)] = 0.0  # 2.5 for 64K
    yarn_original: Count = 32768  # YaRN: positions before it, at most the model's own
    seed: Seed = 0  # the seed of a sample is a function of (seed, problem, sample)
    # prompt and verdict
    system_prompt: str = ""  # a system message before every prompt
    prompt_suffix: str = ""  # a line after the last user message, e.g. "Put the final answer in \boxed{}."
    enable_thinking: Literal["auto", "true", "false"] = "auto"  # handed to the chat template; auto: not handed over
    ask_think: bool = True  # false: rows whose data_source asks for think tags are judged by the answer alone
    # engine
    engine: Literal["auto", "vllm", "hf", "api"] = "auto"  # auto: api with api_base, else vllm where it is installed
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"  # auto: bfloat16 on a GPU, float32 on a CPU
    tensor_parallel: Count = 1  # GPUs of one engine; ranks x tensor_parallel = GPUs
    gpu_memory: Share = 0.9  # share of GPU memory for vLLM
    hf_batch: Count = 64  # samples generated at once by hf
    api_base: str = ""  # URL of an OpenAI-compatible server, http://localhost:8000/v1; key: OPENAI_API_KEY
    api_concurrency: Count = 64  # requests under way at once, per rank
    api_retries: Amount = 8  # after 429, 5xx, a cut connection, a time-out; with growing pauses (8: two minutes in all)
    api_timeout_s: Positive = 3600.0  # for one response
    # scoring and report
    workers: Amount = 0  # reward processes per rank; 0 = cores / ranks on this machine
    timeout_s: Positive = 10.0  # of the math verifier, per response
    score_only: str = ""  # a file of generations to score; no model
    compare: Names = ""  # two output folders: --compare A B
    report: bool = True  # write report.html and results.png


# What may differ from the settings in output_dir when a run continues there; everything else would mix two experiments.
MAY_CHANGE = {"data", "n", "k", "output_dir", "tensor_parallel", "gpu_memory", "hf_batch", "workers", "timeout_s",
              "compare", "report", "api_base", "api_concurrency", "api_retries", "api_timeout_s"}
MOST_USED = "model data n k output_dir temperature max_tokens prompt_suffix ask_think engine api_base compare"


def check_config(cfg: Config) -> Config:
    """What no bound of a single knob can say."""
    try:
        cfg.k = ",".join(map(str, sorted({int(k) for k in cfg.k.strip("[] ").split(",") if k.strip()})))
    except ValueError:
        die(f"k must be a list of whole numbers such as 1 8; got {cfg.k!r}")
    out = Path(cfg.output_dir)
    if there := next((path for path in (out, *out.parents) if os.path.isfile(path)), None):
        die(f"output_dir {out}: {there} is a file; give another --output_dir")
    if cfg.api_base and cfg.engine == "auto":
        cfg.engine = "api"
    if (cfg.engine == "api") != bool(cfg.api_base):
        die("engine api and api_base go together: --engine api --api_base http://localhost:8000/v1 --model NAME")
    if cfg.engine == "api" and re.search("[@?]", cfg.api_base):
        die("api_base must hold no key, it is written to config.yaml; give the key in the environment, OPENAI_API_KEY")
    if cfg.api_base and not re.fullmatch(r"https?://(\[\S+\]|[^/:\s]+)(:\d{1,5})?(/\S*)?", cfg.api_base):
        die(f"api_base must be a URL such as http://localhost:8000/v1; got {cfg.api_base!r}")
    if cfg.engine == "api" and (cfg.model == "toy" or cfg.yarn_factor):
        die("engine api needs --model NAME as the server calls it, and yarn_factor 0: the context is the server's")
    if any(k < 1 or k > cfg.n and not cfg.score_only for k in ks(cfg)):
        die(f"k {cfg.k}: pass@k needs 1 <= k <= n = {cfg.n}")
    return cfg


def ks(cfg: Config) -> list[int]:
    return [int(k) for k in cfg.k.split(",") if k]


# ----------------------------------------------------------------------------------------------------------------- data
@dataclass
class Problem:
    benchmark: str
    id: str
    messages: list[dict]
    data_source: str
    truth: Any  # ground truth for rewards.py; a LiveCodeBench row stays packed (gigabytes otherwise)
    text: str = ""  # the rendered prompt
    ids: list[int] = dataclasses.field(default_factory=list)  # its tokens
    shown: str = ""  # the ground truth as the report shows it
    tests: dict | None = None  # a LiveCodeBench row's, unpacked
    waiting: int = 0  # samples that this rank has yet to score


PACKED = "public_test_cases", "private_test_cases", "metadata"


def ground_truth(problem: Problem):
    """What rewards.score takes. LiveCodeBench tests are unpacked for a problem's first response, kept to its last."""
    if isinstance(problem.truth, tuple) and problem.tests is None:
        problem.tests = livecodebench_tests(dict(zip(PACKED, problem.truth)))
    return problem.truth if problem.tests is None else problem.tests


def checked(problem: Problem, cfg: Config) -> Problem:
    """The problem, once its ground truth can be used. Raises ValueError."""
    if not cfg.ask_think:
        problem.data_source = without_think(problem.data_source)
    truth = ground_truth(problem)
    rewards.check(problem.data_source, truth)
    problem.shown, problem.tests = str(truth)[:500], None
    if is_code(problem):
        problem.shown = f"{len(truth['inputs'])} tests" if isinstance(truth, dict) and "inputs" in truth else "tests"
    return problem


def is_code(problem: Problem) -> bool:
    return rewards.verifier_of(problem.data_source).check is rewards.check_code


def livecodebench_prompt(row: dict) -> str:
    """The content of LiveCodeBench's own prompt: question, starter code or stdin/stdout, one fenced Python block."""
    if row.get("starter_code"):
        how = (f"Complete the following starter code, and give the whole solution in one Python code block.\n"
               f"```python\n{row['starter_code']}\n```")
    else:
        how = ("Read the input from stdin, solve the problem and write the answer to stdout. Do not test on the sample "
               "inputs. Give the whole program in one Python code block.\n```python\n# YOUR CODE HERE\n```")
    return ("Write a correct Python program that solves the following problem and passes all tests.\n\n"
            f"Question:\n{row['question_content']}\n\n{how}")


def to_problem(row: dict, benchmark: str, number: int, cfg: Config) -> Problem:
    """One row of any format named in the docstring. Raises ValueError (what is wrong; what is expected)."""
    name = row_id(row) or str(number)
    if "question_content" in row:
        packed = tuple(v if isinstance(v := row.get(key) or "", str) else json.dumps(v) for key in PACKED)
        messages = [{"role": "user", "content": livecodebench_prompt(row)}]
        return checked(Problem(benchmark, name, messages, "livecodebench", packed), cfg)
    source = row.get("data_source") or "math_verify"
    return checked(Problem(benchmark, name, prompt_of(row), source, truth_of(row)), cfg)


def load_benchmark(entry: str, cfg: Config) -> list[Problem]:
    """The problems of one entry of `data`. Ids that occur twice get their row number."""
    name, is_toy, kind = entry.partition("toy:")  # first: the knobs of a toy have = in them too
    if is_toy and name[-1:] in ("", "="):
        try:
            rows = enumerate(toy.rl_rows(kind, 500, 0, split="eval"), 1)
        except ValueError as error:
            die(f"data: {error}")
        name, rows = name[:-1] or f"toy_{kind}", ((f"toy:{kind}:{i}", row) for i, row in rows)
    else:
        name, rows = read_benchmark(entry, "data")
    problems = []
    for number, (where, row) in enumerate(rows):
        try:
            problems.append(to_problem(row, name, number, cfg))
        except ValueError as error:
            die(f"{where}: {error}")
        if cfg.limit and len(problems) == cfg.limit:
            break
    if not problems:
        die(f"data: {entry} has no rows")
    seen = Counter(p.id for p in problems)
    for number, problem in enumerate(problems):
        if seen[problem.id] > 1:
            problem.id = f"{problem.id}#{number}"
    return problems


def load_problems(cfg: Config) -> dict[str, list[Problem]]:
    """benchmark -> problems, in the order of `data`."""
    problems = {}
    for entry in filter(None, (part.strip() for part in cfg.data.split(","))):
        part = load_benchmark(entry, cfg)
        if part[0].benchmark in problems:
            die(f"data: two benchmarks are called {part[0].benchmark}; name one of them, NEW_NAME={entry}")
        problems[part[0].benchmark] = part
    return problems or die("data names no benchmark")


def render_all(problems: dict[str, list[Problem]], tokenizer, cfg: Config) -> None:
    """Fills in text and ids by the chat template (its own thinking switch included)."""
    options = {} if cfg.enable_thinking == "auto" else {"enable_thinking": cfg.enable_thinking == "true"}
    for problem in (p for part in problems.values() for p in part):
        problem.messages = ask(problem.messages, cfg.system_prompt, cfg.prompt_suffix)
        if tokenizer is None:  # a server renders the messages
            problem.text = "\n\n".join(message["content"] for message in problem.messages)
            continue
        try:
            problem.text = render(problem.messages, tokenizer, **options)
        except ValueError as error:
            die(f"model: {problem.benchmark} {problem.id}: {error}")
        problem.ids = tokenizer(problem.text, add_special_tokens=False)["input_ids"]


# -------------------------------------------------------------------------------------------------------------- engines
# An engine has generate(chunks of requests) -> iterator of (request, response, its tokens, finish reason) in the order
# of completion; it ends early when a signal came.
@dataclass
class Request:
    problem: Problem
    sample: int
    seed: int
    max_tokens: int  # of cfg, or what the context leaves after the prompt

    @property
    def key(self) -> tuple[str, str, int]:
        return self.problem.benchmark, self.problem.id, self.sample


@dataclass
class Model:
    """A Hugging Face folder as the engines take it."""

    path: str
    config: Any
    override: dict  # see rope_override
    tokenizer: Any
    stop_ids: list[int]
    pad_id: int

    @property
    def context(self) -> int:
        return (self.override.get("max_position_embeddings") or getattr(self.config, "max_position_embeddings", None)
                or sys.maxsize)

    def text(self, tokens: list[int], reason: str) -> str:
        return self.tokenizer.decode(tokens[:-1] if reason == "stop" else tokens)


def read_model(cfg: Config) -> Model:
    """All of the model but its weights, which are looked at: a mistake shows here, before an engine starts."""
    try:
        from transformers import AutoConfig, GenerationConfig

        from policy import LOAD_ERRORS, check_weights, end_of_turn, load_tokenizer
    except ImportError as error:
        die(f"{error}; generation needs torch and transformers (pip install -r requirements.txt)")
    path = prepare_toy(cfg) if cfg.model == "toy" else cfg.model
    try:
        config = AutoConfig.from_pretrained(path)
    except LOAD_ERRORS as error:
        die(f"model: {path} cannot be read as a Hugging Face model ({one_line(error)[:200]})")
    check_weights(path)
    tokenizer = load_tokenizer(path)
    try:
        generation = GenerationConfig.from_pretrained(path)
    except OSError:  # the file is optional
        generation = GenerationConfig()
    return Model(path, config, rope_override(config, cfg), tokenizer, *end_of_turn(generation, tokenizer))


def rope_override(config, cfg: Config) -> dict:
    """Changes to the model's config for YaRN (arXiv 2309.00071), in the form that transformers 5 and vLLM share.

    max_position_embeddings must hold the extended length: neither library multiplies it by the factor."""
    if not cfg.yarn_factor:
        return {}
    rope = getattr(config, "rope_parameters", None)
    if not isinstance(rope, dict) or "rope_theta" not in rope:
        die(f"yarn_factor: {cfg.model} has no single rope_parameters to extend")
    original = min(cfg.yarn_original, config.max_position_embeddings)
    return {"max_position_embeddings": int(original * cfg.yarn_factor),
            "rope_parameters": {key: rope[key] for key in ("rope_theta", "partial_rotary_factor") if key in rope} | {
                "rope_type": "yarn", "factor": cfg.yarn_factor, "original_max_position_embeddings": original}}


def check_lengths(problems: list[Problem], model: Model, cfg: Config) -> None:
    longest, context = max(problems, key=lambda p: len(p.ids)), model.context
    what = f"{'extended ' * bool(cfg.yarn_factor)}context of {cfg.model}, {context} tokens"
    how = "or extend it by --yarn_factor"
    if cfg.max_tokens > context:
        die(f"max_tokens {cfg.max_tokens} is more than the {what}; give --max_tokens "
            f"{max(1, context - len(longest.ids))}, {how}")
    if len(longest.ids) >= context:
        die(f"the prompt of {longest.benchmark} {longest.id} has {len(longest.ids)} tokens, too many for the {what}; "
            f"leave it out, {how}")
    if RANK == 0 and (cut := sum(len(p.ids) + cfg.max_tokens > context for p in problems)):
        print(f"{cut} of {len(problems)} prompts and max_tokens {cfg.max_tokens} are together more than the {what}: "
              "their responses end there", file=sys.stderr)


class HFEngine:
    """transformers' generate: batches in a fixed order, each row sampled by its own numbers."""

    def __init__(self, model: Model, max_len: int, cfg: Config):
        import torch

        from policy import load_model, pick_dtype

        self.device, self.model, self.cfg = "cuda" if torch.cuda.is_available() else "cpu", model, cfg
        for key, value in model.override.items():
            setattr(model.config, key, value)
        self.lm = load_model(model.path, pick_dtype(cfg.dtype), config=model.config).to(self.device).eval()

    def rope(self) -> tuple[str, float, float]:
        rotary = next(m for m in self.lm.modules() if hasattr(m, "inv_freq"))
        return f"{type(rotary).__name__} ({rotary.rope_type})", rotary.inv_freq.min().item(), rotary.attention_scaling

    def generate(self, chunks: list[list[Request]]) -> Iterator[tuple[Request, str, int, str]]:
        import torch
        from transformers import LogitsProcessorList, StoppingCriteriaList

        from klear.sampling import SeededSampler

        cfg, model = self.cfg, self.model
        stop = StoppingCriteriaList([lambda ids, _, **__: torch.full((len(ids),), bool(signals), device=ids.device)])
        for batch in chunks:
            prompts = [r.problem.ids for r in batch]
            width = max(map(len, prompts))
            ids = torch.tensor([[model.pad_id] * (width - len(p)) + p for p in prompts], device=self.device)  # (B, T)
            real = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self.device)  # (B, T)
            sampler = SeededSampler([r.seed for r in batch], cfg.temperature, cfg.top_p, cfg.top_k,
                                    cfg.repetition_penalty, real.bool())
            with torch.inference_mode():
                out = self.lm.generate(
                    ids, attention_mask=real, max_new_tokens=max(r.max_tokens for r in batch), do_sample=False,
                    logits_processor=LogitsProcessorList([sampler]), eos_token_id=model.stop_ids,
                    pad_token_id=model.pad_id, temperature=None, top_p=None, top_k=None, repetition_penalty=None,
                    stopping_criteria=stop)
            for request, tokens in zip(batch, out[:, width:].tolist()):
                # the first stop token ends a response, not the first pad: pad may equal eos
                whole, tokens = len(tokens) >= request.max_tokens, tokens[:request.max_tokens]
                end = next((at + 1 for at, token in enumerate(tokens) if token in model.stop_ids), None)
                if end or whole:  # else a signal cut it
                    reason, tokens = "stop" if end else "length", tokens[:end]
                    yield request, model.text(tokens, reason), len(tokens), reason
            if signals:
                return


class VLLMEngine:
    """vLLM inside this process, all requests at once: no sample waits for a batch."""

    def __init__(self, model: Model, max_len: int, cfg: Config):
        import torch

        from policy import pick_dtype
        from klear.sampling import vllm_options

        device = vllm_options(torch.cuda.is_available(), max_len) or dict(gpu_memory_utilization=cfg.gpu_memory)
        from vllm import LLM

        self.llm = LLM(model=model.path, dtype=pick_dtype(cfg.dtype), seed=cfg.seed, max_model_len=max_len,
                       tensor_parallel_size=cfg.tensor_parallel, hf_overrides=model.override, disable_log_stats=True,
                       **device)
        self.model, self.cfg = model, cfg

    def rope(self) -> tuple[str, float, float]:
        if self.cfg.tensor_parallel > 1:  # the modules live in other processes
            return f"{self.llm.llm_engine.model_config.hf_config.rope_parameters}", math.nan, math.nan

        def read(model):
            rotary = next(m for m in model.modules() if hasattr(m, "cos_sin_cache"))
            cos, sin = rotary.cos_sin_cache[1].float().chunk(2)  # position 1: scale * cos and sin of each frequency
            return type(rotary).__name__, sin.atan2(cos).abs().min().item(), cos.hypot(sin).max().item()

        return self.llm.apply_model(read)[0]

    def generate(self, chunks: list[list[Request]]) -> Iterator[tuple[Request, str, int, str]]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        engine, cfg, requests = self.llm.llm_engine, self.cfg, [r for chunk in chunks for r in chunk]
        for at, r in enumerate(requests):
            engine.add_request(str(at), {"prompt_token_ids": r.problem.ids}, SamplingParams(
                seed=r.seed, temperature=cfg.temperature, top_p=cfg.top_p, top_k=cfg.top_k or -1,
                repetition_penalty=cfg.repetition_penalty, max_tokens=r.max_tokens,
                stop_token_ids=self.model.stop_ids, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY))
        while engine.has_unfinished_requests() and not signals:
            for done in engine.step():
                tokens, reason = list(done.outputs[0].token_ids), done.outputs[0].finish_reason
                yield requests[int(done.request_id)], self.model.text(tokens, reason), len(tokens), reason


class EngineError(Exception):
    """Ends the run once the engine and the progress bar are closed: (line for the user, exit code)."""


class APIEngine:
    """An OpenAI-compatible server: it gets messages and renders them itself."""

    NEUTRAL = {"temperature": 1, "top_p": 1, "top_k": -1, "repetition_penalty": 1}

    def __init__(self, cfg: Config):
        try:
            import openai
        except ImportError:
            die("engine api needs the openai client: pip install openai")
        self.openai, self.cfg, self.told = openai, cfg, set()
        self.key = os.environ.get("OPENAI_API_KEY") or "EMPTY"
        # all are sent, off or not: vLLM would take those that are missing from the model's generation_config.json
        self.body = dict(model=cfg.model, temperature=cfg.temperature, top_p=cfg.top_p, top_k=cfg.top_k or -1,
                         repetition_penalty=cfg.repetition_penalty, max_tokens=cfg.max_tokens)
        if cfg.enable_thinking != "auto":
            self.body["chat_template_kwargs"] = {"enable_thinking": cfg.enable_thinking == "true"}

    def generate(self, chunks: list[list[Request]]) -> Iterator[tuple[Request, str, int | None, str]]:
        waiting, tasks, failed, silent = [r for chunk in chunks for r in chunk][::-1], set(), [], 0
        loop = asyncio.new_event_loop()
        client = self.openai.AsyncOpenAI(base_url=self.cfg.api_base, api_key=self.key, max_retries=0,
                                         timeout=self.openai.Timeout(self.cfg.api_timeout_s, connect=10))
        try:
            while (waiting or tasks) and not signals:
                while waiting and len(tasks) < self.cfg.api_concurrency:
                    tasks.add(loop.create_task(self.ask(client, waiting.pop())))
                done, tasks = loop.run_until_complete(
                    asyncio.wait(tasks, timeout=0.5, return_when=asyncio.FIRST_COMPLETED))
                for request, answer in (task.result() for task in done):
                    if isinstance(answer, EngineError):
                        raise answer
                    failed, silent = (failed + [answer], silent + 1) if isinstance(answer, str) else (failed, 0)
                    if not isinstance(answer, str):
                        yield request, *answer
                if silent >= 3:  # one prompt may upset a server, but here is none
                    break
            if failed:
                raise EngineError(f"api_base {self.cfg.api_base}: {failed[-1]}, {self.cfg.api_retries + 1} times; the "
                                  f"same command goes on from what is in {self.cfg.output_dir}", 1)
        finally:
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.wait([*tasks, loop.create_task(client.close())]))
            loop.close()

    async def ask(self, client, request: Request) -> tuple[Request, tuple[str, int | None, str] | str | EngineError]:
        """(request, (response, its tokens, finish reason)), or why there is none, or what ends the run."""
        tries, pause = 0, 0.5
        while True:
            body, wait = dict(self.body), 0.0
            try:
                async with asyncio.timeout(self.cfg.api_timeout_s):  # the client's own starts again at every byte
                    reply = await client.chat.completions.create(
                        model=body.pop("model"), messages=request.problem.messages, seed=request.seed, extra_body=body)
                return request, response_of(reply)
            except self.openai.APIStatusError as error:
                why = self.hide(error)
                if error.status_code in (400, 422) and self.adapt(body, str(error)):
                    continue
                if error.status_code < 500 and error.status_code not in (408, 409, 429):
                    hint = "; most servers want a URL that ends in /v1" if error.status_code == 404 else ""
                    what = f"{request.problem.benchmark} {request.problem.id}: {why}{hint}"
                    return request, EngineError(f"api_base {self.cfg.api_base}: {what}", 2)
                after = error.response.headers.get("retry-after", "")
                wait = float(after) if after.isdigit() else 0.0
            except TimeoutError:
                why = f"no response within api_timeout_s, {self.cfg.api_timeout_s:g} s"
            except (self.openai.APIError, ValueError, TypeError, AttributeError, IndexError) as error:
                lost = isinstance(error, self.openai.APIConnectionError)
                why = self.hide(error) if lost else f"no chat completion came back ({self.hide(error)})"
            if tries == self.cfg.api_retries:
                return request, why
            if why not in self.told and RANK == 0:
                self.told.add(why)
                tqdm.write(f"{why}: asking again", file=sys.stderr)
            await asyncio.sleep(max(wait, pause * random.uniform(0.5, 1)))
            tries, pause = tries + 1, min(2 * pause, 60)

    def adapt(self, body: dict, message: str) -> bool:
        """Whether a server that knows fewer parameters was given one too many that changes nothing; it is left out."""
        if "max_completion_tokens" in message and "max_tokens" in body:
            self.body["max_completion_tokens"] = self.body.pop("max_tokens", self.cfg.max_tokens)
            return True
        unknown = [key for key, off in self.NEUTRAL.items() if body.get(key) == off and key in message]
        for key in unknown:
            self.body.pop(key, None)
        return bool(unknown)

    def hide(self, error: Exception) -> str:
        """The message without the key, which some servers repeat."""
        return one_line(error).replace(self.key, "***").rstrip(".")


def response_of(reply) -> tuple[str, int | None, str]:
    """(response, its tokens, finish reason) of a chat completion. What a server splits off as reasoning goes back
    between think tags. Raises AttributeError, TypeError, IndexError or ValueError where it is none."""
    choice = reply.choices[0]
    text, more = choice.message.content or "", choice.message.model_extra or {}
    if thought := more.get("reasoning_content") or more.get("reasoning"):
        cut = choice.finish_reason == "length" and not text
        text = f"<think>\n{thought}" + ("" if cut else f"\n</think>\n\n{text}")
    elif "</think>" in text and "<think>" not in text.split("</think>")[0]:
        text = "<think>\n" + text  # the server's template opened it
    if not isinstance(choice.finish_reason, str):
        raise ValueError("no finish_reason")
    return text, reply.usage.completion_tokens if reply.usage else None, choice.finish_reason


# ---------------------------------------------------------------------------------------------- generations and scoring
class Journal:
    """generations.jsonl while a run goes on: a line when a sample is generated, a short line when it is scored.

    Each rank appends to its own file; read() joins all of them, so a killed run continues with any number of ranks."""

    def __init__(self, folder: Path, rank: int):
        self.path = folder / ("generations.jsonl" if rank == 0 else f"generations.rank{rank}.jsonl")
        if self.path.exists():  # a crash can leave half a line, and what is appended next would be lost with it
            with open(self.path, "rb+") as file:
                data = file.read()
                file.truncate(data.rfind(b"\n") + 1)
        self.file, self.lock = open(self.path, "ab"), threading.Lock()

    def write(self, *rows: dict) -> None:
        with self.lock:
            lines = (json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n" for row in rows)
            self.file.write(b"".join(lines))
            self.file.flush()

    @staticmethod
    def read(folder: Path) -> tuple[dict[tuple, dict], list[str]]:
        """((benchmark, id, sample) -> row with its verdict if there is one), and a message for each unusable line."""
        rows, bad = {}, []
        for path in [*folder.glob("generations.jsonl"), *sorted(folder.glob("generations.rank*.jsonl"))]:
            for where, row in read_source(str(path), "output_dir"):
                try:
                    if isinstance(row, ValueError):
                        raise row
                    key = str(row["benchmark"]), str(row["id"]), int(row["sample"])
                    rows.setdefault(key, {}).update(row)
                except (KeyError, TypeError, ValueError) as error:
                    bad.append(f"{where}: {error if isinstance(error, ValueError) else 'no benchmark, id or sample'}")
        return {key: row for key, row in rows.items() if "response" in row}, bad


class Scorer:
    """Scores samples in the reward pool while the engine goes on. A thread of its own hands them over, a few at a time:
    the tests of a code problem can be megabytes, and are unpacked only when their turn comes."""

    def __init__(self, pool, write, workers: int):
        self.pool, self.write, self.queue = pool, write, queue.SimpleQueue()
        self.slots = threading.Semaphore(4 * workers)
        self.changed, self.left, self.done, self.correct, self.error = threading.Condition(), 0, 0, 0, None
        threading.Thread(target=self.feed, daemon=True).start()

    def submit(self, row: dict, problem: Problem) -> None:
        """`problem.waiting` must count this sample already."""
        with self.changed:
            self.left += 1
        self.queue.put((row, problem))

    def feed(self) -> None:
        try:
            while True:
                row, problem = self.queue.get()
                self.slots.acquire()
                future = self.pool.submit(dict(data_source=problem.data_source, response=row["response"],
                                               ground_truth=ground_truth(problem), prompt_tail=problem.text[-64:]))
                future.add_done_callback(functools.partial(self.finish, row, problem))
        except Exception as error:  # any failure here must end wait(), which raises it, and not hang the run
            self.fail(error)

    def finish(self, row: dict, problem: Problem, future) -> None:
        if self.pool.closed:  # the run ends early: what the pool still says is no verdict
            return
        try:
            reward = future.result()
            verdict = dict(correct=bool(reward.correct), status=reward.status, score=reward.score, answer=None)
            # the last number of what was cut is no answer
            cut = row.get("finish_reason") == "length" and "\\boxed" not in row["response"]
            if not (is_code(problem) or cut and not reward.correct or reward.status.startswith("no_")):
                verdict["answer"] = rewards.extract_answer(row["response"]) or None
            row.update(verdict)
            self.write({key: row[key] for key in ("benchmark", "id", "sample")} | verdict)
        except Exception as error:  # the same
            return self.fail(error)
        self.slots.release()
        with self.changed:
            self.left, self.done, self.correct = self.left - 1, self.done + 1, self.correct + verdict["correct"]
            problem.waiting -= 1
            problem.tests = problem.tests if problem.waiting else None
            self.changed.notify_all()

    def fail(self, error: Exception) -> None:
        with self.changed:
            self.error = error
            self.changed.notify_all()

    def wait(self) -> None:
        with self.changed:
            self.changed.wait_for(lambda: not self.left or self.error)
        if self.error:
            raise self.error


# ----------------------------------------------------------------------------------------------------------------- main
def write_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8", errors="replace")
    part.replace(path)


def model_fingerprint(path: str) -> str:
    """Tells retrained weights under an old name: config, and 16 blocks out of every weight file."""
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(Path(path).glob("*")) if Path(path).is_dir() else []:
        if file.suffix in (".safetensors", ".bin") or file.name == "config.json":
            size = file.stat().st_size
            digest.update(f"{file.name} {size}".encode())
            with open(file, "rb") as data:
                for block in range(16):
                    data.seek(size * block // 16)
                    digest.update(data.read(4096))
    return digest.hexdigest()


def problems_fingerprint(problems: list[Problem]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for p in problems:  # one at a time: the tests of LiveCodeBench are gigabytes
        digest.update(repr((p.id, p.text, p.data_source, p.truth)).encode("utf-8", "replace"))
    return digest.hexdigest()


def changes(out: Path, settings: dict) -> list[str]:
    """How the settings in config.yaml differ from these, where it matters; a missing file is a difference."""
    if not (out / "config.yaml").exists():
        return ["no config.yaml"]
    old = read_settings(out)
    return [f"{key} was {old.get(key)!r}, now {value!r}" for key, value in settings.items()
            if key not in MAY_CHANGE | {"problems"} and old.get(key) != value] + [
                f"{name} had other problems or prompts" for name, value in settings["problems"].items()
                if old.get("problems", {}).get(name, value) != value]


def open_output(out: Path, settings: dict) -> None:
    """Rank 0 refuses to continue in a folder whose generations were made with other settings, and says which; then it
    writes the settings. The other ranks wait for that: a generation must never be there before its settings."""
    if RANK:
        while changes(out, settings):  # if rank 0 refuses, the launcher ends this one
            time.sleep(0.1)
        return
    take(out)
    if (out / "config.yaml").exists() and "model_fingerprint" not in read_settings(out):
        die(f"output_dir {out} holds a run of another program; choose another output_dir")
    rows, bad = Journal.read(out)
    if rows and (changed := changes(out, settings)):
        die(f"output_dir: {out} holds generations of other settings: {'; '.join(changed)}. "
            "Choose another output_dir or the old settings")
    if rows:  # benchmarks that are not asked for now keep their place
        settings["problems"] = read_settings(out)["problems"] | settings["problems"]
    write_text(out / "config.yaml", yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    if bad:
        print(f"{len(bad)} unusable lines in {out} will be made again; the first: {bad[0]}", file=sys.stderr)


def share(requests: list[Request], done: set[tuple], cfg: Config) -> list[list[Request]]:
    """This rank's part of the requests, in chunks, without what is done. Dealt out before `done` is taken away, so that
    the share is the same whenever a rank starts. A chunk is a problem (its samples share a prefix cache); HF: it is a
    batch, made again as a whole, because the last bit of a row's logits can depend on its batch."""
    if cfg.engine != "hf":
        mine = [list(part) for _, part in itertools.groupby(requests, lambda r: r.key[:2])][RANK::WORLD_SIZE]
        return [left for chunk in mine if (left := [r for r in chunk if r.key not in done])]
    order = sorted(requests, key=lambda r: len(r.problem.ids))
    mine = [order[at:at + cfg.hf_batch] for at in range(0, len(order), cfg.hf_batch)][RANK::WORLD_SIZE]
    return [chunk for chunk in mine if any(r.key not in done for r in chunk)]


def generate(problems: list[Problem], out: Path, scorer: Scorer, journal: Journal, model: Model | None,
             cfg: Config) -> None:
    """Generates and scores whatever of the n samples is missing in `out`; returns when this rank's share is done."""
    context = model.context if model else sys.maxsize
    requests = [Request(p, sample, seed_of(cfg.seed, p.id, sample), min(cfg.max_tokens, context - len(p.ids)))
                for p in problems for sample in range(cfg.n)]
    rows, _ = Journal.read(out)
    chunks = share(requests, set(rows), cfg)
    mine = {r.key: r.problem for chunk in share(requests, set(), cfg) for r in chunk}
    for key, problem in mine.items():
        problem.waiting += "status" not in rows.get(key, {})
    for key, row in rows.items():  # generated before a crash, but not scored
        if key in mine and "status" not in row:
            scorer.submit(row, mine[key])
    if chunks:
        engine = start_engine(requests, model, cfg)
        total = sum(len(chunk) for chunk in chunks)
        catch_signals()  # from here on a signal lets the engine hand over what is complete
        with tqdm(total=total, unit="sample", disable=RANK != 0, desc="generate", smoothing=0.05) as bar:
            for request, response, tokens, reason in engine.generate(chunks):
                if request.key not in rows:
                    row = dict(zip(("benchmark", "id", "sample"), request.key), response=response, finish_reason=reason,
                               tokens=tokens)
                    journal.write(row)
                    scorer.submit(row, request.problem)
                bar.update()
                if scorer.done:
                    right = scorer.correct / scorer.done
                    bar.set_postfix_str(f"scored {scorer.done}, correct {right:.3f}", refresh=False)
                if scorer.error:
                    break
        catch_signals(at_once=True)
        if signals:
            raise KeyboardInterrupt
    if scorer.left and RANK == 0:
        print(f"scoring the last {scorer.left} samples", file=sys.stderr)
    scorer.wait()


def start_engine(requests: list[Request], model: Model | None, cfg: Config):
    if cfg.engine == "api":
        return APIEngine(cfg)
    max_len = max(len(r.problem.ids) + r.max_tokens for r in requests)
    try:
        engine = {"hf": HFEngine, "vllm": VLLMEngine}[cfg.engine](model, max_len, cfg)
    except Exception as error:  # an engine raises what it likes while it loads, and its message says what to do
        die(f"engine {cfg.engine} cannot start with {cfg.model}: {one_line(error)}")
    if cfg.yarn_factor and RANK == 0:
        name, lowest, scale = engine.rope()
        print(f"YaRN in force: factor {cfg.yarn_factor}, context {model.context:,} tokens; {name}, lowest frequency "
              f"{lowest:.4g}, attention scale {scale:.4g}", flush=True)
    return engine


def wait_for_ranks(out: Path, wanted: set[tuple]) -> dict[tuple, dict]:
    """The rows of all ranks, once every wanted sample has its verdict. By files, not by collectives: ranks may end
    hours apart, beyond any collective's timeout; a rank that fails is the launcher's to report."""
    while True:
        began = time.monotonic()
        rows, _ = Journal.read(out)
        if all("status" in rows.get(key, {}) for key in wanted):
            return rows
        time.sleep(max(0.5, 5 * (time.monotonic() - began)))


def evaluate(cfg: Config, out: Path) -> None:
    """Generation and scoring on all ranks, then the report by rank 0."""
    if cfg.engine == "auto":
        cfg.engine = "vllm" if importlib.util.find_spec("vllm") else "hf"
    elif cfg.engine == "vllm" and not importlib.util.find_spec("vllm"):
        die("engine vllm is not installed; pip install vllm, or --engine hf")
    problems = load_problems(cfg)
    every = {(p.benchmark, p.id): p for part in problems.values() for p in part}
    model = None if cfg.engine == "api" else read_model(cfg)
    render_all(problems, model and model.tokenizer, cfg)
    if model:
        check_lengths(list(every.values()), model, cfg)
    settings = dataclasses.asdict(cfg) | {
        "model_fingerprint": model_fingerprint(model.path) if model else "",
        "problems": {name: problems_fingerprint(part) for name, part in problems.items()}}
    open_output(out, settings)
    # The pool comes before the engine: its processes start while the model loads, and keep their own CPU affinity.
    workers = cfg.workers or max(1, len(os.sched_getaffinity(0)) // LOCAL_RANKS)
    with reward_pool(workers, cfg) as pool:
        journal = Journal(out, RANK)
        generate(list(every.values()), out, Scorer(pool, journal.write, workers), journal, model, cfg)
        if RANK:
            return
        order = {key: at for at, key in enumerate(every)}
        wanted = {(*key, sample) for key in every for sample in range(cfg.n)}
        rows = wait_for_ranks(out, wanted)
        keys = sorted(rows, key=lambda key: (order.get(key[:2], len(order)), key))
        write_text(out / "generations.jsonl", "".join(json.dumps(rows[key], ensure_ascii=False) + "\n" for key in keys))
        for part in out.glob("generations.rank*.jsonl"):
            part.unlink()
        finish([rows[key] for key in keys if key in wanted], every, [], pool, out, cfg)


def rescore(cfg: Config, out: Path) -> None:
    """score_only: rows of any tool -> verdicts, results, report. A row that cannot be used is named and counted."""
    source = Path(cfg.score_only)
    if not source.exists():
        die(f"score_only: {source} does not exist; give a JSONL file of generations")
    if (out / "config.yaml").exists() or source.resolve() == (out / "generations.jsonl").resolve():
        die(f"output_dir: {out} holds generations of a model, which would be overwritten; choose another output_dir")
    known: dict[tuple[str, str], Problem] = {}
    if cfg.data != Config.data:  # ground truths for rows that carry none
        loaded = load_problems(cfg)
        known = {(p.benchmark, p.id): p for part in loaded.values() for p in part}
        if len(loaded) == 1:  # rows of other tools need not name the benchmark
            known |= {("", p.id): p for part in loaded.values() for p in part}
    take(out)
    problems, rows, bad, samples = {}, [], [], Counter()
    for number, (where, row) in enumerate(read_source(str(source), "score_only")):
        try:
            problem, responses = scored_row(row, source.stem, number, known, cfg)
        except ValueError as error:
            bad.append(f"{where}: {error}")
            continue
        key = problem.benchmark, problem.id
        if problems.setdefault(key, problem).truth != problem.truth:
            die(f"{where}: id {key[1]!r} had another ground truth before; an id names one problem (of a \"benchmark\")")
        known_too = {k: row[k] for k in ("finish_reason", "tokens") if row.get(k) is not None and len(responses) == 1}
        for response in responses:
            rows.append({"benchmark": key[0], "id": key[1], "sample": samples[key], "response": response, **known_too})
            samples[key] += 1
            problems[key].waiting += 1
    for line in bad[:5]:
        print(f"left out: {line}", file=sys.stderr)
    if len(bad) > 5:
        print(f"left out: {len(bad)} rows in all", file=sys.stderr)
    if not rows:
        die(f"score_only: {source} has no usable row" + f" (first: {bad[0]})" * bool(bad))
    workers = cfg.workers or os.cpu_count() or 1
    with reward_pool(workers, cfg) as pool:
        scorer = Scorer(pool, lambda row: bar.update(), workers)
        with tqdm(total=len(rows), unit="sample", desc="score") as bar:
            for row in rows:
                scorer.submit(row, problems[row["benchmark"], row["id"]])
            scorer.wait()
        write_text(out / "generations.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        finish(rows, problems, bad, pool, out, cfg)


def scored_row(row: dict | ValueError, benchmark: str, number: int, known: dict[tuple, Problem],
               cfg: Config) -> tuple[Problem, list[str]]:
    """Problem and responses of one row of a file of generations. Raises ValueError."""
    if isinstance(row, ValueError):
        raise row
    own, name, responses = row.get("benchmark"), row_id(row) or str(number), responses_of(row)
    benchmark = str(own or benchmark)
    if problem := known.get((benchmark, name)) or (not own and known.get(("", name))):
        return problem, responses
    problem = Problem(benchmark, name, [], row.get("data_source") or "math_verify", truth_of(row))
    with contextlib.suppress(ValueError):  # a row may come without its prompt, which is only shown
        problem.text = prompt_of(row)[-1]["content"]
    return checked(problem, cfg), responses


def finish(rows: list[dict], problems: dict[tuple, Problem], bad: list[str], pool, out: Path, cfg: Config) -> None:
    """results.json, the printed table and the report, from scored samples in the order of the problems."""
    groups: dict[str, dict[str, list[dict]]] = {}
    for row in rows:
        groups.setdefault(row["benchmark"], {}).setdefault(row["id"], []).append(row)
    same = same_answers(groups, pool)
    results = {}
    for name, part in groups.items():
        results[name] = summarise(part, ks(cfg), same, is_code(problems[name, next(iter(part))]))
        results[name] |= {"bad_rows": len(bad)} if bad else {}
    write_text(out / "results.json", json.dumps(results, indent=1, ensure_ascii=False))
    print(markdown(results))
    if not cfg.report:
        return
    meta = {"title": f"Evaluation of {cfg.score_only or cfg.model}", "table": table(results), "benchmarks": [],
            "settings": [] if cfg.score_only else [(key, getattr(cfg, key)) for key in SETTINGS]}
    texts: list[tuple[str, str]] = []
    for b, (name, part) in enumerate(groups.items()):
        shown = []
        for p, (i, samples) in enumerate(part.items()):
            problem = problems[name, i]
            shown.append({"id": i, "code": is_code(problem), "truth": problem.shown, "samples": [
                [r["status"], r.get("tokens"), r.get("finish_reason") == "length", (r["answer"] or "")[:300] or None,
                 r["score"]] for r in samples]})
            texts.append((f"{b}-{p}", problem.text or "\n\n".join(m["content"] for m in problem.messages)))
            texts += [(f"{b}-{p}-{s}", row["response"]) for s, row in enumerate(samples)]
        line = {key: results[name][key] for key in ("avg", "ci95")}
        meta["benchmarks"].append({"name": name, "problems": shown, **line})
    report.write_html(out / "report.html", meta, texts)
    report.write_png(out / "results.png", results, meta["title"])
    print(f"\n{out}/report.html and results.png show every problem and sample")


def reward_pool(workers: int, cfg: Config):
    """All tests of a program count, and the first failure settles it, so no more are run."""
    return rewards.RewardPool(workers, timeout_s=cfg.timeout_s, code_reward="all_or_nothing", max_tests=1_000_000)


def prepare_toy(cfg: Config) -> str:
    """The warmed-up toy model, made by the first rank that comes and shared with rl_gppo.py's default."""
    if cfg.max_tokens == Config.max_tokens:
        cfg.max_tokens = 64  # its context is a few hundred tokens
    kind = "code" if "toy:code" in cfg.data else "math"
    try:
        return toy.prepare(str(Path(cfg.output_dir).parent / f"toy_{kind}_sft"), kind)
    except ValueError as error:
        die(str(error))


def own_gpus(local_rank: int, local_ranks: int, tensor_parallel: int, visible: str | None) -> str:
    """The GPUs of a rank, as CUDA_VISIBLE_DEVICES takes them; `visible`: its value for all ranks, if there is one."""
    if visible == "":
        return ""
    need = local_ranks * tensor_parallel
    gpus = visible.split(",") if visible else [str(i) for i in range(need)]
    if len(gpus) < need:
        die(f"{local_ranks} ranks, tensor_parallel {tensor_parallel} need {need} GPUs; visible: {visible}")
    return ",".join(gpus[local_rank * tensor_parallel:(local_rank + 1) * tensor_parallel])


def main(argv: list[str] | None = None) -> None:
    cfg = check_config(read_config(Config, sys.argv[1:] if argv is None else argv, MOST_USED))
    out = Path(cfg.output_dir)
    if cfg.compare:
        a, _, b = cfg.compare.partition(",")
        return print(compare(Path(a), Path(b)) if b else die("compare needs two folders: --compare A B"))
    if WORLD_SIZE > 1 and cfg.engine != "api":  # a rank sees its own GPUs, its engine none of the launcher's variables
        os.environ["CUDA_VISIBLE_DEVICES"] = own_gpus(
            LOCAL_RANK, LOCAL_RANKS, cfg.tensor_parallel, os.environ.get("CUDA_VISIBLE_DEVICES"))
        for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(key, None)
    catch_signals(at_once=True)
    try:
        (rescore if cfg.score_only else evaluate)(cfg, out)
    except EngineError as error:
        die(*error.args)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        die(f"output_dir {out}: {one_line(error)}; make room (or let this user in), the same command goes on then")
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, of any rank
            raise
        last_line(f"eval.py: rank {RANK} is out of GPU memory; give a smaller hf_batch; what is generated "
                  f"stands in {out}, and the same command goes on from there", sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        die(f"{signals[0]}: stopped; what is generated stands in {out}, and the same command goes on from there",
            code=128 + signal.Signals[signals[0]])


if __name__ == "__main__":
    main()
