"""Evaluation: avg@n with error bars on AIME, HMMT, MATH-500, GSM8K, LiveCodeBench or your own file. The whole stage is here.

    python eval.py                                                    # embedded default: toy model, a+b+c, CPU
    python eval.py --model Kwai-Klear/Klear-Reasoner-8B --data aime24,aime25,hmmt25 --n 64 --output_dir runs/klear_math
    accelerate launch --num_processes 8 eval.py --model ...           # data parallel: one engine a GPU, same results
    python eval.py --model ... --max_tokens 65536 --yarn_factor 2.5 --top_k 20 --repetition_penalty 1.05   # 64K
    python eval.py --score_only FILE.jsonl --output_dir runs/rescored # any tool's generations, no model; rows {"id", "response"
        # or "messages", "answer" or "ground_truth"}, or only {"id", "response"} with --data BENCHMARK
    python eval.py --compare runs/a runs/b                            # paired difference of two evaluations

`data` is a comma-separated list of benchmark names (see BENCHMARKS), files (JSONL, Parquet), folders of files, hub names,
toy:math, toy:code, or NAME=PATH: a local copy that counts as that benchmark. Rows: {"messages", "answer"},
{"messages", "meta": {"answer"}}, {"problem" | "question", "answer"}, LiveCodeBench's, and
RL rows {"data_source", "prompt", "reward_model": {"ground_truth"}}.

output_dir: config.yaml (the settings; other settings are refused), generations.jsonl (a row per sample, appended as it
goes; a killed run continues there), results.json, results.png, report.html (self-contained, every sample one click away).

Estimators, over problems i with samples j, p_i = mean_j correct_ij:
    avg@n      mean_i p_i; stderr = std_i(p_i) / sqrt(problems), clustered by problem: it also holds the spread of the problems
    stderr_resample = sqrt(sum_i p_i(1-p_i)/(n_i-1)) / problems: what a new run with other seeds on the SAME problems would move
    ci95       avg ± t(0.975, problems-1) * stderr, cut to [0, 1]; Clopper-Pearson over problems if all or none are right
    pass@k     mean_i 1 - C(n-c_i, k)/C(n, k), unbiased (Chen et al., arXiv 2107.03374)
    maj@n      the answer with most votes (equal as mathematics); classes that tie share the point; no answer, no vote

Differs from the paper: its own prompts for code are not published; the LiveCodeBench prompt here is LiveCodeBench's in content.
"""

import base64
import dataclasses
import datetime
import difflib
import fcntl
import functools
import hashlib
import importlib.util
import inspect
import io
import json
import math
import os
import pickle
import queue
import re
import statistics
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from tqdm import tqdm

import report
import rewards
import toy

# torch, transformers and vLLM are imported where an engine needs them: score_only, compare and the reward workers do not.
RANK, WORLD_SIZE, LOCAL_RANK = (int(os.environ.get(key, default)) for key, default in
                                (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
LOCAL_RANKS = int(os.environ.get("LOCAL_WORLD_SIZE", WORLD_SIZE))


# ---------------------------------------------------------------------------------------------------------------- config
@dataclass
class Config:
    model: str = "toy"  # Hugging Face folder or hub name; "toy" makes the tiny model and warms it up by sft.py
    data: str = "toy:math"  # benchmarks with commas: names, files, folders, hub names, toy:*, NAME=PATH
    limit: int = 0  # only the first problems of each benchmark; 0 = all
    n: int = 4  # samples a problem (paper: 64 for AIME and HMMT, 8 for LiveCodeBench)
    temperature: float = 0.6  # 0 = greedy
    top_p: float = 0.95  # nucleus
    top_k: int = 0  # 0 = off (64K run of the paper: 20)
    repetition_penalty: float = 1.0  # 64K run of the paper: 1.05
    max_tokens: int = 32768  # longest response; toy: 64
    yarn_factor: float = 0.0  # YaRN over yarn_original positions, 2.5 for 64K; 0 = off
    yarn_original: int = 32768  # positions before YaRN, at most the model's own
    prompt_suffix: str = ""  # a line after the last user message, e.g. "Put the final answer in \boxed{}."
    enable_thinking: str = "auto"  # true | false: handed to the chat template | auto: not handed over
    ask_think: bool = True  # false: rows whose data_source asks for think tags are judged by the answer alone
    k: str = "1"  # list for pass@k, e.g. 1,8,64
    seed: int = 0  # the seed of a sample is a function of (seed, problem, sample)
    output_dir: str = "runs/eval"  # see above
    engine: str = "auto"  # vllm | hf | auto (vllm where it is installed)
    dtype: str = "auto"  # bfloat16 | float32 | auto: bfloat16 on a GPU, float32 on a CPU
    tensor_parallel: int = 1  # GPUs of one engine; ranks x tensor_parallel = GPUs
    gpu_memory: float = 0.9  # share of GPU memory for vLLM
    hf_batch: int = 64  # samples generated at once by hf
    workers: int = 0  # reward processes per rank; 0 = cores / ranks on this machine
    timeout_s: float = 10.0  # of the math verifier, per response
    score_only: str = ""  # a file of generations to score; no model
    compare: str = ""  # two output folders: --compare A B
    report: bool = True  # write report.html and results.png


# What may differ from the settings in output_dir when a run continues there; everything else would mix two experiments.
MAY_CHANGE = {"data", "n", "k", "output_dir", "tensor_parallel", "gpu_memory", "hf_batch", "workers", "timeout_s", "compare",
              "report"}


def die(message: str) -> None:
    """Ends the run for a user's mistake: one line from rank 0, exit code 2."""
    if RANK == 0:
        print(f"eval.py: {message}", file=sys.stderr)
    sys.exit(2)


def read_config(argv: list[str]) -> Config:
    """--config FILE.yaml first, then --key value or --key=value; values are YAML, cast to the type of the default."""
    if "--help" in argv or "-h" in argv:
        sys.exit(print(__doc__, inspect.getsource(Config), sep="\n"))
    argv = [part for arg in argv for part in (arg.split("=", 1) if arg.startswith("--") else [arg])]
    if "--compare" in argv and len(argv) > (at := argv.index("--compare")) + 2 and not argv[at + 2].startswith("--"):
        argv[at + 1:at + 3] = [",".join(argv[at + 1:at + 3])]
    flags = dict(zip(argv[::2], argv[1::2]))
    if len(argv) % 2 or not all(key.startswith("--") for key in flags):
        die(f"flags come in pairs, --key value; got: {' '.join(argv)}")
    types = {f.name: type(f.default) for f in dataclasses.fields(Config)}
    values = {}
    if recipe := flags.pop("--config", None):
        try:
            values = yaml.safe_load(Path(recipe).read_text()) or {}
        except (OSError, yaml.YAMLError) as error:
            die(f"--config {recipe}: {' '.join(str(error).split())}")
        if not isinstance(values, dict):
            die(f"--config {recipe}: expected lines of the form `key: value`")
    for key, value in ((key[2:].replace("-", "_"), value) for key, value in flags.items()):
        try:  # text stays as it was typed: a prompt may hold what YAML takes for a mapping
            values[key] = value if types.get(key) is str else yaml.safe_load(value)
        except yaml.YAMLError:
            values[key] = value
    for key, value in values.items():
        if key not in types:
            near = difflib.get_close_matches(key, types, 1, 0)
            die(f"unknown option {key!r}; the nearest is {near[0]!r} (all: python eval.py --help)")
        if types[key] is str and isinstance(value, (list, bool)):  # YAML lists and true/false for textual knobs
            value = ",".join(map(str, value)) if isinstance(value, list) else str(value).lower()
        try:
            if isinstance(value, bool) != (types[key] is bool) or value is None or isinstance(value, (list, dict)):
                raise ValueError
            values[key] = types[key](value)
            if types[key] is int and float(value) != values[key]:
                raise ValueError
        except ValueError:
            die(f"{key} must be {types[key].__name__}, got {value!r}")
    cfg = Config(**values)
    for key, allowed in {"engine": ["auto", "vllm", "hf"], "enable_thinking": ["auto", "true", "false"],
                         "dtype": ["auto", "bfloat16", "float32"]}.items():
        if getattr(cfg, key) not in allowed:
            die(f"{key} must be one of {', '.join(allowed)}; got {getattr(cfg, key)!r}")
    for key in ("n", "max_tokens", "tensor_parallel", "hf_batch", "yarn_original"):
        if getattr(cfg, key) < 1:
            die(f"{key} must be at least 1, got {getattr(cfg, key)}")
    if cfg.temperature < 0 or not 0 < cfg.top_p <= 1 or cfg.top_k < 0 or cfg.repetition_penalty <= 0:
        die("temperature >= 0, 0 < top_p <= 1, top_k >= 0 and repetition_penalty > 0 are needed")
    if cfg.yarn_factor and cfg.yarn_factor <= 1:
        die(f"yarn_factor must be above 1 (or 0 for none), got {cfg.yarn_factor}")
    try:
        cfg.k = ",".join(map(str, sorted({int(k) for k in cfg.k.strip("[] ").split(",") if k.strip()})))
    except ValueError:
        die(f"k must be a list of whole numbers such as 1,8; got {cfg.k!r}")
    if not cfg.score_only and any(not 1 <= k <= cfg.n for k in ks(cfg)):
        die(f"k {cfg.k}: pass@k needs 1 <= k <= n = {cfg.n}")
    return cfg


def ks(cfg: Config) -> list[int]:
    return [int(k) for k in cfg.k.split(",") if k]


# ------------------------------------------------------------------------------------------------------------------ data
# name -> hub data set, configuration, split. LiveCodeBench: files of the hub repository, and the contests' window [from, to).
BENCHMARKS = {
    "aime24": dict(hub="HuggingFaceH4/aime_2024", split="train"),
    "aime25": dict(hub="math-ai/aime25", split="test"),
    "hmmt25": dict(hub="MathArena/hmmt_feb_2025", split="train"),
    "math500": dict(hub="HuggingFaceH4/MATH-500", split="test"),
    "gsm8k": dict(hub="openai/gsm8k", config="main", split="test"),
    "livecodebench_v5": dict(hub="livecodebench/code_generation_lite", files=("test3", "test4", "test5", "test6"),
                             window=("2024-08-01", "2025-02-01")),
    "livecodebench_v6": dict(hub="livecodebench/code_generation_lite", files=("test5", "test6"),
                             window=("2025-02-01", "2025-05-01")),
}


@dataclass
class Problem:
    benchmark: str
    id: str
    messages: list[dict]
    data_source: str
    truth: object  # ground truth for rewards.py; a LiveCodeBench row stays packed (gigabytes otherwise), see ground_truth()
    text: str = ""  # the rendered prompt
    ids: list[int] = dataclasses.field(default_factory=list)  # its tokens


class TextUnpickler(pickle.Unpickler):
    """Pickle without classes or functions: what is left can build text, numbers and containers, and run nothing."""

    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"refused to load {module}.{name}")


def livecodebench_tests(row: dict) -> dict:
    """{"inputs", "outputs"} and "fn_name" for functional problems: public and private tests of a LiveCodeBench row.

    private_test_cases is JSON, or base64(zlib(pickle(JSON string))). Raises ValueError for anything else."""
    tests = []
    for key in ("public_test_cases", "private_test_cases"):
        packed = row.get(key) or "[]"
        try:
            part = json.loads(packed)
        except json.JSONDecodeError:
            try:
                text = TextUnpickler(io.BytesIO(zlib.decompress(base64.b64decode(packed, validate=True)))).load()
                part = json.loads(text)
            # a hostile or damaged pickle raises nearly anything: all of them mean that the row is unusable
            except Exception as error:
                raise ValueError(f"{key} is neither JSON nor base64 of zlib of a pickled JSON string ({error})") from None
        if not isinstance(part, list) or not all(isinstance(t, dict) and {"input", "output", "testtype"} <= set(t) for t in part):
            raise ValueError(f'{key} is no list of {{"input", "output", "testtype"}}')
        tests += part
    if not tests:
        raise ValueError("no test cases")
    truth = {"inputs": [str(t["input"]) for t in tests], "outputs": [str(t["output"]) for t in tests]}
    if any(t["testtype"] == "functional" for t in tests):
        metadata = json.loads(row.get("metadata") or "{}")
        truth["fn_name"] = metadata.get("func_name") if isinstance(metadata, dict) else None
        if not truth["fn_name"]:
            raise ValueError("functional tests but no func_name in metadata")
    return truth


@functools.lru_cache(maxsize=4)
def _unpacked(public: str, private: str, metadata: str) -> dict:
    return livecodebench_tests(dict(public_test_cases=public, private_test_cases=private, metadata=metadata))


def ground_truth(problem: Problem):
    """What rewards.score takes: LiveCodeBench tests are unpacked here, when a response is scored."""
    return _unpacked(*problem.truth) if isinstance(problem.truth, tuple) else problem.truth


def livecodebench_prompt(row: dict) -> str:
    """The content of LiveCodeBench's own prompt: question, starter code or stdin/stdout, one fenced Python block."""
    if row.get("starter_code"):
        how = (f"Complete the following starter code, and give the whole solution in one Python code block.\n"
               f"```python\n{row['starter_code']}\n```")
    else:
        how = ("Read the input from stdin, solve the problem and write the answer to stdout. Do not test on the sample inputs. "
               "Give the whole program in one Python code block.\n```python\n# YOUR CODE HERE\n```")
    return ("Write a correct Python program that solves the following problem and passes all tests.\n\n"
            f"Question:\n{row['question_content']}\n\n{how}")


def to_problem(row: dict, benchmark: str, number: int) -> Problem:
    """One row of any format named in the docstring. Raises ValueError (what is wrong; what is expected)."""
    if not isinstance(row, dict):
        raise ValueError("not an object; expected one JSON object a line")
    meta = row.get("meta") if isinstance(row.get("meta"), dict) else {}
    found = (row[key] for key in ("id", "unique_id", "question_id", "task_id", "problem_idx") if row.get(key) is not None)
    name = str(next(found, meta.get("unique_id", number)))
    if "question_content" in row:
        packed = tuple(v if isinstance(v := row.get(key) or "", str) else json.dumps(v)
                       for key in ("public_test_cases", "private_test_cases", "metadata"))
        problem = Problem(benchmark, name, [{"role": "user", "content": livecodebench_prompt(row)}], "livecodebench", packed)
    else:
        messages = next((row[key] for key in ("messages", "prompt", "problem", "question") if row.get(key)), None)
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        if not isinstance(messages, list) or not all(isinstance(m, dict) and isinstance(m.get("content"), str) for m in messages):
            raise ValueError('no prompt; expected "messages", "prompt", "problem", "question" or "question_content"')
        while messages and messages[-1].get("role") == "assistant":
            messages = messages[:-1]
        if not messages:
            raise ValueError("no user message")
        problem = Problem(benchmark, name, messages, row.get("data_source", "math_verify"), row_truth(row))
    try:
        rewards.check(problem.data_source, ground_truth(problem))
    except json.JSONDecodeError as error:
        raise ValueError(f"metadata is not JSON ({error})") from None
    return problem


def row_truth(row: dict):
    """The ground truth of a math or RL row, wherever its format keeps it. Raises ValueError."""
    meta = row.get("meta") if isinstance(row.get("meta"), dict) else {}
    model = row.get("reward_model") if isinstance(row.get("reward_model"), dict) else {}
    places = (model.get("ground_truth"), row.get("ground_truth"), row.get("answer"), meta.get("answer"), meta.get("solution"))
    truth = next((x for x in places if x is not None and x != ""), None)
    if truth is None:
        raise ValueError('no ground truth; expected "answer", "ground_truth", "meta": {"answer"} or '
                         '"reward_model": {"ground_truth"}')
    if isinstance(truth, str) and "####" in truth:  # GSM8K: the solution, then #### and the number
        truth = truth.rsplit("####", 1)[1].strip().replace(",", "")
    return str(truth) if isinstance(truth, (int, float)) else truth


def read_file(path: Path) -> Iterator[tuple[str, dict]]:
    """Yields (FILE:LINE, row) of a JSONL or Parquet file, or of all such files of a folder."""
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in (".jsonl", ".parquet"))
        if not files:
            die(f"data: no .jsonl or .parquet file in {path}")
        for file in files:
            yield from read_file(file)
    elif path.suffix == ".parquet":
        import pyarrow.parquet  # comes with datasets

        yield from ((f"{path}:{i}", row) for i, row in enumerate(pyarrow.parquet.read_table(path).to_pylist(), 1))
    else:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    try:
                        yield f"{path}:{number}", json.loads(line)
                    except json.JSONDecodeError as error:
                        yield f"{path}:{number}", f"not JSON ({error.msg} at column {error.colno}); expected one object a line"


def read_hub(name: str, spec: dict) -> Iterator[tuple[str, dict]]:
    """Rows of a hub data set; LiveCodeBench's loading script no longer runs, so its JSONL files are read."""
    try:
        if "files" in spec:
            from huggingface_hub import hf_hub_download

            for file in spec["files"]:
                yield from read_file(Path(hf_hub_download(spec["hub"], f"{file}.jsonl", repo_type="dataset")))
        else:
            import datasets

            rows = datasets.load_dataset(spec["hub"], spec.get("config"), split=spec["split"])
            yield from ((f"{spec['hub']}:{i}", row) for i, row in enumerate(rows, 1))
    except Exception as error:  # the hub's clients raise a dozen types; every one means: this name gave no rows
        give = ('LiveCodeBench\'s test*.jsonl ("question_content", "public_test_cases", "private_test_cases")' if "files" in spec
                else 'JSONL with {"problem", "answer"} or {"messages", "answer"} a line')
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        die(f"data: {name}: cannot read {spec['hub']} from the hub ({what}); "
            f"give a local file instead, --data {name}=FILE: {give}")


def load_benchmark(entry: str, cfg: Config) -> list[Problem]:
    """The problems of one entry of `data`. Ids that occur twice get their row number."""
    name, _, path = entry.rpartition("=") if "=" in entry and not Path(entry).exists() else ("", "", entry)
    spec = BENCHMARKS.get(name or path, {})
    if path.startswith("toy:"):
        name = name or path.replace(":", "_")
        try:
            rows = [(f"{path}:{i}", row) for i, row in enumerate(toy.rl_rows(path[4:], 500, 0, split="eval"), 1)]
        except (KeyError, ValueError) as error:
            die(f"data: {path}: {error}")
    elif Path(path).exists():
        name, rows = name or Path(path).stem, read_file(Path(path))
    elif path in BENCHMARKS and not name:
        name, rows = path, read_hub(path, spec)
    elif path.count("/") == 1 and not path.endswith((".jsonl", ".json", ".parquet")) and path[0] not in "./":
        name = name or path.split("/")[1]
        rows = read_hub(name, dict(hub=path, split="test"))
    else:
        near = difflib.get_close_matches(path, BENCHMARKS, 1, 0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        die(f"data: {path!r} is no file and no benchmark{hint}; known: {', '.join(BENCHMARKS)}, "
            "toy:math, toy:code, a JSONL or Parquet file, a folder, NAME=PATH")
    problems = []
    for number, (where, row) in enumerate(rows):
        if "window" in spec and isinstance(row, dict):
            try:
                day = datetime.datetime.fromisoformat(row["contest_date"]).date().isoformat()
            except (KeyError, TypeError, ValueError):
                die(f"{where}: no ISO contest_date, which {name} selects by")
            if not spec["window"][0] <= day < spec["window"][1]:
                continue
        try:
            if isinstance(row, str):
                raise ValueError(row)
            problems.append(to_problem(row, name, number))
        except ValueError as error:
            die(f"{where}: {error}")
        if cfg.limit and len(problems) == cfg.limit:
            break
    if not problems:
        die(f"data: {entry} has no rows" + (" of contests from {} to {}".format(*spec["window"]) if "window" in spec else ""))
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
    if not cfg.ask_think:
        for problem in (p for part in problems.values() for p in part):
            problem.data_source = {"math_longcot_math_verify": "math_verify", "coder1_longcot": "coder1"}.get(
                problem.data_source, problem.data_source)
    return problems


def render(problems: dict[str, list[Problem]], tokenizer, cfg: Config) -> None:
    """Fills in text and ids by the chat template (its own thinking switch included)."""
    options = {} if cfg.enable_thinking == "auto" else {"enable_thinking": cfg.enable_thinking == "true"}
    for problem in (p for part in problems.values() for p in part):
        messages = problem.messages
        if cfg.prompt_suffix:
            asked = {**messages[-1], "content": f"{messages[-1]['content']}\n{cfg.prompt_suffix}"}
            problem.messages = messages = [*messages[:-1], asked]
        problem.text = (tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **options)
                        if tokenizer.chat_template else "\n".join(m["content"] for m in messages))
        problem.ids = tokenizer(problem.text, add_special_tokens=False)["input_ids"]


# --------------------------------------------------------------------------------------------------------------- engines
@dataclass
class Request:
    problem: Problem
    sample: int
    seed: int
    max_tokens: int  # of cfg, or what the context leaves after the prompt

    @property
    def key(self) -> tuple[str, str, int]:
        return self.problem.benchmark, self.problem.id, self.sample


def seed_of(*key) -> int:
    """A 63-bit seed that is a function of the key alone, so that a sample does not depend on batch, rank or order."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big") >> 1


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


class HFEngine:
    """transformers' generate: batches in a fixed order, each row sampled by its own numbers."""

    def __init__(self, path: str, config, override: dict, stop_ids: list[int], pad_id: int, max_len: int, cfg: Config):
        import torch
        from transformers import AutoModelForCausalLM

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        for key, value in override.items():
            setattr(config, key, value)
        self.model = AutoModelForCausalLM.from_pretrained(path, config=config, dtype=pick_dtype(cfg)).to(self.device).eval()
        self.stop_ids, self.pad_id, self.cfg = stop_ids, pad_id, cfg

    def rope(self) -> tuple[str, float, float]:
        rotary = next(m for m in self.model.modules() if hasattr(m, "inv_freq"))
        return f"{type(rotary).__name__} ({rotary.rope_type})", rotary.inv_freq.min().item(), rotary.attention_scaling

    def generate(self, chunks: list[list[Request]]) -> Iterator[tuple[Request, list[int], str]]:
        import torch
        from transformers import LogitsProcessorList

        for batch in chunks:
            width = max(len(r.problem.ids) for r in batch)
            ids = torch.tensor([[self.pad_id] * (width - len(r.problem.ids)) + r.problem.ids for r in batch])  # (B, T)
            real = torch.tensor([[0] * (width - len(r.problem.ids)) + [1] * len(r.problem.ids) for r in batch])  # (B, T)
            sampler = seeded_sampler([r.seed for r in batch], real.bool().to(self.device), self.cfg)
            with torch.inference_mode():
                out = self.model.generate(
                    ids.to(self.device), attention_mask=real.to(self.device), max_new_tokens=max(r.max_tokens for r in batch),
                    do_sample=False, logits_processor=LogitsProcessorList([sampler]), eos_token_id=self.stop_ids or None,
                    pad_token_id=self.pad_id, temperature=None, top_p=None, top_k=None, repetition_penalty=None)
            for request, tokens in zip(batch, out[:, width:].tolist()):
                # the first stop token ends a response, not the first pad: pad may equal eos
                end = next((at + 1 for at, token in enumerate(tokens[:request.max_tokens]) if token in self.stop_ids), None)
                yield request, tokens[:end or request.max_tokens], "length" if end is None else "stop"


def seeded_sampler(seeds: list[int], real, cfg: Config):
    """A logits processor: repetition penalty, temperature, top_k, top_p in vLLM's order, then inverse-CDF sampling with
    row b's own uniform numbers, so that a sample depends on its seed alone; leaves generate() a greedy choice.

    real: (B, T) bool, False on padding."""
    import torch

    # one row of uniforms per sample, drawn at once: (B, max_tokens)
    uniform = torch.stack([torch.rand(cfg.max_tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(s))
                           for s in seeds]).to(real.device)
    prompt, seen = real.shape[1], None

    def process(ids, scores):  # (B, T + t), (B, V) -> (B, V)
        nonlocal seen
        step, scores = ids.shape[1] - prompt, scores.float()
        if cfg.repetition_penalty != 1:
            if seen is None:  # padding must not be penalised: it may be a token that matters (eos)
                seen = torch.zeros_like(scores).scatter_add_(1, ids, real.float()) > 0  # (B, V)
            else:
                seen.scatter_(1, ids[:, -1:], True)
            less = torch.where(scores > 0, scores / cfg.repetition_penalty, scores * cfg.repetition_penalty)
            scores = torch.where(seen, less, scores)
        if cfg.temperature:
            scores = scores / cfg.temperature
            if 0 < cfg.top_k < scores.shape[1]:
                scores = scores.masked_fill(scores < scores.topk(cfg.top_k).values[:, -1:], -torch.inf)
            probs = scores.double().softmax(-1)
            if cfg.top_p < 1:
                ranked, order = probs.topk(min(1024, probs.shape[1]))  # a nucleus is small, and sorting 150,000 is slow
                if (ranked.sum(-1) < cfg.top_p).any():
                    ranked, order = probs.sort(-1, descending=True)
                beyond = ranked.cumsum(-1) - ranked >= cfg.top_p
                probs = torch.zeros_like(probs).scatter_(-1, order, ranked.masked_fill(beyond, 0.0))
            cdf = probs.cumsum(-1)  # (B, V)
            token = torch.searchsorted(cdf, uniform[:, step:step + 1] * cdf[:, -1:], right=True).clamp(max=scores.shape[1] - 1)
        else:
            token = scores.argmax(-1, keepdim=True)
        return torch.full_like(scores, -torch.inf).scatter_(-1, token, 0.0)

    return process


def pick_dtype(cfg: Config) -> str:
    import torch

    return cfg.dtype if cfg.dtype != "auto" else "bfloat16" if torch.cuda.is_available() else "float32"


class VLLMEngine:
    """vLLM inside this process, all requests at once: no sample waits for a batch."""

    def __init__(self, path: str, config, override: dict, stop_ids: list[int], pad_id: int, max_len: int, cfg: Config):
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        import torch
        from vllm import LLM

        # On a CPU a prompt must not be cut over two steps: vLLM then turns back the sample's generator, which only a GPU's can.
        device = (dict(gpu_memory_utilization=cfg.gpu_memory) if torch.cuda.is_available() else
                  dict(enforce_eager=True, enable_chunked_prefill=False, max_num_batched_tokens=max(8192, max_len)))
        self.llm = LLM(model=path, dtype=pick_dtype(cfg), seed=cfg.seed, max_model_len=max_len, disable_log_stats=True,
                       tensor_parallel_size=cfg.tensor_parallel, hf_overrides=override, **device)
        self.stop_ids, self.cfg = stop_ids, cfg

    def rope(self) -> tuple[str, float, float]:
        if self.cfg.tensor_parallel > 1:  # the modules live in other processes
            return f"{self.llm.llm_engine.model_config.hf_config.rope_parameters}", math.nan, math.nan

        def read(model):
            rotary = next(m for m in model.modules() if hasattr(m, "cos_sin_cache"))
            cos, sin = rotary.cos_sin_cache[1].float().chunk(2)  # position 1: scale * cos(frequency), scale * sin(frequency)
            return type(rotary).__name__, sin.atan2(cos).abs().min().item(), cos.hypot(sin).max().item()

        return self.llm.apply_model(read)[0]

    def generate(self, chunks: list[list[Request]]) -> Iterator[tuple[Request, list[int], str]]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        engine, cfg, requests = self.llm.llm_engine, self.cfg, [r for chunk in chunks for r in chunk]
        for at, r in enumerate(requests):
            engine.add_request(str(at), {"prompt_token_ids": r.problem.ids}, SamplingParams(
                temperature=cfg.temperature, top_p=cfg.top_p, top_k=cfg.top_k or -1, repetition_penalty=cfg.repetition_penalty,
                seed=r.seed, max_tokens=r.max_tokens, stop_token_ids=self.stop_ids, detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY))
        while engine.has_unfinished_requests():
            for done in engine.step():
                out = done.outputs[0]
                yield requests[int(done.request_id)], list(out.token_ids), out.finish_reason


# ----------------------------------------------------------------------------------------------- generations and scoring
def is_code(problem: Problem) -> bool:
    return "code" in problem.data_source


def sample_key(row: dict) -> tuple[str, str, int]:
    return str(row["benchmark"]), str(row["id"]), int(row["sample"])


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
            self.file.write(b"".join(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n" for row in rows))
            self.file.flush()

    @staticmethod
    def read(folder: Path) -> tuple[dict[tuple, dict], list[str]]:
        """((benchmark, id, sample) -> row with its verdict if there is one), and a message for each unusable line."""
        rows, bad = {}, []
        for path in sorted(folder.glob("generations*.jsonl")):
            for where, row in read_file(path):
                try:
                    if isinstance(row, str):
                        raise ValueError(row)
                    rows.setdefault(sample_key(row), {}).update(row)
                except (KeyError, TypeError, ValueError) as error:
                    bad.append(f"{where}: {error if isinstance(error, ValueError) else 'no benchmark, id or sample'}")
        return {key: row for key, row in rows.items() if "response" in row}, bad


class Scorer:
    """Scores samples in the reward pool while the engine goes on. A thread of its own hands them over, a few at a time:
    the tests of a code problem can be megabytes, and are unpacked only when their turn comes."""

    def __init__(self, pool, write, workers: int):
        self.pool, self.write, self.queue, self.slots = pool, write, queue.SimpleQueue(), threading.Semaphore(4 * workers)
        self.changed, self.left, self.done, self.correct, self.error = threading.Condition(), 0, 0, 0, None
        threading.Thread(target=self.feed, daemon=True).start()

    def submit(self, row: dict, problem: Problem) -> None:
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
        try:
            reward = future.result()
            verdict = dict(correct=bool(reward.correct), status=reward.status, score=reward.score, answer=None)
            cut = row.get("finish_reason") == "length" and "\\boxed" not in row["response"]  # its last number is no answer
            if not (is_code(problem) or cut and not reward.correct or reward.status.startswith("no_")):
                verdict["answer"] = rewards.extract_answer(row["response"]) or None
            row.update(verdict)
            self.write({key: row[key] for key in ("benchmark", "id", "sample")} | verdict)
        except Exception as error:  # the same
            return self.fail(error)
        self.slots.release()
        with self.changed:
            self.left, self.done, self.correct = self.left - 1, self.done + 1, self.correct + verdict["correct"]
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


# ---------------------------------------------------------------------------------------------------------------- scores
def student_t975(dof: int) -> float:
    """0.975 quantile of Student's t: exact for 1 and 2 degrees, Cornish-Fisher above (error < 0.02 at 3, < 0.001 from 6)."""
    z = 1.959963985
    if dof < 3:
        return {1: 12.7062, 2: 4.3027}.get(dof, math.nan)
    terms = (z, (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
             (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160)
    return sum(term / dof**power for power, term in enumerate(terms))


def mean_and_stderr(values: list[float]) -> tuple[float, float | None]:
    """Mean over problems and its standard error; None for a single problem."""
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def interval(mean: float, stderr: float | None, count: int, low: float, high: float) -> list[float] | None:
    if stderr is None:
        return None
    half = student_t975(count - 1) * stderr
    return [max(low, mean - half), min(high, mean + half)]


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Chance that k of the n samples, drawn without replacement, hold a correct one: 1 - C(n-c, k)/C(n, k)."""
    return 1 - math.comb(n - correct, k) / math.comb(n, k)


def same_answers(groups: dict[str, dict[str, list[dict]]], pool) -> set[tuple[str, str]]:
    """Pairs of differently written wrong answers to one problem that are equal as mathematics, asked of math_verify in
    the reward workers, all at once. Right answers need no question: they all equal the ground truth."""
    pairs = set()
    for rows in (rows for part in groups.values() for rows in part.values()):
        wrong = sorted({r["answer"] for r in rows if r.get("answer") is not None and not r["correct"]})
        for at, one in enumerate(wrong):
            pairs.update((one, two) for two in wrong[at + 1:] if not (plain_number(one) and plain_number(two)))
    asked = sorted(pairs)
    items = [dict(data_source="math_verify", ground_truth=one, response=f"\\boxed{{{two}}}") for one, two in asked]
    return {pair for pair, reward in zip(asked, pool.score_batch(items)) if reward.correct} if asked else set()


def plain_number(text: str) -> bool:
    return re.fullmatch(r"-?(0|[1-9]\d*)", text) is not None  # two of these are equal only if they are written alike


def majority(rows: list[dict], same: set[tuple[str, str]]) -> float:
    """The point of one problem under majority vote: 1 if the class of answers with most votes is right; classes that tie
    share the point. rows: samples with "answer" (None votes for nothing) and "correct"; same: see same_answers()."""
    classes: list[list] = []  # [answer, votes, correct]
    for row in rows:
        answer, correct = row.get("answer"), row["correct"]
        if answer is not None:
            for c in classes:
                if c[2] == correct and (correct or c[0] == answer or (min(c[0], answer), max(c[0], answer)) in same):
                    c[1] += 1
                    break
            else:
                classes.append([answer, 1, correct])
    most = max((c[1] for c in classes), default=0)
    top = [c for c in classes if c[1] == most]
    return sum(c[2] for c in top) / len(top) if top else 0.0


def summarise(groups: dict[str, list[dict]], ks: list[int], same: set[tuple[str, str]], code: bool) -> dict:
    """The line of one benchmark in results.json. groups: problem id -> its scored samples."""
    counts = {name: (sum(r["correct"] for r in rows), len(rows)) for name, rows in groups.items()}
    rates = [c / n for c, n in counts.values()]
    rows = [r for part in groups.values() for r in part]
    avg, stderr = mean_and_stderr(rates)
    again = [p * (1 - p) / (n - 1) for p, (_, n) in zip(rates, counts.values()) if n > 1]
    tokens = sorted(r["tokens"] for r in rows if isinstance(r.get("tokens"), int))
    ended = [r["finish_reason"] for r in rows if r.get("finish_reason")]
    status = Counter(r["status"] for r in rows)
    least = min(n for _, n in counts.values())
    ci95 = interval(avg, stderr, len(rates), 0.0, 1.0)
    if avg in (0, 1):  # no spread to estimate from: the exact interval for a share of which 0 of len(rates) were seen
        ci95 = [0.0, 1 - 0.025 ** (1 / len(rates))] if avg == 0 else [0.025 ** (1 / len(rates)), 1.0]
    return {
        "avg": avg, "stderr": stderr, "ci95": ci95,
        "stderr_resample": math.sqrt(sum(again)) / len(rates) if len(again) == len(rates) else None,
        "n": least, "problems": len(groups), "samples": len(rows),
        **{f"pass@{k}": statistics.fmean(pass_at_k(n, c, k) for c, n in counts.values()) for k in ks if k <= least},
        "maj": None if code else statistics.fmean(majority(part, same) for part in groups.values()),
        "tokens_mean": statistics.fmean(tokens) if tokens else None,
        "tokens_p95": tokens[math.ceil(0.95 * len(tokens)) - 1] if tokens else None,
        "truncated": sum(e == "length" for e in ended) / len(ended) if ended else None,
        "no_answer": sum(status[s] for s in ("no_answer", "no_code", "no_think_end", "no_think_start")) / len(rows),
        "verifier_errors": status["verifier_error"] + status["sandbox_error"], "verifier_timeouts": status["verifier_timeout"],
        "status": dict(sorted(status.items())), "per_problem": {name: list(c) for name, c in counts.items()},
    }


def markdown(results: dict[str, dict]) -> str:
    """The printed table, in percent."""
    passes = sorted({key for r in results.values() for key in r if key.startswith("pass@")}, key=lambda key: int(key[5:]))

    def cell(value, form="{:.1f}", scale=100):
        return "–" if value is None else form.format(value * scale)

    lines = [["benchmark", "problems", "n", "avg@n ± stderr", "95 %", "± new samples", *passes, "maj@n", "tokens mean / p95",
              "truncated", "verifier errors / timeouts"]]
    for name, r in results.items():
        ci = r["ci95"]
        lines.append([
            name, str(r["problems"]), str(r["n"]), f"{cell(r['avg'])} ± {cell(r['stderr'])}",
            f"{cell(ci[0])} to {cell(ci[1])}" if ci else "–", cell(r["stderr_resample"]), *(cell(r.get(key)) for key in passes),
            cell(r["maj"]), f"{cell(r['tokens_mean'], '{:,.0f}', 1)} / {cell(r['tokens_p95'], '{:,.0f}', 1)}", 
            cell(r["truncated"], "{:.1f} %"), f"{r['verifier_errors']} / {r['verifier_timeouts']}"])
    widths = [max(3, *map(len, column)) for column in zip(*lines)]
    lines.insert(1, ["-" * (w - 1) + ":" if i else "-" * w for i, w in enumerate(widths)])
    aligned = ([c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths))] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in aligned)


def compare(a: Path, b: Path) -> str:
    """A table of the differences A - B, paired by problem, for the benchmarks that two evaluations share."""
    results = []
    for folder in (a, b):
        try:
            results.append(json.loads((folder / "results.json").read_text()))
        except (OSError, json.JSONDecodeError) as error:
            die(f"compare: {folder} has no readable results.json ({error}); give two folders that eval.py wrote")
    lines = ["| benchmark | problems | A | B | A - B ± stderr | 95 % |", "|---|---:|---:|---:|---:|---:|"]
    pooled: list[tuple[float, float]] = []

    def add(name: str, pairs: list[tuple[float, float]], note: str = "") -> None:
        mean, stderr = mean_and_stderr([x - y for x, y in pairs])
        ci = interval(mean, stderr, len(pairs), -100, 100)
        averages = " | ".join(f"{statistics.fmean(side):.1f}" for side in zip(*pairs))
        found = f"{mean:+.1f} ± {stderr:.1f} | {ci[0]:+.1f} to {ci[1]:+.1f}" if ci else f"{mean:+.1f} ± – | –"
        lines.append(f"| {name} | {len(pairs)} | {averages} | {found} |{note}")

    for name in results[0]:
        one, two = (r.get(name, {}).get("per_problem", {}) for r in results)
        pairs = [(100 * one[key][0] / one[key][1], 100 * two[key][0] / two[key][1]) for key in one if key in two]
        if pairs:
            few = len(pairs) < max(len(one), len(two))
            add(name, pairs, f" only the problems in both (of {len(one)} and {len(two)})" * few)
            pooled += pairs
    if len(lines) == 2:
        die(f"compare: {a} ({', '.join(results[0])}) and {b} ({', '.join(results[1])}) share no benchmark with a common problem")
    if len(lines) > 3:
        add("all problems", pooled)
    return f"A = {a}, B = {b}\n\n" + "\n".join(lines)


# ------------------------------------------------------------------------------------------------------------------ main
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
    path = out / "config.yaml"
    if not path.exists():
        return ["no config.yaml"]
    old = yaml.safe_load(path.read_text()) or {}
    return [f"{key} was {old.get(key)!r}, now {value!r}" for key, value in settings.items()
            if key not in MAY_CHANGE | {"problems"} and old.get(key) != value] + [
                f"{name} had other problems or prompts" for name, value in settings["problems"].items()
                if old.get("problems", {}).get(name, value) != value]


def open_output(out: Path, settings: dict) -> None:
    """Rank 0 refuses to continue in a folder whose generations were made with other settings, and says which; then it
    writes the settings. The other ranks wait for that: a generation must never be there before its settings."""
    out.mkdir(parents=True, exist_ok=True)
    if RANK:
        while changes(out, settings):  # if rank 0 refuses, the launcher ends this one
            time.sleep(0.1)
        return
    rows, bad = Journal.read(out)
    if rows and (changed := changes(out, settings)):
        die(f"output_dir: {out} holds generations of other settings: {'; '.join(changed)}. "
            "Choose another output_dir or the old settings")
    if rows:  # benchmarks that are not asked for now keep their place
        settings["problems"] = yaml.safe_load((out / "config.yaml").read_text())["problems"] | settings["problems"]
    write_text(out / "config.yaml", yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    if bad:
        print(f"{len(bad)} unusable lines in {out} will be made again; the first: {bad[0]}", file=sys.stderr)


def share(requests: list[Request], done: set[tuple], cfg: Config) -> list[list[Request]]:
    """This rank's part of the requests, in chunks, without what is done. Dealt out before `done` is taken away, so that
    the share is the same whenever a rank starts. vLLM: a chunk is a problem (its samples share the prefix cache). HF: a
    chunk is a batch, made again as a whole, because the last bit of a row's logits can depend on its batch."""
    if cfg.engine == "vllm":
        groups: dict[tuple, list[Request]] = {}
        for request in requests:
            groups.setdefault(request.key[:2], []).append(request)
        mine = list(groups.values())[RANK::WORLD_SIZE]
        return [left for chunk in mine if (left := [r for r in chunk if r.key not in done])]
    order = sorted(requests, key=lambda r: len(r.problem.ids))
    mine = [order[at:at + cfg.hf_batch] for at in range(0, len(order), cfg.hf_batch)][RANK::WORLD_SIZE]
    return [chunk for chunk in mine if any(r.key not in done for r in chunk)]


def generate(problems: list[Problem], out: Path, scorer: Scorer, journal: Journal, cfg: Config, path: str, config, override: dict,
             context: int, tokenizer) -> None:
    """Generates and scores whatever of the n samples is missing in `out`; returns when this rank's share is done."""
    requests = [Request(p, sample, seed_of(cfg.seed, p.id, sample), min(cfg.max_tokens, context - len(p.ids)))
                for p in problems for sample in range(cfg.n)]
    rows, _ = Journal.read(out)
    chunks = share(requests, set(rows), cfg)
    mine = {r.key: r.problem for chunk in share(requests, set(), cfg) for r in chunk}
    for key, row in rows.items():  # generated before a crash, but not scored
        if key in mine and "status" not in row:
            scorer.submit(row, mine[key])
    if chunks:
        stop_ids = stop_tokens(path, tokenizer)
        pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (stop_ids or [0])[0]
        max_len = max(len(r.problem.ids) + r.max_tokens for r in requests)
        engine = {"hf": HFEngine, "vllm": VLLMEngine}[cfg.engine](path, config, override, stop_ids, pad_id, max_len, cfg)
        if cfg.yarn_factor and RANK == 0:
            name, lowest, scale = engine.rope()
            print(f"YaRN in force: factor {cfg.yarn_factor}, context {override['max_position_embeddings']:,} tokens; {name}, "
                  f"lowest frequency {lowest:.4g}, attention scale {scale:.4g}", flush=True)
        total = sum(len(chunk) for chunk in chunks)
        with tqdm(total=total, unit="sample", disable=RANK != 0, desc="generate", smoothing=0.05) as bar:
            for request, tokens, reason in engine.generate(chunks):
                if request.key not in rows:
                    text = tokenizer.decode(tokens[:-1] if reason == "stop" else tokens)
                    row = dict(zip(("benchmark", "id", "sample"), request.key), response=text, finish_reason=reason,
                               tokens=len(tokens))
                    journal.write(row)
                    scorer.submit(row, request.problem)
                bar.update()
                if scorer.done:
                    bar.set_postfix_str(f"scored {scorer.done}, correct {scorer.correct / scorer.done:.3f}", refresh=False)
                if scorer.error:
                    break
    if scorer.left and RANK == 0:
        print(f"scoring the last {scorer.left} samples", file=sys.stderr)
    scorer.wait()


def stop_tokens(path: str, tokenizer) -> list[int]:
    """eos of the tokenizer and of generation_config.json: chat models often have two."""
    from transformers import GenerationConfig

    try:
        eos = GenerationConfig.from_pretrained(path).eos_token_id
    except OSError:  # the file is optional
        eos = None
    ids = {tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])}
    return sorted(i for i in ids if i is not None)


def wait_for_ranks(out: Path, wanted: set[tuple]) -> dict[tuple, dict]:
    """The rows of all ranks, once every wanted sample has its verdict. By files, not by collectives: ranks may end hours
    apart, beyond any collective's timeout; a rank that fails is the launcher's to report."""
    while True:
        began = time.monotonic()
        rows, _ = Journal.read(out)
        if all("status" in rows.get(key, {}) for key in wanted):
            return rows
        time.sleep(max(0.5, 5 * (time.monotonic() - began)))


def evaluate(cfg: Config, out: Path) -> None:
    """Generation and scoring on all ranks, then the report by rank 0."""
    try:
        from transformers import AutoConfig, AutoTokenizer
    except ImportError as error:
        die(f"{error}; generation needs torch and transformers (pip install -r requirements.txt)")
    if cfg.engine == "auto":
        cfg.engine = "vllm" if importlib.util.find_spec("vllm") else "hf"
    elif cfg.engine == "vllm" and not importlib.util.find_spec("vllm"):
        die("engine vllm is not installed; pip install vllm, or --engine hf")
    problems = load_problems(cfg)
    path = prepare_toy(cfg) if cfg.model == "toy" else cfg.model
    try:
        config, tokenizer = AutoConfig.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        die(f"model: {path} cannot be read as a Hugging Face model ({' '.join(str(error).split())[:200]})")
    render(problems, tokenizer, cfg)
    every = {(p.benchmark, p.id): p for part in problems.values() for p in part}
    longest = max(every.values(), key=lambda p: len(p.ids))
    override = rope_override(config, cfg)
    context = override.get("max_position_embeddings") or getattr(config, "max_position_embeddings", None) or sys.maxsize
    what, how = f"{'extended ' * bool(cfg.yarn_factor)}context of {cfg.model}, {context} tokens", "or extend it by --yarn_factor"
    if cfg.max_tokens > context:
        die(f"max_tokens {cfg.max_tokens} is more than the {what}; give --max_tokens {max(1, context - len(longest.ids))}, {how}")
    if len(longest.ids) >= context:
        die(f"the prompt of {longest.benchmark} {longest.id} has {len(longest.ids)} tokens, too many for the {what}; "
            f"leave it out, {how}")
    if RANK == 0 and (cut := sum(len(p.ids) + cfg.max_tokens > context for p in every.values())):
        print(f"{cut} of {len(every)} prompts and max_tokens {cfg.max_tokens} are together more than the {what}: "
              "their responses end there", file=sys.stderr)

    settings = dataclasses.asdict(cfg) | {"model_fingerprint": model_fingerprint(path), "problems": {
        name: problems_fingerprint(part) for name, part in problems.items()}}
    open_output(out, settings)
    # The pool comes before the engine: its processes start while the model loads, and keep their own CPU affinity.
    workers = cfg.workers or max(1, (os.cpu_count() or 1) // LOCAL_RANKS)
    with reward_pool(workers, cfg) as pool:
        journal = Journal(out, RANK)
        scorer = Scorer(pool, journal.write, workers)
        generate(list(every.values()), out, scorer, journal, cfg, path, config, override, context, tokenizer)
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
        die(f"output_dir: {out} holds the generations of a model, which would be overwritten; choose another output_dir")
    known: dict[tuple[str, str], Problem] = {}
    if cfg.data != Config.data:  # ground truths for rows that carry none
        loaded = load_problems(cfg)
        known = {(p.benchmark, p.id): p for part in loaded.values() for p in part}
        if len(loaded) == 1:  # rows of other tools need not name the benchmark
            known |= {("", p.id): p for part in loaded.values() for p in part}
    out.mkdir(parents=True, exist_ok=True)
    problems, rows, bad, samples = {}, [], [], Counter()
    for number, (where, row) in enumerate(read_file(source)):
        try:
            problem, responses = scored_row(row, source.stem, number, known)
        except ValueError as error:
            bad.append(f"{where}: {error}")
            continue
        key = problem.benchmark, problem.id
        problems.setdefault(key, problem)
        for response in responses:
            rows.append({"benchmark": key[0], "id": key[1], "sample": samples[key], "response": response,
                         **{k: row[k] for k in ("finish_reason", "tokens") if row.get(k) is not None and len(responses) == 1}})
            samples[key] += 1
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


def scored_row(row: dict, benchmark: str, number: int, known: dict[tuple, Problem]) -> tuple[Problem, list[str]]:
    """Problem and responses of one row of a file of generations. Raises ValueError."""
    if not isinstance(row, dict):
        raise ValueError(row if isinstance(row, str) else "not an object; expected one JSON object a line")
    benchmark, name = str(row.get("benchmark", benchmark)), str(row.get("id", number))
    responses = next((row[key] for key in ("response", "responses") if row.get(key) is not None), None)
    messages = row.get("messages") or []
    if responses is None and messages and isinstance(messages[-1], dict) and messages[-1].get("role") == "assistant":
        responses, messages = messages[-1].get("content"), messages[:-1]
    responses = [responses] if isinstance(responses, str) else responses
    if not isinstance(responses, list) or not responses or not all(isinstance(r, str) for r in responses):
        raise ValueError('no response; expected "response" (text or a list of texts), or "messages" with the assistant\'s last')
    if problem := known.get((benchmark, name)) or ("benchmark" not in row and known.get(("", name))):
        return problem, responses
    prompt = messages or row.get("prompt") or row.get("problem") or row.get("question") or ""
    prompt = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    problem = Problem(benchmark, name, prompt, row.get("data_source", "math_verify"), row_truth(row))
    problem.text = str(prompt[-1].get("content", "")) if prompt else ""
    rewards.check(problem.data_source, problem.truth)
    return problem, responses


def finish(rows: list[dict], problems: dict[tuple[str, str], Problem], bad: list[str], pool, out: Path, cfg: Config) -> None:
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
    knobs = ("model", "engine", "temperature", "top_p", "top_k", "repetition_penalty", "max_tokens", "yarn_factor", "seed")
    meta = {"title": f"Evaluation of {cfg.score_only or cfg.model}", "benchmarks": [],
            "settings": [] if cfg.score_only else [(key, getattr(cfg, key)) for key in knobs]}
    texts: list[tuple[str, str]] = []
    for b, (name, part) in enumerate(groups.items()):
        shown = []
        for p, (i, samples) in enumerate(part.items()):
            problem = problems[name, i]
            shown.append({"id": i, "code": is_code(problem), "truth": shown_truth(problem), "samples": [
                [r["status"], r.get("tokens"), r.get("finish_reason") == "length", (r["answer"] or "")[:300] or None, r["score"]]
                for r in samples]})
            texts.append((f"{b}-{p}", problem.text or "\n\n".join(str(m.get("content", "")) for m in problem.messages)))
            texts += [(f"{b}-{p}-{s}", row["response"]) for s, row in enumerate(samples)]
        line = {key: value for key, value in results[name].items() if key not in ("per_problem", "status")}
        meta["benchmarks"].append({"name": name, "result": line, "problems": shown})
    report.write_html(out / "report.html", meta, texts)
    report.write_png(out / "results.png", results, meta["title"])
    print(f"\n{out}/report.html and results.png show every problem and sample")


def shown_truth(problem: Problem) -> str:
    if not is_code(problem):
        return str(problem.truth)[:500]
    truth = ground_truth(problem)
    return f"{len(truth['inputs'])} tests" if isinstance(truth, dict) and "inputs" in truth else "tests"


def reward_pool(workers: int, cfg: Config):
    """All tests of a program count, and the first failure settles it, so no more are run."""
    return rewards.RewardPool(workers, timeout_s=cfg.timeout_s, code_reward="all_or_nothing", max_tests=1_000_000)


def prepare_toy(cfg: Config) -> str:
    """The warmed-up toy model, made by the first rank that comes and shared with rl_gppo.py's default."""
    if cfg.max_tokens == Config.max_tokens:
        cfg.max_tokens = 64  # its context is a few hundred tokens
    kind, parent = "code" if "toy:code" in cfg.data else "math", Path(cfg.output_dir).parent
    parent.mkdir(parents=True, exist_ok=True)
    with open(parent / f"toy_{kind}_sft.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return str(toy.prepare(str(parent / f"toy_{kind}_sft"), kind))
        except ValueError as error:
            die(str(error))


def own_gpus(local_rank: int, local_ranks: int, tensor_parallel: int, visible: str | None) -> str:
    """The GPUs of a rank, as CUDA_VISIBLE_DEVICES takes them; `visible`: its value for all ranks, if there is one."""
    if visible == "":
        return ""
    need = local_ranks * tensor_parallel
    gpus = visible.split(",") if visible else [str(i) for i in range(need)]
    if len(gpus) < need:
        die(f"{local_ranks} ranks and tensor_parallel {tensor_parallel} need {need} GPUs; CUDA_VISIBLE_DEVICES={visible}")
    return ",".join(gpus[local_rank * tensor_parallel:(local_rank + 1) * tensor_parallel])


def main() -> None:
    cfg = read_config(sys.argv[1:])
    if cfg.compare:
        a, _, b = cfg.compare.partition(",")
        return print(compare(Path(a), Path(b)) if b else die("compare needs two folders: --compare A B"))
    if WORLD_SIZE > 1:  # a rank sees its own GPUs only, and its engine must not take the launcher's variables for its own
        os.environ["CUDA_VISIBLE_DEVICES"] = own_gpus(
            LOCAL_RANK, LOCAL_RANKS, cfg.tensor_parallel, os.environ.get("CUDA_VISIBLE_DEVICES"))
        for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(key, None)
    (rescore if cfg.score_only else evaluate)(cfg, Path(cfg.output_dir))


if __name__ == "__main__":
    main()
