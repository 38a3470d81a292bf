"""benchmarks/logprob_memory.py at a small size: what it says of our side (the other sides need TRL)."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "logprob_memory.py"
SMALL = ["--vocab", 65_536, "--hidden", 32, "--threads", 1]


def run(*args) -> str:
    done = subprocess.run([sys.executable, SCRIPT, *map(str, [*SMALL, *args])], capture_output=True, text=True, timeout=300,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.needs("time")
def test_memory_of_the_head_is_one_chunk_of_logits():
    """Peak memory over logit_chunk is a line of slope 1 (one fp32 buffer of logits); its constant does not hold logits."""
    out = run("--only", "chunks", "--tokens", 2048, "--chunks", 512, 1024, 1536, 2048)
    rows = [[float(x.replace(",", "")) for x in row] for row in re.findall(r"\| (\d+) \| ([\d,]+) \| ([\d,]+) \|", out)]
    assert [row[0] for row in rows] == [512, 1024, 1536, 2048]
    for _, peak, line in rows:
        assert abs(peak - line) < 0.15 * line, out
    copies, constant = map(float, re.search(r"([\d.]+) fp32 copies of .* beside (-?[\d.]+) MB", out).groups())
    assert 0.8 < copies < 1.3 and constant < 100, out  # full logits are 537 MB, a second copy would be a slope of 2


@pytest.mark.needs("time")
@pytest.mark.slow
def test_long_responses_cost_no_more_logits():
    """Eight times the tokens: the peak grows by hidden states and their gradient (0.25 KB a token here), not by logits (256 KB)."""
    short, long = (float(re.search(r"([\d.]+) GB above", run("--only", "long", "--chunk", 512, "--long_tokens", n)).group(1))
                   for n in (512, 4096))
    assert long - short < 0.05, (short, long)
