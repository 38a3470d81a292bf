"""benchmarks/ablations.py: a tiny grid end to end, with real runs of rl_gppo.py; its table against figures known beforehand."""

import csv
import json
import sys
from pathlib import Path

import pytest

import toy

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import ablations  # noqa: E402  (the folder is on the path only now)


@pytest.mark.needs("time")
@pytest.mark.slow
def test_a_tiny_grid_runs_resumes_and_reports(tmp_path, monkeypatch, capsys):
    """Two cells of one seed, two steps of an untrained model whose groups differ in their think tags. A second call adds a seed
    of one, runs only that, and draws both."""
    model = toy.make_model(str(tmp_path / "model"))
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in toy.rl_rows("math", 8)))
    for key, value in {"eval_file": str(tmp_path / "eval.jsonl"), "no_think_end": 0.5, "no_think_start": -0.5, "max_response_tokens": 16}.items():
        monkeypatch.setitem(ablations.BASE, key, value)
    monkeypatch.setattr(ablations.toy, "prepare", lambda *_: model)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def ablate(*flags) -> str:
        monkeypatch.setattr(sys, "argv", ["ablations.py", "clipping", "--steps", "2", "--out", str(tmp_path), "--figures", str(tmp_path), *flags])
        ablations.main()
        return capsys.readouterr().out

    ablate("--seeds", "1", "--cells", "hardly/clip_higher", "acts/gppo")
    runs = tmp_path / "clipping"
    logs = {name: [json.loads(line) for line in (runs / name / "metrics.jsonl").read_text().splitlines()]
            for name in ("hardly_clip_higher-0", "acts_gppo-0")}
    assert all(row["updates"] >= 1 and row["grad_norm"] > 0 for rows in logs.values() for row in rows)
    assert sum(row["updates"] for row in logs["acts_gppo-0"]) > sum(row["updates"] for row in logs["hardly_clip_higher-0"])
    written = {path: path.stat().st_mtime_ns for path in runs.glob("*-0/final/*")}
    rows = list(csv.DictReader((tmp_path / "clipping.csv").open()))
    assert {(row["cell"], row["seed"]) for row in rows} == {(cell, "0") for cell in ("hardly/clip_higher", "acts/gppo")}
    said = ablate("--seeds", "2", "--cells", "acts/gppo")
    assert written == {path: path.stat().st_mtime_ns for path in runs.glob("*-0/final/*")}
    rows = list(csv.DictReader((tmp_path / "clipping.csv").open()))
    assert {(row["cell"], row["seed"]) for row in rows} == {("acts/gppo", seed) for seed in "01"}
    assert (tmp_path / "clipping.png").stat().st_size > 10_000 and "| acts/gppo |" in said


@pytest.mark.slow
def test_table_and_csv_of_known_runs(tmp_path, capsys, monkeypatch):
    """Three finished seeds with ends 0.5, 0.6, 0.7 and 0.6, 0.7, 0.8: means 0.6 and 0.7, t(2) = 4.303, paired difference exactly 0.1."""
    for cell, shift in (("alpha/0.0", 0.0), ("alpha/0.1", 0.1)):
        for seed in range(3):
            run = tmp_path / "sft_coef" / f"{ablations.label(cell)}-{seed}"
            (run / "final").mkdir(parents=True)
            ends = [0.3, 0.9, 0.5 + 0.1 * seed + shift]
            (run / "eval.jsonl").write_text("".join(json.dumps({"step": i, "accuracy": a}) + "\n" for i, a in enumerate(ends)))
            (run / "metrics.jsonl").write_text("".join(json.dumps({"step": i, "entropy": 0.2, "grad_norm": 1.5, "clip_frac_high": 0.01,
                                                                   "clip_frac_low": 0.02}) + "\n" for i in range(3)))
    monkeypatch.setattr(toy, "prepare", lambda folder, kind: folder)
    monkeypatch.setattr(sys, "argv", ["ablations.py", "sft_coef", "--seeds", "3", "--cells", "alpha/0.0", "alpha/0.1",
                                      "--out", str(tmp_path), "--figures", str(tmp_path)])
    ablations.main()
    out = capsys.readouterr().out
    assert "| alpha/0.0 | 0.300 | 0.600 ± 0.248 |  | 0.750 ± 0.124 |  | 0.200 | 1.50 | 1.00% | 2.00% |" in out  # 4.303 · 0.1/√3
    assert "| alpha/0.1 | 0.300 | 0.700 ± 0.248 | +0.100 ± 0.000 |" in out
    assert len((tmp_path / "sft_coef.csv").read_text().splitlines()) == 7


@pytest.mark.parametrize("flags", [["clipping", "--cells", "acts/nothing"], ["clippin"], ["clipping", "--seeds", "many"]])
def test_mistakes_get_one_line(flags, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ablations.py", *flags])
    with pytest.raises(SystemExit) as end:
        ablations.main()
    assert end.value.code == 2 and "ablations.py: error:" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.needs("time")
def test_right_traces_are_told_from_wrong_ones(tmp_path, monkeypatch):
    """wrong_traces: the filtered pool holds exactly the traces whose boxed answer is the sum."""
    seen = {}

    def no_sft(command, check):
        seen[len(seen)] = Path(command[command.index("--train_file") + 1]).read_text().splitlines()

    monkeypatch.setattr(ablations.subprocess, "run", no_sft)
    for right_only in (False, True):
        ablations.sft_of("math-terms=3-right=0.5", right_only, 0, tmp_path / str(right_only))
    right = [line for line in seen[0] for row in [json.loads(line)["messages"]]
             if row[1]["content"].endswith(f"boxed{{{sum(map(int, row[0]['content'].strip('=').split('+')))}}}")]
    assert len(seen[0]) == 8192 and seen[1] == right and 0.45 < len(right) / 8192 < 0.6
