"""What two models answered to the same problems, one after the other, as Markdown, and how it was judged.

    python benchmarks/sample_pairs.py runs/eval/before runs/eval/after runs/mbpp_test.jsonl --n 10 > samples.md

The problems are the first, the last and those evenly between them, the sample is the first of each: nothing is chosen.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from klear.rows import prompt_of  # noqa: E402


def lines(path: str) -> list[dict]:
    try:
        return [json.loads(line) for line in Path(path).read_text().splitlines()]
    except (OSError, ValueError) as error:
        sys.exit(f"sample_pairs.py: {path}: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="output folder of eval.py")
    parser.add_argument("after", help="another, on the same data")
    parser.add_argument("data", help="the JSONL file that both measured, its rows named by their numbers")
    parser.add_argument("--n", type=int, default=10)
    args = parser.parse_args()
    problems = lines(args.data)
    sides = {name: {row["id"]: row for row in lines(f"{folder}/generations.jsonl") if row["sample"] == 0}
             for name, folder in (("Before", args.before), ("After", args.after))}
    n = min(args.n, len(problems))
    for at in (round(k * (len(problems) - 1) / max(1, n - 1)) for k in range(n)):
        question = prompt_of(problems[at])[-1]["content"].replace("\n", "\n> ")
        print(f"## Problem {at}\n\n> {question}\n")
        for name, rows in sides.items():
            if (row := rows.get(str(at))) is None:
                sys.exit(f"sample_pairs.py: no sample of problem {at} in {args.before if name == 'Before' else args.after}")
            print(f"{name}: {row['status']}, {row['tokens']} tokens\n\n````text\n{row['response'].strip()}\n````\n")


if __name__ == "__main__":
    main()
