"""A model's own right solutions as SFT rows with think tags, for docs/real_models.md, "A model that calculates".

    python eval.py --model runs/qwen_coder --data runs/gsm8k_sft.jsonl --n 2 --max_tokens 320 --ask_think false \\
        --output_dir runs/eval/own
    python benchmarks/own_traces.py runs/eval/own runs/gsm8k_sft.jsonl runs/gsm8k_own.jsonl

Of each problem the shortest response that is right and ended by itself (rejection sampling): it becomes the thought,
and the boxed answer stands after it. Problems without one are left out.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from klear.rows import prompt_of, truth_of  # noqa: E402


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit("usage: own_traces.py EVAL_FOLDER PROBLEMS.jsonl OUT.jsonl")
    folder, problems, out = map(Path, sys.argv[1:])
    try:
        samples = [json.loads(line) for line in (folder / "generations.jsonl").read_text().splitlines()]
        rows = [json.loads(line) for line in problems.read_text().splitlines()]
    except (OSError, ValueError) as error:
        sys.exit(f"own_traces.py: {error}")
    right = [sample for sample in samples if sample["correct"] and sample["finish_reason"] == "stop"]
    shortest = {sample["id"]: sample for sample in sorted(right, key=lambda sample: -sample["tokens"])}
    with out.open("w") as file:
        for number, row in enumerate(rows):
            if sample := shortest.get(str(number)):
                response = f"<think>\n{sample['response'].strip()}\n</think>\n\n\\boxed{{{truth_of(row)}}}"
                file.write(json.dumps({"prompt": prompt_of(row), "response": response}) + "\n")
    print(f"{out}: {len(shortest)} of {len(rows)} problems, {len(right)} of {len(samples)} responses were right")


if __name__ == "__main__":
    main()
