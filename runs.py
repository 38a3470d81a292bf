"""A run's command line and folder, alike for every stage: config, output folder, JSONL, curves, signals, ends.

Nothing here is reinforcement learning; a researcher edits the stages and not this file. torch is imported where it is
needed, because scoring and curating start without it.
"""

import ctypes
import dataclasses
import difflib
import errno
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
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from tqdm import tqdm

# Types of the fields of a Config: what a value must be stands with the knob, and `read_config` checks it.
Count = Annotated[int, ("at least 1", lambda x: x >= 1)]
Amount = Annotated[int, ("0 or more", lambda x: x >= 0)]
Seed = Annotated[int, ("0 or more, below 2**63", lambda x: 0 <= x < 2**63)]
Positive = Annotated[float, ("above 0", lambda x: 0 < x < math.inf)]
NonNegative = Annotated[float, ("0 or more", lambda x: 0 <= x < math.inf)]
Share = Annotated[float, ("from 0 to 1", lambda x: 0 <= x <= 1)]
Names = Annotated[str, "several, with spaces or commas between them"]


# ----------------------------------------------------------------------------------------------------------------- ends
script = Path(sys.argv[0]).name  # under this name the stage speaks; a copied stage speaks under its own (read_config)


RANK = int(os.environ.get("RANK", "0"))  # read once: eval.py hides the launcher's variables from its engine


def rank() -> int:
    return RANK


def last_line(message: str, file=None) -> None:
    for bar in list(getattr(tqdm, "_instances", ())):
        bar.close()
    print(message, file=file, flush=True)


def die(message: str, code: int = 2) -> typing.NoReturn:
    """Ends the run with one line from rank 0; exit code 2 means a user's mistake."""
    if rank() == 0:
        last_line(f"{script}: {message}", sys.stderr)
    sys.exit(code)


def one_line(error: BaseException) -> str:
    failures = getattr(error, "failures", None)  # torch's CheckpointException holds an error of each rank
    error = next(iter(failures.values()))[0] if failures else error
    return " ".join(str(error).split())[:300] or type(error).__name__


def rank_lost(error: BaseException) -> bool:
    """Whether a collective failed because another rank is gone (NCCL's watchdog ends the process by itself)."""
    import torch

    return isinstance(error, torch.distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def cores_per_rank() -> int:
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def wait_for(path: Path, out: Path, patience_s: float = 300.0) -> None:
    """Waits for what rank 0 makes. If rank 0 fails, the launcher ends this process. Rank 0 makes `out` first: a machine
    that does not come to see it has another file system, and would wait for ever."""
    begun = time.monotonic()
    while not path.exists():
        if time.monotonic() - begun > patience_s and not out.exists():
            sys.exit(f"{script}: output_dir {out}: rank {rank()} does not see it; all machines must share its file "
                     "system")
        time.sleep(0.1)


class Stop(Exception):
    """A signal asked the run to save and leave; raised by all ranks at the same place."""


DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.ESTALE)
signals: list[str] = []  # received; a run looks at it after every micro-batch and every chunk of a rollout


def catch_signals(at_once: bool = False) -> None:
    """SIGTERM and Ctrl-C let the run save and leave (`Run.stop_if_asked`), or raise KeyboardInterrupt `at_once` where
    there is nothing to save; Ctrl-C pressed again later ends it without a word."""
    asked_at = 0.0

    def handler(number: int, _frame) -> None:
        nonlocal asked_at
        # a scheduler's signal comes more than once: to the launcher, to this process, and from the launcher to this
        # process
        if signals and number == signal.SIGINT and time.monotonic() - asked_at > 1:
            os._exit(130)
        asked_at = asked_at or time.monotonic()
        signals.append(signal.Signals(number).name)
        if at_once and len(signals) == 1:
            raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)
    if "ACCELERATE_MIXED_PRECISION" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: its launcher may be killed without a word to us


def stopped(step: int, unit: str, cfg) -> None:
    cause, start = signals[0] if signals else "a signal", cfg.resume
    again = "the same command" + (" with --resume auto" if start == "never" else "")
    if rank() == 0:
        start = "the beginning" if start in ("auto", "never") else start
        newest = (checkpoints(Path(cfg.output_dir)) or [start])[-1]
        last_line(f"{cause}: stopped after {unit} {step}; {again} goes on from {newest}")


def frame(train: Callable[[Any], None], cfg) -> None:
    """Runs a training stage; full disks and lost ranks end in one line. Whatever else is raised is our own mistake."""
    again = "the same command goes on from the newest checkpoint"
    try:
        train(cfg)
    except KeyboardInterrupt:  # before catch_signals
        die("interrupted before the first step; nothing was to be saved", 130)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        die(f"output_dir {cfg.output_dir}: {one_line(error)}; make room (or let this user in) and run again, {again}")
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, of any rank
            last_line(f"{script}: rank {rank()} is out of GPU memory; give a smaller token_budget, "
                      f"gradient_checkpointing true or less vllm_memory (docs/scaling.md), and {again}", sys.stderr)
            sys.exit(1)
        if type(error).__name__ == "SafetensorError":  # safetensors has an error of its own for a full disk
            die(f"output_dir {cfg.output_dir}: {one_line(error)}; make room and run again, {again}")
        if not rank_lost(error):
            raise
        newest = checkpoints(Path(cfg.output_dir))[-1:] or ["the beginning"]
        why = re.sub(r"^\[\S+\] |\. This is typically.*", "", one_line(error))  # without gloo's line number and advice
        tqdm.write(f"{script}: rank {rank()} lost another rank: its process or machine has died, or is silent for "
                   f"{cfg.rank_timeout_s} s ({why}); the same command on all machines goes on from {newest[0]}",
                   file=sys.stderr)
        sys.exit(1)


# --------------------------------------------------------------------------------------------------------- command line
def read_config(config: type, argv: list[str], most_used: str):
    """`config(...)` from --config FILE.yaml first, then --key value, --key=value, or --key A B for a list. Values are
    cast to the type of the field and checked against it. `most_used` names the knobs that --help shows first."""
    global script
    module = sys.modules[config.__module__]
    script = Path(module.__file__).name
    fields = typing.get_type_hints(config, include_extras=True)
    if "--help" in argv or "-h" in argv:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # --help | head
        sys.exit(print(help_text(config, module.__doc__, most_used)))
    values: dict[str, Any] = {}
    if argv and not argv[0].startswith("--"):
        die(f"{argv[0]!r}: options are written --key value (all: python {script} --help)")
    for arg in argv:
        if arg.startswith("--"):
            key, equals, value = arg[2:].partition("=")
            words = values[key.replace("-", "_")] = [value] if equals else []
        else:
            words.append(arg)
    recipe = values.pop("config", None)
    if recipe is not None:
        recipe = " ".join(recipe)
        try:
            loaded = yaml.safe_load(Path(recipe).read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            die(f"--config {recipe}: {one_line(error)}")
        if not isinstance(loaded, dict):
            die(f"--config {recipe}: expected lines of the form `key: value`")
        values = {**loaded, **values}
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, 1, 0)
            die(f"unknown option {key!r}; the nearest is {near[0]!r} (all: python {script} --help)")
        values[key] = cast(key, fields[key], value)
    return config(**values)


def cast(key: str, field, value):
    """`value` as the type of a field; `value` is a list of words (command line) or what YAML made of a recipe's
    line."""
    kind, *rules = typing.get_args(field) if typing.get_origin(field) is Annotated else [field]
    if isinstance(value, list):
        if len(value) > 1 and field != Names:
            die(f"{key} takes one value, got {' '.join(map(str, value))!r}; quote it, or is a -- missing before a key?")
        value = ",".join(map(str, value))
    try:
        if typing.get_origin(kind) is Literal:
            value, allowed = str(value).lower() if isinstance(value, bool) else str(value), typing.get_args(kind)
            if value not in allowed:
                die(f"{key} must be one of {', '.join(allowed)}; got {value!r}")
        elif kind is str:
            if value is None or isinstance(value, dict):
                raise ValueError
            value = str(value).lower() if isinstance(value, bool) else str(value)
        elif kind is bool:
            value = {"true": True, "false": False, "": True}[str(value).lower()]
        else:
            number = float(value) if not isinstance(value, bool) else math.nan
            if math.isnan(number) or kind is int and number != int(number):
                raise ValueError
            # a float would round a long seed
            value = int(value) if kind is int and re.fullmatch(r"\s*[+-]?\d+\s*", str(value)) else kind(number)
    except (ValueError, TypeError, KeyError, OverflowError):
        die(f"{key} must be {kind.__name__}, got {value!r}")
    for rule in rules:
        if isinstance(rule, tuple) and not rule[1](value):
            die(f"{key} must be {rule[0]}, got {value}")
    return value


def help_text(config: type, doc: str, most_used: str) -> str:
    """The knobs in the groups of the Config's source, each with its default and the comment beside it."""
    groups: dict[str, list[str]] = {"most used": []}
    defaults = {f.name: f.default for f in dataclasses.fields(config)}
    source = "\n".join(inspect.getsource(c) for c in reversed(config.__mro__) if dataclasses.is_dataclass(c))
    group = "options"
    for line in source.splitlines():
        if title := re.match(r"    # (.+)", line):
            group = title[1]
        elif knob := re.match(r"    (\w+): [^#]*?=[^#]*(?:# ?(.*))?$", line):
            default = defaults[knob[1]]
            shown = str(default).lower() if isinstance(default, bool) else default if default != "" else '""'
            text = f"  --{knob[1]} {shown}".ljust(36) + "  " + (knob[2] or "")
            groups.setdefault(group, []).append(text)
            if knob[1] in most_used.split():
                groups["most used"].append(text)
    usage = f"usage: [accelerate launch] {script} [--config recipe.yaml] [--key value ...]"
    return "\n".join([doc.strip().split("\n\n")[0], "", usage] +
                     [line for name, lines in groups.items() if lines for line in ("", f"{name}:", *lines)])


# -------------------------------------------------------------------------------------------------------- output folder
def read_jsonl(path: Path) -> list[dict]:
    """The rows of complete lines: what stands after the last line end was cut by a crash."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def append_jsonl(path: Path, rows: list[dict]) -> None:
    rows = [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()} for row in rows]
    with path.open("a", encoding="utf-8") as file:  # NaN is no JSON
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def checkpoints(out: Path) -> list[Path]:
    """Complete checkpoints, oldest first; checkpoint-N-unfinished has made a part of the updates of step N + 1."""
    found = [p for p in out.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+(-unfinished)?", p.name)]
    whole = [p for p in found if (p / "trainer" / "state.json").exists()]
    return sorted(whole, key=lambda p: (int(p.name.split("-")[1]), p.name))


def seed_of(*key) -> int:
    """A 63-bit seed that is a function of the key alone: (seed, step, prompt, sample), whatever rank draws it."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big") >> 1


def next_rows(cursor: int, count: int, total: int, seed: int) -> list[int]:
    """Rows cursor .. cursor+count of an endless stream of epochs, each in its own random order."""
    order = {}
    for epoch in range(cursor // total, (cursor + count - 1) // total + 1):
        order[epoch] = random.Random(seed_of(seed, "epoch", epoch)).sample(range(total), total)
    return [order[at // total][at % total] for at in range(cursor, cursor + count)]


def write_config(cfg, state: dict, resumed: bool, logs="metrics eval") -> None:
    """config.yaml, and the logs (NAME.jsonl) without what came after the checkpoint: those lines are made again."""
    out = Path(cfg.output_dir)
    (out / "config.yaml.partial").write_text(yaml.safe_dump(dataclasses.asdict(cfg), sort_keys=False))
    (out / "config.yaml.partial").replace(out / "config.yaml")
    for name in logs.split():
        last = state["evaluated" if name == "eval" and "evaluated" in state else "step"]
        rows = [row for row in read_jsonl(out / f"{name}.jsonl") if row["step"] <= last] if resumed else []
        append_jsonl(out / f"{name}.partial", rows)
        (out / f"{name}.partial").replace(out / f"{name}.jsonl")


def check_room(out: Path, parameters: int, trained: int, mixed_precision: str) -> None:
    """A checkpoint is fp32 weights and two Adam states of what is trained, and the model in the precision that it
    computes in (with LoRA only at the end)."""
    need, free = 12 * trained + parameters * (2 if mixed_precision == "bf16" else 4), shutil.disk_usage(out).free
    if 0 < free < need:  # some network file systems report nothing
        die(f"output_dir {out}: {free / 1e9:.3g} GB are free, a checkpoint takes {need / 1e9:.3g}; make room")


def draw_curves(out: Path, panels: list[tuple[str, dict[str, str]]]) -> None:
    """curves.png: a panel is (title, {key of metrics.jsonl, or eval/key of eval.jsonl: label}); error bars are 1.96
    times `stderr` where eval.jsonl has it. Nothing where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    files = {"": read_jsonl(out / "metrics.jsonl"), "eval": read_jsonl(out / "eval.jsonl")}
    columns = min(3, len(panels))
    grid = math.ceil(len(panels) / columns), columns
    figure, axes = plt.subplots(*grid, figsize=(13, 3.3 * grid[0]), constrained_layout=True, squeeze=False)
    for axis, (title, lines) in zip(axes.flat, panels):
        for key, label in lines.items():
            file, _, name = key.rpartition("/")
            rows = [row for row in files[file] if row.get(name) is not None]
            x, y = [row["step"] for row in rows], [row[name] for row in rows]
            if file and rows:
                bars = [1.96 * (row.get("stderr") or 0.0) for row in rows]
                axis.errorbar(x, y, bars, fmt="o-", capsize=3, label=label)
            elif not file:
                axis.plot(x, y, label=label, linewidth=1.2)
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
        if len(axis.get_legend_handles_labels()[0]) > 1:
            axis.legend()
    figure.savefig(out / "curves.png", dpi=110)
    plt.close(figure)
