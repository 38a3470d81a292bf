"""Seconds to score math responses through RewardPool on two cores, workers started beforehand.

    python benchmarks/reward_throughput.py [--workers 2] [--rows MATH.jsonl]     # RL rows; a dozen of our own without

Four batches: 1,024 responses of 20,000 characters where every answer is different and needs math_verify (fractions,
radicals, expressions, intervals; one in eight has no box); a step of the published run, 128 MATH problems x 8, half of
the answers right; the same with integers; and 30 problems x 64 responses of 60,000 characters as in avg@64 on AIME, the
answers as spread as a model's. Each line also says what plain math_verify takes for the whole texts in one process
(extrapolated from 64 of them).
"""

import argparse
import json
import logging
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import rewards  # noqa: E402

ROWS = Path(__file__).parent.parent / "tests" / "rows" / "mathsub.jsonl"
STEP = "So $a_{k+1} = 2a_k + 3$ and with 12 of them we get \\[ \\frac{7}{4} + x \\] which is {nearly} done. Wait, check again.\n"


def response(length: int, rng: random.Random, answer: str, boxed: bool = True) -> str:
    shown = f"\\boxed{{{answer}}}" if boxed else answer
    end = f"</think>\nTherefore the answer is ${shown}$."
    start, words = "<think>\n", rng.sample("alpha beta gamma delta epsilon zeta eta theta".split(), 3)
    thought = ((" ".join(words) + ". " + STEP) * (length // len(STEP) + 1))[:length - len(start) - len(end)]
    return start + thought + end


def hard(k: int) -> tuple[str, str]:
    """A gold answer and the same written differently, different for every k."""
    return [(f"\\frac{{{k}}}{{{k + 7}}}", f"\\frac{{{2 * k}}}{{{2 * k + 14}}}"),
            (f"{k}\\sqrt{{3}}", f"\\sqrt{{{3 * k * k}}}"),
            (f"(x+{k})(x-1)", f"x^2+{k - 1}x-{k}"),
            (f"[{k},{k + 5})", f"\\left[{k}, {k + 5}\\right)")][k % 4]


def batches(rng: random.Random, rows: Path) -> dict[str, list[dict]]:
    def item(text: str, gold: str) -> dict:
        return dict(data_source="math_longcot_math_verify", response=text, ground_truth=gold)
    answers = [hard(k + 2) for k in range(1024)]
    golds = [json.loads(line)["reward_model"]["ground_truth"] for line in rows.read_text().splitlines()]
    golds *= -(-131 // len(golds))
    spread = [[rng.randint(0, 999) for _ in range(6)] for _ in range(30)]
    return {
        "1,024 x 20,000 characters, every answer different": [
            item(response(20_000, rng, answer, k % 8 > 0), gold) for k, (gold, answer) in enumerate(answers)],
        "1,024 x 20,000 characters, 128 MATH problems x 8": [
            item(response(20_000, rng, rng.choice([gold, gold, gold, *golds[g + 1:g + 4]])), gold)
            for g, gold in enumerate(golds[:128]) for _ in range(8)],
        "1,024 x 20,000 characters, integers": [
            item(response(20_000, rng, str(k)), str(k if k % 2 else k + 1)) for k in range(1024)],
        "30 problems x 64 x 60,000 characters": [
            item(response(60_000, rng, str(answers[min(5, int(rng.expovariate(1)))]), rng.random() > 0.1), str(answers[0]))
            for answers in spread for _ in range(64)],
    }


def plain_seconds(items: list[dict]) -> float:
    from math_verify import parse, verify
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    parse("\\boxed{\\frac12}")  # first-call costs
    some, start = items[::len(items) // 64], time.perf_counter()
    for one in some:
        verify(parse(rewards.as_box(one["ground_truth"])), parse(one["response"]))
    return (time.perf_counter() - start) * len(items) / len(some)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rows", type=Path, default=ROWS)
    args = parser.parse_args()
    with rewards.RewardPool(args.workers) as pool:
        pool.score_batch([dict(data_source="math_verify", response=f"\\boxed{{\\frac{{1}}{{{k}}}}}", ground_truth="2")
                          for k in range(3, 40)])  # both workers are up
        print("| batch | seconds | responses/s | right | plain math_verify, one process |\n|---|---|---|---|---|")
        for name, items in batches(random.Random(0), args.rows).items():
            start = time.perf_counter()
            scored = pool.score_batch(items)
            seconds = time.perf_counter() - start
            right, plain = sum(reward.correct for reward in scored) / len(scored), plain_seconds(items)
            print(f"| {name} | {seconds:.2f} | {len(items) / seconds:.0f} | {right:.0%} | {plain:.1f} |", flush=True)


if __name__ == "__main__":
    main()
