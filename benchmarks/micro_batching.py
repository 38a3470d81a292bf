"""One update of rl_gppo.py with micro-batches by token budget, over the same with batches of a fixed number of samples.

    python benchmarks/micro_batching.py [--rounds 5]

Lengths are log-normal between 16 and 2,048 tokens. Both ways run update_policy on the same samples and may hold the
same number of tokens at a time: the budget of 8,192 is 4 samples of full length. The fixed way takes 4 samples at a
time as they come and pads them to the longest of the four (which is kinder than to 2,048). In turn, medians; the
gradient norms must agree.
"""

import argparse
import math
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import Qwen3Config, Qwen3ForCausalLM

sys.path.insert(0, str(Path(__file__).parent.parent))
import rl_gppo  # noqa: E402  (the root is known only now)
from policy import Policy  # noqa: E402
from klear.ranks import Run  # noqa: E402
from rewards import Reward  # noqa: E402

SHORTEST, LONGEST = 16, 2048


def samples_of(count: int, vocab: int, median: float, sigma: float) -> list[rl_gppo.Sample]:
    rng, samples = random.Random(0), []
    for i in range(count):
        length = round(min(max(rng.lognormvariate(math.log(median), sigma), SHORTEST), LONGEST))
        ids = [rng.randrange(vocab) for _ in range(length)]
        prompt = rl_gppo.Prompt(ids[:8], "", "math_verify", "1")
        reward = Reward(1.0, i % 2 == 0, "correct")
        samples.append(rl_gppo.Sample(prompt, i // 8, ids[8:], [-1.0] * (length - 8), False, reward, rng.gauss(0, 1)))
    return samples


def fixed_size(lengths: list[int], ranks: int, token_budget: int, packed: bool) -> list[list[list[int]]]:
    """Stands in for plan_microbatches: as many samples at a time as fit at full length, in the order they come."""
    size = token_budget // LONGEST
    return [[list(range(at, min(at + size, len(lengths)))) for at in range(0, len(lengths), size)]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=128, help="a mini-batch of the published run: 16 prompts x 8")
    parser.add_argument("--median", type=float, default=256.0, help="of the lengths, in tokens")
    parser.add_argument("--sigma", type=float, default=1.0, help="of their logarithm")
    args = parser.parse_args()
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(
        vocab_size=4096, hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=64, max_position_embeddings=LONGEST, tie_word_embeddings=True))
    cfg = rl_gppo.Config(minibatch_prompts=args.samples, token_budget=4 * LONGEST, lr=0.0, weight_decay=0.0,
                         output_dir=tempfile.mkdtemp())
    accelerator, policy = Accelerator(cpu=True), Policy(model)
    optimizer = accelerator.prepare(torch.optim.AdamW(policy.parameters()))
    run = Run(cfg, accelerator, policy, optimizer, None, [1], 0)
    samples = samples_of(args.samples, 4096, args.median, args.sigma)
    lengths = [8 + len(s.response) for s in samples]
    plans = {"token budget": rl_gppo.plan_microbatches, "fixed size": fixed_size}
    for name, plan in plans.items():
        micros = plan(lengths, 1, cfg.token_budget, False)[0]
        padded = sum(max(lengths[i] for i in micro) * len(micro) for micro in micros)
        print(f"{name}: {len(micros)} micro-batches, {padded:,} tokens computed for {sum(lengths):,}, at most "
              f"{max(max(lengths[i] for i in micro) * len(micro) for micro in micros):,} at a time")
    seconds, norms = {name: [] for name in plans}, {}
    for turn in range(args.rounds + 1):
        for name, plan in plans.items():
            rl_gppo.plan_microbatches = plan
            begun = time.perf_counter()
            norms[name] = rl_gppo.update_policy(samples, 1, run)["grad_norm"]
            if turn:  # the first round warms up
                seconds[name].append(time.perf_counter() - begun)
    ours, fixed = (statistics.median(seconds[name]) for name in plans)
    ratios = [a / b for a, b in zip(*seconds.values())]
    print(f"update: token budget {ours:.2f} s, fixed size {fixed:.2f} s; "
          f"ratio, median of {args.rounds}: {statistics.median(ratios):.2f} "
          f"(gradient norms {norms['token budget']:.6g} and {norms['fixed size']:.6g})")


if __name__ == "__main__":
    main()
