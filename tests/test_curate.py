"""curate.py: filters against tables of cases, decontamination against an independent search, bytes, ends, the page."""

import html.parser
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import curate
import rewards
from klear import shards
from klear.rows import messages_of, prompt_of, read_benchmark, read_rows, truth_of

ROOT = Path(__file__).parent.parent
CFG = curate.Config()


def write(path: Path, rows: list) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def trace(name, sample, response="a thought", correct=True, **more) -> dict:
    return {"benchmark": "problems", "id": name, "sample": sample, "response": response, "finish_reason": "stop",
            "tokens": len(response), "correct": correct, "status": "correct" if correct else "wrong", **more}


def problem(name, prompt=None, answer="1", **more) -> dict:
    return {"id": name, "data_source": "math_verify", "prompt": prompt or f"What is {name}?", "answer": answer, **more}


def curated(folder: Path, traces: list, problems: list, filters: str, **knobs):
    """Runs the stage in this process; returns (kept samples as "id/sample", RL ids, {what was removed: why})."""
    traces, problems = write(folder / "generations.jsonl", traces), write(folder / "problems.jsonl", problems)
    knobs |= dict(filters=filters, output_dir=str(folder / "out"), workers=1)
    cfg = curate.Config(generations=traces, problems=problems, **knobs)
    shutil.rmtree(cfg.output_dir, ignore_errors=True)
    curate.curate(curate.check_config(cfg))
    out = Path(cfg.output_dir)
    removed = {f"{r['id']}/{r['sample']}" if r["sample"] is not None else r["id"]: f"{r['filter']}: {r['why']}"
               for r in read(out / "removed.jsonl")}
    kept = [f"{r['id']}/{r['sample']}" for r in read(out / "sft.jsonl")]
    return kept, [r["id"] for r in read(out / "rl.jsonl")], removed


def command(*args, **env) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(ROOT / "curate.py"), *map(str, args)], capture_output=True, text=True,
                          timeout=300, env=os.environ | env)


# ----------------------------------------------------------------------------------------- filters that read a response
@pytest.mark.parametrize("text, why", [
    ("<think>a</think>b", ""),
    ("Well. <think>a</think>\n\\boxed{3}", ""),
    ("a</think>b", "no <think>"),
    ("<think>a", "no </think>"),
    ("b", "no </think>"),
    ("</think>a<think>b", "</think> before <think>"),
    ("<think>a</think>b<think>c</think>d", "several think tags"),
    ("<think>a<think>b</think>c", "several think tags"),
    ("<think>a</think> \n", "no answer after </think>"),
    ("<think> \n</think>b", "no thought"),
])
def test_think(text, why):
    assert curate.think(text, {}, "", CFG) == why


LOOP = "I should check this once more before I answer because the sum of the digits must be nine and not eight so"
assert len(LOOP.split()) > 20


@pytest.mark.parametrize("text, found", [
    (" ".join([LOOP] * 5), True),  # its first 20 words occur 5 times
    (" ".join([LOOP] * 4), False),
    ("x " * 23, False),  # 4 runs of 20 words
    ("x " * 24, True),  # 5 runs
    (" ".join(f"{LOOP} {i} {i * i}" for i in range(6)), True),  # not one after the other
    (" ".join(f"{' '.join(LOOP.split()[:18])} {i} {i * i}" for i in range(60)), False),  # 18 words only
    (" ".join(map(str, range(5000))), False),
    ("", False),
])
def test_repetition(text, found):
    assert bool(curate.repetition(text, {}, "", CFG)) == found


def test_repetition_agrees_with_counting():
    rng = random.Random(0)
    for _ in range(200):
        words = [rng.choice("abc") for _ in range(rng.randint(0, 60))]
        n, times = rng.randint(1, 6), rng.randint(2, 8)
        runs = [" ".join(words[i:i + n]) for i in range(len(words) - n + 1)]
        often = [run for run in runs if runs.count(run) >= times]
        expected = (runs.count(often[0]), often[0]) if often else (0, "")
        assert curate.most_repeated(" ".join(words), n, times) == expected


@pytest.mark.parametrize("prompt, thought, alike", [
    ("Find the sum of the digits of the number that is given.", "We add the digits of the number: that is it.", True),
    ("Find the sum of the digits of the number that is given.", "首先我们把所有的数字加起来,得到答案。", False),
    ("求所有数字的和。", "首先我们把所有的数字加起来 $x^2+\\frac{1}{2}$,得到答案。", True),
    ("求所有数字的和。", "First the digits of the number are added, and that is it.", False),
    ("Find the sum of the digits of the number that is given.", "Wir addieren, und das ist die Summe der Zahl.", False),
    ("Trouvez la somme des chiffres pour les nombres.", "On prend la somme des chiffres et une suite.", True),
    ("Найдите сумму цифр числа.", "Сначала сложим все цифры числа.", True),
    ("Найдите сумму цифр числа.", "The digits of the number are added and that is it.", False),
    ("Compute $9!$.", "We multiply the numbers from 1 to 9 and that is the product.", True),  # Latin, no more is known
    ("$9!$", "首先我们把所有的数字乘起来。", True),  # no word to tell by
    ("数字の合計を求めてください。", "まず数字をすべて足します。", True),
    ("数字の合計を求めてください。", "首先我们把所有的数字加起来,得到答案。", False),
])
def test_language(prompt, thought, alike):
    why = curate.language(f"<think>{thought}</think>42", {}, curate.language_of(prompt), CFG)
    assert (why == "") == alike, why


def test_truncated(tmp_path):
    traces = [trace("a", 0), trace("a", 1, finish_reason="length"), trace("a", 2, finish_reason=None)]
    kept, _, removed = curated(tmp_path, traces, [problem("a")], "truncated")
    assert kept == ["a/0", "a/2"] and removed == {"a/1": "truncated: length limit"}


# ------------------------------------------------------------------------------------------- filters that see the index
def test_duplicates(tmp_path):
    problems = [problem("a", "What is  7 times\n8?"), problem("b", "what IS 7 times 8?"), problem("c", "And 7 * 9?")]
    traces = [trace("a", 0, "It is 56."), trace("a", 1, "it  is\n56."), trace("a", 2, "It is 57."),
              trace("b", 0, "Other."), trace("c", 0, "It is 56.")]
    kept, rl, removed = curated(tmp_path, traces, problems, "duplicate_prompts,duplicate_responses")
    assert kept == ["a/0", "a/2", "c/0"] and rl == ["a", "c"]
    assert removed == {"b": "duplicate_prompts: as problems a", "b/0": "duplicate_prompts: as problems a",
                       "a/1": "duplicate_responses: as sample 0"}


@pytest.mark.needs("datasketch")
def test_near_duplicates(tmp_path):
    rng = random.Random(3)
    words = [f"w{i}" for i in range(3000)]
    first, other = rng.sample(words, 300), rng.sample(words, 300)
    near = [*first[:150], "changed", *first[151:]]  # 5-grams: 291 of 301 shared, Jaccard 0.967
    half = [*first[:150], *other[150:]]  # Jaccard about 0.33
    problems = [problem(name, " ".join(text)) for name, text in zip("abcd", (first, near, half, other))]
    traces = [trace("a", i, " ".join(text)) for i, text in enumerate((first, near, half))]
    traces += [trace("d", 0, " ".join(near))]
    kept, rl, removed = curated(tmp_path, traces, problems, "near_duplicate_prompts,near_duplicate_responses")
    assert rl == ["a", "c", "d"] and kept == ["a/0", "a/2", "d/0"]
    assert removed["b"] == "near_duplicate_prompts: nearly as problems a"
    assert removed["a/1"] == "near_duplicate_responses: nearly as sample 0"


@pytest.mark.needs("datasketch")
@pytest.mark.parametrize("near", [0.0, 0.95, 1.0])
def test_every_share_of_near_duplicates(tmp_path, near):
    """datasketch has no bands for a similarity of nearly 1, and the run ended in its traceback."""
    texts = ["one two three four five six seven", "ONE two three, four five six seven.", "one two three four five six eight"]
    kept, _, _ = curated(tmp_path, [trace("a", i, text) for i, text in enumerate(texts)], [problem("a")],
                         "near_duplicate_responses", near=near)
    assert kept == (["a/0", "a/2"] if near else ["a/0"])


def test_near_duplicates_without_datasketch(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as end:
        curated(tmp_path, [trace("a", 0)], [problem("a")], "near_duplicate_prompts")
    assert end.value.code == 2 and "needs datasketch; pip install datasketch" in capsys.readouterr().err


@pytest.mark.parametrize("keep, kept", [
    ("all", ["easy/0", "easy/1", "easy/2", "hard/0", "hard/1", "hard/2", "open/0"]),
    ("right", ["easy/0", "easy/1", "hard/0"]),
    ("right_easy", ["easy/0", "easy/1", "hard/0", "hard/1", "hard/2", "open/0"]),  # hard: right 1 of 3
])
def test_correctness(tmp_path, keep, kept):
    traces = [trace("easy", 0), trace("easy", 1), trace("easy", 2, correct=False), trace("hard", 0),
              trace("hard", 1, correct=False), trace("hard", 2, correct=False)]
    traces += [trace("open", 0, correct=True, status="verifier_timeout")]  # the verifier failed: not judged
    problems = [problem("easy"), problem("hard"), problem("open")]
    found, _, removed = curated(tmp_path, traces, problems, "correctness", keep=keep)
    assert found == kept and len(removed) == len(traces) - len(kept)
    if keep == "right":
        assert removed["open/0"] == "correctness: not judged" and removed["hard/1"] == "correctness: wrong"


@pytest.mark.parametrize("choose, kept", [("longest", {"a/1", "a/3"}), ("shortest", {"a/0", "a/2"}), ("random", None)])
def test_per_prompt(tmp_path, choose, kept):
    traces = [trace("a", i, "x" * length) for i, length in enumerate((2, 9, 3, 7))] + [trace("b", 0, "long " * 9)]
    problems = [problem("a"), problem("b")]
    found, _, removed = curated(tmp_path, traces, problems, "per_prompt", max_traces=2, choose=choose)
    assert len(found) == 3 and found == sorted(found) and "b/0" in found
    assert kept is None or set(found) == kept | {"b/0"}
    assert {*removed} | {*found} == {"a/0", "a/1", "a/2", "a/3", "b/0"}


@pytest.mark.slow
def test_per_prompt_random_is_spread_and_seeded(tmp_path):
    traces = [trace(f"p{i}", s) for i in range(40) for s in range(4)]
    problems = [problem(f"p{i}") for i in range(40)]
    kept = [curated(tmp_path, traces, problems, "per_prompt", max_traces=1, seed=seed)[0] for seed in (0, 0, 1)]
    assert kept[0] == kept[1] != kept[2]
    assert len({name.split("/")[1] for name in kept[0]}) == 4  # every sample number is drawn for some prompt


def test_quotas(tmp_path, capsys):
    problems = [problem("a", source="x"), problem("b", extra_info={"source": "y"}), problem("c", source="z")]
    traces = [trace(name, i) for name in "abc" for i in range(5)]
    kept, _, _ = curated(tmp_path, traces, problems, "quotas", quotas="x=2,*=1")
    assert [sum(k.startswith(name) for k in kept) for name in "abc"] == [2, 1, 1]
    for wrong in ("x", "x=many", ""):
        with pytest.raises(SystemExit):
            curated(tmp_path, traces, problems, "quotas", quotas=wrong)
        assert "SOURCE=TRACES" in capsys.readouterr().err


@pytest.mark.parametrize("low, high, rl", [
    (0.5, 1, ["half", "all"]), (0.25, 0.75, ["quarter", "half"]), (0.51, 1, ["all"])])
def test_pass_rate(tmp_path, low, high, rl):
    rights = {"none": 0, "quarter": 1, "half": 2, "all": 4}
    traces = [trace(name, i, correct=i < right) for name, right in rights.items() for i in range(4)]
    problems = [problem(name) for name in rights] + [problem("unasked")]
    kept, found, removed = curated(tmp_path, traces, problems, "pass_rate", pass_low=low, pass_high=high)
    assert found == rl and len(kept) == 16  # SFT keeps them all
    assert removed["unasked"] == "pass_rate: no judged sample"


def test_a_majority_answer_keeps_the_spaces_that_matter(tmp_path):
    """It became a ground truth without any: 2\\cdotx, and 12/3 for one and two thirds."""
    said = {"dot": ["2 \\cdot x", "2\\cdot x", "2  \\cdot\nx"], "mixed": ["1 2/3"] * 3, "set": ["\\{1, 2 \\}", "\\{1,2\\}", "9"]}
    traces = [trace(name, i, f"\\boxed{{{text}}}", None) for name, texts in said.items() for i, text in enumerate(texts)]
    curated(tmp_path, traces, [problem(name, answer=None) for name in said], "majority")
    truths = {r["id"]: r["reward_model"]["ground_truth"] for r in read(tmp_path / "out" / "rl.jsonl")}
    assert truths == {"dot": "2\\cdot x", "mixed": "1 2/3", "set": "\\{1,2\\}"}


def test_the_last_number_of_what_was_cut_is_no_vote(tmp_path):
    """Three thoughts that broke off after a 7 outvoted the one answer, and 7 was the ground truth."""
    traces = [trace("a", i, f"<think>{i + 40} and then 7", None, finish_reason="length") for i in range(3)]
    traces += [trace("a", 3, "\\boxed{9}", None)]
    traces += [trace("b", i, "... so \\boxed{9}, and more", None, finish_reason="length") for i in range(3)]
    _, rl, removed = curated(tmp_path, traces, [problem("a", answer=None), problem("b", answer=None)], "majority")
    assert rl == ["b"] and removed["a"] == "majority: no ground truth, no majority"


@pytest.mark.slow
def test_majority(tmp_path):
    """A majority is more than half. Without a ground truth the answer of a majority stands in, and the row says so."""
    problems = [problem("agree"), problem("tie"), problem("open", answer=None), problem("split", answer=None),
                problem("code", answer=None, data_source="coder1", ground_truth={"functional": ["assert f()"]})]
    boxed = [("agree", 3, ["1"] * 4), ("tie", 2, ["1"] * 4), ("split", None, ["8", "8", "9", ""]),
             ("open", None, ["\\frac{7}{2}", "\\frac {7}{2}", "\\frac{7}{2}", "9"])]
    traces = [trace(name, i, f"\\boxed{{{answer}}}" if answer else "I give up", right if right is None else i < right)
              for name, right, answers in boxed for i, answer in enumerate(answers)]
    _, rl, removed = curated(tmp_path, traces, problems, "majority")
    assert rl == ["agree", "open", "code"]
    assert removed["tie"] == "majority: 2 of 4 samples are right"
    assert removed["split"] == "majority: no ground truth, no majority"
    rows = {r["id"]: r for r in read(tmp_path / "out" / "rl.jsonl")}
    assert rows["open"]["reward_model"]["ground_truth"] == "\\frac{7}{2}"
    assert rows["open"]["extra_info"]["ground_truth_from"] == "majority, 3 of 4 samples"
    assert "ground_truth_from" not in rows["agree"]["extra_info"] and rows["agree"]["extra_info"]["pass_rate"] == 0.75


def test_min_tests(tmp_path):
    many, few = {"inputs": ["1"] * 16, "outputs": ["1"] * 16}, {"inputs": ["1"] * 15, "outputs": ["1"] * 15}
    asserts = {"functional": "\n".join(f"assert f({i})" for i in range(16))}
    problems = [problem(name, answer=None, data_source="coder1", ground_truth=json.dumps(tests))
                for name, tests in (("many", many), ("few", few), ("asserts", asserts))] + [problem("math")]
    _, rl, removed = curated(tmp_path, [trace("many", 0)], problems, "min_tests")
    assert rl == ["many", "asserts", "math"] and removed == {"few": "min_tests: 15 tests"}


@pytest.mark.slow
def test_ground_truth(tmp_path):
    """The last filter, asked for or not: what is in rl.jsonl can be used by the verifier."""
    problems = [problem("plain", answer="42"), problem("fraction", answer="\\frac{1}{2}"), problem("none", answer=None),
                problem("broken", answer="}{"), problem("empty", answer="\\$"),
                problem("unknown", data_source="my_verifier"), problem("code", data_source="coder1", answer="{}"),
                problem("bare", data_source=None)]
    _, rl, removed = curated(tmp_path, [trace("plain", 0)], problems, "truncated")
    assert rl == ["plain", "fraction"]
    assert "no ground truth" in removed["none"] and "unknown data_source" in removed["unknown"]
    assert "without tests" in removed["code"] and "--data_source" in removed["bare"]
    assert all(removed[name].startswith("ground_truth: math_verify does not find") for name in ("broken", "empty"))
    _, rl, _ = curated(tmp_path, [trace("plain", 0)], problems, "truncated", data_source="math_verify")
    assert "bare" in rl


def test_order_of_filters_counts(tmp_path):
    """The longest trace is wrong: the longest of the right ones is not the right ones of the longest."""
    traces = [trace("a", 0, "short"), trace("a", 1, "long, and wrong", correct=False), trace("a", 2, "middling")]
    knobs = dict(keep="right", max_traces=1, choose="longest")
    assert curated(tmp_path, traces, [problem("a")], "correctness,per_prompt", **knobs)[0] == ["a/2"]
    with pytest.raises(SystemExit):
        curated(tmp_path, traces, [problem("a")], "per_prompt,correctness", **knobs)


def test_quotas_draw_from_what_per_prompt_left_without_favour(tmp_path):
    """Both drew by one order: of 400 traces of prompts with 64 and 400 of prompts with 4 nearly all were of the first."""
    traces = [trace(f"p{i}", s) for i in range(200) for s in range(64 if i < 100 else 4)]
    kept, _, _ = curated(tmp_path, traces, [problem(f"p{i}", source="x") for i in range(200)], "per_prompt,quotas", max_traces=4,
                         quotas="x=400")
    assert len(kept) == 400 and 160 < sum(int(name[1:].split("/")[0]) < 100 for name in kept) < 240  # 200, deviation 10


def test_a_source_that_no_problem_has(tmp_path, capsys):
    with pytest.raises(SystemExit):
        curated(tmp_path, [trace("a", 0)], [problem("a", source="OpenThoughts")], "quotas", quotas="openthoughts=1")
    assert "quotas: no problem has the source 'openthoughts'; there are 'OpenThoughts'" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------ decontamination
def nine_grams(text: str) -> set[str]:
    words = re.sub("[^a-z0-9]+", " ", text.lower()).split()
    return {" ".join(words[i:i + 9]) for i in range(len(words) - 8)}


def planted(rng: random.Random) -> tuple[list[dict], list[dict]]:
    """(50 benchmark problems, 5,000 prompts with one version of each among them)."""
    vocabulary = ["".join(rng.choice("abcdefghijklmnop") for _ in range(rng.randint(2, 9))) for _ in range(1500)]
    vocabulary += map(str, range(2, 99))
    sentence = lambda n: " ".join(rng.choices(vocabulary, k=n))
    texts = [f"Let ${sentence(rng.randint(12, 60))}$. Find {sentence(5)}." for i in range(50)]
    benchmark = [{"id": f"b{i}", "problem": text, "answer": "1"} for i, text in enumerate(texts)]
    prompts = [f"Question {i}: {sentence(rng.randint(5, 120))}" for i in range(4950)]
    for i, text in enumerate(texts):
        words = text.split()
        if i % 4 == 1:  # other white space, case and punctuation
            text = "\n\t".join(words).upper().replace("$", " , ")
        elif i % 4 == 2:  # a changed number or word: a 9-gram may or may not be left
            words[rng.randrange(len(words))] = "1234567"
            text = " ".join(words)
        elif i % 4 == 3:  # paraphrased: every few words another one
            step = rng.choice((4, 7, 9, 10, 14))
            text = " ".join("reworded" if j % step == step - 1 else word for j, word in enumerate(words))
        prompts.append(text)
    order = rng.sample(range(5000), 5000)
    return benchmark, [problem(f"p{i}", prompts[i]) for i in order]


@pytest.mark.slow
def test_decontamination_finds_what_shares_nine_words_and_nothing_else(tmp_path):
    benchmark, problems = planted(random.Random(0))
    path = write(tmp_path / "bench.jsonl", benchmark)
    grams = {row["id"]: nine_grams(row["problem"]) for row in benchmark}
    dirty = {row["id"] for row in problems if any(nine_grams(row["prompt"]) & its for its in grams.values())}
    plants = {f"p{4950 + i}" for i in range(50)}
    assert {f"p{4950 + i}" for i in range(50) if i % 4 < 2} <= dirty < plants  # the search itself: not all paraphrases
    traces = [trace(row["id"], 0) for row in problems[:50]]
    _, rl, removed = curated(tmp_path, traces, problems, "decontaminate", benchmarks=path)
    found = {name for name, why in removed.items() if why.startswith("decontaminate") and "/" not in name}
    assert found == dirty and {*rl} == {row["id"] for row in problems} - dirty
    prompts = {row["id"]: row["prompt"] for row in problems}
    for name in found:  # it says which words, and of which problem
        shared, owner = re.fullmatch(r"decontaminate: shares '(.*)' with bench (\S+)", removed[name]).groups()
        assert shared in nine_grams(prompts[name]) and shared in grams[owner]


@pytest.mark.slow
@pytest.mark.parametrize("prompt, found", [
    ("Compute the sine of thirty degrees.", True),  # a short problem is found where it is the whole prompt
    ("COMPUTE the sine\nof thirty degrees", True),
    ("Compute the sine of thirty degrees. Then square it.", False),
    ("Ｌet n be the least number such that every digit is odd.", True),  # full-width letters
    ("Let n be the least number such that_every digit is odd.", True),
    ("Let n be the least number so that every digit is odd.", False),
    ("求方程的所有正整数解之和是多少?", True),  # Chinese has no spaces: a character is a word
    ("求方程的所有负整数解之积是多少?", False),
])
def test_words(tmp_path, prompt, found):
    texts = ("Compute the sine of thirty degrees.", "Let n be the least number such that every digit is odd.",
             "请求方程的所有正整数解之和是多少。")
    path = write(tmp_path / "bench.jsonl", [{"problem": text, "answer": 1} for text in texts])
    problems = [problem("a", prompt), problem("other")]
    _, rl, _ = curated(tmp_path, [trace("other", 0)], problems, "decontaminate", benchmarks=path)
    assert ("a" not in rl) == found


def test_fixed_instructions_can_be_left_out(tmp_path):
    """Also where a 9-gram has words of the instruction and words beside it that two problems happen to share."""
    suffix = "Please reason step by step, and put your final answer within \\boxed{}."
    rows = [{"problem": f"What is {n} squared? {suffix}", "answer": n * n} for n in range(10)]
    path = write(tmp_path / "bench.jsonl", rows)
    problems = [problem("a", f"How much is 5 squared? {suffix}"),
                problem("b", "First of all: What is 7 squared? And then: how much is that times 7?")]
    rows += [{"problem": "Now what is 7 squared? And then: how much is that times 7?", "answer": 343}]
    path = write(tmp_path / "bench.jsonl", rows)
    with pytest.raises(SystemExit):  # by the letter every prompt shares the phrase
        curated(tmp_path, [trace("a", 0)], problems, "decontaminate", benchmarks=path)
    knobs = dict(benchmarks=f"mine={path}", ignore=r"Please reason .* within \\boxed{}\.")
    _, rl, removed = curated(tmp_path, [trace("a", 0)], problems, "decontaminate", **knobs)
    assert rl == ["a"] and removed["b"].endswith("with mine 10")


def test_an_expression_that_is_none_is_one_line(tmp_path):
    done = command("--generations", "x.jsonl", "--filters", "truncated", "--ignore", "(", "--output_dir", tmp_path / "out")
    assert done.returncode == 2 and "ignore" in done.stderr and len(done.stderr.splitlines()) == 1


# ---------------------------------------------------------------------------------------------------------- rows, files
def test_bad_rows_are_named_and_counted_and_never_fatal(tmp_path):
    good = json.dumps(trace("a", 0))
    bad = {2: "{", 3: "[1]", 5: json.dumps({"id": "a"}), 6: json.dumps(trace("zz", 0)), 7: "[" * 100_000,
           8: json.dumps({"response": "x"}), 9: json.dumps(trace("a", 1) | {"response": 7}),
           10: json.dumps({"benchmark": "problems", "id": "a", "sample": 0, "status": "wrong"})}
    lines = [good, bad[2], bad[3], "", *(bad[i] for i in range(5, 11)), json.dumps(trace("a", 1))]
    path = tmp_path / "g.jsonl"
    path.write_bytes("\n".join(lines).encode() + b"\n\xff\xfe{}\n")
    problems = write(tmp_path / "problems.jsonl", [problem("a"), {"id": "b"}, "null", problem("c", answer=None)])
    done = command("--generations", path, "--problems", problems, "--filters", "truncated",
                   "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    removed = read(tmp_path / "out" / "removed.jsonl")
    named = [r["why"] for r in removed if r["filter"] == "bad_row"]
    for number in (*bad, 12):
        assert sum(f"{path}:{number}: " in why for why in named) == 1, number
    assert f"{problems}:2: no prompt" in " ".join(named) and f"{problems}:3: " in " ".join(named)
    assert "the evaluation was interrupted" in next(why for why in named if f"{path}:10:" in why)
    assert len(named) == len(bad) + 1 + 2 == json.loads((tmp_path / "out" / "curation.json").read_text())["bad_rows"]
    assert f"left out: {len(named)} rows in all" in done.stderr and "Traceback" not in done.stderr
    assert len(read(tmp_path / "out" / "sft.jsonl")) == 2


@pytest.mark.slow
@pytest.mark.parametrize("args, words", [
    (("--filters", "truncated", "correctness", "--keep", "right"),
     "correctness took the last 1 of 2 rows of sft.jsonl (1 times: wrong)"),
    (("--filters", "truncated", "pass_rate"), "pass_rate took the last 1 of 1 rows of rl.jsonl"),
    (("--filters", "nonsense"), "unknown 'nonsense'"),
    (("--filters", "decontaminate"), "decontaminate needs some"),
    (("--filters", "decontaminate", "--benchmarks", "aime2"), "did you mean 'aime25'"),
    (("--keep", "left"), "keep must be one of all, right, right_easy"),
    (("--filter", "x"), "the nearest is 'filters'"),
    (("--generations", "absent.jsonl", "--filters", "truncated"), "absent.jsonl does not exist"),
])
def test_mistakes_end_in_one_line(tmp_path, args, words):
    traces = [trace("a", 0, correct=False), trace("a", 1, correct=False, finish_reason="length")]
    problems = write(tmp_path / "problems.jsonl", [problem("a")])
    done = command("--generations", write(tmp_path / "g.jsonl", traces), "--problems", problems,
                   "--output_dir", tmp_path / "out", *args)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "curation.json").exists()


@pytest.mark.parametrize("knobs, words", [
    (dict(keep="right"), "keep: no filter reads it; add correctness to --filters"),
    (dict(benchmarks="aime24"), "benchmarks: no filter reads it; add decontaminate"),
    (dict(quotas="x=1"), "quotas: no filter reads it"),
    (dict(near=0.9), "add near_duplicate_prompts or near_duplicate_responses"),
    (dict(outputs="sft.jsonl"), "outputs: unknown 'sft.jsonl'"),
    (dict(generations=""), "generations: give files"),
    (dict(problems="a/train.jsonl,b/train.jsonl"), "two sources are called train; name one, NAME=FILE"),
    (dict(problems="openai/gsm8k:main"), "give the split, NAME:SUBSET:train"),
    (dict(generations="x.jsonl,runs/out"), "its files would be read as generations"),
])
def test_settings_that_would_be_of_no_effect_or_of_a_wrong_one(capsys, knobs, words):
    knobs = dict(generations="g.jsonl", filters="truncated", output_dir="runs/out") | knobs
    with pytest.raises(SystemExit) as end:
        curate.check_config(curate.Config(**knobs))
    assert end.value.code == 2 and words in capsys.readouterr().err
    curate.check_config(curate.Config(generations="g.jsonl", problems="a/train.jsonl,b=b/train.jsonl,openai/gsm8k:main:train",
                                      filters="truncated"))


def test_every_knob_of_a_filter_is_known_to_be():
    """A knob's comment in the Config names its filter; the table in check_config has the same."""
    group = re.search(r"    # filters\n(.*?)    # run\n", (ROOT / "curate.py").read_text(), re.S)[1]
    knobs = {name for name in re.findall(r"^    (\w+):", group, re.M)} - {"filters"} | {"benchmarks"}
    assert {*" ".join(curate.READ_BY).split()} == knobs
    assert {*" ".join(curate.READ_BY.values()).split()} <= {*curate.FILTERS}


def test_only_rl_is_asked(tmp_path):
    """Prompts alone: to decontaminate them before a teacher is asked."""
    cfg = curate.Config(problems=write(tmp_path / "p.jsonl", [problem("a"), problem("b", "What is a?")]), outputs="rl",
                        filters="duplicate_prompts", output_dir=str(tmp_path / "out"), workers=1)
    curate.curate(curate.check_config(cfg))
    assert [row["id"] for row in read(tmp_path / "out" / "rl.jsonl")] == ["a"]
    assert (tmp_path / "out" / "sft.jsonl").read_bytes() == b""


def test_only_sft_is_asked(tmp_path):
    kept, rl, _ = curated(tmp_path, [trace("a", 0)], [problem("a", answer=None)], "truncated", outputs="sft")
    assert kept == ["a/0"] and rl == []


@pytest.mark.parametrize("last", [True, False])
def test_every_trace_and_prompt_is_kept_or_named_once(tmp_path, last):
    rng = random.Random(5)
    problems = [problem(f"p{i}", f"What is {i}?" if i % 9 else "Same?", source=f"s{i % 3}") for i in range(60)]
    texts = lambda i, s: ["<think>a</think>b", "no tags", f"<think>{i}</think>{s}"]
    traces = [trace(f"p{i}", s, rng.choice(texts(i, s)), rng.random() < 0.6) for i in range(60) for s in range(6)]
    for row in traces[::5]:
        row["finish_reason"] = "length"
    filters = "duplicate_prompts,truncated,think,duplicate_responses,correctness,per_prompt,quotas"
    filters = f"{filters},pass_rate" if last else f"pass_rate,{filters}"
    kept, rl, _ = curated(tmp_path, traces, problems, filters, keep="right_easy", max_traces=2, quotas="s1=7")
    removed = [r for r in read(tmp_path / "out" / "removed.jsonl")]
    named = [f"{r['id']}/{r['sample']}" for r in removed if r["sample"] is not None]
    assert sorted(kept + named) == sorted(f"{t['id']}/{t['sample']}" for t in traces)
    prompts = [r["id"] for r in removed if r["sample"] is None]
    assert sorted(rl + prompts) == sorted(p["id"] for p in problems)
    steps = json.loads((tmp_path / "out" / "curation.json").read_text())["filters"]
    assert [s["filter"] for s in steps] == [*filters.split(","), "ground_truth"]
    for before, after in zip(steps, steps[1:]):
        assert before["out"] == after["in"]
    for step in steps:
        lost = sum(r["filter"] == step["filter"] and r["sample"] is not None for r in removed)
        assert step["in"]["traces"] - step["out"]["traces"] == lost
        lost = sum(r["filter"] == step["filter"] and r["sample"] is None for r in removed)
        assert step["in"]["rl_prompts"] - step["out"]["rl_prompts"] == lost
    assert steps[-1]["out"]["traces"] == len(kept) and steps[-1]["out"]["rl_prompts"] == len(rl)


def test_the_next_stages_take_the_rows(tmp_path):
    code = json.dumps({"functional": ["assert f() == 1"]})
    problems = [problem("a", [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}], "2"),
                problem("b", None, None, data_source="coder1", reward_model={"ground_truth": code})]
    curated(tmp_path, [trace("a", 0, "t\u2028wo \U0001f600"), trace("b", 0)], problems, "truncated")
    rows = [row for _, row in read_rows(str(tmp_path / "out" / "sft.jsonl"), "train_file")]
    assert [m["role"] for m in messages_of(rows[0])] == ["system", "user", "assistant"]
    assert messages_of(rows[0])[-1]["content"] == "t\u2028wo \U0001f600"
    for (_, row), given in zip(read_rows(str(tmp_path / "out" / "rl.jsonl"), "train_file"), problems):
        assert prompt_of(row) == prompt_of(given)
        rewards.check(row["data_source"], truth_of(row))
        assert truth_of(row) == truth_of(given)


def test_rows_that_the_next_stages_refuse_are_left_out(tmp_path):
    """sft.py and rl_gppo.py end at the first row that they cannot use."""
    idle = json.dumps({"functional": ["assert f() == 1", "x = 1"]})  # no program can fail or pass the second
    deep = json.dumps({"functional": f"assert f() == {'+'.join('1' * 9000)}"})
    for tests in (idle, deep):
        with pytest.raises(ValueError):
            rewards.check("coder1", tests)
    greeted = [{"from": "gpt", "value": "Hello"}, {"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "yes"}]
    traces = [trace("a", 0), trace("idle", 0), {"conversations": greeted}]
    kept, rl, removed = curated(tmp_path, traces, [problem("a"), problem("idle", answer=idle, data_source="coder1"),
                                                   problem("deep", answer=deep, data_source="coder1"), {"id": "greeted", "conversations": greeted}], "truncated")
    assert kept == ["a/0", "idle/0"] and rl == ["a"] and "can never call the program" in removed["idle"]
    assert "recursion" in removed["deep"]
    bad = [row["why"] for row in read(tmp_path / "out" / "removed.jsonl") if row["filter"] == "bad_row"]
    assert "begins with the assistant's message" in bad[0] and len(bad) == 2


def test_ids_are_those_of_eval(tmp_path):
    """Rows without an id are called by their number, NAME=FILE is the benchmark, double ids carry their number."""
    one = write(tmp_path / "one.jsonl", [{"problem": "First?", "answer": "1"}, {"problem": "Second?", "answer": "2"}])
    double = [{"id": "x", "problem": "X?", "answer": "3"}, {"id": "x", "problem": "Y?", "answer": "3"}]
    two = write(tmp_path / "two.jsonl", [{"problem": "Third?", "answer": "3"}, *double])
    called = [("one", "0"), ("one", "1"), ("zwei", "0"), ("zwei", "x#2"), ("zwei", "x")]
    traces = [trace(name, 0) | {"benchmark": benchmark} for benchmark, name in called]
    generations = write(tmp_path / "g.jsonl", traces)
    cfg = curate.Config(generations=generations, problems=f"{one},zwei={two}", filters="truncated",
                        data_source="math_verify", output_dir=str(tmp_path / "out"), workers=1)
    curate.curate(curate.check_config(cfg))
    rows = read(tmp_path / "out" / "sft.jsonl")
    assert [row["messages"][0]["content"] for row in rows] == ["First?", "Second?", "Third?", "Y?"]
    assert "that of several problems" in read(tmp_path / "out" / "removed.jsonl")[0]["why"]


def test_sources_are_called_as_by_eval(tmp_path):
    file = write(tmp_path / "a.b.jsonl", [problem("a")])
    for entry in ("owner/Set-1.5:sub:train", "owner/set::train", f"x={file}", "x=owner/set:sub:train", file, str(tmp_path)):
        assert [shards.named(f" {entry} ,")[0][0]] == [read_benchmark(entry, "data")[0]]


def test_traces_of_another_benchmark_find_no_problem(tmp_path):
    """A teacher was asked two files whose rows have no ids, one of them is curated: row 0 of the other got this one's prompt."""
    problems = write(tmp_path / "math.jsonl", [{"problem": "First?", "answer": "1"}, {"problem": "Second?", "answer": "2"}])
    traces = [trace("0", 0, "mine") | {"benchmark": "math"}, trace("0", 0, "other") | {"benchmark": "code"},
              {"id": "1", "response": "bare"}]
    cfg = curate.Config(generations=write(tmp_path / "g.jsonl", traces), problems=problems, filters="truncated", outputs="sft",
                        output_dir=str(tmp_path / "out"), workers=1)
    curate.curate(curate.check_config(cfg))
    kept = [[message["content"] for message in row["messages"]] for row in read(tmp_path / "out" / "sft.jsonl")]
    assert kept == [["First?", "mine"], ["Second?", "bare"]]
    assert "benchmark 'code' is none of the problems (math); " in read(tmp_path / "out" / "removed.jsonl")[0]["why"]


@pytest.mark.parametrize("own", [True, False])
def test_traces_keep_their_own_prompt(tmp_path, own):
    """Prompts that differ in case, indentation, system message or an earlier answer are not one problem."""
    turns = lambda *texts, system="": [{"role": "system", "content": system}] * bool(system) + [
        {"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(texts)]
    prompts = [turns("A = 3, a = 5. What is A?"), turns("A = 3, a = 5. What is a?"), turns("if x:\n    f()\ng()"),
               turns("if x:\n    f()\n    g()"), turns("Hi?"), turns("Hi?", system="Be rude."), turns("One?", "yes", "Why?"),
               turns("One?", "no", "Why?")]
    rows = [{"messages": [*prompt, *turns("", f"answer {i}")[1:]]} for i, prompt in enumerate(prompts)] * 2
    problems = write(tmp_path / "p.jsonl", [{"id": f"p{i}", "prompt": prompt} for i, prompt in enumerate(prompts)]) if own else ""
    cfg = curate.Config(generations=write(tmp_path / "g.jsonl", rows), problems=problems, filters="truncated", outputs="sft",
                        output_dir=str(tmp_path / "out"), workers=1)
    curate.curate(curate.check_config(cfg))
    found = read(tmp_path / "out" / "sft.jsonl")
    assert [row["messages"] for row in found] == [row["messages"] for row in rows]
    assert [row["sample"] for row in found] == [0] * 8 + [1] * 8


def test_ids_of_rows_from_several_files_differ(tmp_path):
    files = [write(tmp_path / f"{name}.jsonl", [{"prompt": f"{name}?", "response": name}]) for name in "xy"]
    cfg = curate.Config(generations=",".join(files), filters="truncated", outputs="sft", output_dir=str(tmp_path / "out"), workers=1)
    curate.curate(curate.check_config(cfg))
    assert [row["id"] for row in read(tmp_path / "out" / "sft.jsonl")] == ["x/0", "y/0"]


@pytest.mark.parametrize("change", ["grows", "order"])
def test_generations_that_change_meanwhile(tmp_path, monkeypatch, change):
    """An evaluation that still runs appends, and sorts at its end: a response was written under another problem's prompt."""
    one, two = tmp_path / "one.jsonl", write(tmp_path / "two.jsonl", [trace("c", 0, "of c")])
    rows = [trace("a", 0, "of a"), trace("b", 0, "of b")]
    write(one, rows)
    cfg = curate.Config(generations=f"{one},{two}", filters="truncated", output_dir=str(tmp_path / "out"), workers=1,
                        problems=write(tmp_path / "problems.jsonl", [problem(name) for name in "abc"]))
    apply = curate.apply
    def changed(*args):
        write(one, [*rows, trace("a", 1, "more of a")] if change == "grows" else rows[::-1])
        return apply(*args)
    monkeypatch.setattr(curate, "apply", changed)
    with pytest.raises(OSError, match="gave other rows when it was read again"):
        curate.curate(curate.check_config(cfg))
    assert not (tmp_path / "out" / "sft.jsonl").exists()


def test_generations_of_other_tools(tmp_path):
    """They hold their prompts: messages, or prompt and several responses; the same prompt is one problem."""
    rows = [{"messages": [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "<think>h</think>1"}]},
            {"conversations": [{"from": "human", "value": "One?"}, {"from": "gpt", "value": "<think>h</think>uno"}]},
            {"prompt": "Two?", "responses": ["h</think>2", "<think>h</think>3"]},
            {"problem": "Three?", "completion": "3"}]
    cfg = curate.Config(generations=write(tmp_path / "g.jsonl", rows), filters="per_prompt,think", think_opened=True,
                        outputs="sft", output_dir=str(tmp_path / "out"), workers=1)
    curate.curate(curate.check_config(cfg))
    kept = read(tmp_path / "out" / "sft.jsonl")
    assert [(r["messages"][0]["content"], r["messages"][1]["content"], r["sample"]) for r in kept] == [
        ("One?", "<think>h</think>1", 0), ("One?", "<think>h</think>uno", 1),
        ("Two?", "<think>\nh</think>2", 0), ("Two?", "<think>h</think>3", 1)]


def test_parts_hold_every_line_once(tmp_path):
    rng = random.Random(1)
    rows = [json.dumps({"n": i, "text": "é" * rng.randint(0, 40)}, ensure_ascii=False) for i in range(200)]
    lines = ["", *rows, "", "broken"]
    path = tmp_path / "rows.jsonl"
    path.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    for size in (1, 7, 64, 1000, 10**6):
        items = [item for part in shards.parts(str(path), "x", size) for item in shards.read_part(part)]
        assert len(items) == len(lines) and items[0] is None and isinstance(items[-1], ValueError)
        assert [item["n"] for item in items if isinstance(item, dict)] == list(range(200))


def test_parquet_and_folders_give_the_same_rows(tmp_path):
    import pyarrow  # comes with datasets
    from pyarrow import parquet

    traces = [trace(f"p{i}", s, "word " * i + str(s)) for i in range(50) for s in range(3)]
    problems = [problem(f"p{i}") for i in range(50)]
    curated(tmp_path, traces, problems, "duplicate_responses")
    expected = {name: (tmp_path / "out" / name).read_bytes() for name in ("sft.jsonl", "rl.jsonl", "removed.jsonl")}
    folder = tmp_path / "folder"
    folder.mkdir()
    for i in range(3):
        parquet.write_table(pyarrow.Table.from_pylist(traces[50 * i:50 * i + 50]), folder / f"{i}.parquet")
    cfg = curate.Config(generations=str(folder), problems=str(tmp_path / "problems.jsonl"), workers=2,
                        filters="duplicate_responses", output_dir=str(tmp_path / "out2"))
    curate.curate(curate.check_config(cfg))
    assert {name: (tmp_path / "out2" / name).read_bytes() for name in expected} == expected


# ------------------------------------------------------------------------------------------------------- bytes and ends
def many(tmp_path: Path, prompts: int = 300, samples: int = 8, length: int = 60) -> list[str]:
    rng = random.Random(2)
    problems = [problem(f"p{i}", f"How much is {i} and {i + 1}?", source=f"s{i % 4}") for i in range(prompts)]
    thought = lambda: " ".join(rng.choices("abcdefgh", k=length))
    traces = [trace(f"p{i}", s, f"<think>{thought()}</think>{s % 3}", rng.random() < 0.5)
              for i in range(prompts) for s in range(samples)]
    benchmark = write(tmp_path / "b.jsonl", [{"problem": "How much is 5 and 6?", "answer": 11}])
    return ["--generations", write(tmp_path / "g.jsonl", traces), "--problems", write(tmp_path / "problems.jsonl", problems),
            "--benchmarks", benchmark, "--filters", "duplicate_prompts", "decontaminate", "think", "repetition",
            "language", "correctness", "per_prompt", "quotas", "pass_rate", "--keep", "right_easy", "--max_traces", "3",
            "--quotas", "s1=100"]


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.slow
def test_same_bytes_whatever_the_workers(tmp_path):
    args = many(tmp_path)
    for name, workers, seed in (("a", 1, "1"), ("b", 2, "77")):
        done = command(*args, "--output_dir", tmp_path / name, "--workers", workers, PYTHONHASHSEED=seed)
        assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert set(contents(tmp_path / "a")) == set(curate.OUTPUTS)


def children_of(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found += [int(path.parent.name)] * (int(fields[1]) == pid)
    return found


@pytest.mark.needs("time")
def test_a_killed_run_starts_over(tmp_path):
    args = many(tmp_path, prompts=2000, length=400)
    clean = command(*args, "--output_dir", tmp_path / "clean")
    assert clean.returncode == 0, clean.stderr
    out = tmp_path / "out"
    killed = 0
    for wait in ("prompts.jsonl.partial", "sft.jsonl.partial"):
        run = subprocess.Popen([sys.executable, str(ROOT / "curate.py"), *args, "--output_dir", str(out)],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while run.poll() is None and not ((out / wait).exists() and (out / wait).stat().st_size):
            time.sleep(0.005)
        workers = children_of(run.pid)
        killed += run.poll() is None
        run.send_signal(signal.SIGKILL)
        run.wait()
        until = time.monotonic() + 20
        while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < until:
            time.sleep(0.05)
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
        (out / wait).write_bytes(b"half a line") if killed and not (out / "curation.json").exists() else None
    assert killed
    again = command(*args, "--output_dir", out)
    assert again.returncode == 0, again.stderr
    assert contents(out) == contents(tmp_path / "clean")


@pytest.mark.slow
def test_ctrl_c_ends_in_one_line(tmp_path):
    args = many(tmp_path, prompts=3000, length=400)
    out = tmp_path / "out"
    run = subprocess.Popen([sys.executable, str(ROOT / "curate.py"), *args, "--output_dir", str(out)], text=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,  # a shell's background jobs ignore Ctrl-C:
                           preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    while run.poll() is None and not any(out.glob("prompts.jsonl.partial")):
        time.sleep(0.002)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=120)
    assert run.returncode == 130 and "Traceback" not in said and not (out / "curation.json").exists()
    assert said.strip().splitlines()[-1] == "curate.py: interrupted; the same command starts over"


def test_ctrl_c_while_workers_are_forked():
    """Python ignores an exception in the hooks that run at a fork: Ctrl-C there went unheard, once in six of the runs above."""
    code = ("import os, signal, sys\nfrom klear import shards\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))\n"
            "try: list(shards.in_parallel(abs, range(9), 2))\nexcept KeyboardInterrupt: print('interrupted')")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_killed_worker_ends_the_run_in_one_line(capsys):
    assert list(shards.in_parallel(die_at_three, [0, 1, 2], 2)) == [(0, 0), (1, 1), (2, 2)]
    with pytest.raises(SystemExit) as end:
        list(shards.in_parallel(die_at_three, range(9), 2))
    assert end.value.code == 1 and "a worker process was killed" in capsys.readouterr().err


@pytest.mark.slow
def test_memory_does_not_hold_the_texts(tmp_path):
    """The largest process of a run over 80 MB of traces is hardly larger than that of one over as many short ones."""
    problems, highest = write(tmp_path / "problems.jsonl", [problem(f"p{i}") for i in range(500)]), {}
    for length in (40_000, 40):
        traces = write(tmp_path / "g.jsonl", [trace(f"p{i // 4}", i % 4, f"{i} " + "x" * length) for i in range(2000)])
        out = str(tmp_path / str(length))
        # through a small process: a child of this one would begin with the size of this one
        measured = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); " \
                   "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)"
        run = subprocess.run([sys.executable, "-c", measured, sys.executable, str(ROOT / "curate.py"), "--generations", traces,
                              "--problems", problems, "--filters", "truncated", "--output_dir", out, "--workers", "2"],
                             capture_output=True, text=True, check=True, timeout=300)
        assert len(read(Path(out) / "sft.jsonl")) == 2000
        highest[length] = int(run.stdout.splitlines()[-1])
    assert highest[40_000] - highest[40] < 90, highest  # 56: parts of 8 MB; with the texts 131


@pytest.mark.parametrize("name, text, said", [("sft.jsonl", "mine", "holds sft.jsonl, which no finished curation made"),
                                              ("curation.json", "{", "holds curation.json, which no finished curation made")])
def test_files_of_others_are_not_overwritten(tmp_path, capsys, name, text, said):
    """A user's own sft.jsonl and rl.jsonl, given as input, were replaced by the curated ones."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text(text)
    traces, problems = write(tmp_path / "traces.jsonl", [trace("a", 0)]), write(tmp_path / "problems.jsonl", [problem("a")])
    cfg = curate.Config(generations=traces, problems=problems, filters="truncated", output_dir=str(tmp_path / "mine"), workers=1)
    with pytest.raises(SystemExit):
        curate.curate(curate.check_config(cfg))
    assert said in capsys.readouterr().err and (tmp_path / "mine" / name).read_text() == text


@pytest.mark.slow
def test_another_curation_is_not_overwritten(tmp_path):
    args = many(tmp_path, 20, 2)
    assert command(*args, "--output_dir", tmp_path / "out").returncode == 0
    before = contents(tmp_path / "out")
    assert command(*args, "--output_dir", tmp_path / "out", "--workers", "1").returncode == 0  # the same once more
    done = command(*args, "--output_dir", tmp_path / "out", "--seed", "5")
    assert done.returncode == 2 and "holds a curation with other settings" in done.stderr
    assert contents(tmp_path / "out") == before


# ------------------------------------------------------------------------------------------------------------- the page
EVIL = ("</pre></details><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
        "<style>*{}</style>&amp;")


class Elements(html.parser.HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.found, self.texts, self.handlers = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.add(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name in ("src", "href")]

    def handle_data(self, data):
        self.texts.append(data)


def evil_page(tmp_path: Path) -> Path:
    problems = [problem("a" + EVIL, "Why? " + EVIL, source="source" + EVIL), problem("b", EVIL * 2), problem("c")]
    traces = [trace("a" + EVIL, s, f"{EVIL} {s}", finish_reason="length") for s in range(5)] + [trace("c", 0)]
    curated(tmp_path, traces + [{"id": EVIL, "response": "x"}], problems, "truncated,pass_rate")
    return tmp_path / "out" / "curation.html"


def test_untrusted_text_is_text(tmp_path):
    page = Elements(evil_page(tmp_path).read_text())
    assert page.found <= {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "table", "tr", "th", "td",
                          "figure", "figcaption", "b", "svg", "rect", "text", "details", "summary", "pre"}
    assert page.handlers == [] and "default-src 'none'" in (tmp_path / "out" / "curation.html").read_text()
    assert any(f"{EVIL} 0" == text for text in page.texts) and any(f"Why? {EVIL}" == text for text in page.texts)


@pytest.mark.slow
@pytest.mark.needs("chromium")
def test_untrusted_text_does_not_run_in_a_browser(tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    done = subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
                           f"file://{evil_page(tmp_path)}"], capture_output=True, text=True, timeout=120)
    assert "<title>Curation</title>" in done.stdout and "owned" in done.stdout and "<script" not in done.stdout


def test_page_counts(tmp_path):
    """What the page shows is what curation.json says; three examples a filter at most."""
    args = many(tmp_path, 40, 4)
    assert command(*args, "--output_dir", tmp_path / "out").returncode == 0
    page = (tmp_path / "out" / "curation.html").read_text()
    for step in json.loads((tmp_path / "out" / "curation.json").read_text())["filters"]:
        cells = "".join(f"<td>{step[way][key]:,}</td>" for key in step["in"] for way in ("in", "out"))
        assert f"<tr><td>{step['filter']}</td>{cells}</tr>" in page
        assert page.count(f"<summary>{step['filter']}: ") <= 3


def test_recipes_and_docs():
    """The recipes are read; docs/data.md names every filter and its example of a new one works."""
    for name in ("math", "code"):
        args = ["--config", str(ROOT / f"recipes/distil_{name}.yaml")]
        cfg = curate.check_config(curate.read_config(curate.Config, args, curate.MOST_USED))
        assert cfg.max_traces == 16 and cfg.ngram == 9 and curate.shared.filters[-1] == "ground_truth"
    page = (ROOT / "docs" / "data.md").read_text()
    assert all(f"`{name}`" in page for name in curate.FILTERS) and not re.search("@@|TODO", page)
    code = next(block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "FILTERS[" in block)
    names = {"FILTERS": {}}
    exec(code, names)
    kind, rule = names["FILTERS"]["short_thought"]
    assert kind == "response" and rule("<think>hm</think>1", {}, "", CFG)
    assert not rule(f"<think>{'a' * 99}</think>1", {}, "", CFG)
