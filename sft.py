"""Supervised fine-tuning on long chains of thought, the first stage of Klear-Reasoner (arXiv 2508.07629, §3).

    accelerate launch sft.py                                                       # toy traces, tiny model, CPU, a minute
    accelerate launch --config_file recipes/fsdp2_8gpu.yaml sft.py --config recipes/klear_sft_8b.yaml

The loss is the negative log-likelihood of the assistant's tokens (Eq. 8), a mean over all of them in the global batch: over
ranks and micro-batches alike, so that it does not depend on how the batch is cut. Examples of an update are packed end to
end into rows of at most token_budget tokens; attention does not cross examples (position_ids restart, and transformers
builds a varlen call for flash attention or a block-diagonal mask from that).

Rows: {"messages": [...]}, {"prompt", "response"}, or GSM8K's {"question", "answer"}, whose solution is put between think
tags and whose last line "#### 42" becomes \\boxed{42}.

Differs from the paper: it gives the batch in tokens only; here an update is `global_batch` examples. Examples longer than
max_tokens are left out and counted, not cut: a cut trace teaches a model not to end.
"""

import dataclasses
import difflib
import hashlib
import inspect
import json
import math
import os
import random
import re
import shutil
import signal
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
import yaml
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

import toy

disable_progress_bar()  # transformers' own bars for every file would drown ours


# ---------------------------------------------------------------------------------------------------------------- config
@dataclass
class Config:
    model: str = "toy"  # Hugging Face folder or hub name; "toy" is an untrained 0.8M-parameter model
    train_file: str = "toy:math"  # JSONL or Parquet file, hub data set, toy:math or toy:code; several with commas
    eval_file: str = ""  # the same: its loss is measured before, after every epoch and every eval_every updates
    output_dir: str = "runs/sft"  # config.yaml, metrics.jsonl, eval.jsonl, curves.png, checkpoint-N/, final/
    max_tokens: int = 32768  # longer examples are left out
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
    resume: str = "auto"  # auto: newest checkpoint in output_dir | never: set the old run aside | PATH of a checkpoint
    log_with: str = "none"  # tensorboard, wandb, trackio (Accelerate trackers)
    seed: int = 0


MAY_CHANGE = {"eval_every", "save_every", "keep_checkpoints", "resume", "log_with", "output_dir", "token_budget"}  # on resume


def die(message: str) -> None:
    """Ends the run for a user's mistake: one line from rank 0, exit code 2."""
    if os.environ.get("RANK", "0") == "0":
        print(f"sft.py: {message}", file=sys.stderr)
    sys.exit(2)


def one_line(error: Exception) -> str:
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
    for key in ("max_tokens", "token_budget", "epochs", "global_batch", "logit_chunk"):
        if getattr(cfg, key) < 1:
            die(f"{key} must be at least 1, got {getattr(cfg, key)}")
    return cfg


# ------------------------------------------------------------------------------------------------------------------ data
@dataclass
class Example:
    ids: list[int]
    target: list[bool]  # the tokens that are learnt: the assistant's


def to_messages(row: dict) -> list[dict]:
    """The three row formats as messages. Raises ValueError for a row that fits none."""
    if isinstance(row, dict):
        if isinstance(row.get("messages"), list) and all(isinstance(m, dict) and {"role", "content"} <= set(m) for m in row["messages"]):
            if any(m["role"] == "assistant" for m in row["messages"]):
                return row["messages"]
            raise ValueError("no assistant message, so nothing to learn")
        if isinstance(row.get("prompt"), str) and isinstance(row.get("response"), str):
            return [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]}]
        if isinstance(row.get("question"), str) and isinstance(row.get("answer"), str):
            solution, _, answer = row["answer"].rpartition("####")
            solution = re.sub(r"<<.*?>>", "", solution).strip()  # GSM8K's calculator marks
            return [{"role": "user", "content": row["question"]},
                    {"role": "assistant", "content": f"<think>\n{solution}\n</think>\n\n\\boxed{{{answer.strip()}}}"}]
    raise ValueError('expected {"messages": [{"role", "content"}...]}, {"prompt", "response"} or {"question", "answer"}')


def encode(messages: list[dict], tokenizer) -> Example:
    """Token ids of the conversation, and which of them are the assistant's, end of turn included.

    An assistant turn is what the template adds to `conversation so far + generation prompt`. Where a template rewrites earlier
    turns (Qwen3 drops their thinking), only turns that the whole conversation shows unchanged are learnt: always the last."""
    if not tokenizer.chat_template:
        text, spans = "", []
        for message in messages:
            if message["role"] == "assistant":
                spans.append((len(text), len(text) + len(message["content"] + tokenizer.eos_token)))
                text += message["content"] + tokenizer.eos_token
            else:
                text += message["content"] + "\n"
    else:
        render = lambda part, **options: tokenizer.apply_chat_template(part, tokenize=False, **options)
        text, spans = render(messages), []
        for i, message in enumerate(messages):
            if message["role"] == "assistant":
                before, after = render(messages[:i], add_generation_prompt=True), render(messages[:i + 1])
                if text.startswith(after) and after.startswith(before):
                    spans.append((len(before), len(after)))
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    target = [any(start <= a and b <= end for start, end in spans) and b > a for a, b in encoded["offset_mapping"]]
    return Example(encoded["input_ids"], target)


def load_examples(spec: str, name: str, tokenizer, cfg: Config) -> list[Example]:
    """All rows of train_file or eval_file, rendered and tokenized."""
    examples, dropped = [], []
    for source in filter(None, map(str.strip, spec.split(","))):
        if source.startswith("toy:"):
            rows = toy.sft_rows(source[4:], 4096, cfg.seed)
        elif source.endswith((".jsonl", ".json")):
            if not Path(source).is_file():
                die(f"{name}: {source} does not exist; give a JSONL or Parquet file, a hub data set, toy:math or toy:code")
            rows = Path(source).read_text().splitlines()
        else:
            import datasets  # only here: its import takes a second

            try:
                rows = (datasets.load_dataset("parquet", data_files=source, split="train") if source.endswith(".parquet")
                        else datasets.load_dataset(source, split="train"))
            except Exception as error:  # the hub client raises a dozen types; every one means: this name gave no rows
                die(f"{name}: {source}: {one_line(error)}; give a local JSONL or Parquet file instead")
        main_process = os.environ.get("RANK", "0") == "0"
        for number, row in enumerate(tqdm(rows, f"{name}: tokenizing", disable=not main_process, mininterval=1, leave=False), 1):
            try:
                example = encode(to_messages(json.loads(row) if isinstance(row, str) else row), tokenizer)
            except json.JSONDecodeError as error:
                die(f"{source}:{number}: not JSON ({error.msg} at column {error.colno}); expected one object a line")
            except (ValueError, TypeError) as error:
                die(f"{source}:{number}: {one_line(error)}")
            if len(example.ids) > cfg.max_tokens:
                dropped.append(f"{source}:{number} has {len(example.ids)}")
            elif any(example.target[1:]):
                examples.append(example)
            else:
                die(f"{source}:{number}: the chat template leaves no assistant token to learn")
    if not examples:
        die(f"{name}: {spec} has no row" + (f" within max_tokens {cfg.max_tokens} ({dropped[0]})" if dropped else ""))
    if dropped and os.environ.get("RANK", "0") == "0":
        print(f"{name}: {len(dropped)} of {len(dropped) + len(examples)} rows left out, longer than max_tokens {cfg.max_tokens} "
              f"(first: {dropped[0]})")
    return examples


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
        micros, used = [], 0
        for i in positions:
            size = used + lengths[i] if packed else lengths[micros[-1][0]] * (len(micros[-1]) + 1) if micros else 0
            if not micros or size > token_budget:
                micros.append([])
                size = lengths[i]
            micros[-1].append(i)
            used = size
        plan.append(micros)
    most = max(map(len, plan))
    return [micros + [[]] * (most - len(micros)) for micros in plan]


def collate(examples: list[Example], packed: bool, device, pad_id: int) -> dict[str, Tensor]:
    """A micro-batch: input_ids and position_ids (rows, length), and for the N learnt tokens `index`, the flat position that
    predicts each, and `targets`. An empty micro-batch gets one token, whose loss counts nothing."""
    weight = float(bool(examples))
    examples = examples or [Example([pad_id, pad_id], [False, True])]
    rows = [torch.tensor(e.ids) for e in examples]
    width = max(map(len, rows))
    starts = np.cumsum([0] + [len(row) for row in rows[:-1]]) if packed else np.arange(len(rows)) * width
    # a first token has no predecessor in its example, so it is never a target
    learnt = [torch.tensor(e.target[1:]).nonzero().squeeze(-1) + 1 for e in examples]
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
    is made in the same pass and only scaled in backward: no logits are computed twice."""

    @staticmethod
    def forward(ctx, hidden, weight, targets, chunk):
        total = hidden.new_zeros((), dtype=torch.float32)
        wanted = ctx.needs_input_grad[0]
        grad_hidden = torch.empty_like(hidden) if wanted else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wanted else None
        with torch.autocast(hidden.device.type, enabled=False):
            for at in range(0, len(targets), chunk):
                h, y = hidden[at:at + chunk], targets[at:at + chunk, None]
                if h.is_cuda and h.dtype == weight.dtype != torch.float32:
                    x = torch.mm(h, weight.t(), out_dtype=torch.float32)  # fp32 logits without an fp32 copy of W
                else:
                    x = h.float() @ weight.float().t()
                x -= x.logsumexp(-1, keepdim=True)
                total -= x.gather(-1, y).sum()
                if wanted:
                    p = x.exp_().scatter_add_(-1, y, torch.full_like(y, -1, dtype=x.dtype)).to(h.dtype)
                    grad_hidden[at:at + chunk] = p @ weight.to(h.dtype)
                    grad_weight += p.t() @ h
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx, upstream):
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * upstream.to(grad_hidden.dtype), (grad_weight * upstream).to(ctx.dtype), None, None


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
        return HeadCrossEntropy.apply(hidden, self.lm.get_output_embeddings().weight, batch["targets"], logit_chunk) * batch["weight"]


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

    def batches(self, examples: list[Example]) -> list[dict[str, Tensor]]:
        """This rank's micro-batches of the given examples."""
        plan = plan_microbatches([len(e.ids) for e in examples], self.world, self.cfg.token_budget, self.cfg.packing)
        return [collate([examples[i] for i in micro], self.cfg.packing, self.accelerator.device, self.pad_id) for micro in plan[self.rank]]

    def total(self, value: float) -> float:
        return self.accelerator.reduce(torch.tensor([value], dtype=torch.float64), "sum").item()


def learnt_tokens(examples: list[Example]) -> int:
    return sum(sum(e.target[1:]) for e in examples)


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
    batches = run.batches(examples)
    for k, batch in enumerate(batches):
        # DDP: gradients travel once, with the last micro-batch. FSDP2 scatters them every time, which saves memory.
        hold = k + 1 < len(batches) and hasattr(run.learner, "no_sync")
        with run.learner.no_sync() if hold else nullcontext():
            loss = run.learner(batch, run.cfg.logit_chunk) / tokens
            run.accelerator.backward(loss * run.world)  # both average over ranks; the loss is a sum over ranks
        nll += loss.item()
    norm = float(run.accelerator.clip_grad_norm_(run.learner.parameters(), run.cfg.grad_clip))
    if math.isfinite(norm):
        run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    return {"loss": run.total(nll), "grad_norm": norm, "lr": lr, "tokens": sum(len(e.ids) for e in examples), "learnt_tokens": tokens}


@torch.no_grad()
def evaluation_loss(examples: list[Example], run: Run) -> float:
    """Mean negative log-likelihood of the assistant's tokens, in nats."""
    run.learner.eval()
    nll = sum((run.learner(batch, run.cfg.logit_chunk).item() for batch in run.batches(examples)), 0.0)
    return run.total(nll) / learnt_tokens(examples)


def epoch_order(total: int, epoch: int, seed: int) -> list[int]:
    digest = hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "big")).sample(range(total), total)


# ------------------------------------------------------------------------------------------------------ checkpoints, log
def save_pretrained(folder: Path, run: Run) -> None:
    """A Hugging Face folder that rl_gppo.py, eval.py and vLLM load. All ranks call it (FSDP2 gathers), rank 0 writes."""
    lm, dtype = run.accelerator.unwrap_model(run.learner).lm, torch.bfloat16 if run.accelerator.mixed_precision == "bf16" else torch.float32
    full = {}
    for name, t in lm.state_dict().items():
        t = t.full_tensor() if hasattr(t, "full_tensor") else t
        if run.rank == 0:
            full[name] = t.to("cpu", dtype)
    if run.rank == 0:
        lm.save_pretrained(folder, state_dict=full)
        run.tokenizer.save_pretrained(folder)


def save_checkpoint(folder: Path, state: dict, run: Run) -> None:
    """Hugging Face weights + trainer/ (weights, optimizer, RNG, state.json), complete or not there at all: everything goes to
    a temporary folder that is renamed last."""
    partial = folder.with_name(folder.name + ".partial")
    try:
        if run.rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
            (partial / "trainer").mkdir(parents=True)
        run.accelerator.wait_for_everyone()
        save_pretrained(partial, run)
        model_state, optimizer_state = get_state_dict(run.learner, run.optimizer.optimizer)
        dcp.save({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=partial / "trainer" / "weights",
                 no_dist=run.world == 1)
        torch.save(torch.get_rng_state(), partial / "trainer" / f"rng_{run.rank}.pt")
        run.accelerator.wait_for_everyone()
        if run.rank == 0:
            (partial / "trainer" / "state.json").write_text(json.dumps(state))
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
    except (OSError, RuntimeError, dcp.api.CheckpointException) as error:  # a full disk comes as any of these
        die(f"{folder} not written ({one_line(error)}); the checkpoint before it is whole, make room and run again")
    if run.rank == 0:
        for old in checkpoints(folder.parent)[:-run.cfg.keep_checkpoints]:
            shutil.rmtree(old)
    run.accelerator.wait_for_everyone()


def load_checkpoint(folder: Path, run: Run) -> dict:
    """Restores weights, optimizer and RNG in place and returns state.json."""
    state = json.loads((folder / "trainer" / "state.json").read_text())
    model_state, optimizer_state = get_state_dict(run.learner, run.optimizer.optimizer)
    dcp.load({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=folder / "trainer" / "weights", no_dist=run.world == 1)
    set_state_dict(run.learner, run.optimizer.optimizer, model_state_dict=model_state, optim_state_dict=optimizer_state)
    if (folder / "trainer" / f"rng_{run.rank}.pt").exists():
        torch.set_rng_state(torch.load(folder / "trainer" / f"rng_{run.rank}.pt"))
    return state


def checkpoints(out: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = [p for p in out.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name)]
    return sorted((p for p in found if (p / "trainer" / "state.json").exists()), key=lambda p: int(p.name.split("-")[1]))


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []


def append_jsonl(path: Path, rows: list[dict]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def draw_curves(out: Path) -> None:
    """curves.png: training and evaluation loss, learning rate, gradient norm."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    metrics, evals = read_jsonl(out / "metrics.jsonl"), read_jsonl(out / "eval.jsonl")
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), constrained_layout=True)
    for axis, (title, key) in zip(axes, [("loss (nats a token)", "loss"), ("learning rate", "lr"), ("gradient norm", "grad_norm")]):
        axis.plot([m["step"] for m in metrics], [m[key] for m in metrics], label="training", linewidth=1.0)
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
    except OSError as error:
        die(f"output_dir {out}: {error.strerror}; give another --output_dir or make room")
    if cfg.resume not in ("auto", "never"):
        if not (Path(cfg.resume) / "trainer" / "state.json").exists():
            die(f"resume: {cfg.resume} is no checkpoint of this trainer (no trainer/state.json); use auto, never or a folder")
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
    found = checkpoints(out)
    return found[-1] if found else None


# ------------------------------------------------------------------------------------------------------------------ main
def load_model(cfg: Config, path: str) -> tuple[nn.Module, object]:
    """The model in fp32 (Accelerate's bf16 computes in bf16 and keeps these master weights) and its tokenizer."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        lm = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation=cfg.attention)
    except (OSError, ValueError, ImportError, KeyError) as error:
        die(f"model: {path}: {one_line(error)}")
    if cfg.gradient_checkpointing:
        lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return lm, tokenizer


def start(cfg: Config) -> tuple[Run, list[Example], list[Example], dict]:
    """Everything before the first update: (run, training examples, evaluation examples, state), resumed where it was left."""
    accelerator = Accelerator(log_with=None if cfg.log_with == "none" else cfg.log_with, project_dir=cfg.output_dir)
    rank, out, path = accelerator.process_index, Path(cfg.output_dir), cfg.model
    torch.manual_seed(cfg.seed)
    with accelerator.main_process_first():
        checkpoint = open_output(cfg) if rank == 0 else None
        if path == "toy":
            path = str(out.parent / "toy_untrained")
            if not (Path(path) / "config.json").exists():
                toy.make_model(path)
        lm, tokenizer = load_model(cfg, path)
        try:
            train = load_examples(cfg.train_file, "train_file", tokenizer, cfg)
            held_out = load_examples(cfg.eval_file, "eval_file", tokenizer, cfg) if cfg.eval_file else []
        except ValueError as error:  # toy: an unknown kind
            die(str(error))
    checkpoint = broadcast_object_list([checkpoint])[0]
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    learner = Learner(lm)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay, fused=True)
    learner, optimizer = accelerator.prepare(learner, optimizer)
    run, state = Run(cfg, accelerator, learner, optimizer, tokenizer, pad_id), {"step": 0}
    if checkpoint:
        try:
            state = load_checkpoint(checkpoint, run)
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            die(f"resume: {checkpoint} cannot be read: {one_line(error)}; delete it to go on from the one before")
    if rank == 0:
        (out / "config.yaml").write_text(yaml.safe_dump(dataclasses.asdict(cfg), sort_keys=False))
        for name in ("metrics.jsonl", "eval.jsonl"):  # lines after the checkpoint are made again
            rows = [row for row in read_jsonl(out / name) if row["step"] <= state["step"]] if checkpoint else []
            (out / f"{name}.partial").write_text("")
            append_jsonl(out / f"{name}.partial", rows)
            (out / f"{name}.partial").replace(out / name)
        print(f"SFT on {cfg.train_file}: {sum(p.numel() for p in lm.parameters()) / 1e6:.1f}M parameters, {len(train)} examples, "
              f"{learnt_tokens(train):,} tokens to learn, {run.world} rank(s)", flush=True)
    accelerator.init_trackers("klear-reasoner-sft", dataclasses.asdict(cfg))
    return run, train, held_out, state


def main(argv: list[str]) -> None:
    cfg = read_config(argv)
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

    if held_out and state["step"] == 0:
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
            if held_out and (step % cfg.eval_every == 0 if cfg.eval_every else epoch_ends):
                evaluated(step)
            if stop or step == updates or (step % cfg.save_every == 0 if cfg.save_every else epoch_ends):
                save_checkpoint(out / f"checkpoint-{step}", state, run)
                if main_rank:
                    draw_curves(out)
            if stop and step < updates:
                if main_rank:
                    tqdm.write(f"SIGTERM: stopped after update {step}; the same command goes on from {out}/checkpoint-{step}")
                return
    save_pretrained(out / "final", run)
    if main_rank:
        draw_curves(out)
        print(f"{out}: final/ (the model), curves.png, metrics.jsonl")
    run.accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1:])
