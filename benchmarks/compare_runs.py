"""RL runs that saw the same prompts, side by side: a figure, a table, and the paired difference to the first.

    python benchmarks/compare_runs.py runs/qwen_coder_mbpp_clip runs/qwen_coder_mbpp --out figures/qwen_coder_mbpp

Each folder is an output_dir of rl_gppo.py; those of one loss are its seeds. Curves are means over a window of steps, their
bands 95 % bootstrap intervals over the prompts of the window (and seeds): accuracy and reward from rewards.jsonl, entropy as
the mean of -log π over the sampled tokens. Shares out of the band and gradient norms have no band: metrics.jsonl keeps them
a step, not a prompt. A band tells how far other prompts would move the curve, not other seeds of training.
Writes OUT.png and OUT.csv (the curves).
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from runs import read_jsonl  # noqa: E402

PANELS = [("accuracy", "correct"), ("reward (share of tests)", "reward"), ("entropy (nats a token)", "entropy"),
          ("r > 1+εh, A > 0", "clip_frac_high"), ("r < 1-εl, A < 0", "clip_frac_low"), ("gradient norm", "grad_norm")]


def table_of(folder: Path) -> dict[str, np.ndarray]:
    """{quantity: (steps, prompts a step)}, or (steps, 1) for what metrics.jsonl has; NaN where nothing was trained."""
    responses, metrics = read_jsonl(folder / "rewards.jsonl"), read_jsonl(folder / "metrics.jsonl")
    if not metrics:
        sys.exit(f"compare_runs.py: {folder} has no metrics.jsonl; give output folders of rl_gppo.py")
    by_step = [[r for r in responses if r["step"] == m["step"]] for m in metrics]
    groups = [[[r for r in step if r["group"] == k] for k in dict.fromkeys(r["group"] for r in step)] for step in by_step]
    column = lambda group, key: np.array([r[key] for r in group], float)
    of = {"correct": lambda g: column(g, "correct").mean(), "reward": lambda g: column(g, "reward").mean(),
          "entropy": lambda g: -np.average(column(g, "logprob"), weights=column(g, "tokens"))}
    return ({name: np.array([[f(group) for group in step] for step in groups]) for name, f in of.items()} |
            {name: np.array([[m.get(name, np.nan)] for m in metrics], float)
             for name in ("clip_frac_high", "clip_frac_low", "grad_norm")})


def means(values: np.ndarray, draws: int, seed: int = 0) -> np.ndarray:
    """(1 + draws,): the mean of (runs, steps, prompts), and of bootstrap draws of the prompts (the same for all runs)."""
    flat = values.mean(0).ravel()
    chosen = np.random.default_rng(seed).integers(len(flat), size=(draws, len(flat)))
    return np.concatenate([[np.nanmean(flat)], flat[chosen].mean(1)])


def curve(values: np.ndarray, window: int, draws: int) -> list[tuple[float, float, float, float]]:
    """(step, mean, low, high) of every full window of (runs, steps, prompts); without a band where prompts are unknown."""
    points = []
    for at in range(values.shape[1] - window + 1):
        part = values[:, at:at + window]
        if part.shape[2] > 1:
            mid, low, high = (m := means(part, draws))[0], *np.quantile(m[1:], (0.025, 0.975))
        else:
            mid = low = high = np.nanmean(part) if np.isfinite(part).any() else np.nan
        points.append((at + (window + 1) / 2, float(mid), float(low), float(high)))
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="output folders; those of one loss together are its seeds")
    parser.add_argument("--out", required=True, help="OUT.png and OUT.csv")
    parser.add_argument("--window", type=int, default=6, help="steps of a point")
    parser.add_argument("--draws", type=int, default=4000)
    args = parser.parse_args()
    losses: dict[str, list[dict]] = {}
    for folder in map(Path, args.runs):
        try:
            losses.setdefault(yaml.safe_load((folder / "config.yaml").read_text())["loss"], []).append(table_of(folder))
        except (OSError, ValueError, KeyError) as error:
            sys.exit(f"compare_runs.py: {folder} is no output folder of rl_gppo.py ({error})")
    steps = min(len(t["correct"]) for tables in losses.values() for t in tables)  # what all have
    if steps < args.window:
        sys.exit(f"compare_runs.py: the shortest run has {steps} steps, a window {args.window}; give --window {steps}")
    stacked = {loss: {name: np.stack([t[name][:steps] for t in tables]) for name in tables[0]}
               for loss, tables in losses.items()}
    first, *others = stacked
    last = slice(steps - steps // 3, steps)
    for name, part in (("all steps", slice(0, steps)), ("last third", last)):
        for loss in stacked:
            m = means(stacked[loss]["correct"][:, part], args.draws)
            line = f"{name}, {loss}: accuracy {m[0]:.3f} ± {m[1:].std():.3f}"
            if loss != first:
                m = m - means(stacked[first]["correct"][:, part], args.draws)
                line += f", {m[0]:+.3f} ± {m[1:].std():.3f} to {first}, paired by prompt"
            print(line)

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import matplotlib.ticker

    figure, axes = plt.subplots(2, 3, figsize=(13, 6.6), constrained_layout=True)
    written = []
    for axis, (title, name) in zip(axes.flat, PANELS):
        for loss in stacked:
            points = curve(stacked[loss][name], args.window, args.draws)
            written += [{"loss": loss, "quantity": name, "step": x, "mean": y, "low": a, "high": b} for x, y, a, b in points]
            x, y, low, high = np.array(points).T
            line, = axis.plot(x, y, label=loss, linewidth=1.6)
            axis.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
        if "frac" in name:
            axis.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
    axes[0, 0].legend()
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(f"{args.out}.png", dpi=100)
    with Path(f"{args.out}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, written[0])
        writer.writeheader()
        writer.writerows({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()} for row in written)
    print(f"{args.out}.png and {args.out}.csv")


if __name__ == "__main__":
    main()
