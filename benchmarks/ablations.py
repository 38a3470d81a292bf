"""The paper's ablations of GPPO on problems small enough for a laptop, run by rl_gppo.py itself.

    python benchmarks/ablations.py clipping --seeds 10    # Fig. 2, Eq. 12, 16: nine losses, where clipping acts and not
    python benchmarks/ablations.py border                    # GPPO against Clip-Higher by lr; what moves the border
    python benchmarks/ablations.py staleness                 # the same by updates per rollout
    python benchmarks/ablations.py sft_coef | zero_advantage | soft_reward | wrong_traces  # Table 6, Fig. 5, 3, Table 2
    python benchmarks/ablations.py published                 # the seven recipes that publish a method, in two regimes
    python benchmarks/ablations.py factors                   # figures/gradient_factor.png: dJ/dlog π of each, by autograd
    python benchmarks/ablations.py cost                      # the update of each loss, in times of clip_higher's

Problems: toy:math-terms=4-right=0.3, sums of four digits. The 0.8M-parameter model is warmed up once by SFT on traces
of which 30 % are right, and answers a third of the problems; a seed decides the prompts, rollouts and mini-batches of
the RL stage (and the SFT too in wrong_traces). Every cell is one run of rl_gppo.py in
runs/ablations/EXPERIMENT/CELL-SEED, with the flags printed by --list; a finished one is not run again, so an
interrupted grid goes on. Writes figures/EXPERIMENT.csv (a row a cell and seed) and figures/EXPERIMENT.png (mean and 95
% t-interval over seeds), and prints a table with the paired difference to the first cell of the same group. A run takes
half a minute of one core. """

import argparse
import csv
import dataclasses
import json
import math
import multiprocessing
import multiprocessing.connection
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import yaml
from tqdm import tqdm

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
import toy  # noqa: E402  (the root is known only now)

TOY = "toy:math-terms=4-right=0.3"
BASE = {"train_file": TOY, "eval_file": TOY, "rollout": "hf", "reward_workers": 1, "save_every": 0, "eval_every": 5,
        "steps": 20, "prompts_per_step": 16, "warmup_steps": 3, "sft_coef": 0.0}
T95 = [math.inf, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
       2.131]

LOSSES = {
    "clip_higher": {"loss": "clip_higher"}, "ppo": {"loss": "ppo"}, "gppo": {"loss": "gppo"},
    "gppo_high": {"loss": "gppo_high"},
    "ce_gppo beta1=0.5": {"loss": "gppo", "beta1": 0.5}, "cispo": {"loss": "cispo"}, "gspo": {"loss": "gspo"},
    "reinforce": {"loss": "reinforce"}, "gppo_erc": {"loss": "gppo_erc"},
}
ACTS = {"minibatch_prompts": 1, "lr": 1e-4}  # 16 updates a rollout: percents of the tokens leave the band
NARROW = {"minibatch_prompts": 1, "lr": 3e-5, "clip_low": 0.01, "clip_high": 0.014}  # 16 small updates, a band as small
HARDLY = {"minibatch_prompts": 4, "lr": 3e-5}  # 4 updates: next to none do, and the losses must coincide
EDGE = {"minibatch_prompts": 1, "lr": 5e-5}  # half of the lr of `acts`: where GPPO begins to lose
METHODS = ["grpo", "dapo", "dr_grpo", "cispo", "gspo", "ce_gppo", "gppo"]  # recipes/NAME.yaml


def recipe(name: str) -> dict:
    """The flags of recipes/NAME.yaml; a cell has a folder of its own."""
    flags = yaml.safe_load((ROOT / "recipes" / f"{name}.yaml").read_text())
    return {key: value for key, value in flags.items() if key != "output_dir"}


EXPERIMENTS = {  # experiment -> "group/cell" -> flags; the first cell of a group is what the others are compared with
    "clipping": {f"{group}/{name}": {**regime, **flags}
                 for group, regime in {"acts": ACTS, "narrow": NARROW, "hardly": HARDLY}.items()
                 for name, flags in LOSSES.items()},
    "published": {f"{group}/{name}": {**recipe(name), **regime}
                  for group, regime in {"acts": ACTS, "hardly": HARDLY}.items() for name in METHODS},
    "border": {
        **{f"lr 5e-5/{name}": {**EDGE, **LOSSES[name]}
           for name in ("clip_higher", "gppo", "ce_gppo beta1=0.5", "gppo_high", "gppo_erc")},
        **{f"lr 5e-5 alpha=0.1/{name}": {**EDGE, **LOSSES[name], "sft_coef": 0.1} for name in ("clip_higher", "gppo")},
        **{f"lr 2e-5/{name}": {**EDGE, **LOSSES[name], "lr": 2e-5} for name in ("clip_higher", "gppo")}},
    "staleness": {f"{16 // size} updates/{loss}": {"minibatch_prompts": size, "loss": loss, "lr": 5e-5}
                  for size in (16, 8, 4, 2, 1) for loss in ("clip_higher", "gppo")},
    "sft_coef": {f"alpha/{alpha}": {"sft_coef": alpha} for alpha in (0.0, 0.05, 0.1, 0.2)},
    "zero_advantage": {f"filter/{name}": {"prompts_per_step": 32, "responses_per_prompt": 4, "minibatch_prompts": 16,
                                          **flags}
                       for name, flags in {"on": {}, "off": {"zero_advantage_filter": False},
                                           "dynamic_sampling": {"dynamic_sampling": True}}.items()},  # four often agree
    "soft_reward": {f"half pass/{kind}": {"train_file": "toy:code", "eval_file": "toy:code", "max_prompt_tokens": 96,
                                          "max_response_tokens": 128, "minibatch_prompts": 4, "code_reward": kind}
                    for kind in ("all_or_nothing", "pass_rate")},
    "wrong_traces": {f"{level}/{name}": {"train_file": file, "eval_file": file}  # the model is made by sft_of
                     for level, file in (("easy", "toy:math-terms=3-right=0.7"), ("hard", "toy:math-terms=5-right=0.3"))
                     for name in ("mixed", "right only")},
}


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def sft_of(kind: str, right_only: bool, seed: int, folder: Path) -> str:
    """Table 2: SFT on a pool of 8,192 toy traces, whole or only the right ones, for as many epochs.
    Returns the model's folder."""
    if not (folder / "sft" / "final").exists():
        pool = toy.sft_rows(kind, 8192, seed)
        if right_only:
            answer = lambda row: f"boxed{{{eval(row['messages'][0]['content'].strip('='))}}}"
            pool = [row for row in pool if answer(row) in row["messages"][1]["content"]]
        toy.make_model(str(folder / "init"), seed)
        (folder / "traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pool))
        files = {"--model": folder / "init", "--train_file": folder / "traces.jsonl", "--output_dir": folder / "sft"}
        flags = [str(part) for pair in files.items() for part in pair] + [*toy.WARM_UP, "--global_batch", "32"]
        subprocess.run([sys.executable, str(ROOT / "sft.py"), *flags], check=True)
    return str(folder / "sft" / "final")


def run_cell(folder: Path, flags: dict, threads: int) -> None:
    """One run of rl_gppo.py, in a process forked from one that has imported it; all it says goes to FOLDER.log."""
    import torch

    import rl_gppo

    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    tqdm.set_lock(threading.RLock())  # its own is shared with the parent and the other cells
    log = Path(f"{folder}.log").open("w")
    for stream in (1, 2):
        os.dup2(log.fileno(), stream)
    if "wrong_traces" in folder.parts:
        kind, right_only = flags["train_file"].removeprefix("toy:"), "right_only" in folder.name
        flags = {**flags, "model": sft_of(kind, right_only, flags["seed"], Path(f"{folder}.start"))}
    rl_gppo.main([part for key, value in {**flags, "output_dir": folder}.items()
                  for part in (f"--{key}", str(value).lower() if isinstance(value, bool) else str(value))])


def run_grid(grid: dict[Path, dict], jobs: int, title: str) -> None:
    """Runs the cells that are not complete, `jobs` at a time, and tells which failed."""
    import rl_gppo  # noqa: F401  (once, here: importing torch and transformers costs a forked run nothing)

    threads, running = max(1, (os.cpu_count() or 1) // jobs), {}
    todo = [(folder, flags) for folder, flags in grid.items() if not (folder / "final").exists()]
    with tqdm(total=len(todo), desc=title, mininterval=1) as bar:
        while todo or running:
            while todo and len(running) < jobs:
                folder, flags = todo.pop(0)
                folder.parent.mkdir(parents=True, exist_ok=True)
                process = multiprocessing.get_context("fork").Process(target=run_cell, args=(folder, flags, threads))
                process.start()
                running[process.sentinel] = process, folder
            for sentinel in multiprocessing.connection.wait(list(running)):
                process, folder = running.pop(sentinel)
                process.join()
                bar.update()
                if process.exitcode:
                    tqdm.write(f"{folder.name}: exit code {process.exitcode}; see {folder}.log")


def cost(rounds: int) -> None:
    """Update time of each loss over clip_higher's: the updates of one rollout, all losses in turn in every round."""
    import tempfile

    import rewards
    import rl_gppo

    flags = {**BASE, "minibatch_prompts": 4, "output_dir": tempfile.mkdtemp(), "lr": 1e-12,
             "zero_advantage_filter": "false"}
    flags["model"] = toy.prepare(str(ROOT / "runs" / "ablations" / f"toy_{TOY[4:]}_sft"), TOY[4:])
    cfg = rl_gppo.parse([f"--{key}={value}" for key, value in flags.items()])
    run, engine, prompts, *_ = rl_gppo.start(cfg)
    with rewards.RewardPool(1) as pool:
        samples = rl_gppo.collect(engine, prompts[:16], 8, (0, "cost", 0, 0), 1.0, 1.0, pool, run)
    kept, _ = rl_gppo.compute_advantages(samples, run.cfg)
    seconds: dict[str, list[float]] = {name: [] for name in LOSSES}
    for turn in tqdm(range(rounds + 1), "cost", mininterval=1):
        for name in random.Random(turn).sample(list(LOSSES), len(LOSSES)):
            run.cfg = dataclasses.replace(cfg, **LOSSES[name])
            begun = time.perf_counter()
            rl_gppo.update_policy(kept, 1, run)
            if turn:  # the first round warms up
                seconds[name].append(time.perf_counter() - begun)
    print("| loss | update, s | times clip_higher's (95 %) |\n|---|---|---|")
    for name, times in seconds.items():
        ratio, half = interval([a / b for a, b in zip(times, seconds["clip_higher"])])
        print(f"| {name} | {statistics.median(times):.3f} | {ratio:.3f} ± {half if name != 'clip_higher' else 0:.3f} |")


def factors(figures: Path) -> None:
    """figures/gradient_factor.png: (dJ/dlog π)/A of one token by its ratio r, each recipe's own loss and bounds through
    LOSSES and autograd; one token is a whole response, so GSPO's ratio is r too."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import torch

    import rl_gppo

    ratios = torch.cat([torch.linspace(0.4, 1.8, 1401), torch.linspace(0.9985, 1.0015, 601)]).double().sort().values
    figure, axes = plt.subplots(2, len(METHODS), figsize=(14, 5), sharex=True, sharey=True, constrained_layout=True)
    for column, name in zip(axes.T, METHODS):
        cfg = rl_gppo.Config(**recipe(name))
        for axis, advantage in zip(column, (1.0, -1.0)):
            logprobs = ratios.log()[:, None].requires_grad_()
            mask = torch.ones_like(logprobs, dtype=torch.bool)
            loss, _ = rl_gppo.LOSSES[cfg.loss](logprobs, torch.zeros_like(logprobs), advantage * mask, mask, cfg)
            loss.sum().backward()
            factor = (-logprobs.grad / advantage).flatten().numpy()
            factor[np.flatnonzero(np.abs(np.diff(factor)) > 0.1)] = math.nan  # a jump is no slope
            axis.plot(ratios, ratios, color="grey", linewidth=0.8, linestyle=":", label="r, no clipping")
            axis.plot(ratios, factor, linewidth=2.2, label="F")
            axis.axvline(1, color="black", linewidth=0.6, alpha=0.4)
            axis.grid(alpha=0.3)
        column[0].set_title(name)
        column[1].set_xlabel("r = π/π_old")
    for axis, sign in zip(axes[:, 0], "><"):
        axis.set_ylabel(f"A {sign} 0: F of F·A·∇log π")
    axes[0, 0].legend(fontsize=8, loc="upper left")
    figures.mkdir(parents=True, exist_ok=True)
    figure.savefig(figures / "gradient_factor.png", dpi=90)
    plt.close(figure)


def summary(folder: Path) -> dict[str, float]:
    """The figures of one finished cell."""
    metrics, evals = read(folder / "metrics.jsonl"), read(folder / "eval.jsonl")

    def mean(key: str, rows: list[dict]) -> float:
        values = [row[key] for row in rows if row.get(key) is not None]
        return float(np.mean(values)) if values else math.nan

    return {"start": evals[0]["accuracy"], "end": evals[-1]["accuracy"], "mean": mean("accuracy", evals[1:]),
            "reward_end": mean("reward_mean", metrics[-10:]), "entropy_end": mean("entropy", metrics[-10:]),
            "grad_norm": mean("grad_norm", metrics), "clip_high": mean("clip_frac_high", metrics),
            "clip_low": mean("clip_frac_low", metrics),
            "train_s": mean("train_s", metrics), "step_s": mean("step_s", metrics)}


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % t-interval; the width is infinite for one value."""
    n = len(values)
    t = T95[n - 1] if n <= len(T95) else 1.96
    return float(np.mean(values)), t * float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.inf


def draw(experiment: str, out: Path, cells: dict, seeds: int, figures: Path) -> None:
    """A row a group of cells: held-out accuracy, reward, entropy, gradient norm, share of tokens out of the band."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import matplotlib.ticker

    groups = list(dict.fromkeys(cell.split("/")[0] for cell in cells))
    panels = [("held-out accuracy", "eval.jsonl", "accuracy"), ("training reward", "metrics.jsonl", "reward_mean"),
              ("entropy (nats)", "metrics.jsonl", "entropy"),
              ("gradient norm", "metrics.jsonl", "grad_norm"),
              ("tokens above the band, A > 0", "metrics.jsonl", "clip_frac_high"),
              ("tokens below the band, A < 0", "metrics.jsonl", "clip_frac_low")]
    figure, axes = plt.subplots(len(groups), len(panels), figsize=(4.2 * len(panels), 3.4 * len(groups)), squeeze=False,
                                constrained_layout=True)
    for at, (row, group) in enumerate(zip(axes, groups)):
        for axis, (title, file, key) in zip(row, panels):
            for cell in (c for c in cells if c.split("/")[0] == group):
                curves: dict[int, list[float]] = {}
                for seed in range(seeds):
                    for line in read(out / f"{label(cell)}-{seed}" / file):
                        if line.get(key) is not None:
                            curves.setdefault(line["step"], []).append(line[key])
                steps = sorted(curves)
                middle, half = zip(*(interval(curves[step]) for step in steps)) if steps else ((), ())
                line, = axis.plot(steps, middle, label=cell.split("/")[1], linewidth=1.2)
                middle, half = np.array(middle), np.where(np.isfinite(half), half, 0)
                lowest = -math.inf if "reward" in title else 0
                axis.fill_between(steps, np.maximum(middle - half, lowest), middle + half,
                                  color=line.get_color(), alpha=0.1, linewidth=0)
            axis.set(title="" if at else title, xlabel="step" if at == len(groups) - 1 else "",
                     ylim=(None if "reward" in title else 0, None))
            if "tokens" in title:
                decimals = 1 if axis.get_ylim()[1] > 0.005 else 2
                axis.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=decimals))
            axis.grid(alpha=0.3)
        row[0].set_ylabel(group, fontsize=11, fontweight="bold")
        row[-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.savefig(figures / f"{experiment}.png", dpi=90)
    plt.close(figure)


def label(cell: str) -> str:
    return "".join(c if c.isalnum() or c in ".=-" else "_" for c in cell)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=[*EXPERIMENTS, "cost", "factors"])
    parser.add_argument("--seeds", type=int, default=5, help="of every cell; rounds of cost")
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time; cores are divided among them")
    parser.add_argument("--steps", type=int, default=BASE["steps"])
    parser.add_argument("--cells", nargs="*", help="only these (as printed)")
    parser.add_argument("--out", default=str(ROOT / "runs" / "ablations"))
    parser.add_argument("--figures", default=str(ROOT / "figures"))
    parser.add_argument("--list", action="store_true", help="print the cells and their flags, and exit")
    args = parser.parse_args()
    if args.experiment == "cost":
        return cost(args.seeds)
    if args.experiment == "factors":
        return factors(Path(args.figures))
    every = EXPERIMENTS[args.experiment]
    cells = {name: flags for name, flags in every.items() if not args.cells or name in args.cells}
    if not cells:
        parser.error(f"--cells: none of {args.cells} in {list(every)}")
    if args.list:
        for name, flags in cells.items():
            print(f"{name}:", *(f"--{key} {value}" for key, value in {**BASE, **flags}.items()))
        return
    out, figures = Path(args.out) / args.experiment, Path(args.figures)
    grid = {out / f"{label(name)}-{seed}": {**BASE, "steps": args.steps, **cells[name], "seed": seed}
            for seed in range(args.seeds) for name in cells}
    kinds = {flags["train_file"][4:] for flags in grid.values()} if args.experiment != "wrong_traces" else set()
    for kind in sorted(kinds):
        model = toy.prepare(str(Path(args.out) / f"toy_{kind}_sft"), kind)  # one warm-up for all cells, on all cores
        for flags in grid.values():
            flags |= {"model": model} if flags["train_file"][4:] == kind else {}
    run_grid(grid, args.jobs, args.experiment)
    rows = [{"cell": name, "seed": seed, **summary(out / f"{label(name)}-{seed}")}
            for name in cells for seed in range(args.seeds) if (out / f"{label(name)}-{seed}" / "final").exists()]
    if not rows:
        sys.exit("ablations.py: no cell finished; the errors are above")
    figures.mkdir(parents=True, exist_ok=True)
    with (figures / f"{args.experiment}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    draw(args.experiment, out, cells, args.seeds, figures)
    table(rows, cells)


def table(rows: list[dict], cells: dict) -> None:
    """Mean ± half width of the 95 % interval over seeds; differences to the group's first cell are paired by seed.
    `end`: held-out accuracy after the last step; `mean`: over all evaluations after step 0, so how fast; `above`,
    `below`: tokens out of the band with A > 0 and A < 0."""
    print("| cell | start | end | difference | mean | difference | entropy | grad norm | above | below |")
    print("|---" * 10 + "|")
    by_cell = {name: {row["seed"]: row for row in rows if row["cell"] == name} for name in cells}
    for name, seeds in by_cell.items():
        first = by_cell[next(c for c in cells if c.split("/")[0] == name.split("/")[0])]
        if not seeds.keys() & first.keys():
            continue
        columns = []
        for key in ("end", "mean"):
            value, half = interval([row[key] for row in seeds.values()])
            delta, delta_half = interval([seeds[s][key] - first[s][key] for s in seeds if s in first])
            columns += [f"{value:.3f} ± {half:.3f}", "" if seeds is first else f"{delta:+.3f} ± {delta_half:.3f}"]
        start, entropy, norm, high, low = (np.mean([row[k] for row in seeds.values()])
                                           for k in ("start", "entropy_end", "grad_norm", "clip_high", "clip_low"))
        print(f"| {name} | {start:.3f} | {' | '.join(columns)} | {entropy:.3f} | {norm:.2f} | {high:.2%} | {low:.2%} |")


if __name__ == "__main__":
    main()
