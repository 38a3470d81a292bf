"""The scripts beside the runs on real models: MBPP's rows, runs side by side, samples side by side."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rewards

ROOT = Path(__file__).parent.parent


def script(name: str, *args) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, ROOT / "benchmarks" / name, *map(str, args)], capture_output=True, text=True, timeout=120)


def write(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.needs("namespaces")
def test_mbpp_rows(tmp_path):
    """Google's columns to RL rows: the splits as published, the set-up code before each test, a reward by the sandbox."""
    task = dict(text="Write a function to double.", test_setup_code="", test_list=["assert double(2) == 4 ", "assert double(-1) == -2", "assert double('a') == 'aa'"])
    setup = dict(task, test_setup_code="two = 2", test_list=["assert double(two) == 4"])
    tasks = [dict(task, task_id=i) for i in (3, 11, 510, 511, 601)] + [dict(setup, task_id=974), dict(task, task_id=590)]
    done = script("mbpp_data.py", write(tmp_path / "mbpp.jsonl", tasks), tmp_path / "out")
    assert done.returncode == 0, done.stderr
    train, test = (read(tmp_path / "out" / f"mbpp_{split}.jsonl") for split in ("train", "test"))
    assert [[row["extra_info"]["task_id"] for row in rows] for rows in (train, test)] == [[601, 974], [11, 510]]
    assert "assert double(2) == 4\n" in train[0]["prompt"][0]["content"] and "double(-1)" not in train[0]["prompt"][0]["content"]
    for row, answer, share in ((train[0], "2 * x", 1), (train[0], "x + x if x != 'a' else x", 2 / 3), (train[1], "2 * x", 1), (train[1], "x", 0)):
        got = rewards.score(row["data_source"], f"```python\ndef double(x):\n    return {answer}\n```", row["reward_model"]["ground_truth"])
        assert got.score == pytest.approx(share), got


def test_mbpp_data_tells_what_it_cannot_read(tmp_path):
    done = script("mbpp_data.py", write(tmp_path / "other.jsonl", [{"question": "?"}]), tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "other.jsonl" in done.stderr and "MBPP" in done.stderr


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """Two losses, two seeds of the second, 12 steps of 8 prompts x 4 responses; the second is right 0.2 more often."""
    folder, rng = tmp_path_factory.mktemp("runs"), np.random.default_rng(0)
    of_prompt = rng.uniform(0.1, 0.7, (12, 8))  # of both
    right = {}
    for name, loss, gain in (("a", "clip_higher", 0.0), ("b", "gppo", 0.2), ("c", "gppo", 0.2)):
        correct = rng.uniform(size=(12, 8, 4)) < of_prompt[..., None] + gain
        right.setdefault(loss, []).append(correct)
        rows = [dict(step=s + 1, group=g, reward=float(x), correct=bool(x), tokens=10 + k, logprob=-0.5 - 0.1 * k)
                for s in range(12) for g in range(8) for k, x in enumerate(correct[s, g])]
        write(folder / name / "rewards.jsonl", rows)
        write(folder / name / "metrics.jsonl", [dict(step=s + 1, grad_norm=float(s)) | (dict(clip_frac_high=0.01, clip_frac_low=0.02) if s else {}) for s in range(12)])
        (folder / name / "config.yaml").write_text(f"loss: {loss}\n")
    return folder, {loss: np.mean(runs, (0, 3)) for loss, runs in right.items()}  # (steps, prompts)


def test_runs_side_by_side(two_runs, tmp_path):
    """Means, the paired difference and its error against closed forms; the CSV's bands hold 95 % of a normal's."""
    folder, right = two_runs
    done = script("compare_runs.py", *(folder / name for name in "abc"), "--out", tmp_path / "figure", "--window", 4)
    assert done.returncode == 0, done.stderr
    said = {tuple(line.split(":")[0].split(", ")): line for line in done.stdout.splitlines() if "accuracy" in line}
    for part, at in (("all steps", slice(0, 12)), ("last third", slice(8, 12))):
        gppo, difference = right["gppo"][at], right["gppo"][at] - right["clip_higher"][at]
        for line, values in ((said[part, "gppo"].split("accuracy ")[1], gppo), (said[part, "gppo"].split(", ")[-2], difference)):
            mean, error = (float(x) for x in line.split(", ")[0].split(" to ")[0].split(" ± "))
            assert mean == pytest.approx(values.mean(), abs=6e-4)
            assert error == pytest.approx(values.std() / math.sqrt(values.size), rel=0.06, abs=6e-4)
    rows = list(csv.DictReader((tmp_path / "figure.csv").open()))
    entropy = [float(r["mean"]) for r in rows if r["quantity"] == "entropy"]
    assert entropy == pytest.approx([np.average([0.5, 0.6, 0.7, 0.8], weights=[10, 11, 12, 13])] * 18, rel=1e-4)
    assert {r["mean"] for r in rows if r["quantity"] == "clip_frac_high"} == {"0.01"}
    first = next(r for r in rows if r["quantity"] == "correct" and r["loss"] == "gppo")
    part = right["gppo"][:4]
    assert [float(first[k]) for k in ("step", "mean")] == pytest.approx([2.5, part.mean()], rel=1e-4)
    half = 1.96 * part.std() / math.sqrt(part.size)
    assert [float(first["mean"]) - float(first["low"]), float(first["high"]) - float(first["mean"])] == pytest.approx([half, half], rel=0.15)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_runs_side_by_side_tells_what_is_missing(two_runs, tmp_path):
    for args, words in (([tmp_path], "no output folder"), ([two_runs[0] / "a", "--window", 13], "--window 12")):
        done = script("compare_runs.py", *args, "--out", tmp_path / "figure")
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and words in done.stderr


def test_samples_side_by_side(tmp_path):
    data = write(tmp_path / "data.jsonl", [{"question": f"question {i}", "answer": "#### 1"} if i % 2 else
                                          {"prompt": [{"role": "user", "content": f"question {i}"}]} for i in range(7)])
    for name in ("before", "after"):
        write(tmp_path / name / "generations.jsonl", [dict(id=str(i), sample=k, status="wrong", tokens=3, response=f"{name} {i} {k}") for k in (1, 0) for i in range(7)])
    done = script("sample_pairs.py", tmp_path / "before", tmp_path / "after", data, "--n", 3)
    assert [f"question {i}" in done.stdout for i in range(7)] == [True, False, False, True, False, False, True]
    assert [done.stdout.count(text) for text in ("before 3 0", "after 3 0", "before 3 1", "before 1 0")] == [1, 1, 0, 0]
