"""Supervised fine-tuning on long chains of thought, the first stage of Klear-Reasoner (arXiv 2508.07629, §3).

    accelerate launch sft.py                                                       # toy traces, tiny model, CPU, a minute
    accelerate launch --config_file recipes/fsdp2_8gpu.yaml sft.py --config recipes/klear_sft_8b.yaml
    ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 sft.py # two CPU ranks over gloo

The loss is the negative log-likelihood of the assistant's tokens (Eq. 8), a mean over all of them in the global batch: over
ranks and micro-batches alike, so that it does not depend on how the batch is cut. Examples of an update are packed end to
end into rows of at most token_budget tokens; attention does not cross examples (position_ids restart, and transformers
builds a varlen call for flash attention or a block-diagonal mask from that).

Rows: {"messages": [...]}, {"prompt", "response"}, or GSM8K's {"question", "answer"}, whose solution is put between think
tags and whose last line "#### 42" becomes \\boxed{42} (`gsm8k_think: false` leaves it as it is). Which tokens are the
assistant's: see `render`. Rows are tokenized once, by rank 0, into files that all ranks map into memory.

Differs from the paper: it gives the batch in tokens only; here an update is `global_batch` examples. Examples longer than
max_tokens or the model's context are left out and counted, not cut: a cut trace teaches a model not to end.
"""

import dataclasses
import difflib
import errno
import functools
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
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import jinja2
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
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

import toy

disable_progress_bar()  # transformers' own bars for every file would drown ours
warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # a checkpoint of one process is meant


# ---------------------------------------------------------------------------------------------------------------- config
@dataclass
class Config:
    model: str = "toy"  # Hugging Face folder or hub name; "toy" is an untrained 0.8M-parameter model
    train_file: str = "toy:math"  # JSONL or Parquet file, hub NAME or NAME:SUBSET, toy:math, toy:code; several with commas
    eval_file: str = ""  # the same: its loss is measured before, after every epoch and every eval_every updates
    output_dir: str = "runs/sft"  # config.yaml, metrics.jsonl, eval.jsonl, curves.png, checkpoint-N/, final/
    max_tokens: int = 32768  # longer examples are left out, and counted
    gsm8k_think: bool = True  # {"question", "answer"} rows: solution between think tags, "#### 42" as \boxed{42}
    token_cache: str = ""  # folder of the tokenized rows, shared by all ranks; "" = tokens/ beside output_dir
    packing: bool = True  # rows end to end without padding; false: right-padded rows (faster with sdpa and short rows)
    token_budget: int = 32768  # tokens of a micro-batch, padding included
    epochs: int = 4
    global_batch: int = 64  # examples of one optimizer update, over all ranks
    lr: float = 8e-5  # after the warm-up, falls by a cosine
    min_lr: float = 4e-5  # to this
    warmup_ratio: float = 0.03  # share of the updates, linear
    weight_decay: float = 0.1  # AdamW
    grad_clip: float = 1.0  # global norm
    logit_chunk: int = 1024  # tokens whose logits exist at one time
    attention: str = "sdpa"  # or flash_attention_2, flex_attention
    gradient_checkpointing: bool = False  # recompute each layer in backward
    eval_every: int = 0  # updates; 0 = after every epoch
    save_every: int = 0  # updates; 0 = after every epoch
    keep_checkpoints: int = 2
    rank_timeout_s: int = 3600  # a rank that waits this long for another ends the run
    resume: str = "auto"  # auto: newest checkpoint in output_dir | never: set the old run aside | PATH of a checkpoint
    log_with: str = "none"  # tensorboard, wandb, trackio (Accelerate trackers)
    seed: int = 0


MAY_CHANGE = {"eval_every", "save_every", "keep_checkpoints", "rank_timeout_s", "resume", "log_with", "output_dir", "token_cache",
              "token_budget"}  # on resume


def die(message: str) -> None:
    """Ends the run for a user's mistake: one line from rank 0, exit code 2."""
    if os.environ.get("RANK", "0") == "0":
        for bar in list(getattr(tqdm, "_instances", ())):  # a line of its own, not the end of a progress line
            bar.close()
        print(f"sft.py: {message}", file=sys.stderr)
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
    for key, value in flags.items():
        try:
            values[key[2:].replace("-", "_")] = yaml.safe_load(value) if value else ""
        except yaml.YAMLError:
            die(f"{key} {value}: not a YAML value; quote it")
    types = {f.name: type(f.default) for f in dataclasses.fields(Config)}
    for key, value in values.items():
        if key not in types:
            near = difflib.get_close_matches(key, types, 1, 0)
            die(f"unknown option {key!r}; the nearest is {near[0]!r} (all: python sft.py --help)")
        try:
            if isinstance(value, bool) != (types[key] is bool) or value is None or isinstance(value, (list, dict)):
                raise ValueError
            values[key] = types[key](value)
            if types[key] is int and float(value) != values[key]:
                raise ValueError
        except ValueError:
            die(f"{key} must be {types[key].__name__}, got {value!r}")
    cfg = Config(**values)
    for key in ("max_tokens", "token_budget", "epochs", "global_batch", "logit_chunk", "keep_checkpoints", "rank_timeout_s"):
        if getattr(cfg, key) < 1:
            die(f"{key} must be at least 1, got {getattr(cfg, key)}")
    if not 0 <= cfg.min_lr <= cfg.lr:
        die(f"min_lr {cfg.min_lr} must lie between 0 and lr {cfg.lr}")
    if not 0 <= cfg.warmup_ratio <= 1:
        die(f"warmup_ratio must lie between 0 and 1, got {cfg.warmup_ratio}")
    return cfg


# ------------------------------------------------------------------------------------------------------------------ data
@dataclass
class Example:
    ids: np.ndarray  # (length,) token ids
    target: np.ndarray  # (length,) bool: the tokens that are learnt, the assistant's


def to_messages(row: dict, gsm8k_think: bool = True) -> list[dict]:
    """The three row formats as messages. Raises ValueError for a row that fits none."""
    if isinstance(row, dict):
        messages = row.get("messages")
        text = lambda m: isinstance(m, dict) and isinstance(m.get("content"), str) and "role" in m
        if isinstance(messages, list) and all(map(text, messages)):
            roles = [m["role"] for m in messages]
            if "assistant" not in roles[1:] or roles[0] == "assistant":
                raise ValueError("messages must hold an assistant's, and not begin with it")
            return messages
        if isinstance(row.get("prompt"), str) and isinstance(row.get("response"), str):
            return [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]}]
        if isinstance(row.get("question"), str) and isinstance(row.get("answer"), str):
            response = row["answer"]
            if gsm8k_think and "####" in response:
                solution, _, answer = re.sub(r"<<.*?>>", "", response).rpartition("####")  # without GSM8K's calculator marks
                response = f"<think>\n{solution.strip()}\n</think>\n\n\\boxed{{{answer.strip()}}}"
            return [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": response}]
    raise ValueError('expected {"messages": [{"role", "content"}...]}, {"prompt", "response"} or {"question", "answer"}, in text')


def render(messages: list[dict], tokenizer) -> list[tuple[str, list[tuple[int, int]]]]:
    """A conversation as texts with the spans [start, end) that the assistant writes, its end-of-turn token included.

    An assistant turn is what the chat template adds to `conversation so far + generation prompt`, so a model is trained on
    exactly what it is asked at inference. Usually that is one text. A turn that the template rewrites once the conversation
    goes on (Qwen3 drops earlier thinking) is a text of its own, in the form it had when it was written. A template that drops
    the thinking of the turn itself (DeepSeek-R1) is bypassed for it: generation prompt + response + end token."""
    eos = tokenizer.eos_token or ""
    if not tokenizer.chat_template:
        text, spans = "", []
        for message in messages:
            start, text = len(text), text + message["content"] + (eos if message["role"] == "assistant" else "\n")
            if message["role"] == "assistant":
                spans.append((start, len(text)))
        return [(text, spans)]
    template = lambda part, **options: tokenizer.apply_chat_template(part, tokenize=False, **options)
    bare = lambda text: "".join(text.split())  # templates move white space
    whole, spans, own = template(messages), [], []
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before, after = template(messages[:i], add_generation_prompt=True), template(messages[:i + 1])
        added, content = after[len(before):], message["content"]
        if before.rstrip().endswith("<think>"):  # the prompt opens it already
            content = content.lstrip().removeprefix("<think>").lstrip("\n")
        if not after.startswith(before) or bare(content) not in bare(added):
            own.append((before + content + eos, [(len(before), len(before + content + eos))]))
            continue
        ended = not bare(content) or not bare(added).endswith(bare(content))  # else the template writes no end of turn
        if whole.startswith(after) and (ended or i + 1 == len(messages)):
            whole = whole if ended else whole + eos
            spans.append((len(before), len(after.rstrip()) if ended else len(whole)))  # what follows the end token is not written
        else:
            after = after.rstrip() + eos * (not ended)
            own.append((after, [(len(before), len(after))]))
    return [(whole, spans)] * bool(spans) + own


def encode(texts: list[tuple[str, list[tuple[int, int]]]], tokenizer) -> list[Example]:
    """Tokenizes rendered texts. A token is learnt if it ends inside a span: the ends are right whatever a tokenizer does to the
    offsets of white space, and a token that straddles the end of the prompt is the assistant's."""
    examples: list[Example] = []
    if not texts:
        return examples
    encoded = tokenizer([text for text, _ in texts], add_special_tokens=False, return_offsets_mapping=True)
    for ids, offsets, (_, spans) in zip(encoded["input_ids"], encoded["offset_mapping"], texts):
        ends, target = np.array([end for _, end in offsets]), np.zeros(len(ids), bool)
        for start, end in spans:
            target |= (start < ends) & (ends <= end)
        examples.append(Example(np.array(ids, np.uint32), target))
    return examples


def encode_row(row: dict, tokenizer, gsm8k_think: bool = True) -> list[Example | tuple]:
    """A row as examples (templates with {% generation %} mark the assistant's tokens themselves) or as texts for `encode`."""
    messages = to_messages(row, gsm8k_think)
    if tokenizer.chat_template and re.search(r"\{%-?\s*generation\b", str(tokenizer.chat_template)):
        out = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        return [Example(np.array(out["input_ids"], np.uint32), np.array(out["assistant_masks"], bool))]
    return render(messages, tokenizer)


def read_rows(spec: str, name: str, seed: int) -> Iterator[tuple[str, dict]]:
    """Yields (SOURCE:LINE, row) of every source of train_file or eval_file."""
    for source in filter(None, map(str.strip, spec.split(","))):
        if source.startswith("toy:"):
            try:
                rows = toy.sft_rows(source[4:], 4096, seed)
            except ValueError as error:
                die(f"{name}: {error}")
        elif source.endswith((".jsonl", ".json")):
            if not Path(source).is_file():
                die(f"{name}: {source} does not exist; give a JSONL or Parquet file, a hub data set, toy:math or toy:code")
            rows = open(source, encoding="utf-8")  # lines end at \n alone; str.splitlines would also cut at U+2028 inside a text
        else:
            import datasets  # only here: its import takes a second

            try:
                rows = (datasets.load_dataset("parquet", data_files=source, split="train") if source.endswith(".parquet")
                        else datasets.load_dataset(*source.split(":"), split="train"))
            except Exception as error:  # the hub client raises a dozen types; every one means: this name gave no rows
                die(f"{name}: {source}: {one_line(error)}; give a local JSONL or Parquet file instead")
        number = 0
        try:
            for number, row in enumerate(rows, 1):
                if isinstance(row, str):
                    if not row.strip():
                        continue
                    row = json.loads(row)
                yield f"{source}:{number}", row
        except json.JSONDecodeError as error:
            die(f"{source}:{number}: not JSON ({error.msg} at column {error.colno}); expected one object a line")
        except UnicodeDecodeError as error:
            die(f"{source}:{number + 1}: not UTF-8 ({error.reason})")


class Examples:
    """Tokenized rows, mapped from a folder that `tokenize` wrote: 1.5M long traces do not fit into every rank's memory."""

    def __init__(self, folder: Path):
        self.meta = json.loads((folder / "meta.json").read_text())
        self.ids = np.memmap(folder / "ids.bin", np.uint32, "r")
        self.target = np.memmap(folder / "target.bin", bool, "r")
        self.ends = np.concatenate([[0], np.fromfile(folder / "ends.bin", np.int64)])

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, i: int) -> Example:
        part = slice(self.ends[i], self.ends[i + 1])
        return Example(self.ids[part], self.target[part])


def tokenize(spec: str, name: str, tokenizer, limit: int, cfg: Config, folder: Path) -> None:
    """Writes all rows of `spec` to `folder`: ids.bin, target.bin, ends.bin, meta.json; complete or not there at all."""
    partial = folder.with_name(folder.name + ".partial")
    kept, dropped, learnt, end_ids, position = 0, [], 0, set(), 0
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with ExitStack() as stack:
        ids, target, ends = (stack.enter_context((partial / f"{part}.bin").open("wb")) for part in ("ids", "target", "ends"))

        def write(items: list[tuple[str, Example | tuple]]) -> None:
            nonlocal kept, learnt, position
            texts = iter(encode([item for _, item in items if isinstance(item, tuple)], tokenizer))
            for where, item in items:
                example = next(texts) if isinstance(item, tuple) else item
                example.target[:1] = False  # the first token has no predecessor
                if len(example.ids) > limit:
                    dropped.append(f"{where} has {len(example.ids)}")
                elif not example.target.any():
                    die(f"{where}: the chat template leaves no assistant token to learn")
                else:
                    kept, learnt, position = kept + 1, learnt + int(example.target.sum()), position + len(example.ids)
                    end_ids.add(int(example.ids[example.target][-1]))
                    ids.write(example.ids.tobytes())
                    target.write(example.target.tobytes())
                    ends.write(np.int64(position).tobytes())

        block = []
        for where, row in tqdm(read_rows(spec, name, cfg.seed), f"{name}: tokenizing", unit=" rows", delay=1, leave=False):
            try:
                block += [(where, item) for item in encode_row(row, tokenizer, cfg.gsm8k_think)]
            except (ValueError, TypeError, jinja2.TemplateError) as error:
                die(f"{where}: {one_line(error)}")
            if len(block) >= 1000:  # a fast tokenizer works on a block with all cores
                write(block)
                block = []
        if block:
            write(block)
    if not kept:
        why = f" within {limit} tokens, max_tokens or the model's context ({dropped[0]})" if dropped else ""
        die(f"{name}: {spec} has no row{why}")
    if dropped:
        print(f"{name}: {len(dropped)} of {len(dropped) + kept} examples left out, longer than {limit} tokens, max_tokens or the "
              f"model's context (first: {dropped[0]})")
    meta = {"source": spec, "examples": kept, "tokens": position, "learnt_tokens": learnt, "left_out": len(dropped),
            "end_ids": sorted(end_ids & set(tokenizer.all_special_ids))}
    (partial / "meta.json").write_text(json.dumps(meta))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def load_examples(spec: str, name: str, tokenizer, limit: int, cfg: Config) -> Examples:
    """The tokenized rows of `spec`. Rank 0 makes the files unless they are there, under a name that changes with the data, the
    tokenizer and this code; the others wait for them, however long that takes, before any process group could time out."""
    files = [Path(source.strip()) for source in spec.split(",")]
    key = [spec, [[file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.exists()], limit, cfg.gsm8k_think,
           cfg.seed if "toy:" in spec else 0, tokenizer.backend_tokenizer.to_str(), str(tokenizer.chat_template),
           [inspect.getsource(part) for part in (to_messages, render, encode, encode_row, toy)]]
    digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=8).hexdigest()
    folder = Path(cfg.token_cache or Path(cfg.output_dir).parent / "tokens") / digest
    if os.environ.get("RANK", "0") == "0" and not folder.exists():
        try:
            tokenize(spec, name, tokenizer, limit, cfg, folder)
        except OSError as error:
            die(f"token_cache {folder.parent}: {error.strerror}; give another --token_cache or make room")
    wait_for(folder)
    return Examples(folder)


def wait_for(path: Path) -> None:
    """Waits for what rank 0 makes. If rank 0 fails, the launcher ends this process."""
    while not path.exists():
        time.sleep(0.1)


def plan_microbatches(lengths: list[int], ranks: int, token_budget: int, packed: bool) -> list[list[list[int]]]:
    """[rank][micro-batch] -> positions, each micro-batch within token_budget (padding included unless packed). A pure
    function of global data; all ranks get the same number of micro-batches, the last ones perhaps empty."""
    by_rank, load = [[] for _ in range(ranks)], [0] * ranks
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):  # longest first to the least loaded rank
        rank = load.index(min(load))
        by_rank[rank].append(i)
        load[rank] += lengths[i]
    plan = []
    for positions in by_rank:
        micros, used = [], []  # used: tokens of a micro-batch, padding included
        for i in positions:
            grown = [u + lengths[i] for u in used] if packed else [lengths[m[0]] * (len(m) + 1) for m in micros]
            fits = next((k for k, size in enumerate(grown) if size <= token_budget), None)
            if fits is None:
                micros.append([i])
                used.append(lengths[i])
            else:
                micros[fits].append(i)
                used[fits] = grown[fits]
        plan.append(micros)
    most = max(map(len, plan))
    return [micros + [[]] * (most - len(micros)) for micros in plan]


def collate(examples: list[Example], packed: bool, device, pad_id: int) -> dict[str, Tensor]:
    """A micro-batch: input_ids and position_ids (rows, length), and for the N learnt tokens `index`, the flat position that
    predicts each, and `targets`. An empty micro-batch gets one token, whose loss counts nothing."""
    weight = float(bool(examples))
    examples = examples or [Example(np.array([pad_id, pad_id]), np.array([False, True]))]
    rows = [torch.from_numpy(e.ids.astype(np.int64)) for e in examples]
    width = max(map(len, rows))
    starts = np.cumsum([0] + [len(row) for row in rows[:-1]]) if packed else np.arange(len(rows)) * width
    learnt = [torch.from_numpy(np.flatnonzero(e.target)) for e in examples]  # never 0: a first token has no predecessor
    batch = {
        "input_ids": torch.cat(rows)[None] if packed else nn.utils.rnn.pad_sequence(rows, True, pad_id),
        "position_ids": torch.cat([torch.arange(len(row)) for row in rows])[None] if packed
        else torch.arange(width).expand(len(rows), -1),
        "index": torch.cat([at + int(start) - 1 for at, start in zip(learnt, starts)]),
        "targets": torch.cat([row[at] for row, at in zip(rows, learnt)]),
        "weight": torch.tensor(weight),
    }
    return {key: value.to(device) for key, value in batch.items()}


# ----------------------------------------------------------------------------------------------------------------- model
class HeadCrossEntropy(torch.autograd.Function):
    """Sum over tokens of -log softmax(h·Wᵀ)[target] (fp32 scalar) without ever holding (N, V) logits.

    Logits exist for `chunk` tokens at a time, in fp32. The sum is linear in each token's loss, so its gradient (p - onehot)
    is made in the same pass and only scaled in backward: nothing is computed twice."""

    @staticmethod
    def forward(ctx, hidden, weight, targets, chunk):  # (N, D), (V, D), (N,)
        device, ctx.dtypes, wanted = hidden.device.type, (hidden.dtype, weight.dtype), ctx.needs_input_grad[0]
        if device == "cuda" and torch.is_autocast_enabled(device):  # tensor cores; one cast of W for all chunks
            hidden, weight = hidden.to(torch.get_autocast_dtype(device)), weight.to(torch.get_autocast_dtype(device))
        total = hidden.new_zeros((), dtype=torch.float32)
        grad_hidden = torch.empty_like(hidden) if wanted else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wanted else None
        with torch.autocast(device, enabled=False):
            for at in range(0, len(targets), chunk):
                h, y = hidden[at:at + chunk], targets[at:at + chunk, None]
                if h.is_cuda and h.dtype == weight.dtype != torch.float32:
                    x = torch.mm(h, weight.t(), out_dtype=torch.float32)  # fp32 logits without an fp32 copy of W
                else:
                    x = h.float() @ weight.float().t()
                x -= x.logsumexp(-1, keepdim=True)
                total -= x.gather(-1, y).sum()
                if wanted:
                    p = x.exp_().scatter_add_(-1, y, torch.full_like(y, -1, dtype=x.dtype)).to(h.dtype)  # p - onehot
                    grad_hidden[at:at + chunk] = p @ weight.to(h.dtype)
                    if p.dtype == torch.float32:
                        grad_weight.addmm_(p.t(), h)
                    else:
                        grad_weight += p.t() @ h
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx, upstream):
        scaled = lambda grad, dtype: torch.mul(grad, upstream, out=torch.empty_like(grad, dtype=dtype))  # no fp32 copy between
        return *map(scaled, ctx.saved_tensors, ctx.dtypes), None, None


class Learner(nn.Module):
    """The language model with its head and loss inside one root forward: DDP and FSDP2 hook that."""

    def __init__(self, lm: nn.Module):
        super().__init__()
        self.lm = lm
        self._no_split_modules = lm._no_split_modules  # Accelerate's FSDP2 wraps these layers

    def forward(self, batch: dict, logit_chunk: int) -> Tensor:
        """Summed negative log-likelihood of a micro-batch's learnt tokens."""
        hidden = self.lm.base_model(input_ids=batch["input_ids"], position_ids=batch["position_ids"],
                                    use_cache=False).last_hidden_state.flatten(0, 1)[batch["index"]]  # (N, D)
        weight = self.lm.get_output_embeddings().weight
        return HeadCrossEntropy.apply(hidden, weight, batch["targets"], logit_chunk) * batch["weight"]


@dataclass
class Run:
    """What the functions of an update share."""

    cfg: Config
    accelerator: Accelerator
    learner: nn.Module  # as prepared by Accelerate
    optimizer: torch.optim.Optimizer
    tokenizer: object
    pad_id: int

    @property
    def rank(self) -> int:
        return self.accelerator.process_index

    @property
    def world(self) -> int:
        return self.accelerator.num_processes

    def batches(self, examples: list[Example] | Examples) -> Iterator[tuple[dict[str, Tensor], bool]]:
        """This rank's micro-batches of the given examples, each with whether it is the last."""
        plan = plan_microbatches([len(e.ids) for e in examples], self.world, self.cfg.token_budget, self.cfg.packing)[self.rank]
        for k, micro in enumerate(plan, 1):
            yield collate([examples[i] for i in micro], self.cfg.packing, self.accelerator.device, self.pad_id), k == len(plan)

    def total(self, value: float) -> float:
        return self.accelerator.reduce(torch.tensor([value], dtype=torch.float64, device=self.accelerator.device), "sum").item()


def learnt_tokens(examples: list[Example]) -> int:
    return sum(int(e.target.sum()) for e in examples)


# -------------------------------------------------------------------------------------------------------------- training
def learning_rate(update: int, updates: int, cfg: Config) -> float:
    """Linear warm-up, then a cosine from lr to min_lr; `update` counts from 1."""
    warmup = max(1, round(cfg.warmup_ratio * updates))
    if update <= warmup:
        return cfg.lr * update / warmup
    progress = (update - warmup) / max(1, updates - warmup)
    return cfg.min_lr + (cfg.lr - cfg.min_lr) * (1 + math.cos(math.pi * progress)) / 2


def update_on(examples: list[Example], lr: float, run: Run) -> dict[str, float]:
    """One optimizer update: the token mean over the whole global batch, whatever its cut over ranks and micro-batches."""
    tokens, nll = learnt_tokens(examples), 0.0
    run.learner.train()
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    for batch, last in run.batches(examples):
        # DDP: gradients travel once, with the last micro-batch. FSDP2 scatters them every time, which saves memory.
        with run.learner.no_sync() if not last and hasattr(run.learner, "no_sync") else nullcontext():
            loss = run.learner(batch, run.cfg.logit_chunk) / tokens
            run.accelerator.backward(loss * run.world)  # both average over ranks; the loss is a sum over ranks
        nll += loss.item()
    norm = float(run.accelerator.clip_grad_norm_(run.learner.parameters(), run.cfg.grad_clip))
    if math.isfinite(norm):
        run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    return {"loss": run.total(nll), "grad_norm": norm, "lr": lr, "skipped": int(not math.isfinite(norm)),
            "tokens": sum(len(e.ids) for e in examples), "learnt_tokens": tokens}


@torch.no_grad()
def evaluation_loss(examples: Examples, run: Run) -> float:
    """Mean negative log-likelihood of the assistant's tokens, in nats."""
    run.learner.eval()
    nll = sum((run.learner(batch, run.cfg.logit_chunk).item() for batch, _ in run.batches(examples)), 0.0)
    return run.total(nll) / learnt_tokens(examples)


@functools.lru_cache(maxsize=1)
def epoch_order(total: int, epoch: int, seed: int) -> list[int]:
    """The order of the examples in an epoch: a function of the seed alone, so the number of updates is the data cursor."""
    digest = hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "big")).sample(range(total), total)


# ------------------------------------------------------------------------------------------------------ checkpoints, log
def save_pretrained(folder: Path, run: Run) -> None:
    """A Hugging Face folder that rl_gppo.py, eval.py and vLLM load. All ranks call it (FSDP2 gathers), rank 0 writes."""
    lm = run.accelerator.unwrap_model(run.learner).lm
    dtype = torch.bfloat16 if run.accelerator.mixed_precision == "bf16" else torch.float32
    full, tied = {}, lm.get_output_embeddings().weight is lm.get_input_embeddings().weight
    for name, t in lm.state_dict().items():
        if tied and name in (lm._tied_weights_keys or {}):
            continue  # it is the embedding
        t = t.full_tensor() if hasattr(t, "full_tensor") else t
        if run.rank == 0:
            full[name] = t.to("cpu", dtype)
    if run.rank == 0:
        lm.config.dtype = dtype  # vLLM computes in what config.json says
        lm.save_pretrained(folder, state_dict=full)
        lm.config.dtype = torch.float32
        run.tokenizer.save_pretrained(folder)


FILES = ("metrics.jsonl", "eval.jsonl", "curves.png")
FILE_ERRORS = (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError, SafetensorError,
               dcp.api.CheckpointException)  # a full disk or a damaged file comes as any of these


def save_checkpoint(folder: Path, state: dict, run: Run) -> None:
    """Hugging Face weights + trainer/ (weights, optimizer, RNG, state.json), complete or not there at all: everything goes to
    a temporary folder that is renamed last."""
    partial, world = folder.with_name(folder.name + ".partial"), run.world

    def prepare() -> None:
        if run.rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
            (partial / "trainer").mkdir(parents=True)

    def write_files() -> None:
        save_pretrained(partial, run)
        rng = {"torch": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})
        torch.save(rng, partial / "trainer" / f"rng_{run.rank}.pt")  # for models with dropout; the order of the data needs none

    def write_state() -> None:
        model_state, optimizer_state = get_state_dict(run.learner, run.optimizer.optimizer)
        dcp.save({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=partial / "trainer" / "weights",
                 no_dist=world == 1)
        os.sync()  # or a power failure could leave the new name with empty files

    def publish() -> None:
        if run.rank == 0:
            (partial / "trainer" / "state.json").write_text(json.dumps(state))
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
            for old in checkpoints(folder.parent)[:-run.cfg.keep_checkpoints]:  # renamed: half deleted, it must not look whole
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
    """Restores weights, optimizer and RNG in place and returns state.json."""
    state = json.loads((folder / "trainer" / "state.json").read_text())
    model_state, optimizer_state = get_state_dict(run.learner, run.optimizer.optimizer)
    dcp.load({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=folder / "trainer" / "weights",
             no_dist=run.world == 1)
    set_state_dict(run.learner, run.optimizer.optimizer, model_state_dict=model_state, optim_state_dict=optimizer_state)
    if (folder / "trainer" / f"rng_{run.rank}.pt").exists():  # not there for another number of ranks
        rng = torch.load(folder / "trainer" / f"rng_{run.rank}.pt")
        torch.set_rng_state(rng["torch"])
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
    with path.open("a") as file:  # NaN is no JSON
        file.writelines(json.dumps(row) + "\n" for row in rows)


def draw_curves(out: Path) -> None:
    """curves.png: training and evaluation loss, learning rate, gradient norm; nothing where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    metrics, evals = read_jsonl(out / "metrics.jsonl"), read_jsonl(out / "eval.jsonl")
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), constrained_layout=True)
    panels = [("loss (nats a token)", "loss"), ("learning rate", "lr"), ("gradient norm", "grad_norm")]
    for axis, (title, key) in zip(axes, panels):
        values = [math.nan if m[key] is None else m[key] for m in metrics]
        axis.plot([m["step"] for m in metrics], values, label="training", linewidth=1.0)
        axis.set(title=title, xlabel="update")
        axis.grid(alpha=0.3)
    if evals:
        axes[0].plot([e["step"] for e in evals], [e["loss"] for e in evals], "o-", label="evaluation")
        axes[0].legend()
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


# ------------------------------------------------------------------------------------------------------------------ main
def load_model(cfg: Config, path: str) -> tuple[nn.Module, object]:
    """The model in fp32 (Accelerate's bf16 computes in bf16 and keeps these master weights) and its tokenizer."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        lm = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation=cfg.attention)
    except (OSError, ValueError, ImportError, KeyError, SafetensorError) as error:
        die(f"model: {path}: {one_line(error)}")
    if not tokenizer.is_fast:
        die(f"model: {path} has no fast tokenizer (tokenizer.json); the assistant's tokens are found by its offsets")
    head, special = lm.get_output_embeddings(), ("final_logit_softcapping", "logits_scaling")
    if head is None or getattr(head, "bias", None) is not None or any(getattr(lm.config, name, None) for name in special):
        die(f"model: {path}: its head is not a plain matrix (bias, soft-capping, scaling), so the loss would be wrong")
    if cfg.gradient_checkpointing:
        lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return lm, tokenizer


def finish_generation_config(lm: nn.Module, end_ids: list[int]) -> None:
    """Adds the tokens that end a turn in the training data to eos_token_id: a base model (Qwen3-8B-Base) knows <|endoftext|>
    alone, and rl_gppo.py and vLLM would not stop at the template's <|im_end|>."""
    config = lm.generation_config
    known = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    known = [i for i in known if i is not None]
    if set(end_ids) - set(known):
        config.eos_token_id = end_ids + [i for i in known if i not in end_ids]
        config._from_model_config = False  # or generate would take eos from config.json again
    try:
        config.validate(strict=True)
    except ValueError:  # temperature without do_sample, found in published models, would stop save_pretrained after training
        config.do_sample = True


def check_room(out: Path, parameters: int) -> None:
    """A checkpoint is fp32 weights and two Adam states, and the model in the precision that it computes in (2 bytes at least)."""
    need, free = parameters * 14, shutil.disk_usage(out).free
    if 0 < free < need:  # some network file systems report nothing
        die(f"output_dir {out}: {free / 1e9:.3g} GB are free and a checkpoint takes {need / 1e9:.3g}; make room or give another")


def start(cfg: Config) -> tuple[Run, Examples, Examples | None, dict]:
    """Everything before the first update: (run, training examples, evaluation examples, state), resumed where it was left.
    What a user can get wrong comes before the ranks meet, so a mistake is one line and no rank waits for another."""
    rank, out, path = int(os.environ.get("RANK", "0")), Path(cfg.output_dir), cfg.model
    checkpoint = open_output(cfg) if rank == 0 else None
    torch.manual_seed(cfg.seed)
    if path == "toy":
        path = str(out.parent / "toy_untrained")
        if rank == 0 and not Path(path).exists():
            Path(toy.make_model(path + ".partial")).rename(path)
        wait_for(Path(path))
    lm, tokenizer = load_model(cfg, path)
    if rank == 0:
        check_room(out, sum(p.numel() for p in lm.parameters()))
    limit = min(cfg.max_tokens, getattr(lm.config, "max_position_embeddings", None) or cfg.max_tokens)
    train = load_examples(cfg.train_file, "train_file", tokenizer, limit, cfg)
    held_out = load_examples(cfg.eval_file, "eval_file", tokenizer, limit, cfg) if cfg.eval_file else None
    finish_generation_config(lm, train.meta["end_ids"])

    accelerator = Accelerator(log_with=None if cfg.log_with == "none" else cfg.log_with, project_dir=cfg.output_dir,
                              kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=cfg.rank_timeout_s))])
    if accelerator.is_fsdp2 and accelerator.mixed_precision == "bf16":
        # Accelerate's own policy would also cast the loss to bf16 and add up gradients over ranks in bf16
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(torch.bfloat16, reduce_dtype=torch.float32)
    if accelerator.device.type == "cpu" and "ACCELERATE_MIXED_PRECISION" in os.environ:  # its launcher leaves one thread
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    checkpoint = broadcast_object_list([checkpoint])[0]
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
    learner = Learner(lm)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay, fused=True)
    learner, optimizer = accelerator.prepare(learner, optimizer)
    run, state = Run(cfg, accelerator, learner, optimizer, tokenizer, pad_id), {"step": 0}
    if checkpoint:
        try:
            state = load_checkpoint(checkpoint, run)
        except FILE_ERRORS as error:
            if rank_lost(error):
                raise
            die(f"resume: {checkpoint} cannot be read: {one_line(error)}; delete it to go on from the one before")
    if rank == 0:
        (out / "config.yaml.partial").write_text(yaml.safe_dump(dataclasses.asdict(cfg), sort_keys=False))
        (out / "config.yaml.partial").replace(out / "config.yaml")
        for name in FILES[:2]:  # lines after the checkpoint are made again
            rows = [row for row in read_jsonl(out / name) if row["step"] <= state["step"]] if checkpoint else []
            (out / f"{name}.partial").write_text("")
            append_jsonl(out / f"{name}.partial", rows)
            (out / f"{name}.partial").replace(out / name)
        print(f"SFT on {cfg.train_file}: {sum(p.numel() for p in lm.parameters()) / 1e6:.1f}M parameters, {len(train)} examples, "
              f"{train.meta['learnt_tokens']:,} of {train.meta['tokens']:,} tokens to learn, {run.world} rank(s)", flush=True)
    accelerator.init_trackers("klear-reasoner-sft", dataclasses.asdict(cfg))
    return run, train, held_out, state


def train_on(cfg: Config) -> None:
    """The whole run: updates, evaluations, checkpoints, final model."""
    run, train, held_out, state = start(cfg)
    out, main_rank = Path(cfg.output_dir), run.rank == 0
    per_epoch = math.ceil(len(train) / cfg.global_batch)
    updates = cfg.epochs * per_epoch
    stopping = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))  # finish the update, save, leave

    def evaluated(step: int) -> None:
        loss = evaluation_loss(held_out, run)
        run.accelerator.log({"eval/loss": loss}, step=step)
        if main_rank:
            append_jsonl(out / "eval.jsonl", [{"step": step, "loss": loss, "n": len(held_out)}])
            tqdm.write(f"update {step}: evaluation loss {loss:.4f}")

    if held_out is not None and state["step"] == 0:
        evaluated(0)
    with tqdm(total=updates, initial=state["step"], desc="SFT update", disable=not main_rank, mininterval=1) as bar:
        while state["step"] < updates:
            begun, at = time.perf_counter(), state["step"]
            order = epoch_order(len(train), at // per_epoch, cfg.seed)
            chosen = order[at % per_epoch * cfg.global_batch:(at % per_epoch + 1) * cfg.global_batch]
            metrics = update_on([train[i] for i in chosen], learning_rate(at + 1, updates, cfg), run)
            step = state["step"] = at + 1
            metrics = {"step": step, "epoch": step / per_epoch, **metrics, "step_s": time.perf_counter() - begun}
            run.accelerator.log({f"train/{k}": v for k, v in metrics.items() if k != "step"}, step=step)
            if main_rank:
                append_jsonl(out / "metrics.jsonl", [metrics])
            bar.update()
            bar.set_postfix_str(f"loss {metrics['loss']:.4f}", refresh=False)
            stop = run.total(float(bool(stopping))) > 0  # all ranks leave after the same update
            epoch_ends = step % per_epoch == 0
            if held_out is not None and (step % cfg.eval_every == 0 if cfg.eval_every else epoch_ends):
                evaluated(step)
            if stop or step == updates or (step % cfg.save_every == 0 if cfg.save_every else epoch_ends):
                save_checkpoint(out / f"checkpoint-{step}", state, run)
                if main_rank:
                    draw_curves(out)
            if stop and step < updates:
                if main_rank:
                    tqdm.write(f"SIGTERM: stopped after update {step}; the same command goes on from {out}/checkpoint-{step}")
                return
    save_pretrained(out / "final.partial", run)
    if main_rank:
        shutil.rmtree(out / "final", ignore_errors=True)
        (out / "final.partial").rename(out / "final")  # so that a folder final/ is always whole
        draw_curves(out)
        print(f"{out}: final/ (the model), {', '.join(p.name for p in map(out.joinpath, FILES) if p.exists())}")
    run.accelerator.end_training()


def rank_lost(error: BaseException) -> bool:
    """Whether a collective failed because another rank is gone. NCCL's watchdog ends the process itself, with its own message."""
    return isinstance(error, torch.distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def main(argv: list[str]) -> None:
    cfg = read_config(argv)
    try:
        train_on(cfg)
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO):
            raise
        die(f"output_dir {cfg.output_dir}: {one_line(error)}; make room and run again, it goes on from the newest checkpoint")
    except RuntimeError as error:
        if not rank_lost(error):
            raise
        newest = checkpoints(Path(cfg.output_dir))[-1:] or ["the beginning"]
        why = re.sub(r"^\[\S+\] |\. This is typically.*", "", one_line(error))  # without gloo's line number and advice
        tqdm.write(f"sft.py: rank {os.environ['RANK']} lost another rank: its process or machine has died, or is silent for "
                   f"{cfg.rank_timeout_s} s ({why}); the same command on all machines goes on from {newest[0]}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
