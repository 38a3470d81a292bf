"""Evaluation: formats, sampling, scores against independent computations, continuation, ranks, the report, mistakes."""

import base64
import hashlib
import itertools
import json
import math
import os
import pickle
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
ROWS = ROOT / "tests" / "rows"
sys.path.insert(0, str(ROOT))
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]
import livecodebench_problems as lcb  # noqa: E402

import eval as ev  # noqa: E402
import forked  # noqa: E402
from klear import report  # noqa: E402
import rewards  # noqa: E402
from klear import scores  # noqa: E402
import toy  # noqa: E402
from klear.sampling import SeededSampler  # noqa: E402
from runs import read_config  # noqa: E402


def cfg(**knobs) -> ev.Config:
    return ev.Config(**knobs)


def run(*flags, ranks: int = 1, check: bool = True, cwd=None) -> subprocess.CompletedProcess:
    return forked.run("eval", *flags, ranks=ranks, check=check, cwd=cwd)


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """The toy architecture with random weights: what is sampled is noise, which is what sampling is tested with."""
    folder = tmp_path_factory.mktemp("model")
    toy.make_model(folder, seed=0)
    return folder


@pytest.fixture(scope="session")
def sums(tmp_path_factory) -> Path:
    """Problems whose one-digit answers a random model sometimes hits."""
    path = tmp_path_factory.mktemp("sums") / "sums.jsonl"
    rng = random.Random(0)
    rows = [(rng.randint(0, 4), rng.randint(0, 4)) for _ in range(13)]
    path.write_text("".join(json.dumps({"problem": f"{a}+{b}={'?' * (a % 3)}", "answer": str(a + b)}) + "\n" for a, b in rows))
    return path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# -------------------------------------------------------------------------------------------------------------- formats
@pytest.mark.needs("shared")
@pytest.mark.parametrize(
    "file, count, first, truth",
    [
        ("aime24.qs.jsonl", 30, "2024-II-1", "73"),
        ("aime25.qs.jsonl", 30, "0", "70"),
        ("HMMT-202502.jsonl", 30, "0", "103"),
        ("gsm8k_test_300.jsonl", 300, "0", "10"),
        ("svamp_rl_700.jsonl", 700, "0", None),
        ("gsm8k_rl_2000.jsonl", 2000, "0", "5"),
    ],
)
def test_published_files(file, count, first, truth):
    problems = ev.load_benchmark(str(DATA / file), cfg())
    assert len(problems) == count and problems[0].id == first and len({p.id for p in problems}) == count
    assert truth is None or problems[0].truth == truth
    assert all(p.messages[-1]["role"] == "user" and p.messages[-1]["content"] for p in problems)
    assert problems[0].data_source == ("math_longcot_math_verify" if "_rl_" in file else "math_verify")


def test_math500_format_and_named_file():
    problems = ev.load_benchmark(f"math500={ROWS}/math500.jsonl", cfg())
    assert [p.benchmark for p in problems] == ["math500"] * 8 and problems[0].id == "test/algebra/1.json"
    assert problems[0].truth == "\\left( 3, \\frac{\\pi}{2} \\right)"


def test_folder_of_files(tmp_path):
    for name, text in (
        ("b.jsonl", '{"question": "x", "answer": "why\\n#### 1,024"}'),
        ("a.jsonl", '{"problem": "y", "answer": 7}\n\n'),
    ):
        (tmp_path / name).write_text(text)
    problems = ev.load_benchmark(str(tmp_path), cfg())
    assert [p.truth for p in problems] == ["7", "1024"] and problems[0].benchmark == tmp_path.name


def test_toys_with_knobs_are_benchmarks():
    """`data: toy:math-terms=7` holds a =, and is no NAME=PATH."""
    found = ev.load_problems(cfg(data="toy:math-terms=7,easy=toy:math-terms=2-digits=1,toy:math", limit=2))
    assert [*found] == ["toy_math-terms=7", "easy", "toy_math"]
    assert [part[0].messages[-1]["content"].count("+") for part in found.values()] == [6, 1, 4]


def test_a_named_path_may_hold_an_equals_sign(tmp_path):
    (folder := tmp_path / "toy_math-terms=7").mkdir()
    (folder / "rows.jsonl").write_text('{"problem": "p", "answer": "1"}\n')
    assert [*ev.load_problems(cfg(data=f"sums={folder}/rows.jsonl,{folder}/rows.jsonl"))] == ["sums", "rows"]


def test_the_verifier_tells_code_from_math():
    """The name alone does not: maj@n would be missing."""
    name = "opencodereasoning_math_verify"
    with pytest.warns(UserWarning, match="judged as 'math_verify'"):
        assert not ev.is_code(ev.Problem("b", "0", [], name, "1"))
    assert ev.is_code(ev.Problem("b", "0", [], "coder1_longcot", "{}"))


def test_equal_ids_are_told_apart(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"id": 1, "problem": "a", "answer": "1"}\n{"id": 1, "problem": "b", "answer": "2"}\n')
    assert [p.id for p in ev.load_benchmark(str(tmp_path / "x.jsonl"), cfg())] == ["1#0", "1#1"]


def test_thinking_switch_and_suffix(model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% endfor %}{% if enable_thinking is defined %}"
        "{{ '<think>\\n' if enable_thinking else '<think></think>' }}{% endif %}"
    )
    texts = []
    for knobs in ({}, {"enable_thinking": "true"}, {"enable_thinking": "false", "prompt_suffix": "Box it."}):
        problem = ev.Problem("b", "0", [{"role": "user", "content": "1+1"}], "math_verify", "2")
        ev.render_all({"b": [problem]}, tokenizer, cfg(**knobs))
        texts.append(problem.text)
        assert tokenizer.decode(problem.ids) == problem.text
    problem = ev.Problem("b", "0", [{"role": "user", "content": "1+1"}], "math_verify", "2")
    ev.render_all({"b": [problem]}, tokenizer, cfg(system_prompt="Be brief. "))
    assert [*texts, problem.text] == ["1+1", "1+1<think>\n", "1+1\nBox it.<think></think>", "Be brief. 1+1"]


def test_ask_think_off_judges_the_answer_alone():
    loaded = ev.load_problems(cfg(data=str(ROWS / "mathsub.jsonl"), ask_think=False, limit=3))
    assert {p.data_source for p in loaded["mathsub"]} == {"math_verify"}


# -------------------------------------------------------------------------------------------------------- livecodebench
def test_livecodebench_file_is_what_its_module_writes():
    assert lines(lcb.FILE) == [lcb.row(p, at) for at, p in enumerate(lcb.PROBLEMS)]


def test_livecodebench_rows_decode():
    problems = ev.load_benchmark(str(lcb.FILE), cfg())
    for problem, written in zip(problems, lcb.PROBLEMS, strict=True):
        truth = ev.ground_truth(problem)
        assert truth.get("fn_name", "") == written.function and problem.data_source == "livecodebench"
        assert len(truth["inputs"]) == len(truth["outputs"]) == len(written.inputs)
        expected = ["\n".join(map(json.dumps, x)) for x in written.inputs] if written.function else written.inputs
        assert truth["inputs"] == expected
        assert written.statement in problem.messages[0]["content"] and (written.starter in problem.messages[0]["content"])


@pytest.mark.parametrize(
    "name, window", [("livecodebench_v5", ("2024-08-01", "2025-02-01")), ("livecodebench_v6", ("2025-02-01", "2025-05-01"))]
)
def test_livecodebench_windows(name, window):
    ids = {p.id for p in ev.load_benchmark(f"{name}={lcb.FILE}", cfg())}
    assert ids == {r["question_id"] for r in lines(lcb.FILE) if window[0] <= r["contest_date"][:10] < window[1]} and ids


def test_livecodebench_tests_are_unpacked_once_a_problem(monkeypatch):
    """Whatever order the responses come in; and dropped after a problem's last response."""
    problems, unpacked = ev.load_benchmark(str(lcb.FILE), cfg()), []
    monkeypatch.setattr(ev, "livecodebench_tests", lambda row: unpacked.append(row) or {"inputs": ["1"], "outputs": ["1"]})

    class Pool:
        closed = False

        def submit(self, item):
            future = Future()
            future.set_result(rewards.Reward(1.0, True, "correct"))
            return future

    scorer = ev.Scorer(Pool(), lambda row: None, 1)
    for problem in problems:
        problem.waiting = 4
    for sample in range(4):
        for problem in problems:
            scorer.submit({"benchmark": "b", "id": problem.id, "sample": sample, "response": ""}, problem)
    scorer.wait()
    assert len(unpacked) == len(problems) and all(p.tests is None and p.waiting == 0 for p in problems)


@pytest.mark.parametrize("response, reason, correct, answer", [
    ("so it is 12", "stop", False, "12"), ("so it is 12", "length", False, None), ("\\boxed{12} and", "length", False, "12"), ("it is 12", "length", True, "12")])
def test_the_last_number_of_what_was_cut_is_no_answer(response, reason, correct, answer):
    """It would vote in maj@n."""
    class Pool:
        closed = False

        def submit(self, item):
            future = Future()
            future.set_result(rewards.Reward(1.0, True, "correct") if correct else rewards.Reward(-1.0, False, "wrong"))
            return future

    problem, written = ev.Problem("b", "0", [], "math_verify", "13"), []
    problem.waiting = 1
    scorer = ev.Scorer(Pool(), written.append, 1)
    scorer.submit({"benchmark": "b", "id": "0", "sample": 0, "response": response, "finish_reason": reason}, problem)
    scorer.wait()
    assert [row["answer"] for row in written] == [answer]


def test_retrained_weights_under_an_old_name_are_told(tmp_path):
    prints = [ev.model_fingerprint(toy.make_model(str(tmp_path / "model"), seed=seed)) for seed in (0, 1, 0)]
    assert prints[0] == prints[2] != prints[1] and ev.model_fingerprint("a/hub-name") == ev.model_fingerprint("another/name")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model_fingerprint": prints[0], "problems": {}}))
    assert ev.changes(tmp_path, {"model_fingerprint": prints[1], "problems": {}}) == [f"model_fingerprint was {prints[0]!r}, now {prints[1]!r}"]


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_private_tests_cannot_run_code(tmp_path):
    packed = base64.b64encode(zlib.compress(pickle.dumps(Evil(tmp_path / "owned")))).decode()
    pickle.loads(zlib.decompress(base64.b64decode(packed)))  # the attack is real
    assert (tmp_path / "owned").exists()
    (tmp_path / "owned").unlink()
    with pytest.raises(ValueError, match="refused to load posix.system"):
        ev.livecodebench_tests({"private_test_cases": packed})
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "damage",
    [
        "x",
        "!!!",
        base64.b64encode(b"not zlib").decode(),
        base64.b64encode(zlib.compress(b"not pickle")).decode(),
        base64.b64encode(zlib.compress(pickle.dumps("not json"))).decode(),
        base64.b64encode(zlib.compress(pickle.dumps(7))).decode(),
        "5",
        '"x"',
        '[{"input": "1", "output": "2", "testtype": "functional"}]',
        '[{"input": "1"}]',
        "[1]",
        "[]",
    ],
)
def test_damaged_private_tests_are_named(damage):
    with pytest.raises(ValueError):
        ev.livecodebench_tests({"private_test_cases": damage})


def fenced(program: str) -> str:
    return f"<think>\nFirst idea:\n```python\nprint('no')\n```\n</think>\nHere it is.\n\n```python\n{program}\n```\nIt is linear."


@pytest.mark.needs("time")
@pytest.mark.slow
def test_livecodebench_verdicts():
    """Every verdict of 24 problems' programs: right, wrong, slow, crashing, format-breaking."""
    cases = []
    for problem, loaded in zip(lcb.PROBLEMS, ev.load_benchmark(str(lcb.FILE), cfg()), strict=True):
        truth = ev.ground_truth(loaded)
        cases.append((problem.name, "right", fenced(problem.right), truth, True))
        cases += [(problem.name, kind, fenced(program), truth, passes) for kind, (program, passes) in problem.others.items()]
    first, truth = lcb.PROBLEMS[0].right, ev.ground_truth(ev.load_benchmark(str(lcb.FILE), cfg(limit=1))[0])
    cases += [
        ("format", "no block", f"</think>{first}", truth, False),
        ("format", "empty", "", truth, False),
        ("format", "first right, last wrong", fenced(first) + fenced("print(0)"), truth, False),
        ("format", "first wrong, last right", fenced("print(0)") + fenced(first), truth, True),
        ("format", "no language", f"```\n{first}\n```", truth, True),
    ]
    with ev.reward_pool(2, cfg()) as pool:
        got = pool.score_batch([dict(data_source="livecodebench", response=r, ground_truth=t) for _, _, r, t, _ in cases])
    wrong = [
        f"{name}, {kind}: {reward} but passes={passes}"
        for (name, kind, _, _, passes), reward in zip(cases, got)
        if reward.correct != passes
    ]
    assert not wrong, "\n".join(wrong)
    assert len(cases) >= 80


# ------------------------------------------------------------------------------------------------------------- sampling
def draw(scores: torch.Tensor, seeds, prompt=None, steps: int = 1, **knobs) -> torch.Tensor:
    """(B, steps) tokens sampled from fixed scores (B, V)."""
    ids = torch.zeros(len(scores), 1, dtype=torch.long) if prompt is None else prompt
    penalty = knobs.pop("repetition_penalty", 1.0)
    process = SeededSampler(list(seeds), penalty=penalty, real=torch.ones_like(ids, dtype=torch.bool), **knobs)
    width = ids.shape[1]
    for _ in range(steps):
        ids = torch.cat([ids, process(ids, scores).argmax(-1, keepdim=True)], 1)
    return ids[:, width:]


@pytest.mark.slow
def test_sampler_draws_the_distribution():
    scores, count = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0]), 20000
    for knobs in (
        {"temperature": 1.0, "top_p": 1.0},
        {"temperature": 0.6, "top_p": 0.8},
        {"temperature": 1.5, "top_p": 1.0, "top_k": 3},
    ):
        seen = draw(scores.repeat(count, 1), range(count), **knobs).flatten().bincount(minlength=6) / count
        probs = (scores / knobs["temperature"]).softmax(0)
        if "top_k" in knobs:
            probs[knobs["top_k"] :] = 0
        probs = torch.where(probs.cumsum(0) - probs < knobs["top_p"], probs, 0.0)  # scores are in falling order
        probs /= probs.sum()
        assert torch.equal(seen > 0, probs > 0) or (probs[seen == 0] < 1e-3).all()
        assert ((seen - probs).abs() < 4 * (probs * (1 - probs) / count).sqrt() + 1e-9).all(), knobs


@pytest.mark.slow
@pytest.mark.parametrize("spread", [3.0, 0.01], ids=["narrow", "flat"])
def test_nucleus_of_a_large_vocabulary(spread):
    """Peaked or flat (a nucleus of more tokens than are ranked at first), alone or in one batch: the smallest set that reaches top_p."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.cat([torch.randn(1, 5000, generator=generator) * spread, torch.randn(1, 5000, generator=generator) * 3])
    mass = scores.double().softmax(-1)
    rank = mass.argsort(descending=True)
    nucleus = [set(row[: int((m[row].cumsum(0) < 0.95).sum()) + 1].tolist()) for row, m in zip(rank, mass)]
    drawn = draw(scores[[0, 1]].repeat(400, 1), range(800), steps=4, temperature=1.0, top_p=0.95)
    for row in (0, 1):
        seen = set(drawn[row::2].flatten().tolist())
        assert seen <= nucleus[row] and len(seen) > 0.1 * min(len(nucleus[row]), 1600)
    assert torch.equal(draw(scores[1:], [1], steps=4, temperature=1.0, top_p=0.95), drawn[1:2])


def test_sample_depends_on_its_seed_alone():
    scores = torch.randn(5, 50, generator=torch.Generator().manual_seed(0))
    whole = draw(scores, range(5), steps=4, temperature=1.0)
    for row in range(5):
        assert torch.equal(draw(scores[row : row + 1], [row], steps=4, temperature=1.0), whole[row : row + 1])
    assert not torch.equal(draw(scores, range(5, 10), steps=4, temperature=1.0), whole)


def test_greedy_and_repetition_penalty_like_transformers():
    from transformers import RepetitionPenaltyLogitsProcessor

    scores, prompt = torch.randn(3, 40, generator=torch.Generator().manual_seed(1)), torch.tensor([[1, 5], [7, 7], [0, 39]])
    ids = prompt
    for _ in range(4):
        ids = torch.cat([ids, RepetitionPenaltyLogitsProcessor(1.7)(ids, scores.clone()).argmax(-1, keepdim=True)], 1)
    assert torch.equal(draw(scores, range(3), prompt, 4, temperature=0.0, repetition_penalty=1.7), ids[:, 2:])


def test_seeds_differ_by_problem_sample_and_seed():
    seeds = {ev.seed_of(s, p, k) for s in range(3) for p in ("a", "b", "1") for k in range(5)}
    assert len(seeds) == 45 and all(0 <= s < 2**63 for s in seeds) and ev.seed_of(0, "a", 1) == ev.seed_of(0, "a", 1)


def test_yarn_is_in_force(model):
    """Rope parameters for both engines; the frequencies are those of the paper's formula (arXiv 2309.00071, section 3.2)."""
    from transformers import AutoConfig

    config, knobs = AutoConfig.from_pretrained(model), cfg(model=str(model), yarn_factor=2.5)
    override, theta = ev.rope_override(config, knobs), config.rope_parameters["rope_theta"]
    original = config.max_position_embeddings
    assert override["max_position_embeddings"] == 2.5 * original and override["rope_parameters"]["rope_type"] == "yarn"
    engine = ev.HFEngine(ev.Model(str(model), config, override, None, [0], 0), 64, knobs)
    name, lowest, scale = engine.rope()
    dim = config.head_dim
    plain = [theta ** (-2 * i / dim) for i in range(dim // 2)]
    turn = lambda beta: dim * math.log(original / (beta * 2 * math.pi)) / (2 * math.log(theta))  # noqa: E731
    low, high = max(math.floor(turn(32)), 0), min(math.ceil(turn(1)), dim - 1)
    ramp = [min(max((i - low) / max(high - low, 0.001), 0), 1) for i in range(dim // 2)]
    expected = min(f * (1 - r) + f / 2.5 * r for f, r in zip(plain, ramp))
    assert lowest == pytest.approx(expected, rel=1e-5) and scale == pytest.approx(0.1 * math.log(2.5) + 1, rel=1e-6)
    assert (
        ev.rope_override(type("Qwen", (), {"rope_parameters": {"rope_theta": 1e6}, "max_position_embeddings": 40960}), knobs)[
            "max_position_embeddings"
        ]
        == 81920
    )  # the paper's 64K run


# --------------------------------------------------------------------------------------------------------------- scores
def test_pass_at_k_is_the_mean_over_subsets():
    for n, c in itertools.product(range(1, 8), range(8)):
        for k in range(1, n + 1) if c <= n else ():
            subsets = list(itertools.combinations([i < c for i in range(n)], k))
            assert scores.pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


def rows_of(*answers, truth="1"):
    return [
        dict(
            answer=a,
            correct=a == truth,
            status="correct" if a == truth else "wrong" if a else "no_answer",
            tokens=10,
            finish_reason="stop",
        )
        for a in answers
    ]


@pytest.mark.parametrize(
    "answers, same, point",
    [
        ("1 1 2", (), 1),
        ("1 2 2", (), 0),
        ("1 2", (), 0.5),
        ("1 2 3", (), 1 / 3),
        ("2 3", (), 0),
        ("1 1 0.5 1/2 .5", [("0.5", "1/2"), (".5", "0.5"), (".5", "1/2")], 0),
        ("1 1 0.5 1/2 .5", (), 1),
        ("- - 1", (), 1),
        ("- -", (), 0),
        ("1 1 1/2 0.5", [("0.5", "1/2")], 0.5),
    ],
)
def test_majority(answers, same, point):
    rows = rows_of(*(None if a == "-" else a for a in answers.split()))
    for seed in range(5):
        random.Random(seed).shuffle(rows)  # the order of the samples does not matter
        assert scores.majority(rows, set(same)) == pytest.approx(point)


@pytest.mark.slow
def test_majority_groups_by_mathematics():
    groups = {"b": {"p": rows_of("\\frac{1}{2}", "0.5", "1/2", "1", "1"), "q": rows_of("(1,2)", "(1, 2)", "7", "8")}}
    with ev.reward_pool(2, cfg()) as pool:
        same = scores.same_answers(groups, pool)
    assert {frozenset(pair) for pair in same} == {
        frozenset(pair) for pair in itertools.combinations(["\\frac{1}{2}", "0.5", "1/2"], 2)
    } | {frozenset(["(1,2)", "(1, 2)"])}
    result = scores.summarise(groups["b"], [1], same, False)
    assert result["maj"] == 0


def simulated(rng: random.Random, problems=30, n=8) -> dict[str, list[dict]]:
    return {
        str(i): rows_of(*("1" if rng.random() < p else "2" for _ in range(n)), truth="1")
        for i, p in enumerate(rng.betavariate(0.6, 0.6) for _ in range(problems))
    }


def test_stderr_is_that_of_a_bootstrap_over_problems():
    groups, rng = simulated(random.Random(1)), random.Random(2)
    result = scores.summarise(groups, [1, 4], set(), False)
    rates = [statistics.fmean(r["correct"] for r in rows) for rows in groups.values()]
    assert result["avg"] == pytest.approx(statistics.fmean(rates)) == pytest.approx(result["pass@1"])
    means = [statistics.fmean(rng.choices(rates, k=len(rates))) for _ in range(4000)]
    assert result["stderr"] == pytest.approx(statistics.stdev(means), rel=0.06)
    low, high = sorted(means)[100], sorted(means)[3900]
    assert result["ci95"] == pytest.approx([low, high], abs=0.03)


def test_stderr_resample_is_the_spread_of_new_runs():
    master = random.Random(3)
    chances = [master.betavariate(0.6, 0.6) for _ in range(30)]
    averages, claimed = [], []
    for seed in range(400):
        rng = random.Random(seed)
        groups = {str(i): rows_of(*("1" if rng.random() < p else "2" for _ in range(8))) for i, p in enumerate(chances)}
        result = scores.summarise(groups, [1], set(), True)
        averages.append(result["avg"])
        claimed.append(result["stderr_resample"] ** 2)
    assert math.sqrt(statistics.fmean(claimed)) == pytest.approx(statistics.stdev(averages), rel=0.1)


def test_interval_covers():
    """The clustered 95 % interval holds the population's mean in about 95 % of the benchmarks drawn from it."""
    hits = 0
    for seed in range(400):
        result = scores.summarise(simulated(random.Random(seed)), [1], set(), True)
        hits += result["ci95"][0] <= 0.5 <= result["ci95"][1]
    assert 0.92 < hits / 400 < 0.98


@pytest.mark.parametrize("dof, value", [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (29, 2.045), (499, 1.965)])
def test_student_quantile(dof, value):
    assert scores.student_t975(dof) == pytest.approx(value, abs=0.02 if dof == 3 else 0.002)


def test_summary_counts_what_is_no_verdict_apart():
    rows = rows_of("1", "1", "2", None)
    rows[2] |= dict(status="verifier_timeout", finish_reason="length", tokens=1000)
    rows.append(rows_of("3")[0] | dict(status="sandbox_error"))
    result = scores.summarise({"p": rows}, [1, 2], set(), False)
    assert (result["verifier_errors"], result["verifier_timeouts"], result["truncated"], result["no_answer"]) == (1, 1, 0.2, 0.2)
    assert result["tokens_mean"] == 208 and result["tokens_p95"] == 1000 and result["stderr"] is None and result["samples"] == 5
    table = scores.markdown({"x": result})
    assert "40.0 ± –" in table and "1 / 1" in table and "20.0 %" in table


def test_interval_where_nothing_or_everything_is_right():
    """0 of 30: the upper end is the rate at which seeing none has a chance of 2.5 %."""
    none, every = (scores.summarise({str(i): rows_of(a, a) for i in range(30)}, [1], set(), False)["ci95"] for a in ("2", "1"))
    assert none[0] == 0 and (1 - none[1]) ** 30 == pytest.approx(0.025) and every == pytest.approx([1 - none[1], 1])


def test_compare_is_paired(tmp_path):
    rates = [[], []]
    for at, name in enumerate("ab"):
        counts = {str(i): [min(8, i % 7 + at), 8] for i in range(20)} | {f"only {name}": [8, 8]}
        rates[at] = [100 * c / n for key, (c, n) in counts.items() if "only" not in key]
        results = {"bench": {"per_problem": counts}, "one": {"per_problem": {"1": [at, 1]}}, name: {"per_problem": {"1": [1, 1]}}}
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(
            json.dumps(results)
        )
    difference = [x - y for x, y in zip(*rates)]
    out = run("--compare", tmp_path / "a", tmp_path / "b").stdout
    mean, stderr = statistics.fmean(difference), statistics.stdev(difference) / math.sqrt(20)
    assert f"{mean:+.1f} ± {stderr:.1f}" in out and "| bench | 20 |" in out and "only the problems in both" in out
    assert "| one | 1 | 0.0 | 100.0 | -100.0 ± – | – |" in out and "| all problems | 21 |" in out
    assert "Settings are not compared: no config.yaml in A and B." in out
    for name, temperature in (("a", 0.6), ("b", 1.0)):
        settings = vars(cfg(temperature=temperature, n=8)) | {"problems": {"bench": name, "one": "same"}, "output_dir": name}
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump(settings))
    out = run("--compare", tmp_path / "a", tmp_path / "b").stdout
    assert out.splitlines()[-1] == "Settings that differ: temperature 0.6 and 1.0; problems or prompts of bench."
    assert run("--compare", tmp_path / "a", tmp_path / "a").stdout.splitlines()[-1] == "Settings that differ: none."
    assert "no readable results.json" in run("--compare", tmp_path, tmp_path / "b", check=False).stderr


# ------------------------------------------------------------------------------------------------- scoring while generating
def test_slow_verifier_does_not_hold_the_engine():
    problem = ev.Problem("b", "0", [], "math_verify", "1")

    class SlowPool:
        closed = False

        def __init__(self):
            self.threads, self.most, self.now = ThreadPoolExecutor(8), 0, 0

        def submit(self, item):
            self.now += 1
            self.most = max(self.most, self.now)
            return self.threads.submit(self.work)

        def work(self):
            time.sleep(0.02)
            self.now -= 1
            return rewards.Reward(1.0, True, "correct")

    written, pool = [], SlowPool()
    scorer = ev.Scorer(pool, written.append, 1)
    began = time.monotonic()
    for sample in range(60):
        scorer.submit({"benchmark": "b", "id": "0", "sample": sample, "response": "\\boxed{1}"}, problem)
    assert time.monotonic() - began < 0.2  # generation goes on at once
    scorer.wait()
    assert len(written) == 60 and {row["sample"] for row in written} == set(range(60)) and pool.most <= 5


def test_journal_after_a_crash(tmp_path):
    journal = ev.Journal(tmp_path, 0)
    row = dict(benchmark="b", id="x", sample=0, response="é\u2028\nline", finish_reason="stop", tokens=3)
    journal.write(row, row | {"sample": 1})
    journal.write({"benchmark": "b", "id": "x", "sample": 0, "correct": True, "status": "correct"})
    with open(journal.path, "ab") as file:
        file.write(b'{"benchmark": "b", "id": "x", "sample": 2, "respo')
    (tmp_path / "generations.rank1.jsonl").write_text('{"sample": 1}\nnonsense\n' + json.dumps(row | {"sample": 7}) + "\n")
    rows, bad = ev.Journal.read(tmp_path)
    assert {key[2]: "status" in r for key, r in rows.items()} == {0: True, 1: False, 7: False} and len(bad) == 3
    assert rows["b", "x", 0]["response"] == row["response"]
    ev.Journal(tmp_path, 0).write(row | {"sample": 2})  # the half line is cut off, not continued
    rows, bad = ev.Journal.read(tmp_path)
    assert sorted(key[2] for key in rows) == [0, 1, 2, 7] and len(bad) == 2


# --------------------------------------------------------------------------------------------------------- whole program
FLAGS = ("--n", 4, "--max_tokens", 12, "--k", "1,2,4", "--temperature", 1, "--top_p", 1, "--workers", 1)


@pytest.mark.needs("time")
@pytest.mark.slow
def test_hf_stopped_three_times_and_two_ranks(model, sums, tmp_path):
    """A run that is stopped three times, and one over two ranks, end with the very files of an undisturbed one. SIGTERM
    and Ctrl-C (to the whole process group, as a terminal sends it) end it in one line."""
    flags = ("--model", model, "--data", sums, "--engine", "hf", "--hf_batch", 3, *FLAGS)
    whole = run(*flags, "--output_dir", tmp_path / "whole")
    assert "| sums " in whole.stdout
    stops = 0
    log, count = tmp_path / "killed/generations.jsonl", lambda: log.read_bytes().count(b"\n") if log.exists() else 0
    for more, number in ((4, signal.SIGKILL), (10, signal.SIGTERM), (10, signal.SIGINT)):  # of 52 generated and 52 scored
        stop_at = count() + more
        said = tmp_path / f"{number.name}.log"
        process = forked.start("eval", *flags, "--output_dir", tmp_path / "killed", out=os.devnull, err=said, session=True)
        while process.exitcode is None and count() < stop_at:
            time.sleep(0.01)
        stops += process.exitcode is None
        os.killpg(process.pid, number)
        process.join()
        error = said.read_text()
        if number != signal.SIGKILL:
            assert process.exitcode == 128 + number and "Traceback" not in error, error
            assert error.splitlines()[-1].startswith(f"eval.py: {number.name}: stopped"), error
            assert error.count("eval.py: ") == 1
        with open(log, "ab") as file:
            file.write(b'{"benchmark": "sums", "id": "3", "sam')
    assert stops == 3
    run(*flags, "--output_dir", tmp_path / "killed")
    run(*flags, "--output_dir", tmp_path / "ranks", ranks=2)
    for name in ("generations.jsonl", "results.json"):
        expected = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "killed" / name).read_bytes() == expected, f"killed: {name}"
        assert (tmp_path / "ranks" / name).read_bytes() == expected, f"two ranks: {name}"
    rows = lines(tmp_path / "whole/generations.jsonl")
    assert len(rows) == 13 * 4 and {
        "benchmark",
        "id",
        "sample",
        "response",
        "finish_reason",
        "tokens",
        "correct",
        "status",
    } <= set(rows[0])
    assert len({row["response"] for row in rows}) > 40  # seeds differ
    assert not list((tmp_path / "ranks").glob("generations.rank*"))

    # more samples go on from there; other settings are refused, with the difference
    run(*flags, "--n", 5, "--output_dir", tmp_path / "whole")
    assert lines(tmp_path / "whole/generations.jsonl")[0] == rows[0] and len(lines(tmp_path / "whole/generations.jsonl")) == 65
    refused = run(*flags, "--temperature", 0.7, "--seed", 3, "--output_dir", tmp_path / "whole", check=False)
    assert refused.returncode == 2 and "temperature was 1.0, now 0.7" in refused.stderr and "seed was 0, now 3" in refused.stderr
    assert refused.stderr.count("\n") == 1
    (tmp_path / "other.jsonl").write_text(sums.read_text().replace("+", "-"))
    refused = run(*flags, "--data", f"sums={tmp_path}/other.jsonl", "--output_dir", tmp_path / "whole", check=False)
    assert "sums had other problems or prompts" in refused.stderr

    # the generations can be scored again without the model
    again = run(
        "--score_only", tmp_path / "ranks/generations.jsonl", "--data", sums, "--output_dir", tmp_path / "again", "--k", "1,2,4"
    )
    old, new = (json.loads((tmp_path / f / "results.json").read_text()) for f in ("ranks", "again"))
    assert old == new and "sums" in again.stdout


@pytest.mark.slow
@pytest.mark.needs("time", "vllm")
def test_vllm_continues_over_two_ranks_and_agrees_with_hf(model, tmp_path):
    """The prompts are together longer than what the engine reads in one step (see VLLMEngine)."""
    rows = [{"problem": f"{a}+{a % 7}={'?' * (380 + a)}", "answer": "3"} for a in range(26)]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ("--model", model, "--data", tmp_path / "long.jsonl", "--engine", "vllm", *FLAGS)
    whole = run(*flags, "--yarn_factor", 2, "--output_dir", tmp_path / "whole")
    shown = re.search(r"YaRN in force: .* lowest frequency (\S+), attention scale (\S+)", whole.stdout)
    rows = lines(tmp_path / "whole/generations.jsonl")
    (tmp_path / "ranks").mkdir()
    (tmp_path / "ranks/config.yaml").write_text((tmp_path / "whole/config.yaml").read_text())
    with open(tmp_path / "ranks/generations.jsonl", "w") as file:  # as a killed run leaves it: some scored, some not, half a line
        for at, row in enumerate(rows[:20]):
            keep = (
                row if at % 3 else {key: row[key] for key in ("benchmark", "id", "sample", "response", "finish_reason", "tokens")}
            )
            file.write(json.dumps(keep) + "\n")
        file.write('{"bench')
    run(*flags, "--yarn_factor", 2, "--output_dir", tmp_path / "ranks", ranks=2)
    assert (tmp_path / "ranks/results.json").read_bytes() == (tmp_path / "whole/results.json").read_bytes()
    assert lines(tmp_path / "ranks/generations.jsonl") == rows

    # greedy by top_p or top_k, which must reach the engine for that, as the penalty must
    common = ("--temperature", 1, "--n", 1, "--k", 1, "--yarn_factor", 2, "--repetition_penalty", 1.5)
    texts, greedy = {}, {"hf": ("--top_p", 1e-6), "vllm": ("--top_k", 1)}
    for engine in ("hf", "vllm"):
        done = run(*flags, *common, *greedy[engine], "--engine", engine, "--output_dir", tmp_path / engine)
        texts[engine] = [row["response"] for row in lines(tmp_path / engine / "generations.jsonl")]
        assert re.search(r"lowest frequency (\S+), attention scale (\S+)", done.stdout).groups() == shown.groups()
    assert texts["hf"] == texts["vllm"]


@pytest.mark.slow
def test_responses_end_at_the_context(model, sums, tmp_path):
    """max_tokens within the context, but not together with a prompt: each response ends where the context does."""
    from transformers import AutoConfig, AutoTokenizer

    context, tokenizer = AutoConfig.from_pretrained(model).max_position_embeddings, AutoTokenizer.from_pretrained(model)
    flags = ("--model", model, "--data", sums, "--engine", "hf", "--limit", 2, "--n", 1, "--temperature", 0)
    done = run(*flags, "--max_tokens", context, "--output_dir", tmp_path / "out")
    assert "2 of 2 prompts and max_tokens" in done.stderr
    problems = ev.load_problems(cfg(data=str(sums), limit=2))
    ev.render_all(problems, tokenizer, cfg())
    rows = lines(tmp_path / "out/generations.jsonl")
    assert "length" in {row["finish_reason"] for row in rows}
    for row, problem in zip(rows, problems["sums"], strict=True):
        assert row["finish_reason"] == "stop" or row["tokens"] == context - len(problem.ids)


# ----------------------------------------------------------------------------------------------------------- score_only
@pytest.mark.slow
def test_score_only_takes_rows_of_any_tool(tmp_path):
    rows = [
        {"id": "a", "response": "\\boxed{3}", "answer": "3"},
        {"id": "a", "response": "\\boxed{4}", "answer": "3"},
        {
            "id": "b",
            "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "\\boxed{\\frac12}"}],
            "ground_truth": "0.5",
        },
        {
            "id": "b",
            "response": ["\\boxed{1/2}"],
            "reward_model": {"ground_truth": "0.5"},
            "data_source": "math_dapo_math_verify",
        },
        {"id": "a"},
        {"id": "c", "response": "x"},
        [1],
        {"id": "d", "response": "x", "answer": "1", "data_source": "nonsense"},
    ]
    source = tmp_path / "mine.jsonl"
    source.write_text("".join(json.dumps(r) + "\n" for r in rows) + '{"id": "half')
    done = run("--score_only", source, "--output_dir", tmp_path / "out")
    result = json.loads((tmp_path / "out/results.json").read_text())["mine"]
    assert result["per_problem"] == {"a": [1, 2], "b": [2, 2]} and result["avg"] == 0.75 and result["bad_rows"] == 5
    for number in (5, 6, 7, 8, 9):
        assert f"mine.jsonl:{number}: " in done.stderr
    (tmp_path / "bare.jsonl").write_text('{"id": "2099-I-2", "response": "\\\\boxed{119}"}\n{"id": "nothing", "response": "x"}\n')
    aime = f"aime24={ROWS / 'aime24.jsonl'}"
    run("--score_only", tmp_path / "bare.jsonl", "--data", aime, "--output_dir", tmp_path / "joined")
    joined = json.loads((tmp_path / "joined/results.json").read_text())["aime24"]
    assert joined["per_problem"] == {"2099-I-2": [1, 1]} and joined["bad_rows"] == 1
    packed = re.search('id="t0-0">(.*?)</script>', (tmp_path / "joined/report.html").read_text())[1]  # its prompt
    asked = next(m["problem"] for line in (ROWS / "aime24.jsonl").open() if (m := json.loads(line)["meta"])["unique_id"] == "2099-I-2")
    assert asked[:60] in zlib.decompress(base64.b64decode(packed)).decode()
    refused = run("--score_only", tmp_path / "out/generations.jsonl", "--output_dir", tmp_path / "out", check=False)
    assert refused.returncode == 2 and "choose another output_dir" in refused.stderr


def test_a_null_benchmark_is_that_of_the_file():
    """Parquet gives every row the columns of all."""
    problem, _ = ev.scored_row({"id": "a", "benchmark": None, "response": "x", "answer": "1"}, "stem", 0, {}, cfg())
    assert problem.benchmark == "stem"


@pytest.mark.slow
def test_scoring_and_comparing_start_without_torch(tmp_path):
    """torch and transformers take 10 s to import; neither these, nor --help, nor a mistake in a flag needs them."""
    (tmp_path / "x.jsonl").write_text('{"id": "a", "response": "\\\\boxed{\\\\frac12}", "answer": "0.5"}\n')
    code = (
        "import sys; sys.modules |= dict(torch=None, transformers=None, vllm=None); "
        f"sys.path.insert(0, {str(ROOT)!r}); sys.argv[0] = 'eval.py'; import eval; eval.main()"
    )
    for flags in (["--score_only", tmp_path / "x.jsonl", "--output_dir", tmp_path / "out"], ["--compare", tmp_path / "out", tmp_path / "out"]):
        done = subprocess.run([sys.executable, "-c", code, *map(str, flags)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and "| x " in done.stdout, done.stderr


# --------------------------------------------------------------------------------------------------------------- report
def test_report_holds_every_sample_and_no_foreign_markup(tmp_path):
    hostile = "<script>alert(1)</script></script><img src=x onerror=alert(1)>\u2028\ud800 é"
    problems = [{"id": hostile, "code": False, "truth": hostile, "samples": [["wrong", 3, True, hostile, -1.0]]}]
    result = scores.summarise({"p": rows_of("2", "1")}, [1], set(), False)
    meta = {
        "title": hostile,
        "settings": [["model", hostile]],
        "table": scores.table({hostile: result}),
        "benchmarks": [{"name": hostile, "avg": 0.5, "ci95": None, "problems": problems}],
    }
    report.write_html(tmp_path / "r.html", meta, [("0-0", "prompt"), ("0-0-0", hostile)])
    text = (tmp_path / "r.html").read_text()
    assert (
        len(re.findall("<script", text)) == 4
        and "<img" not in text
        and "http" not in text.replace("http://www.w3.org/1998/Math/MathML", "").replace("http-equiv", "")
    )
    script = re.search(r"<script>(.*?)</script>", text, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}'" in text
    assert json.loads(re.search(r'id="meta">(.*?)</script>', text, re.S)[1])["title"].startswith("<script>alert(1)</script>")
    packed = re.search(r'id="t0-0-0">([A-Za-z0-9+/=]*)</script>', text)[1]
    assert zlib.decompress(base64.b64decode(packed)).decode() == hostile.replace("\ud800", "?")
    report.write_png(tmp_path / "r.png", {"x": result}, "title")
    assert (tmp_path / "r.png").read_bytes()[:4] == b"\x89PNG"


PROBE = """(async () => {
    const table = [...document.querySelectorAll('#summary tr')].map((row) => [...row.children].map((cell) => cell.textContent));
    for (let i = 0; i < 100 && !document.querySelector('#sample h2'); i++) await new Promise((done) => setTimeout(done, 50));
    const box = document.getElementById('problems').getBoundingClientRect();
    return {table, opened: document.querySelector('#sample h2').textContent, settings: document.getElementById('settings').textContent,
            width: document.getElementById('summary').scrollWidth - document.getElementById('summary').clientWidth,
            screens: box.height / innerHeight, squares: document.querySelectorAll('#problems button').length};
})()"""


@pytest.mark.slow
@pytest.mark.needs("chromium")
def test_report_in_a_browser(tmp_path):
    """1300 pixels less a scroll bar hold the widest table; cells are the terminal's, to the last digit; 164 problems with one sample are one
    screen; the first wrong sample is open."""
    from eval_report import Browser

    rates = [0, 1 / 8, 1 / 8, 0]  # on average 6.25 %, which is 6.2 in Python and 6.3 in JavaScript
    many = {name: {str(i): rows_of(*("1" if s < rate * 64 else "2" for s in range(64))) for i, rate in enumerate(rates)}
            for name in ("aime24", "livecodebench_v6")}
    one = {"humaneval": {f"HumanEval/{i}": rows_of("2" if i in (5, 7) else "1") for i in range(164)}}
    seen = []
    for groups in (many, one):
        ks = [1, 8, 64] if groups is many else [1]
        results = {name: scores.summarise(part, ks, set(), False) for name, part in groups.items()}
        for result in results.values():  # as wide as they come
            result |= {"tokens_mean": 27_111.0, "tokens_p95": 81_920, "truncated": 0.125, "verifier_timeouts": 1234}
        problems = {name: [{"id": i, "code": False, "truth": "1", "samples": [[r["status"], 10, False, r["answer"], 1.0] for r in rows]}
                           for i, rows in part.items()] for name, part in groups.items()}
        meta = {"title": "t", "settings": [["prompt_suffix", "Box it."], ["system_prompt", ""]], "table": scores.table(results),
                "benchmarks": [{"name": n, "avg": r["avg"], "ci95": r["ci95"], "problems": problems[n]} for n, r in results.items()]}
        texts = [(f"{b}-{p}" + f"-{s}" * (s >= 0), "text") for b, part in enumerate(problems.values())
                 for p, problem in enumerate(part) for s in range(-1, len(problem["samples"]))]
        report.write_html(tmp_path / "r.html", meta, texts)
        browser = Browser(shutil.which("chromium") or "google-chrome")
        try:
            browser.call("Emulation.setDeviceMetricsOverride", width=1285, height=900, deviceScaleFactor=1, mobile=False)
            browser.call("Page.navigate", url=(tmp_path / "r.html").as_uri())
            while browser.js("document.readyState !== 'complete' || !document.querySelector('#summary tr')"):
                time.sleep(0.05)
            seen.append(browser.js(PROBE) | {"expected": meta["table"], "markdown": scores.markdown(results)})
        finally:
            browser.close()
    for page in seen:
        assert page["table"] == page["expected"] and page["width"] <= 0
        for line, text in zip(page["table"][1:], page["markdown"].splitlines()[2:], strict=True):
            assert [cell.strip() for cell in text.strip("|").split("|")] == line
        assert page["settings"] == "prompt_suffix Box it. · system_prompt none"
    assert "6.2 ±" in seen[0]["markdown"]
    assert (seen[0]["squares"], seen[1]["squares"]) == (4 * 64, 164) and seen[1]["screens"] < 0.5
    assert seen[0]["opened"] == "aime24 · 0 · sample 0" and seen[1]["opened"] == "humaneval · HumanEval/5 · sample 0"


# ------------------------------------------------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    "flags, parts",
    [
        (["--data", "aime42"], ["'aime42' is no file and no benchmark; did you mean 'aime2", "livecodebench_v6", "NAME=PATH"]),
        (["--tempratur", "1"], ["unknown option 'tempratur'; the nearest is 'temperature'"]),
        (["--n", "many"], ["n must be int, got 'many'"]),
        (["--n", "0"], ["n must be at least 1"]),
        (["--k", "8", "--n", "4"], ["1 <= k <= n = 4"]),
        (["--k", "x"], ["k must be a list of whole numbers"]),
        (["--engine", "tgi"], ["engine must be one of auto, vllm, hf"]),
        (["--yarn_factor", "0.5"], ["yarn_factor must be above 1"]),
        (["--top_p", "0"], ["top_p must be above 0 and at most 1, got 0"]),
        (["--config", "none.yaml"], ["--config none.yaml"]),
        (["--compare", "a"], ["compare needs two folders"]),
        (["--n"], ["n must be int, got ''"]),
        (["--score_only", "none.jsonl"], ["none.jsonl does not exist"]),
        (["--model", "{tmp}/none"], ["cannot be read as a Hugging Face model"]),
        (["--data", "{tmp}/bad.jsonl"], ["bad.jsonl:2: not JSON"]),
        (["--data", "{tmp}/gold.jsonl"], ["gold.jsonl:1: no ground truth; expected"]),
        (["--data", "{tmp}/source.jsonl"], ["source.jsonl:1:", "math_verify"]),
        (["--data", "{tmp}/empty.jsonl"], ["has no rows"]),
        (["--data", "{tmp}/latin.jsonl"], ["latin.jsonl:2: not UTF-8", "save the file as UTF-8"]),
        (["--data", ""], ["data names no benchmark"]),
        (["--k", "0"], ["1 <= k"]),
        (["--workers", "-2"], ["workers must be 0 or more, got -2"]),
        (["--temperature", "-1"], ["temperature must be 0 or more"]),
        (["--model", "{tmp}/no_weights"], ["no_weights: no weights there"]),
        (["--model", "{tmp}/cut"], ["cut", "incomplete"]),
        (["--model", "{tmp}/no_shard"], ["no_shard", "No such file"]),
        (["--model", "{tmp}/no_tokenizer"], ["no usable tokenizer"]),
        (["--output_dir", "{tmp}/gold.jsonl"], ["output_dir", "gold.jsonl", "give another --output_dir"]),
        (["--output_dir", "{tmp}/gold.jsonl/x"], ["output_dir", "gold.jsonl", "give another --output_dir"]),
        (["--data", "{sums},{sums}"], ["two benchmarks are called sums"]),
        (["--max_tokens", "100000"], ["max_tokens 100000 is more than the context", "give --max_tokens", "--yarn_factor"]),
        (["--data", "livecodebench_v6={tmp}/old.jsonl"], ["old.jsonl has no rows of contests from 2025-02-01 to 2025-05-01"]),
    ],
)
def test_mistakes_are_one_line(flags, parts, model, sums, tmp_path, capsys, monkeypatch):
    (tmp_path / "bad.jsonl").write_text('{"problem": "x", "answer": "1"}\n{"problem": \n')
    (tmp_path / "gold.jsonl").write_text('{"problem": "x"}\n')
    (tmp_path / "source.jsonl").write_text('{"problem": "x", "answer": "1", "data_source": "poetry"}\n')
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "latin.jsonl").write_bytes(b'{"problem": "x", "answer": "1"}\n{"problem": "caf\xe9", "answer": "1"}\n')
    for name, without in (("no_weights", "safetensors"), ("no_tokenizer", "tokenizer"), ("cut", ""), ("no_shard", "")):
        (tmp_path / name).mkdir()
        for file in model.iterdir() if f"{{tmp}}/{name}" in flags else ():
            if not without or without not in file.name:
                (tmp_path / name / file.name).write_bytes(file.read_bytes()[:-1000 if name == "cut" and "safe" in file.name else None])
    (tmp_path / "no_shard/model.safetensors.index.json").write_text('{"weight_map": {"x": "model-2-of-2.safetensors"}}')
    (tmp_path / "old.jsonl").write_text(json.dumps(lcb.row(lcb.PROBLEMS[0], 0)) + "\n")
    base = (
        []
        if "--compare" in flags
        else [
            "--model",
            str(model),
            "--data",
            str(sums),
            "--engine",
            "hf",
            "--output_dir",
            str(tmp_path / "out"),
            "--max_tokens",
            "8",
        ]
    )
    given = [f.format(tmp=tmp_path, sums=sums) if isinstance(f, str) else f for f in flags]
    monkeypatch.setattr(sys, "argv", ["eval.py", *base, *given])
    with pytest.raises(SystemExit) as end:
        ev.main()
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.startswith("eval.py: ") and error.count("\n") == 1, error
    for part in parts:
        assert part in error, error
    assert not (tmp_path / "out").exists()


def test_hub_out_of_reach_says_what_to_give_instead(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    import datasets
    import huggingface_hub

    def unreachable(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    for name, part in (("math500", '{"problem", "answer"}'), ("livecodebench_v5", "private_test_cases")):
        with pytest.raises(SystemExit):
            ev.load_benchmark(name, cfg())
        error = capsys.readouterr().err
        assert f"--data {name}=FILE" in error and part in error and "no route to host" in error and error.count("\n") == 1


def test_hub_names_load_what_the_hub_holds(monkeypatch, tmp_path):
    """The rows of each hub data set as its card describes them, handed out by a hub that is not there."""
    import datasets
    import huggingface_hub

    rows = {
        ("HuggingFaceH4/aime_2024", None, "train"): {"id": 60, "problem": "p", "solution": "s", "answer": "204", "year": "2024"},
        ("math-ai/aime25", None, "test"): {"problem": "p", "answer": "70", "id": "0"},
        ("MathArena/hmmt_feb_2025", None, "train"): {"problem_idx": 1, "problem": "p", "answer": "103"},
        ("HuggingFaceH4/MATH-500", None, "test"): json.loads((ROWS / "math500.jsonl").read_text().splitlines()[1]),
        ("openai/gsm8k", "main", "test"): {"question": "p", "answer": "so\n#### 1,018"},
        ("some/other", None, "test"): {"question": "p", "answer": "x^2"},
    }
    monkeypatch.setattr(datasets, "load_dataset", lambda hub, config=None, split="": [rows[hub, config, split]])
    (tmp_path / "empty.jsonl").touch()

    def download(hub, file, repo_type):
        assert (hub, repo_type) == ("livecodebench/code_generation_lite", "dataset")
        return str(lcb.FILE if file == "test6.jsonl" else tmp_path / "empty.jsonl")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    names = "aime24,aime25,hmmt25,math500,gsm8k,some/other,livecodebench_v5,livecodebench_v6"
    problems = ev.load_problems(cfg(data=names))
    assert {name: part[0].truth for name, part in problems.items() if "code" not in name} == {
        "aime24": "204", "aime25": "70", "hmmt25": "103", "math500": "100", "gsm8k": "1018", "other": "x^2"}
    assert len(problems["livecodebench_v5"]) == 11 and len(problems["livecodebench_v6"]) == 6


def test_no_rank_generates_before_the_settings_are_written(tmp_path, monkeypatch):
    """Else rank 0, if it is late, meets generations without settings and refuses its own run."""
    settings, passed = vars(cfg(n=2)) | {"problems": {"b": "1"}}, threading.Event()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings | {"seed": 7}))  # of an older run that left nothing else
    monkeypatch.setattr(ev, "RANK", 1)
    thread = threading.Thread(target=lambda: (ev.open_output(tmp_path, settings), passed.set()), daemon=True)
    thread.start()
    assert not passed.wait(0.5)
    ev.write_text(tmp_path / "config.yaml", yaml.safe_dump(settings))
    assert passed.wait(20)


def test_out_of_gpu_memory_is_one_line(monkeypatch, capsys, tmp_path):
    def generates(cfg, out):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ev, "evaluate", generates)
    with pytest.raises(SystemExit) as end:
        ev.main(["--output_dir", str(tmp_path)])
    error = capsys.readouterr().err
    assert end.value.code == 1 and error.count("\n") == 1 and "hf_batch" in error


def test_ranks_have_gpus_of_their_own(capsys):
    assert [ev.own_gpus(rank, 3, 2, None) for rank in range(3)] == ["0,1", "2,3", "4,5"]
    assert [ev.own_gpus(rank, 2, 1, "4,6") for rank in range(2)] == ["4", "6"] and ev.own_gpus(1, 2, 1, "") == ""
    with pytest.raises(SystemExit):
        ev.own_gpus(0, 2, 2, "0,1,2")
    assert "need 4 GPUs" in capsys.readouterr().err


def parse(argv: list[str]) -> ev.Config:
    return ev.check_config(read_config(ev.Config, argv, ev.MOST_USED))


def test_recipe_and_flags(tmp_path):
    (tmp_path / "r.yaml").write_text("n: 8\nk: [1, 8]\ndata: [aime24, aime25]\nenable_thinking: false\ntemperature: 6e-1\n")
    got = parse(["--config", str(tmp_path / "r.yaml"), "--n=16", "--prompt_suffix", "Think: put it in \\boxed{}."])
    assert (got.n, got.k, got.data, got.enable_thinking, got.temperature) == (16, "1,8", "aime24,aime25", "false", 0.6)
    assert got.prompt_suffix == "Think: put it in \\boxed{}."
    assert yaml.safe_load(yaml.safe_dump(vars(got))) == vars(got)
