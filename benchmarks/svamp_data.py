"""Splits SVAMP rows for the run "Word problems" of docs/real_models.md.

    python benchmarks/svamp_data.py ChilleD/SVAMP runs     # the hub data set; or a JSONL file of RL rows

Writes svamp_sft.jsonl (the first 250 problems with a one-line solution: two numbers of the text and the operation
between them that gives the answer; problems without one are left out), svamp_train.jsonl (the first 550, for RL) and
svamp_eval.jsonl (the other 150, trained on by neither stage).
"""

import itertools
import json
import re
import sys
from pathlib import Path

OPERATIONS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b if b else None}


def solution(text: str, answer: float) -> str | None:
    """`95 - 64 = 31` for the first pair of numbers of the text and operation that give the answer, or None."""
    numbers = [float(n) for n in re.findall(r"\d+(?:\.\d+)?", text)]
    for (a, b), (sign, operation) in itertools.product(itertools.permutations(numbers, 2), OPERATIONS.items()):
        if operation(a, b) == answer:
            return f"{a:g} {sign} {b:g} = {answer:g}"
    return None


def rl_lines(source: str) -> list[str]:
    """The 700 training problems as RL rows, a line each, from a file of such rows or from the hub."""
    if Path(source).is_file():
        return Path(source).read_text().splitlines()
    import datasets

    try:
        rows = datasets.load_dataset(source, split="train")
        return [json.dumps({"data_source": "math_longcot_math_verify", "ability": "math",
                            "prompt": [{"role": "user", "content": f"{row['Body'].strip()} {row['Question'].strip()}"}],
                            "reward_model": {"ground_truth": f"{float(row['Answer']):g}", "style": "rule"}}) for row in rows]
    except (OSError, ValueError, KeyError) as error:  # offline, misspelt, other columns
        sys.exit(f"svamp_data.py: {source} is no file, and cannot be read from the hub ({error}); give a JSONL file of RL rows")


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: svamp_data.py ChilleD/SVAMP|FILE.jsonl FOLDER")
    lines = rl_lines(sys.argv[1])
    out = Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    with (out / "svamp_sft.jsonl").open("w") as file:
        for row in map(json.loads, lines[:250]):
            question, answer = row["prompt"][0]["content"], row["reward_model"]["ground_truth"]
            if work := solution(question, float(answer)):
                response = f"<think>\n{work}\n</think>\n\n\\boxed{{{answer}}}"
                file.write(json.dumps({"prompt": question, "response": response}) + "\n")
    (out / "svamp_train.jsonl").write_text("\n".join(lines[:550]) + "\n")
    (out / "svamp_eval.jsonl").write_text("\n".join(lines[550:]) + "\n")


if __name__ == "__main__":
    main()
