"""The paper's ablations of GPPO on problems small enough for a laptop, run by rl_gppo.py itself.

    python benchmarks/ablations.py clipping --seeds 10          # Fig. 2, Eq. 12, 16
    python benchmarks/ablations.py sft_coef | zero_advantage | staleness | soft_reward   [--seeds 5] [--jobs 2]

Every cell is one run of `rl_gppo.py --output_dir runs/ablations/EXPERIMENT/CELL-SEED`; a cell that is complete is not run
again, so a grid that was interrupted goes on. Writes figures/EXPERIMENT.csv (a row a cell and seed), figures/EXPERIMENT.png
(mean and 95 % t-interval over seeds) and prints a table with the paired difference to the first cell of the same group.
"""

import argparse
import concurrent.futures
import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).parent.parent
BASE = {"rollout": "hf", "reward_workers": 1, "save_every": 0, "eval_every": 10, "steps": 60, "sft_coef": 0.0}
T95 = [math.inf, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131]

CLIPPING = {
    "clip_higher": {"loss": "clip_higher"}, "ppo": {"loss": "ppo"}, "gppo": {"loss": "gppo"}, "gppo_high": {"loss": "gppo_high"},
    "ce_gppo b1=0.5": {"loss": "gppo", "beta1": 0.5}, "cispo": {"loss": "cispo"}, "gspo": {"loss": "gspo"},
    "reinforce": {"loss": "reinforce"}, "gppo_erc": {"loss": "gppo_erc"},
}
ACTS = {"minibatch_prompts": 2, "lr": 1e-4}  # 16 updates a rollout: several percent of the tokens leave the band
HARDLY = {"minibatch_prompts": 8, "lr": 5e-5}  # 4 updates: a few per mille do; the losses must coincide
EXPERIMENTS = {  # experiment -> "group/cell" -> flags; the first cell of a group is what the others are compared with
    "clipping": {f"{group}/{name}": {**regime, **flags} for group, regime in (("acts", ACTS), ("hardly", HARDLY))
                 for name, flags in CLIPPING.items()},
    "sft_coef": {f"alpha/{alpha}": {"sft_coef": alpha} for alpha in (0.0, 0.05, 0.1, 0.2)},
    "zero_advantage": {"filter/on": {}, "filter/off": {"zero_advantage_filter": False},
                       "filter/dynamic_sampling": {"dynamic_sampling": True}},
    "staleness": {f"{32 // size} updates/{loss}": {"minibatch_prompts": size, "loss": loss, "lr": 1e-4}
                  for size in (32, 16, 8, 4, 2) for loss in ("clip_higher", "gppo")},
    "soft_reward": {f"reward/{kind}": {"train_file": "toy:code", "eval_file": "toy:code", "code_reward": kind}
                    for kind in ("all_or_nothing", "pass_rate")},
}


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run_cell(folder: Path, flags: dict, threads: int) -> str | None:
    """Runs one cell unless it is complete. Returns None, or the last line of its error output."""
    if (folder / "final").exists():
        return None
    command = [sys.executable, str(ROOT / "rl_gppo.py"), "--output_dir", str(folder)]
    command += [part for key, value in flags.items() for part in (f"--{key}", str(value).lower() if value in (True, False) else str(value))]
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no output"])[-1]


def summary(folder: Path) -> dict[str, float]:
    """The figures of one finished cell."""
    metrics, evals = read(folder / "metrics.jsonl"), read(folder / "eval.jsonl")

    def mean(key: str, rows: list[dict]) -> float:
        values = [row[key] for row in rows if row.get(key) is not None]
        return float(np.mean(values)) if values else math.nan

    return {"start": evals[0]["accuracy"], "end": evals[-1]["accuracy"], "best": max(e["accuracy"] for e in evals),
            "reward_end": mean("reward_mean", metrics[-10:]), "entropy_end": mean("entropy", metrics[-10:]),
            "grad_norm": mean("grad_norm", metrics), "clip_high": mean("clip_frac_high", metrics), "clip_low": mean("clip_frac_low", metrics),
            "train_s": mean("train_s", metrics), "step_s": mean("step_s", metrics)}


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % t-interval; the width is infinite for one value."""
    n = len(values)
    t = T95[n - 1] if n <= len(T95) else 1.96
    return float(np.mean(values)), t * float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.inf


def draw(experiment: str, out: Path, cells: dict, seeds: int) -> None:
    """A row a group of cells: held-out accuracy, entropy, gradient norm and share of tokens out of the band over steps."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    groups = list(dict.fromkeys(cell.split("/")[0] for cell in cells))
    panels = [("held-out accuracy", "eval.jsonl", "accuracy"), ("entropy (nats)", "metrics.jsonl", "entropy"),
              ("gradient norm", "metrics.jsonl", "grad_norm"), ("tokens above the band, A > 0", "metrics.jsonl", "clip_frac_high"),
              ("tokens below the band, A < 0", "metrics.jsonl", "clip_frac_low")]
    figure, axes = plt.subplots(len(groups), len(panels), figsize=(4.2 * len(panels), 3.4 * len(groups)), squeeze=False,
                                constrained_layout=True)
    for row, group in zip(axes, groups):
        for axis, (title, file, key) in zip(row, panels):
            for cell in (c for c in cells if c.split("/")[0] == group):
                curves: dict[int, list[float]] = {}
                for seed in range(seeds):
                    for line in read(out / f"{cell.replace('/', '_').replace(' ', '_')}-{seed}" / file):
                        if line.get(key) is not None:
                            curves.setdefault(line["step"], []).append(line[key])
                steps = sorted(curves)
                middle, half = zip(*(interval(curves[step]) for step in steps)) if steps else ((), ())
                line, = axis.plot(steps, middle, label=cell.split("/")[1], linewidth=1.2)
                half = np.where(np.isfinite(half), half, 0)
                axis.fill_between(steps, np.array(middle) - half, np.array(middle) + half, color=line.get_color(), alpha=0.12)
            axis.set(title=f"{group}: {title}", xlabel="step")
            axis.grid(alpha=0.3)
        row[0].legend(fontsize=7)
    figure.savefig(ROOT / "figures" / f"{experiment}.png", dpi=90)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time; cores are divided among them")
    parser.add_argument("--steps", type=int, default=BASE["steps"])
    parser.add_argument("--cells", nargs="*", help="only these (as printed)")
    args = parser.parse_args()
    cells = {name: flags for name, flags in EXPERIMENTS[args.experiment].items() if not args.cells or name in args.cells}
    if not cells:
        parser.error(f"--cells: none of {args.cells} in {list(EXPERIMENTS[args.experiment])}")
    out = ROOT / "runs" / "ablations" / args.experiment
    grid = [(name, seed, out / f"{name.replace('/', '_').replace(' ', '_')}-{seed}") for seed in range(args.seeds) for name in cells]
    threads = max(1, (os.cpu_count() or 1) // args.jobs)
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        futures = {pool.submit(run_cell, folder, {**BASE, "steps": args.steps, **cells[name], "seed": seed}, threads): (name, seed)
                   for name, seed, folder in grid}
        for future in tqdm(concurrent.futures.as_completed(futures), args.experiment, len(futures), mininterval=1):
            if error := future.result():
                tqdm.write(f"{futures[future]}: {error}")
    rows = [{"cell": name, "seed": seed, **summary(folder)} for name, seed, folder in grid if (folder / "final").exists()]
    if not rows:
        sys.exit("ablations.py: no cell finished; the errors are above")
    with (ROOT / "figures" / f"{args.experiment}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    draw(args.experiment, out, cells, args.seeds)
    print("| cell | start | end (95 %) | difference to the first of its group, paired | best | entropy | grad norm | above | below | update time |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    by_cell = {name: {row["seed"]: row for row in rows if row["cell"] == name} for name in cells}
    for name, seeds in by_cell.items():
        first = by_cell[next(c for c in cells if c.split("/")[0] == name.split("/")[0])]
        paired = [seed for seed in seeds if seed in first]
        if not paired:
            continue
        end, half = interval([row["end"] for row in seeds.values()])
        delta, delta_half = interval([seeds[s]["end"] - first[s]["end"] for s in paired])
        cost = np.median([seeds[s]["train_s"] / first[s]["train_s"] for s in paired])
        other = {k: np.mean([row[k] for row in seeds.values()]) for k in ("start", "best", "entropy_end", "grad_norm", "clip_high", "clip_low")}
        print(f"| {name} | {other['start']:.3f} | {end:.3f} ± {half:.3f} | " + ("" if seeds is first else f"{delta:+.3f} ± {delta_half:.3f}")
              + f" | {other['best']:.3f} | {other['entropy_end']:.3f} | {other['grad_norm']:.3f} | {other['clip_high']:.2%} | "
              f"{other['clip_low']:.2%} | {cost:.2f} |")


if __name__ == "__main__":
    main()
