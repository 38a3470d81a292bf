"""Supervised fine-tuning on long chains of thought, the first stage of Klear-Reasoner (arXiv 2508.07629, §3).

    accelerate launch sft.py                                      # toy traces, tiny model, CPU, a minute
    accelerate launch --config_file recipes/fsdp2_8gpu.yaml sft.py --config recipes/klear_sft_8b.yaml
    ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 sft.py # two CPU ranks over gloo

The loss is the negative log-likelihood of the assistant's tokens (Eq. 8), a mean over all of them in the global batch:
over ranks and micro-batches alike, so that it does not depend on how the batch is cut. Examples of an update are packed
end to end into rows of at most token_budget tokens; attention does not cross examples (position_ids restart, and
transformers builds a varlen call for flash attention or a block-diagonal mask from that).

Rows: {"messages": [...]}, {"prompt", "response"}, or GSM8K's {"question", "answer"}, whose solution is put between
think tags and whose last line "#### 42" becomes \\boxed{42} (`gsm8k_think: false` leaves it as it is). Which tokens are
the assistant's: see `render`. Rows are tokenized once, by rank 0, into files that all ranks map into memory.

The paper does not give the batch; here an update is `global_batch` examples. Examples longer than max_tokens or the
model's context are left out and counted, not cut (a cut trace teaches a model not to end), up to a tenth of all.
"""

import functools
import hashlib
import inspect
import json
import math
import random
import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import jinja2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import toy
from klear.folders import make_partial, open_output, put_in_place
from klear.layout import lay_out
from klear.ranks import Run, load_checkpoint, make_run, save_checkpoint, save_final
from klear.rows import as_messages, messages_of, read_rows, stamps_of
from policy import finish_generation_config, load_policy, load_tokenizer, plan_microbatches, size_of
from runs import (Amount, Count, Names, NonNegative, Positive, Seed, Share, Stop, append_jsonl, catch_signals, die,
                  draw_curves, frame, one_line, rank, read_config, stopped, wait_for, write_config)


# -------------------------------------------------------------------------------------------------------------- config
@dataclass
class Config:
    # model and data
    model: str = "toy"  # Hugging Face folder or hub name; "toy" is an untrained 0.8M-parameter model
    train_file: Names = "toy:math"  # JSONL or Parquet files, hub data sets NAME[:SUBSET[:SPLIT]], toy:math, toy:code
    eval_file: Names = ""  # the same: its loss is measured before, after every epoch (or eval_every) and at the end
    output_dir: str = "runs/sft"  # config.yaml, metrics.jsonl, eval.jsonl, curves.png, checkpoint-N/, final/
    max_tokens: Count = 32768  # longer examples are left out, and counted
    gsm8k_think: bool = True  # {"question", "answer"} rows: solution between think tags, "#### 42" as \boxed{42}
    lora_rank: Amount = 0  # r of LoRA's B·A on every linear layer of a frozen model (lr: about 10x); 0 = all weights
    lora_alpha: Positive = 32.0  # α: the adapter counts α/r
    # optimiser
    epochs: Count = 4
    global_batch: Count = 64  # examples of one optimizer update, over all ranks
    lr: NonNegative = 8e-5  # after the warm-up, falls by a cosine
    min_lr: NonNegative = 4e-5  # to this
    warmup_ratio: Share = 0.03  # share of the updates, linear
    weight_decay: NonNegative = 0.1  # AdamW
    grad_clip: NonNegative = 1.0  # global norm; 0 = off
    # speed and memory
    packing: bool = True  # rows end to end without padding; false: right-padded rows (faster with sdpa and short rows)
    token_budget: Count = 32768  # tokens of a micro-batch, padding included
    logit_chunk: Count = 1024  # tokens whose logits exist at one time
    attention: str = "sdpa"  # or flash_attention_2, flex_attention
    gradient_checkpointing: bool = False  # recompute each layer in backward
    rank_timeout_s: Count = 3600  # a rank that waits this long for another ends the run
    # evaluation, checkpoints, log
    eval_every: Amount = 0  # updates; 0 = after every epoch
    save_every: Amount = 0  # updates; 0 = after every epoch
    keep_checkpoints: Count = 2
    resume: str = "auto"  # auto: newest checkpoint in output_dir | never: set the old run aside | PATH of a checkpoint
    log_with: Literal["none", "tensorboard", "wandb", "trackio"] = "none"  # Accelerate trackers
    seed: Seed = 0


MAY_CHANGE = {*"eval_every save_every keep_checkpoints rank_timeout_s resume log_with output_dir token_budget "
              "logit_chunk gradient_checkpointing".split()}  # when a run is resumed
MOST_USED = ("model train_file eval_file output_dir max_tokens packing token_budget epochs global_batch lr min_lr "
             "gradient_checkpointing")
PANELS = [("loss (nats a token)", {"loss": "training", "eval/loss": "evaluation"}), ("learning rate", {"lr": "lr"}),
          ("gradient norm", {"grad_norm": "norm"})]


def parse(argv: list[str]) -> Config:
    cfg = read_config(Config, argv, MOST_USED)
    return cfg if cfg.min_lr <= cfg.lr else die(f"min_lr {cfg.min_lr} must lie between 0 and lr {cfg.lr}")


# ---------------------------------------------------------------------------------------------------------------- data
@dataclass
class Example:
    ids: np.ndarray  # (length,) token ids
    target: np.ndarray  # (length,) bool: the tokens that are learnt, the assistant's


def to_messages(row: dict, gsm8k_think: bool = True) -> list[dict]:
    """The conversation of a row, the assistant's turns included. Raises ValueError for a row that has none."""
    messages = messages_of(row)
    if isinstance(row.get("question"), str) and isinstance(row.get("answer"), str) and len(messages) == 1:
        response = row["answer"]
        if gsm8k_think and "####" in response:
            solution, _, answer = re.sub(r"<<.*?>>", "", response).rpartition("####")  # without its calculator marks
            response = f"<think>\n{solution.strip()}\n</think>\n\n\\boxed{{{answer.strip()}}}"
        messages = [*messages, {"role": "assistant", "content": response}]
    roles = [message["role"] for message in messages]
    if "assistant" not in roles[1:] or roles[0] == "assistant":
        raise ValueError("messages must hold an assistant's, and not begin with it; expected "
                         '{"messages"}, {"prompt", "response"}, {"conversations"} or {"question", "answer"}')
    return messages


def render(messages: list[dict], tokenizer) -> list[tuple[str, list[tuple[int, int]]]]:
    """A conversation as texts with the spans [start, end) that the assistant writes, its end-of-turn token included.

    An assistant turn is what the chat template adds to `conversation so far + generation prompt`, so a model is trained
    on exactly what it is asked at inference. Usually that is one text. A turn that the template rewrites once the
    conversation goes on (Qwen3 drops earlier thinking) is a text of its own, in the form it had when it was written. A
    template that drops the turn's own thinking (DeepSeek-R1) is bypassed: generation prompt + response + end token."""
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
            spans.append((len(before), len(after.rstrip()) if ended else len(whole)))  # nothing after the end token
        else:
            after = after.rstrip() + eos * (not ended)
            own.append((after, [(len(before), len(after))]))
    return [(whole, spans)] * bool(spans) + own


def encode(texts: list[tuple[str, list[tuple[int, int]]]], tokenizer) -> list[Example]:
    """Tokenizes rendered texts. A token is learnt if it ends inside a span: the ends are right whatever a tokenizer
    does to the offsets of white space, and a token that straddles the end of the prompt is the assistant's."""
    examples, text = [], [text for text, _ in texts]
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True) if text else {}
    for ids, offsets, (_, spans) in zip(encoded.get("input_ids", []), encoded.get("offset_mapping", []), texts):
        ends, target = np.array([end for _, end in offsets]), np.zeros(len(ids), bool)
        for start, end in spans:
            target |= (start < ends) & (ends <= end)
        examples.append(Example(np.array(ids, np.uint32), target))
    return examples


def encode_row(row: dict, tokenizer, gsm8k_think: bool = True) -> list[Example | tuple]:
    """A row as examples (a template with {% generation %} marks the assistant's tokens) or as texts for `encode`."""
    messages = to_messages(row, gsm8k_think)
    if tokenizer.chat_template and re.search(r"\{%-?\s*generation\b", str(tokenizer.chat_template)):
        out = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        return [Example(np.array(out["input_ids"], np.uint32), np.array(out["assistant_masks"], bool))]
    return render(messages, tokenizer)


class Examples:
    """Tokenized rows, mapped from a folder that `tokenize` wrote: 1.5M long traces do not fit into a rank's memory."""

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


def tokenize(spec: str, knob: str, tokenizer, limit: int, cfg: Config, folder: Path) -> None:
    """Writes all rows of `spec` to `folder`: ids.bin, target.bin, ends.bin, meta.json; complete or not there at all."""
    partial = make_partial(folder)
    kept, dropped, learnt, end_ids, position = 0, [], 0, set(), 0
    with ExitStack() as stack:
        open_bin = lambda name: stack.enter_context((partial / f"{name}.bin").open("wb"))
        ids, target, ends = open_bin("ids"), open_bin("target"), open_bin("ends")

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
        rows = read_rows(spec, knob, toy_rows=lambda kind: toy.sft_rows(kind, 4096, cfg.seed))
        for where, row in tqdm(rows, f"{knob}: tokenizing", unit=" rows", delay=1, leave=False):
            try:
                block += [(where, item) for item in encode_row(row, tokenizer, cfg.gsm8k_think)]
            except (ValueError, TypeError, jinja2.TemplateError) as error:
                die(f"{where}: {one_line(error)}")
            if len(block) >= 1000:  # a fast tokenizer works on a block with all cores
                write(block)
                block = []
        write(block)
    if dropped:
        told = f"{knob}: {len(dropped)} of {len(dropped) + kept} examples exceed {limit} tokens (first: {dropped[0]})"
        if len(dropped) > kept / 9:
            die(f"{told}, more than a tenth; give more max_tokens (at most the model's context), or filter the rows")
        print(f"{told} and were left out")
    meta = {"source": spec, "examples": kept, "tokens": position, "learnt_tokens": learnt, "left_out": len(dropped),
            "end_ids": sorted(end_ids & set(tokenizer.all_special_ids))}
    (partial / "meta.json").write_text(json.dumps(meta))
    put_in_place(partial, folder)


def load_examples(spec: str, knob: str, tokenizer, limit: int, cfg: Config) -> Examples:
    """The tokenized rows of `spec`. Rank 0 makes the files unless they are there, under a name that changes with data,
    tokenizer and this code; the others wait for them, before any process group could time out."""
    parts = messages_of, as_messages, to_messages, render, encode, encode_row, tokenize, toy
    code = [inspect.getsource(part) for part in parts]
    key = [spec, stamps_of(spec), limit, cfg.seed, cfg.gsm8k_think, tokenizer.backend_tokenizer.to_str(),
           str(tokenizer.chat_template), code]
    digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=8).hexdigest()
    folder = Path(cfg.output_dir).parent / "tokens" / digest
    if rank() == 0 and not folder.exists():
        try:
            tokenize(spec, knob, tokenizer, limit, cfg, folder)
        except OSError as error:
            die(f"output_dir: {folder.parent} (tokenized rows): {error.strerror}; make room or give another output_dir")
    wait_for(folder, Path(cfg.output_dir))
    return Examples(folder)


def collate(examples: list[Example], packed: bool, device, pad_id: int) -> dict[str, Tensor]:
    """A micro-batch: input_ids and position_ids (rows, length), and for the N learnt tokens `index`, the flat position
    that predicts each, and `targets`. An empty micro-batch gets one token, whose loss counts nothing."""
    real = float(bool(examples))
    examples = examples or [Example(np.array([pad_id, pad_id]), np.array([False, True]))]
    rows = [torch.from_numpy(e.ids.astype(np.int64)) for e in examples]
    laid, starts = lay_out(rows, packed, pad_id)
    learnt = [torch.from_numpy(np.flatnonzero(e.target)) for e in examples]  # never 0: a first token has no predecessor
    batch = laid | {"index": torch.cat([at + int(start) - 1 for at, start in zip(learnt, starts)]),
             "targets": torch.cat([row[at] for row, at in zip(rows, learnt)]), "loss_mask": torch.tensor(real)}
    return {key: value.to(device) for key, value in batch.items()}


def microbatches(examples: list[Example] | Examples, run: Run) -> Iterator[tuple[dict[str, Tensor], bool]]:
    """This rank's micro-batches of the given examples, each with whether it is the last."""
    cfg = run.cfg
    plan = plan_microbatches([len(e.ids) for e in examples], run.world, cfg.token_budget, cfg.packing)[run.rank]
    for k, micro in enumerate(plan, 1):
        yield collate([examples[i] for i in micro], cfg.packing, run.accelerator.device, run.pad_id), k == len(plan)


# ------------------------------------------------------------------------------------------------------------ training
def negative_log_likelihood(batch: dict, run: Run) -> Tensor:
    """-Σ log π(y_t | y_<t) over the learnt tokens of a micro-batch, in nats (Eq. 8, not yet divided)."""
    logprobs, _ = run.policy(batch, run.cfg.logit_chunk)  # (N,)
    return -logprobs.sum() * batch["loss_mask"]


def learning_rate(update: int, updates: int, cfg: Config) -> float:
    """Linear warm-up, then a cosine from lr to min_lr; `update` counts from 1."""
    warmup = max(1, round(cfg.warmup_ratio * updates))
    if update <= warmup:
        return cfg.lr * update / warmup
    progress = (update - warmup) / max(1, updates - warmup)
    return cfg.min_lr + (cfg.lr - cfg.min_lr) * (1 + math.cos(math.pi * progress)) / 2


def update_on(examples: list[Example], lr: float, run: Run) -> dict[str, float]:
    """One optimizer update: the token mean over the whole global batch, whatever its cut over ranks and micro-batches.
    Raises Stop between micro-batches, with the weights as they were."""
    tokens, nll = sum(int(e.target.sum()) for e in examples), 0.0
    run.policy.train()
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    for batch, last in microbatches(examples, run):
        # DDP: gradients travel once, with the last micro-batch. FSDP2 scatters them every time, which saves memory.
        with run.policy.no_sync() if not last and hasattr(run.policy, "no_sync") else nullcontext():
            loss = negative_log_likelihood(batch, run) / tokens
            run.accelerator.backward(loss * run.world)  # both average over ranks; the loss is a sum over ranks
        nll += loss.item()
        run.stop_if_asked()
    norm = float(run.accelerator.clip_grad_norm_(run.policy.parameters(), run.cfg.grad_clip or math.inf))
    if math.isfinite(norm):
        run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    return {"loss": run.total({"loss": nll})["loss"], "grad_norm": norm, "lr": lr,
            "skipped": int(not math.isfinite(norm)), "tokens": sum(len(e.ids) for e in examples),
            "learnt_tokens": tokens}


@torch.no_grad()
def evaluation_loss(examples: Examples, run: Run) -> float:
    """Mean negative log-likelihood of the assistant's tokens, in nats."""
    run.policy.eval()
    nll, tokens = 0.0, sum(int(e.target.sum()) for e in examples)
    for batch, _ in microbatches(examples, run):
        nll += negative_log_likelihood(batch, run).item()
        run.stop_if_asked()
    return run.total({"loss": nll})["loss"] / tokens


@functools.lru_cache(maxsize=1)
def epoch_order(total: int, epoch: int, seed: int) -> list[int]:
    """The order of the examples in an epoch, from the seed alone: the number of the update is the data cursor."""
    digest = hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "big")).sample(range(total), total)


def start(cfg: Config) -> tuple[Run, Examples, Examples | None, dict]:
    """Everything before the first update: (run, training examples, evaluation examples, state), resumed where it was
    left. A user's mistake shows before the ranks meet: one line, and no rank waits for another."""
    out, path, first = Path(cfg.output_dir), cfg.model, rank() == 0
    checkpoint = open_output(cfg, MAY_CHANGE) if first else None
    torch.manual_seed(cfg.seed)
    if path == "toy":
        path = str(out.parent / "toy_untrained")
        if first and not Path(path).exists():
            Path(toy.make_model(path + ".partial")).rename(path)
        wait_for(Path(path), out)
    tokenizer, lm = load_tokenizer(path), load_policy(cfg, path)
    if not tokenizer.is_fast:
        die(f"model: {path} has no fast tokenizer (tokenizer.json); the assistant's tokens are found by its offsets")
    limit = min(cfg.max_tokens, getattr(lm.config, "max_position_embeddings", None) or cfg.max_tokens)
    train = load_examples(cfg.train_file, "train_file", tokenizer, limit, cfg)
    held_out = load_examples(cfg.eval_file, "eval_file", tokenizer, limit, cfg) if cfg.eval_file else None
    finish_generation_config(lm, train.meta["end_ids"])
    run, checkpoint = make_run(cfg, lm, tokenizer, checkpoint)
    state = {"step": 0, "evaluated": -1}
    state = load_checkpoint(checkpoint, run, state.keys())[0] if checkpoint else state
    if first:
        write_config(cfg, state, bool(checkpoint))
        print(f"SFT on {cfg.train_file}: {size_of(lm)}, {len(train)} examples, {train.meta['learnt_tokens']:,} of "
              f"{train.meta['tokens']:,} tokens to learn, {run.world} rank(s)", flush=True)
    run.accelerator.init_trackers("klear-reasoner-sft", asdict(cfg))
    return run, train, held_out, state


def train(cfg: Config) -> None:
    """The whole run: updates, evaluations, checkpoints, final model."""
    run, examples, held_out, state = start(cfg)
    out, saved, silent, per_epoch = Path(cfg.output_dir), state["step"], 0, math.ceil(len(examples) / cfg.global_batch)
    updates = cfg.epochs * per_epoch
    if saved > updates:
        die(f"output_dir {out} is at update {saved}, these rows and epochs make {updates}; give another --output_dir")
    catch_signals()
    bar = tqdm(total=updates, initial=saved, desc="SFT update", disable=run.rank > 0, mininterval=1)
    try:
        while True:
            step, last = state["step"], state["step"] == updates
            due = lambda every: last or (step % every == 0 if every else step % per_epoch == 0)
            if held_out is not None and due(cfg.eval_every) and state["evaluated"] < step:
                loss = evaluation_loss(held_out, run)
                state["evaluated"] = step
                run.accelerator.log({"eval/loss": loss}, step=step)
                if run.rank == 0:
                    append_jsonl(out / "eval.jsonl", [{"step": step, "loss": loss, "n": len(held_out)}])
                    tqdm.write(f"update {step}: evaluation loss {loss:.4f}")
            if due(cfg.save_every) and step > saved:
                save_checkpoint(out / f"checkpoint-{step}", state, run)
                saved = step
                if run.rank == 0:
                    draw_curves(out, PANELS)
            if last:
                break
            begun, at = time.perf_counter(), step % per_epoch * cfg.global_batch
            chosen = epoch_order(len(examples), step // per_epoch, cfg.seed)[at:at + cfg.global_batch]
            metrics = update_on([examples[i] for i in chosen], learning_rate(step + 1, updates, cfg), run)
            step = state["step"] = step + 1
            metrics = {"step": step, "epoch": step / per_epoch, **metrics, "step_s": time.perf_counter() - begun}
            run.accelerator.log({f"train/{k}": v for k, v in metrics.items() if k != "step"}, step=step)
            if run.rank == 0:
                append_jsonl(out / "metrics.jsonl", [metrics])
            bar.update()
            bar.set_postfix_str(f"loss {metrics['loss']:.4f}", refresh=False)
            if (silent := metrics["skipped"] * (silent + 1)) == 10:
                die(f"update {step}: ten gradients in a row were not finite; look at the model's weights and lr", 1)
    except Stop:
        if state["step"] > saved:
            save_checkpoint(out / f"checkpoint-{state['step']}", state, run)
        return stopped(state["step"], "update", cfg)
    finally:
        bar.close()
    save_final(out, run)
    if run.rank == 0:
        draw_curves(out, PANELS)
        print(f"{out}: final/ (the model), metrics.jsonl, eval.jsonl, curves.png")
    run.leave()


def main(argv: list[str]) -> None:
    frame(train, parse(argv))


if __name__ == "__main__":
    main(sys.argv[1:])
