"""MBPP's tasks (Austin et al., arXiv 2108.07732) as rows for rl_gppo.py and eval.py, for "A model that writes programs"
of docs/real_models.md.

    python benchmarks/mbpp_data.py google-research-datasets/mbpp runs    # the hub data set; or Google's mbpp.jsonl

Writes mbpp_train.jsonl (tasks 601 to 974, for RL) and mbpp_test.jsonl (tasks 11 to 510, for measuring alone). A prompt
shows the first of a task's asserts, as the function's name stands nowhere else; the reward is the share of all that pass.
"""

import json
import sys
from pathlib import Path

SPLITS = {"train": range(601, 975), "test": range(11, 511)}  # as published


def tasks(source: str) -> list[dict]:
    """Rows {"task_id", "text", "test_list", "test_setup_code", ...} of a file, or of all splits of a hub data set."""
    if Path(source).is_file():
        return [json.loads(line) for line in Path(source).read_text().splitlines()]
    import datasets

    return [row for split in datasets.load_dataset(source, "full").values() for row in split]


def rl_row(task: dict) -> dict:
    tests = [f"{task['test_setup_code']}\n{test}".strip() for test in task["test_list"]]
    prompt = (f"{task['text']} Your code should pass this test:\n{task['test_list'][0].strip()}\n\n"
              "Write a Python solution in a single ```python code block.")
    return {"data_source": "coder1", "prompt": [{"role": "user", "content": prompt}], "ability": "code",
            "reward_model": {"ground_truth": json.dumps({"functional": tests}), "style": "rule"},
            "extra_info": {"task_id": task["task_id"]}}


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: mbpp_data.py google-research-datasets/mbpp|FILE.jsonl FOLDER")
    source, out = sys.argv[1], Path(sys.argv[2])
    try:
        rows = sorted(tasks(source), key=lambda task: task["task_id"])
        written = {split: [rl_row(task) for task in rows if task["task_id"] in ids] for split, ids in SPLITS.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:  # offline, misspelt, other columns
        sys.exit(f"mbpp_data.py: {source}: no file of MBPP's tasks, nor a hub data set of them that can be read ({error!r})")
    out.mkdir(parents=True, exist_ok=True)
    for split, lines in written.items():
        (out / f"mbpp_{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
        print(f"{out}/mbpp_{split}.jsonl: {len(lines)} tasks")


if __name__ == "__main__":
    main()
