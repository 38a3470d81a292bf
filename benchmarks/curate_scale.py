"""What curate.py takes: seconds to decontaminate 100,000 prompts, memory for 200,000 traces of 20,000 characters.

    python benchmarks/curate_scale.py [--prompts 100000] [--traces 200000] [--folder /tmp/curate_scale] [--workers 2]

Prompts: 20 to 200 words of a vocabulary of 20,000 (Zipf's law), 1 % with nine words of a benchmark in them; seven sets
of the sizes of AIME24, AIME25, HMMT25, MATH-500, GSM8K, LiveCodeBench v5 and v6. Traces: 16 a prompt, written to the
folder (4 GB, and as much again for sft.jsonl), with every filter that reads responses. Memory is the sum over all
processes of what each holds alone plus its part of what they share (PSS), every 0.2 s. Prints a Markdown table.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
SETS = {"aime24": (30, 60), "aime25": (30, 60), "hmmt25": (30, 50), "math500": (500, 40), "gsm8k": (1319, 46),
        "livecodebench_v5": (279, 300), "livecodebench_v6": (131, 300)}  # problems, words of one
STEP = "So the value of $a_{%d}$ is $2a_{%d} + %d$, and with it the sum is \\frac{%d}{%d}; wait, let me check again.\n"


def tree(pid: int) -> list[int]:
    """The process and all below it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
        except OSError:  # it ended
            pass
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


def pss_mb(pid: int) -> float:
    total = 0
    for one in tree(pid):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def run(*args) -> tuple[float, float, str]:
    """(seconds, highest MB, last line) of curate.py."""
    most, started = [0.0], time.monotonic()
    command = [sys.executable, str(ROOT / "curate.py"), *map(str, args)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def watch() -> None:
        while process.poll() is None:
            most[0] = max(most[0], pss_mb(process.pid))
            time.sleep(0.2)

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, _ = process.communicate()
    watcher.join()
    if process.returncode:
        sys.exit(f"curate.py ended with {process.returncode}")
    return time.monotonic() - started, most[0], out.strip().splitlines()[-1]


def write(path: Path, rows) -> Path:
    with path.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=100_000)
    parser.add_argument("--traces", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/curate_scale"))
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    args.folder.mkdir(parents=True)
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(1, 11))) for _ in range(20_000)]
    weights = [1 / (i + 10) for i in range(len(words))]
    text = lambda count: " ".join(rng.choices(words, cum_weights=cumulative, k=count))
    cumulative = [sum(weights[:1])]
    for weight in weights[1:]:
        cumulative.append(cumulative[-1] + weight)
    sets = {name: [text(rng.randint(length // 2, 2 * length)) for _ in range(count)]
            for name, (count, length) in SETS.items()}
    benchmarks = [f"{name}_={write(args.folder / f'{name}.jsonl', ({'problem': p, 'answer': '1'} for p in problems))}"
                  for name, problems in sets.items()]
    every = [problem.split() for problems in sets.values() for problem in problems]

    def prompt() -> str:
        count = rng.randint(20, 200)
        if rng.random() < 0.99:
            return text(count)
        source = rng.choice(every)
        at = rng.randrange(max(1, len(source) - 9))
        return f"{text(count // 2)} {' '.join(source[at:at + 9])} {text(count // 2)}"

    try:
        row = lambda i: {"id": f"p{i}", "data_source": "math_verify", "prompt": prompt(), "answer": "7"}
        problems = write(args.folder / "problems.jsonl", map(row, range(args.prompts)))
        print("| what | seconds | MB | result |\n|---|---|---|---|", flush=True)
        seconds, memory, said = run(
            "--problems", problems, "--outputs", "rl", "--filters", "duplicate_prompts", "decontaminate",
            "--benchmarks", *benchmarks, "--output_dir", args.folder / "prompts", "--workers", args.workers)
        print(f"| {args.prompts:,} prompts, 7 benchmarks | {seconds:.0f} | {memory:,.0f} | {said} |", flush=True)

        def trace(i: int) -> dict:
            thought = "".join(STEP % tuple(rng.choices(range(2, 10_000), k=5)) for _ in range(170))
            response = f"<think>\n{thought[:19_950]}</think>\n\\boxed{{{i % 9}}}"
            return {"id": f"p{i // 16}", "sample": i % 16, "response": response, "finish_reason": "stop",
                    "tokens": 8000 + i % 999, "correct": i % 9 == 7, "status": "correct"}

        traces = write(args.folder / "traces.jsonl", map(trace, range(args.traces)))
        size = traces.stat().st_size / 1e9
        seconds, memory, said = run(
            "--generations", traces, "--problems", problems, "--filters", "duplicate_prompts", "truncated", "think",
            "repetition", "language", "duplicate_responses", "per_prompt", "--outputs", "sft",
            "--output_dir", args.folder / "traces", "--workers", args.workers)
        print(f"| {args.traces:,} traces, {size:.1f} GB | {seconds:.0f} | {memory:,.0f} | {said} |")
    finally:
        shutil.rmtree(args.folder)


if __name__ == "__main__":
    main()
