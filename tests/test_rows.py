"""Rows of every published format through the loaders, the verifiers and the sandbox. Those of tests/rows are written by us, in
the format that each file is called after; LiveCodeBench's are in livecodebench_24.jsonl (see livecodebench_problems.py)."""

import json
from pathlib import Path

import pytest

import eval as ev
import rewards
import sft
from klear.rows import truth_of

ROWS = Path(__file__).parent / "rows"
THINK = "<think>hm</think>\n"


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (ROWS / f"{name}.jsonl").read_text().splitlines()]


def truth(row: dict) -> str:
    return row["reward_model"]["ground_truth"]


@pytest.fixture(scope="module")
def pool():
    with rewards.RewardPool(2, test_timeout_s=20) as pool:
        yield pool


@pytest.mark.parametrize("name, ids, truths", [
    ("aime24", ["2099-I-1", "2099-I-2"], ["160", "119"]),
    ("aime25", ["0", "1"], ["72", "252"]),
    ("hmmt", ["0", "1", "2"], ["30", "6", "\\frac{8}{9}"]),
    ("gsm8k", ["0", "1", "2", "3"], ["27", "15", "26200", "-5"]),
    ("math500", None, ["\\left( 3, \\frac{\\pi}{2} \\right)", "100", "\\frac{2}{3}"]),
    ("mathsub", None, ["41", "6", "x^2 + 3x - 10"]),
])
def test_benchmark_rows(name, ids, truths):
    problems = ev.load_benchmark(str(ROWS / f"{name}.jsonl"), ev.Config())
    assert [p.truth for p in problems][:len(truths)] == truths
    assert len({p.id for p in problems}) == len(problems) == len(rows(name))
    assert ids is None or [p.id for p in problems] == ids
    assert all(p.messages[-1]["role"] == "user" and p.messages[-1]["content"] for p in problems)
    assert {p.data_source for p in problems} == {"math_longcot_math_verify" if name == "mathsub" else "math_verify"}


def test_gsm8k_rows_are_learnt_as_thinking():
    for row in rows("gsm8k"):
        _, answer = sft.to_messages(row)
        thought, _, boxed = answer["content"].partition("</think>")
        assert thought.startswith("<think>") and "<<" not in thought
        gold = row["answer"].split("#### ")[1].replace(",", "")
        assert rewards.score("math_longcot_math_verify", answer["content"], gold).correct, boxed


def test_a_grid_in_the_tests_of_a_program_is_no_solution_of_gsm8k():
    """`####` ends GSM8K's solutions; in the input of a program it is a wall."""
    tests = json.dumps({"inputs": ["2 4\n####\n#..#\n"], "outputs": ["2"]})
    for row in ({"answer": tests}, {"reward_model": {"ground_truth": tests}}):
        assert truth_of(row) == tests
    assert truth_of({"answer": "6*7=<<6*7=42>>42\n#### 1,042"}) == "1042"


@pytest.mark.parametrize("said, truth", [("1,042", "1042"), ("-1,000,000.5", "-1000000.5"), ("$1,042", "$1042"), ("7", "7"),
                                         ("(1,2)", "(1,2)"), ("1,2", "1,2"), ("[10,200)", "[10,200)"), ("f(x,y)", "f(x,y)")])
def test_commas_of_thousands_go_and_others_stay(said, truth):
    """Of a point after #### the comma went too, and (12) was the ground truth."""
    assert truth_of({"question": "?", "answer": f"So it is.\n#### {said} "}) == truth


@pytest.mark.slow
def test_math_answers_equal_themselves_and_no_other(pool):
    golds = [truth(row) for row in rows("mathsub")] + [row["answer"] for row in rows("hmmt") + rows("math500")]
    pairs = [(gold, said) for gold in golds for said in golds]
    verdicts = pool.score_batch([dict(data_source="math_longcot_math_verify", response=f"{THINK}\\boxed{{{said}}}", ground_truth=gold)
                                 for gold, said in pairs])
    assert [pair for pair, reward in zip(pairs, verdicts) if reward.correct != (pair[0] == pair[1])] == [] and len(golds) > 20


def items(codes: list[str]) -> list[dict]:
    return [dict(data_source=row["data_source"], response=f"{THINK}```python\n{code}\n```", ground_truth=truth(row))
            for row, code in zip(rows("codesub"), codes, strict=True)]


@pytest.mark.slow
@pytest.mark.needs("namespaces")  # pytest rows want a folder to write in
def test_code_rows(pool):
    """References pass; with an answer changed, with another task's program, or with none they do not."""
    shapes = {next(key for key in ("inputs", "functional", "pytest") if key in json.loads(truth(row))) for row in rows("codesub")}
    assert len(shapes) == 3
    for row in rows("codesub"):
        rewards.check(row["data_source"], truth(row))
    codes = [row["extra_info"]["reference"] for row in rows("codesub")]
    assert [r for r in pool.score_batch(items(codes)) if r != (1.0, True, "correct")] == []
    falsify = lambda code: code.replace("return ", "return 1 and not ") if "return " in code else "print(0)\n" + code
    changed = list(map(falsify, codes))
    changed[-1] = changed[-1].replace("xs[:] = ", "xs[:] = xs or ")  # rotate returns nothing
    for others in (changed, codes[1:] + codes[:1]):
        found = pool.score_batch(items(others))
        assert [(row["prompt"], r) for row, r in zip(rows("codesub"), found) if r.correct] == []
        assert {r.status for r in found} <= {"wrong", "partial"}


@pytest.mark.slow
def test_pass_rates_of_contest_programs(pool):
    """An accepted program, a wrong one, one that hangs and one that fails on some tests: the pass rate is exact."""
    samples = rows("code_samples")
    assert [s["verdict"] for s in samples] == ["accepted", "wrong_answer", "time_limit", "run_time_error"]
    batch = [dict(data_source="coder1", response=f"```python\n{s['code']}\n```", ground_truth=json.dumps(s["tests"] | {"timeout": 1}))
             for s in samples]
    assert [r.score for r in pool.score_batch(batch)] == [s["pass_rate"] for s in samples]
    assert sorted(s["pass_rate"] for s in samples)[-2:] != [1.0, 1.0]
