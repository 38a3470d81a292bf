"""An update of rl_gppo.py with LoRA against one of all weights: seconds and memory, the same model and tokens, fp32.

    python benchmarks/real_model.py smollm2 runs/smollm2
    python benchmarks/lora_cost.py --model runs/smollm2

Each side lives in a process of its own and does an update when it is told to, in turn (A B A B ...); the other one
waits. Memory is the peak of the process during the update (VmHWM, Linux), less what a process without a model has
(imports, about 0.7 GB). Prints medians, and the ratios round by round.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).parent.parent


def memory(key: str) -> float:
    """GB of this process: VmRSS now, or VmHWM at the highest."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 2**20


def side(args, rank: int) -> None:
    """Updates on standard input's word; a line of JSON for each."""
    sys.path.insert(0, str(ROOT))
    import torch

    import rl_gppo
    from policy import load_policy, load_tokenizer
    from klear.ranks import make_run
    from rewards import Reward

    torch.set_num_threads(os.cpu_count())
    empty, rng = memory("VmRSS"), random.Random(0)
    cfg = rl_gppo.Config(model=args.model, output_dir=tempfile.mkdtemp(), lora_rank=rank, minibatch_prompts=8,
                         token_budget=args.budget, warmup_steps=0, lr=1e-5, gradient_checkpointing=args.checkpointing)
    run, _ = make_run(cfg, load_policy(cfg, args.model), load_tokenizer(args.model), None)
    draw = lambda n: [rng.randrange(100, run.bare.lm.config.vocab_size) for _ in range(n)]
    samples = []
    for group in range(4):
        prompt = rl_gppo.Prompt(draw(args.tokens // 2), "", "math_verify", "1")
        samples += [rl_gppo.Sample(prompt, group, draw(args.tokens // 2), [-1.0] * (args.tokens // 2), False,
                                   Reward(1.0, True, "correct"), rng.gauss(0, 1)) for _ in range(4)]
    for step, _ in enumerate(sys.stdin, 1):
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
        begun = time.perf_counter()
        rl_gppo.update_policy(samples, step, run)
        result = {"seconds": time.perf_counter() - begun, "gb": memory("VmHWM") - empty}
        print("RESULT " + json.dumps(result), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=256, help="of a prompt and its response")
    parser.add_argument("--budget", type=int, default=2048, help="token_budget of a micro-batch")
    parser.add_argument("--checkpointing", action="store_true", help="gradient_checkpointing")
    parser.add_argument("--side", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side is not None:
        return side(args, args.side)
    flags = [sys.executable, __file__, *sys.argv[1:], "--side"]
    sides = {name: subprocess.Popen([*flags, str(rank)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
             for name, rank in (("full", 0), ("lora", args.rank))}
    results = {name: [] for name in sides}
    for _ in tqdm(range(args.rounds + 1), "rounds, the first does not count"):
        for name, process in sides.items():
            process.stdin.write("\n")
            process.stdin.flush()
            line = next(line for line in process.stdout if line.startswith("RESULT "))
            results[name].append(json.loads(line.removeprefix("RESULT ")))
    for process in sides.values():
        process.stdin.close()
        process.wait()
    for key in ("seconds", "gb"):
        full, lora = ([result[key] for result in results[name][1:]] for name in ("full", "lora"))
        ratios = [a / b for a, b in zip(lora, full)]
        print(f"{key}: full {statistics.median(full):.3g}, LoRA of rank {args.rank} {statistics.median(lora):.3g}, "
              f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
