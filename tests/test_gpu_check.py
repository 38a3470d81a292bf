"""benchmarks/gpu_check.py and micro_batching.py at a size for CPUs, through their command lines."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import forked
import pytest

ROOT = Path(__file__).parent.parent


def run(*args, path: str = "") -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *map(str, args)], capture_output=True, text=True, timeout=300,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path})


def bare(folder: Path) -> str:
    """A PYTHONPATH, for all processes below, of a machine with torch, transformers and accelerate alone."""
    folder.mkdir()
    for name in ("pebble", "math_verify", "vllm", "matplotlib"):
        (folder / f"{name}.py").write_text(f"raise ModuleNotFoundError('{name}')")
    return str(folder)


@pytest.mark.needs("time")
@pytest.mark.slow
def test_gpu_check_on_a_bare_machine(tmp_path):
    done = run(ROOT / "benchmarks" / "gpu_check.py", "--device", "cpu", "--tiny", "--out", tmp_path / "check.json", path=bare(tmp_path / "bare"))
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "check.json").read_text())
    assert result["failed"] == []
    head = result["head"]
    assert head["chunked"]["logprob_max"] < 1e-5 < 1e-3 < head["full bf16 logits"]["logprob_max"]  # fp32 logits, and what bf16 would cost
    assert all(error < 0.01 for way in head for key, error in head[way].items() if key.startswith("grad_"))
    assert head["frozen"].keys() == head["chunked"].keys() - {"grad_weight"} and head["frozen"]["logprob_max"] < 1e-5
    assert all(result[f"update_{n}"]["tokens_per_s"] > 0 and result[f"update_{n}"]["grad_norm"] > 0 for n in (64, 128))
    assert result["generation"]["tokens"] == 8 * 16 and result["gppo"]["steps"] == 2 and "| 128 |" in done.stdout


@pytest.mark.slow
@pytest.mark.needs("time")
def test_sums_are_judged_without_math_verify(tmp_path):
    """Right, wrong, and the two answers that would go to math_verify."""
    code = ("import sys; sys.path[:0] = sys.argv[1:]\nfrom gpu_check import InProcess\nfor text in (r'\\boxed{42}', r'\\boxed{41}', r'\\boxed{4a}', 'no'):\n"
            "    print(*InProcess().submit(dict(data_source='toy:math', response='<think>.</think>' + text, ground_truth='42', prompt_tail='')).result())")
    done = run("-c", code, ROOT / "benchmarks", path=bare(tmp_path / "bare"))
    assert done.stdout.split("\n")[:4] == ["1.0 True correct"] + 3 * ["-1.0 False wrong"], done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.needs("time")
def test_gpu_check_says_what_is_missing():
    for flags, words in (([], "torch finds no GPU here"), (["--device", "cpu"], "add --tiny")):
        done = forked.run("benchmarks/gpu_check", *flags, check=False)
        assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.needs("time")
@pytest.mark.slow
def test_micro_batching_computes_fewer_tokens():
    """Both ways give one gradient; the budget's way computes at most 0.7 of the tokens."""
    done = forked.run("benchmarks/micro_batching", "--rounds", 1, "--samples", 32, "--median", 64)
    ours, fixed = (int(n.replace(",", "")) for n in re.findall(r"([\d,]+) tokens computed", done.stdout))
    one, two = map(float, re.search(r"gradient norms (\S+) and (\S+)\)", done.stdout).groups())
    assert ours < 0.7 * fixed and one == two > 0
