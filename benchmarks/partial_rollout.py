"""Partial rollouts (rollout_extra) against ordinary ones: seconds per trained group, and accuracy.

    python benchmarks/partial_rollout.py                     # seconds, vLLM on the CPU, log-normal lengths
    python benchmarks/partial_rollout.py --extra 0.5 --rollout hf
    python benchmarks/partial_rollout.py accuracy --seeds 5  # the toy run with and without, paired by seed

Seconds: both sides are runs of rl_gppo.py's own functions in this process, each with an engine of its own, and make a
step in turn (A B A B ...). The model is the toy's, untrained; no token ends a response, a limit drawn for each sample
does (log-normal, median --median, sigma --sigma, cut at --longest), so lengths are as spread as those of reasoning are.
A limit is a function of the sample's prompt and number, the same on both sides. A step is rollout, rewards, updates
and new weights. The first rounds, in which nothing or little has been carried over, are left out.

Accuracy: toy:math-terms=4-right=0.3 with the flags of benchmarks/ablations.py; each finished run is kept in
runs/partial_rollout and not made again, so an interrupted benchmark goes on.
"""

import argparse
import functools
import math
import os
import random
import sys
import tempfile
import time
from concurrent.futures import Future
from pathlib import Path
from statistics import mean

from tqdm import tqdm

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
SKIPPED = 3  # rounds: a group is carried twice at most


class Side:
    """One run: its engine, its place in the data, and the limits of its responses."""

    def __init__(self, args, extra: float, model: str):
        import rl_gppo

        self.args, self.state, self.copies, self.going = args, 0, {}, {}
        cfg = rl_gppo.parse([f"--{key}={value}" for key, value in {
            "model": model, "train_file": "toy:math", "eval_file": "", "output_dir": tempfile.mkdtemp(),
            "prompts_per_step": args.prompts, "minibatch_prompts": max(1, args.prompts // 4), "lr": 1e-12,
            "responses_per_prompt": args.responses, "max_response_tokens": args.longest, "rollout": args.rollout,
            "zero_advantage_filter": "false", "rollout_extra": extra, "rollout_correction_cap": 2}.items()])
        self.run, self.engine, self.prompts, *_ = rl_gppo.start(cfg)
        self.run.stop_ids = [10**6] if args.rollout == "hf" else []  # no token ends a response (vLLM: ignore_eos)
        self.generate, self.engine.generate = self.engine.generate, self.limited

    def limited(self, requests, *more):
        """The engine's generate() with a limit for each sample; a continued one keeps what is left of its own."""
        left = []
        for ids, _, *limit in requests:
            whole = tuple(ids)
            if not limit:  # a new response; the copies of a prompt are numbered
                number = self.copies[whole] = self.copies.get(whole, -1) + 1
                rng = random.Random(repr((whole, number)))
                drawn = math.exp(rng.gauss(math.log(self.args.median), self.args.sigma))
                left.append(min(self.args.longest, max(2, round(drawn))))
            else:
                left.append(self.going[whole].pop(0))
        self.going = {}
        limited = [(ids, seed, n) for (ids, seed, *_), n in zip(requests, left)]
        for i, tokens, logprobs, cut in self.generate(limited, *more):
            if cut is None:
                self.going.setdefault((*limited[i][0], *tokens), []).append(left[i] - len(tokens))
            yield i, tokens, logprobs, cut

    def step(self, number: int, pool) -> tuple[float, float, int, float]:
        """(seconds of the rollout, of the whole step, tokens trained on, share carried)"""
        import rl_gppo

        begun = time.perf_counter()
        samples, self.state = rl_gppo.rollout(self.engine, self.prompts, self.state, number, pool, self.run)
        generated = time.perf_counter()
        kept, _ = rl_gppo.compute_advantages(samples, self.run.cfg)
        rl_gppo.update_policy(kept, number, self.run)
        self.engine.sync(self.run.bare)
        assert len({s.group for s in samples}) == self.args.prompts
        return (generated - begun, time.perf_counter() - begun, sum(len(s.response) for s in samples),
                mean(s.staleness > 0 for s in samples))


class InProcess:
    def submit(self, item: dict) -> Future:
        from rewards import Reward

        future = Future()
        future.set_result(Reward(float(len(item["response"]) % 2), False, "wrong"))
        return future


def seconds(args) -> None:
    import torch

    import toy

    torch.set_num_threads(args.threads or os.cpu_count())
    model = toy.make_model(tempfile.mkdtemp()) if args.model == "toy" else args.model
    sides = {extra: Side(args, extra, model) for extra in (0.0, args.extra)}
    if args.rollout == "vllm":
        import vllm

        vllm.SamplingParams = functools.partial(vllm.SamplingParams, ignore_eos=True)
    rows: dict[float, list[tuple]] = {extra: [] for extra in sides}
    for number in tqdm(range(1, args.rounds + SKIPPED + 1), "rounds", mininterval=1):
        for extra, side in sides.items():
            row = side.step(number, InProcess())
            rows[extra] += [row] if number > SKIPPED else []
    print(f"{args.prompts} x {args.responses} responses a step, limits log-normal (median {args.median}, sigma "
          f"{args.sigma}, at most {args.longest}), {args.rollout}, {args.rounds} rounds of each in turn\n")
    print("| rollout_extra | rollout, s a group | step, s a group | tokens a group | carried |\n|---|---:|---:|---:|---:|")
    for extra, of in rows.items():
        roll, step, tokens, carried = (mean(column) for column in zip(*of))
        print(f"| {extra:g} | {roll / args.prompts:.4f} | {step / args.prompts:.4f} | {tokens / args.prompts:.0f} | "
              f"{carried:.0%} |")
    ratio = lambda column: sum(r[column] for r in rows[args.extra]) / sum(r[column] for r in rows[0.0])
    print(f"\nratio of seconds per trained group: rollout {ratio(0):.3f}, whole step {ratio(1):.3f} (tokens "
          f"{ratio(2):.3f})")


def accuracy(args) -> None:
    import ablations
    import toy

    out, kind = Path(args.out), ablations.TOY.removeprefix("toy:")
    model = toy.prepare(str(out / f"toy_{kind}_sft"), kind)
    cells = {"without": {}, "with": {"rollout_extra": args.extra}}
    grid = {out / f"{name}-{args.rollout}-{args.steps}-{seed}": {
        **ablations.BASE, "rollout": args.rollout, "steps": args.steps, "minibatch_prompts": 4, "model": model,
        "rollout_correction_cap": 2, "seed": seed, **flags}
        for seed in range(args.seeds) for name, flags in cells.items()}
    ablations.run_grid(grid, args.jobs, "accuracy")
    ends, carried = {}, []
    for folder in grid:
        if (folder / "final").exists():
            name, seed = folder.name.split("-")[0], folder.name.split("-")[-1]
            ends[name, seed] = ablations.read(folder / "eval.jsonl")[-1]["accuracy"]
            carried += [row["carried_frac"] for row in ablations.read(folder / "metrics.jsonl")] if name == "with" else []
    pairs = [(ends["without", seed], end) for (name, seed), end in ends.items()
             if name == "with" and ("without", seed) in ends]
    if not pairs:
        sys.exit("partial_rollout.py: no pair of runs finished; the errors are above")
    print("| seed | without | with |\n|---|---:|---:|")
    for seed, (a, b) in enumerate(pairs):
        print(f"| {seed} | {a:.3f} | {b:.3f} |")
    difference, half = ablations.interval([100 * (b - a) for a, b in pairs])
    print(f"\npaired difference: {difference:+.2f} ± {half:.2f} points (95 %, {len(pairs)} seeds); "
          f"{mean(carried):.0%} of the responses had been carried over")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["seconds", "accuracy"], default="seconds")
    parser.add_argument("--extra", type=float, default=1.0, help="rollout_extra")
    parser.add_argument("--rollout", choices=["vllm", "hf"], default="vllm")
    parser.add_argument("--model", default="toy", help="a folder, or toy: untrained; of seconds")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--responses", type=int, default=8)
    parser.add_argument("--median", type=int, default=32, help="tokens")
    parser.add_argument("--sigma", type=float, default=1.0)
    parser.add_argument("--longest", type=int, default=256, help="tokens")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1, help="0: all cores")
    parser.add_argument("--seeds", type=int, default=5, help="of accuracy, and what follows")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time; cores are divided among them")
    parser.add_argument("--out", default=str(ROOT / "runs" / "partial_rollout"))
    args = parser.parse_args()
    {"seconds": seconds, "accuracy": accuracy}[args.what](args)


if __name__ == "__main__":
    main()
