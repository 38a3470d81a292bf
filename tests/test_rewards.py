"""The math verifier against labelled cases and against plain math_verify, the worker pool against hangs, crashes and kills."""

import functools
import json
import logging
import math
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from math_triples import hanging_triples, house_triples, triples

import rewards
import sandbox
from klear import answers
from rewards import Job, Reward, RewardPool, Verifier, check, extract_answer, score

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="module")
def pool():
    with RewardPool(2, timeout_s=20) as pool:
        yield pool


def item(response: str, gold: str, source: str = "math_verify", **more) -> dict:
    return dict(data_source=source, response=response, ground_truth=gold, **more)


def plain(pair: tuple[str, str]) -> bool:
    """math_verify as anybody would call it, on the whole text, with its own timeouts."""
    from math_verify import parse, verify
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return verify(parse(rewards.as_box(pair[0])), parse(pair[1]))


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def wait_for(done, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.05)
    return done()


# ------------------------------------------------------------------------------------------------------------------ math
@pytest.mark.needs("time")
@pytest.mark.slow
def test_labelled_triples(pool):
    """Ours, the label and plain math_verify on the same text agree on every case."""
    rows = triples()
    kinds = Counter(kind for kind, *_ in rows)
    assert len(rows) >= 2000 and len(kinds) >= 25 and min(kinds.values()) >= 15
    assert 0.3 < sum(verdict for *_, verdict in rows) / len(rows) < 0.75
    with multiprocessing.get_context("spawn").Pool(2) as workers:
        theirs = workers.map_async(plain, [(gold, text) for _, gold, text, _ in rows], chunksize=8)
        ours = pool.score_batch([item(text, gold) for _, gold, text, _ in rows])
        bad = [(kind, gold, text[-100:], verdict, reward.status, other)
               for (kind, gold, text, verdict), reward, other in zip(rows, ours, theirs.get())
               if not verdict == reward.correct == other]
    assert bad == []
    assert {(r.score, r.correct) for r in ours} == {(1.0, True), (-1.0, False)}
    assert {r.status for r in ours} == {"correct", "wrong", "no_answer"}


@pytest.mark.slow
def test_house_rules(pool):
    """The kinds where the last box counts, whatever else stands in the text; math_verify would say otherwise."""
    rows = list(house_triples())
    ours = pool.score_batch([item(text, gold) for _, gold, text, _, _ in rows])
    assert [r.correct for r in ours] == [verdict for *_, verdict, _ in rows]
    assert [plain((gold, text)) for _, gold, text, _, _ in rows[:8]] == [other for *_, other in rows[:8]]


@pytest.mark.slow
def test_plain_integers_as_math_verify():
    """The shortcut never disagrees with math_verify, and takes no text that only looks like an integer."""
    rng, tried, theirs = random.Random(1), 0, functools.cache(plain)  # most pairs come again
    for text in ("007", "-0", "+5", "1,000", "5.", "１２", "1e3", "٣", "--5", "1 000", "9" * 19, "", "5\n6"):
        assert rewards.plain_verdict(text, text) is None and rewards.plain_verdict("5", text) is None
    for _ in range(4000):
        a = rng.choice([0, 1, -1, 10, 100, rng.randint(-50, 50), rng.randint(-10**18, 10**18)])
        b = rng.choice([a, a, -a, a + 1, a * 10, int(str(a)[::-1].replace("-", "")), rng.randint(-50, 50)])
        verdict = rewards.plain_verdict(str(a), str(b))
        if verdict is not None:
            tried += 1
            assert verdict == theirs((str(a), f"\\boxed{{{b}}}")), (a, b)
    assert tried > 3000


@pytest.mark.slow
@pytest.mark.needs("shared")
def test_real_ground_truths(pool):
    """MATH: every 10th published answer equals itself, and not the next row's unless math_verify says so."""
    rows = [json.loads(line) for line in (SHARED / "math_train_rl_2500.jsonl").read_text().splitlines()]
    for name in ("gsm8k_rl_2000.jsonl", "svamp_rl_700.jsonl"):
        rows += [json.loads(line) for line in (SHARED / name).read_text().splitlines()]
    for row in rows:
        check(row["data_source"], row["reward_model"]["ground_truth"])
    golds = [row["reward_model"]["ground_truth"] for row in rows[:2500:10]]
    right = pool.score_batch([item(f"<think>hm</think>\n\\boxed{{{gold}}}", gold, "math_longcot_math_verify") for gold in golds])
    assert [gold for gold, r in zip(golds, right) if not r.correct] == []
    pairs = list(zip(golds, golds[1:]))
    wrong = pool.score_batch([item(f"\\boxed{{{b}}}", a) for a, b in pairs])
    assert [r.correct for r in wrong] == [plain((a, f"\\boxed{{{b}}}")) for a, b in pairs]
    assert sum(r.correct for r in wrong) < len(wrong) / 20


def test_think_tags():
    box, source = "\\boxed{5}", "KlearReasoner/math_longcot_math_verify"
    assert score(source, f"<think>5</think>{box}", "5") == (1.0, True, "correct")
    assert score(source, f"<think>5</think>{box}", "6") == (-1.0, False, "wrong")
    assert score(source, f"<think>{box}", "5") == (-1.0, False, "no_think_end")
    assert score(source, f"5</think>{box}", "5") == (-1.0, False, "no_think_start")
    assert score(source, f"5</think>{box}", "5", prompt_tail="<|im_start|>assistant\n<think>\n").correct
    assert score(source, box, "5", prompt_tail="<think>\n").status == "no_think_end"
    assert score(source, f"5</think>{box}<think>", "5").status == "no_think_start"  # an opening after the end is none
    assert score(source, f"<think>{box}</think>I forgot.", "5").status == "no_answer"  # what was thought is not the answer
    assert score(source, f"<think>a</think>\\boxed{{6}}</think>{box}", "5").correct  # the last </think> counts
    released = dict(no_think_end=-0.5, no_think_start=-2.0)
    assert score(source, box, "5", **released).score == -0.5 and score(source, f"</think>{box}", "5", **released).score == -2
    for other in ("math_verify", "math_dapo_math_verify"):  # no tags asked for
        assert score(other, box, "5").correct and score(other, f"<think>\\boxed{{6}}</think>{box}", "5").correct
    assert score("toy:math", box, "5").status == "no_think_end" and score("toy:math", f"<think></think>{box}", "5").correct


def test_unknown_source_and_unusable_ground_truth(pool):
    with pytest.raises(ValueError, match=r"unknown data_source 'magic'; .*math_longcot_math_verify, .*math_verify"):
        check("magic", "5")
    with pytest.raises(ValueError, match="unknown data_source"):
        pool.submit(item("5", "5", "magic"))
    for gold in ("", " \n", None, [], {"a": 1}, True):
        with pytest.raises(ValueError, match="is no answer; expected"):
            check("math_verify", gold)
    for gold in ("5", 5, 0.5, "\\frac12", '{1, 2}', '{"a": 1}'):
        check("math_verify", gold)
    for gold in ({"inputs": ["1"], "outputs": ["2"]}, '{"timeout": 3, "functional": "assert f()"}', ' {"pytest": ""}'):
        with pytest.raises(ValueError, match="tests of a program; give its data_source"):  # was judged as math, and wrong
            check("math_verify", gold)
    assert score("math_verify", "\\boxed{5}", 5).correct and score("math_verify", "\\boxed{1/2}", 0.5).correct


def test_extract_answer_and_equal_answers():
    assert extract_answer("<think>\\boxed{1}</think> \\boxed{\\frac{1}{2}} ") == "\\frac{1}{2}"
    assert extract_answer("\\boxed{1} and later on \\boxed{ 2 }.") == "2"
    assert extract_answer("\\boxed{\\boxed{7}}") == "7"
    assert extract_answer("so it is 1,234.5 then") == "1,234.5" and extract_answer("3/4, I think") == "3/4"
    assert extract_answer("the chance is .5.") == ".5" and extract_answer("from 1.25 to -.75") == "-.75"
    assert extract_answer("no idea") == "" and extract_answer("") == ""
    for gold, answer, equal in [("0.5", "\\frac{1}{2}", True), ("x+1", "1+x", True), ("5", " 5", True), ("5", "6", False), ("(1,2)", "(2,1)", False)]:
        assert score("math_verify", f"\\boxed{{{answer}}}", gold).correct == equal


@pytest.mark.needs("time")
@pytest.mark.slow
def test_length_costs_nothing():
    """60,000 characters, also such as make regular expressions or brace matching slow."""
    filler = "Then $a_1 = 3$ and \\[ x = {4} \\], so the answer is near. "
    bodies = [filler * 1000 + "\\boxed{\\frac{3}{7}}", "\\boxed{" * 8000 + "5", "\\[" * 30000, "$" * 60000, "{" * 60000,
              "}" * 60000, "\\boxed{5}" * 6000, "\\boxed{" * 6000 + "5" + "}" * 6000, "answer " * 8000, "9" * 60000,
              "final answer is " * 4000, "<think>" * 8000, "\\boxed{" + "{" * 30000 + "}" * 30000 + "}", "\\frac" * 12000, "(" * 60000]
    start = time.process_time()
    for body in bodies:
        rewards.prepare("math_verify", body, "5", "", rewards.Options())
    assert time.process_time() - start < 10  # quadratic work would take minutes
    with RewardPool(2, timeout_s=10) as pool:
        found = pool.score_batch([item(body, "5") for body in bodies])
    assert found[7].correct and not found[0].correct
    for k, reward in enumerate(found):  # 60,000 braces inside one box are the judge's to read, and too much for it
        assert reward.status in ("correct", "wrong", "no_answer") or k == 12 and reward.status == "verifier_timeout"


# ------------------------------------------------------------------------------------------------------------------ pool
@pytest.mark.needs("time")
@pytest.mark.slow
def test_hang_costs_only_itself():
    good = [item(f"\\boxed{{\\frac{{{2 * k}}}{{{14 * k}}}}}", "\\frac17") for k in range(1, 41)]
    bad = [item(text, gold) for gold, text in hanging_triples()]
    batch = [part for k, part in enumerate(good) for part in ([bad[k // 7], part] if k % 7 == 0 else [part])]
    others = {child.pid for child in multiprocessing.active_children()}  # workers of the module's pool
    start = time.perf_counter()
    with RewardPool(2, timeout_s=3) as pool:
        pool.score_batch(good[-1:])
        startup, start = time.perf_counter() - start, time.perf_counter()  # of a worker, on this machine as busy as it is
        for case, reward in zip(batch, pool.score_batch(batch)):
            if case in good:
                assert reward == (1.0, True, "correct")
            else:
                assert reward in ((-1.0, False, "verifier_timeout"), (-1.0, False, "verifier_error")), case
        assert time.perf_counter() - start < len(bad) * (3 + startup) + 20
        assert pool.score_batch(good[:5]) == [Reward(1.0, True, "correct")] * 5
        workers = {child.pid for child in multiprocessing.active_children()} - others
    assert workers and wait_for(lambda: not any(map(alive, workers)))


@pytest.mark.slow
def test_crash_and_memory_cost_only_themselves(monkeypatch):
    """Also: how to add a verifier whose slow part runs in a worker."""
    def prepare(text, ground_truth, options):
        return Job({"abort": os.abort, "exit": os._exit, "memory": bytearray, "raise": json.loads}[text],
                   {"abort": (), "exit": (3,), "memory": (1 << 50,), "raise": ("{",)}[text], lowest=-7.0)
    monkeypatch.setitem(rewards.VERIFIERS, "evil", Verifier(prepare, lambda ground_truth: None, think=False))
    with RewardPool(2, timeout_s=10) as pool:
        batch = [item(text, "1", "evil") for text in ("abort", "exit", "memory", "raise")]
        good = [item(f"\\boxed{{{k}/{7 * k}}}", "1/7") for k in range(1, 31)]
        mixed = [case for k, case in enumerate(good) for case in ([batch[k // 8], case] if k % 8 == 0 else [case])]
        for case, reward in zip(mixed, pool.score_batch(mixed)):
            assert reward == ((-7.0, False, "verifier_error") if case in batch else (1.0, True, "correct")), case


class Unloadable:
    """Can be pickled, and not loaded."""

    def __reduce__(self):
        return getattr, ("text", "no such name")


class Unpicklable:
    def __reduce__(self):
        raise RecursionError("no end")


def accept(*_) -> Reward:
    return Reward(1.0, True, "correct")


def answer_42() -> int:
    return 42


@pytest.mark.slow
def test_a_job_that_cannot_be_loaded_costs_itself_only(monkeypatch):
    jobs = {"good": Job(accept, (1,)), "unloadable": Job(accept, (Unloadable(),)), "unpicklable": Job(accept, (Unpicklable(),)), "exits": Job(sys.exit, (0,)),
            "returns": Job(answer_42, ())}
    monkeypatch.setitem(rewards.VERIFIERS, "jobs", Verifier(lambda text, gold, options: jobs[text], check, False))
    monkeypatch.setattr(rewards, "SAID", set())
    with RewardPool(1) as pool, pytest.warns(UserWarning) as said:
        names = ["good"] * 5 + ["unloadable"] + ["good"] * 5 + ["unpicklable", "exits", "returns"] + ["good"] * 10
        found = pool.score_batch([item(name, "1", "jobs") for name in names])
    assert [r.status for r in found] == ["correct" if name == "good" else "verifier_error" for name in names]
    said = "\n".join(str(warning.message) for warning in said)
    assert all(text in said for text in ("no such name", "no end", "SystemExit", "expected a Reward, got int"))
    with RewardPool(1) as pool:
        monkeypatch.setitem(rewards.VERIFIERS, "local", Verifier(lambda text, gold, options: Job(lambda: 1, ()), check, False))
        with pytest.raises(ValueError, match="^rewards: local: the function of a Job cannot be sent to a worker .*--rewards$"):
            pool.submit(item("x", "1", "local"))


MAIN = """
import sys
sys.path.insert(0, {root!r})
import rewards
from rewards import Job, Reward, RewardPool, VERIFIERS, Verifier

def length(text, wanted):
    return Reward(1.0, True, "correct") if len(text) == wanted else Reward(-1.0, False, "wrong")

VERIFIERS["length"] = Verifier(lambda text, gold, options: Job(length, (text, int(gold))), int, think=False)
print("imported as", __name__, flush=True)  # a worker that is ended loses what it has buffered

{guard}:
    items = [dict(data_source="length", response="abc", ground_truth=str(k)) for k in (3, 4)]
    items += [dict(data_source="math_verify", response=f"\\\\boxed{{{{1/{{k}}}}}}", ground_truth="1/3") for k in (3, 4)]
    with RewardPool(1) as pool:
        print([r.status for r in pool.score_batch(items)])
"""


@pytest.mark.slow
def test_job_of_a_script(tmp_path):
    """A function of the script that is __main__ is found by importing the script in the worker under its name."""
    for guard, statuses in (('if __name__ == "__main__"', ["correct", "wrong"]), ("if True", ["verifier_error"] * 2)):
        script = tmp_path / f"run_{len(guard)}.py"
        script.write_text(MAIN.format(root=str(ROOT), guard=guard))
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
        assert f"{statuses + ['correct', 'wrong']}\n" in done.stdout, done.stderr
        assert ("must start its RewardPool under" in done.stderr) == (guard == "if True")
        assert f"imported as {script.stem}\n" in done.stdout


REWARDS = """
import rewards
from rewards import Job, Reward, Verifier
from helper_of_mine import wanted

def slow(text, gold):
    return Reward(0.25, False, "partial") if text == wanted + gold else Reward(-1.0, False, "wrong")

{name} = Verifier(lambda text, gold, options: Job(slow, (text, gold)), str, think=False)
"""


@pytest.fixture
def own_verifiers(monkeypatch):
    monkeypatch.setattr(rewards, "VERIFIERS", dict(rewards.VERIFIERS))
    monkeypatch.setattr(rewards, "FILES", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = set(sys.modules)
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ['rewards.VERIFIERS["mine"]', "VERIFIERS = {}; VERIFIERS['mine']"])
def test_rewards_file(tmp_path, own_verifiers, name):
    """A user's file joins here and in every worker, with what it imports from beside it."""
    (tmp_path / "helper_of_mine.py").write_text("wanted = 'so '")
    (tmp_path / "my_rewards.py").write_text(REWARDS.format(name=name))
    with RewardPool(2, rewards_file=str(tmp_path / "my_rewards.py")) as pool:
        check("mine", "x")
        found = pool.score_batch([item("so x", "x", "mine"), item("x", "x", "mine"), item("\\boxed{1/3}", "1/3")])
    assert [r.score for r in found] == [0.25, -1.0, 1.0]
    rewards.load(str(tmp_path / "my_rewards.py"))  # twice is once
    assert rewards.FILES == [str(tmp_path / "my_rewards.py")]


@pytest.mark.parametrize("name, text, said", [
    ("none.py", None, "none.py: cannot be imported"), ("text.txt", "", "text.txt: cannot be imported"), ("my-rewards.py", "", "cannot be imported as 'my-rewards'"),
    ("json.py", "x = 1", "cannot be imported as 'json'; expected a Python file with a name of its own"), ("rewards.py", "", "cannot be imported as 'rewards'"), ("own1.py", "\nx = 1 / 0", "own1.py:2: ZeroDivisionError"),
    ("own2.py", "def f(:", "own2.py:1: SyntaxError"), ("own3.py", "\n\nimport missing_module", "own3.py:3: ModuleNotFoundError"), ("own4.py", "x = 1", "adds nothing to VERIFIERS"),
    ("own5.py", "VERIFIERS = {'mine': print}", r"VERIFIERS\['mine'\] is no rewards.Verifier"), ("own6.py", "import sys\nsys.exit(3)", "own6.py:2: SystemExit")])
def test_rewards_file_that_cannot_work(tmp_path, own_verifiers, name, text, said):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said) as error:
        rewards.load(str(tmp_path / name))
    assert "\n" not in str(error.value) and rewards.FILES == []


def test_exception_in_a_verifier_costs_its_row(monkeypatch):
    def word_count(text, ground_truth, options):
        return Reward(1.0, True, "correct") if len(text.split()) == int(ground_truth) else Reward(-1.0, False, "wrong")
    monkeypatch.setitem(rewards.VERIFIERS, "word_count", Verifier(word_count, lambda gold: {}[gold], think=False))
    monkeypatch.setattr(rewards, "SAID", set())
    with pytest.warns(UserWarning, match="word_count: verifier_error, ValueError: invalid literal.*test_rewards.py:[0-9]+.*'forty'"):
        assert score("word_count", "a b", "forty") == (-1.0, False, "verifier_error")
    assert score("word_count", "a b", "2").correct
    with pytest.raises(ValueError, match="KeyError: 'forty'.*test_rewards.py"):
        check("word_count", "forty")  # any exception of a user's check is one of the row


def test_which_verifier(monkeypatch):
    """The exact name; else the longest known name in it, said once."""
    monkeypatch.setattr(rewards, "VERIFIERS", dict(rewards.VERIFIERS))
    monkeypatch.setattr(rewards, "SAID", set())
    for name in ("math_verify_strict", "coder1_mine"):
        rewards.VERIFIERS[name] = Verifier(None, None, think=name == "coder1_mine")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, verifier in rewards.VERIFIERS.items():
            assert rewards.verifier_of(name) is verifier
    for name, known in (("my/math_verify_strict-v2", "math_verify_strict"), ("x_coder1_longcot", "coder1_longcot"), ("my_math_longcot_math_verify", "math_longcot_math_verify")):
        with pytest.warns(UserWarning, match=f"data_source '{name}' is not in VERIFIERS; judged as '{known}'"):
            assert rewards.verifier_of(name) is rewards.VERIFIERS[known]


@pytest.mark.slow
def test_score_is_bounded():
    """By a ground truth too; answers that hang: test_hang_costs_only_itself."""
    start = time.monotonic()
    assert score("math_verify", "\\boxed{5}", "10^{10^{10}}").status in ("verifier_timeout", "verifier_error")
    assert time.monotonic() - start < 120 and score("math_verify", "\\boxed{2/4}", "1/2").correct and not score("math_verify", "\\boxed{2/3}", "1/3").correct


@pytest.mark.slow
def test_ctrl_c_while_workers_start(tmp_path):
    """The terminal sends it to them too, and what they import then would end in a traceback each."""
    (tmp_path / "sitecustomize.py").write_text("import os, signal, sys\nif 'spawn_main' in str(sys.orig_argv):\n    os.kill(os.getpid(), signal.SIGINT)\n")
    code = ("import rewards\nif __name__ == '__main__':\n    with rewards.RewardPool(1, 20) as pool:\n"
            "        print(pool.score_batch([dict(data_source='math_verify', response='4', ground_truth='4')])[0].status)")
    (tmp_path / "main.py").write_text(code)
    done = subprocess.run([sys.executable, str(tmp_path / "main.py")], env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("correct\n", "")


def test_idle_workers_killed():
    with RewardPool(2, timeout_s=10) as pool:
        assert pool.score_batch([item("\\boxed{1/3}", "\\frac13")])[0].correct
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)
        found = pool.score_batch([item(f"\\boxed{{{k}/{3 * k}}}", "\\frac13") for k in range(2, 12)])
        assert [r.status for r in found] == ["correct"] * 10


@pytest.mark.slow
def test_workers_killed_at_work():
    """Whoever kills workers at any moment, between two jobs too: every job is answered, few of them with an error."""
    with RewardPool(2, timeout_s=10) as pool:
        pool.patience_s = 8  # a worker killed while it holds pebble's lock blocks all so long
        waiting = [pool.submit(item(f"\\boxed{{\\frac{{{k}}}{{{3 * k}}}}}", "1/3")) for k in range(1, 301)]
        waiting[100].result()
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)
        found = Counter(future.result(timeout=200).status for future in waiting)
    assert found["correct"] >= 290 and found["correct"] + found["verifier_error"] == 300


def test_closed_pool_answers():
    pool = RewardPool(1, timeout_s=30)
    waiting = [pool.submit(item(text, "5")) for text in ("\\boxed{9^{9^{9^9}}}", "\\boxed{1/7}")]
    pool.close()
    pool.close()
    assert all(f.result(timeout=5).status in ("verifier_error", "wrong") for f in waiting)
    assert pool.submit(item("\\boxed{1/9}", "5")).result(timeout=5) == (-1.0, False, "verifier_error")
    assert pool.submit(item("\\boxed{5}", "5")).result(timeout=5).correct  # needs no worker
    with RewardPool(1) as pool:
        waiting = [pool.submit(item("9" * 3000 + str(k), "5")) for k in range(500)]  # more than the pipe to the worker holds
    assert len([f.result(timeout=5) for f in waiting]) == 500


def flaky(folder: str) -> Reward:
    """Fails as the sandbox does on its first call, and notes when it was called."""
    calls = Path(folder) / "calls"
    calls.open("a").write(f"{time.time()}\n")
    return Reward(0.5, False, "partial") if len(calls.read_text().splitlines()) > 1 else Reward(0.0, False, "sandbox_error")


def broken(folder: str) -> Reward:
    (Path(folder) / "broken").open("a").write("called\n")
    return Reward(0.0, False, "sandbox_error")


def slow(folder: str) -> Reward:
    time.sleep(0.1)
    (Path(folder) / f"end{time.time_ns()}").touch()
    return Reward(1.0, True, "correct")


@pytest.mark.slow
def test_sandbox_failure_is_tried_again_alone(monkeypatch, tmp_path):
    jobs = {job.__name__: job for job in (flaky, broken, slow)}
    monkeypatch.setitem(rewards.VERIFIERS, "jobs", Verifier(lambda text, gold, options: Job(jobs[text], (gold,)), check, False))
    with RewardPool(2) as pool:
        names = ["flaky", "broken", *["slow"] * 10]
        found = pool.score_batch([item(name, str(tmp_path), "jobs") for name in names])
    assert [r.status for r in found] == ["partial", "sandbox_error"] + ["correct"] * 10
    assert (tmp_path / "broken").read_text() == "called\n" * 2  # once more, then reported
    first, second = map(float, (tmp_path / "calls").read_text().split())
    assert second >= max(int(end.name[3:]) for end in tmp_path.glob("end*")) / 1e9 - 0.05


SCRIPT = """
import sys, time, threading
sys.path.insert(0, {root!r})
print("script runs", flush=True)
import torch
import rewards
threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
pool = rewards.RewardPool(2, timeout_s=60)
pool.score_batch([dict(data_source="math_verify", response=f"\\\\boxed{{{{1/{{k}}}}}}", ground_truth="2") for k in range(3, 30)])
pool.submit(dict(data_source="math_verify", response="\\\\boxed{{9^{{9^{{9^9}}}}}}", ground_truth="2"))
pool.submit(dict(data_source="coder1", response="```python\\nwhile True: pass\\n```", ground_truth={truth!r}))
print("submitted", flush=True)
time.sleep(100)
"""


def descendants(pid: int) -> set[int]:
    found = {pid}
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


@pytest.mark.slow
def test_owner_killed(tmp_path):
    """kill -9 of the owner during a hang in C code and an endless program: no worker and no sandbox process stays. The owner's
    script is not run again by the workers, although it has no `if __name__ == "__main__"`, and they hold no torch."""
    truth = json.dumps({"inputs": ["1"], "outputs": ["1"], "timeout": 60})
    (tmp_path / "owner.py").write_text(SCRIPT.format(root=str(ROOT), truth=truth))
    owner = subprocess.Popen([sys.executable, tmp_path / "owner.py"], stdout=subprocess.PIPE, text=True)
    try:
        assert [owner.stdout.readline(), owner.stdout.readline()] == ["script runs\n", "submitted\n"]
        assert wait_for(lambda: len(descendants(owner.pid)) >= 4, 20)  # two workers, a zygote, the program
        time.sleep(1)
        started = descendants(owner.pid)
        assert not any("libtorch" in Path(f"/proc/{pid}/maps").read_text() for pid in started)
    finally:
        owner.kill()
        owner.wait()
    assert wait_for(lambda: not any(map(alive, started)), 5)


# ------------------------------------------------------------------------------------------------------------------ code
@pytest.fixture
def no_zygote_left():
    yield
    sandbox.close()


def block(code: str, think: bool = True) -> str:
    return f"{'<think>hm</think>' if think else ''}Here it is:\n```python\n{code}\n```\n"


DOUBLE = {"inputs": [f"{k}\n" for k in range(8)], "outputs": [f"{2 * k}\n" for k in range(8)]}
TRUTHS = {  # the task in all published shapes: twice the number
    "stdin": (DOUBLE, "n = int(input())\nprint(2 * n)", "n = int(input())\nprint(2 * n if n < 2 else 0)"),
    "stdin lists": ({"inputs": [["2", "3"]] * 4 + [["0", "0"]] * 4, "outputs": [["4", "6"]] * 4 + [["0", "0"]] * 4},
                    "for _ in '12': print(2 * int(input()))", "print('0\\n0')"),
    "call": ({"inputs": [[k] for k in range(8)], "outputs": [2 * k for k in range(8)], "fn_name": "double"},
             "def double(n):\n    return 2 * n", "def double(n):\n    return n * n"),
    "functional": ({"functional": [f"assert double({k}) == {2 * k}" for k in range(8)]},
                   "def double(n):\n    return 2 * n", "def double(n):\n    return n * n"),
}


@pytest.mark.parametrize("shape", TRUTHS)
def test_code_formats_and_scores(shape, no_zygote_left):
    truth, right, partly = TRUTHS[shape]
    passed = 4 / 8 if shape == "stdin lists" else 2 / 8
    for gold in (truth, json.dumps(truth)):
        check("coder1", gold)
        assert score("coder1", block(right), gold) == (1.0, True, "correct")
    gold = json.dumps(truth)
    assert score("coder1", block(partly), gold) == (passed, False, "partial")
    assert score("coder1", block(partly), gold, code_reward="signed_pass_rate") == (2 * passed - 1, False, "partial")
    assert score("coder1", block(partly), gold, code_reward="all_or_nothing") == (-1.0, False, "wrong")
    assert score("coder1", block("def double(n): 1 / 0"), gold) == (0.0, False, "wrong")
    assert score("coder1", block("def double(n): 1 / 0"), gold, code_reward="signed_pass_rate") == (-1.0, False, "wrong")


@pytest.mark.slow
@pytest.mark.needs("namespaces")
def test_code_single_test_formats(no_zygote_left):
    tests = "def test_a():\n    assert double(3) == 6\n\ndef test_b():\n    assert double(0) == 0"
    for truth in ({"functional": "assert double(3) == 6\nassert double(0) == 0"}, {"pytest": f"from solution import *\n\n{tests}"}):
        assert score("coder1", block("def double(n):\n    return 2 * n"), json.dumps(truth)) == (1.0, True, "correct")
        assert score("coder1", block("def double(n):\n    return 6"), json.dumps(truth)) == (0.0, False, "wrong")
        assert score("coder1", block("1 / 0"), json.dumps(truth | {"timeout": 1})) == (0.0, False, "wrong")


def test_which_program(no_zygote_left):
    gold, right = json.dumps(DOUBLE), "print(2 * int(input()))"
    assert rewards.program_of(block("1") + block("2") + "Output:\n```\n3\n```") == "2\n"
    assert rewards.program_of("```\n1\n```") == "1\n" and rewards.program_of("```cpp\n1\n```") == ""
    assert rewards.program_of("text ```py\n1\n``` text") == "1\n"
    plain = "```\nn = int(input())\nprint(n)\n```\n"  # unmarked, as is what it prints
    for output in ("6", "[1, 2]", "Hello, world", "YES", "1 2\n3"):
        assert rewards.program_of(f"{plain}It prints\n```\n{output}\n```") == "n = int(input())\nprint(n)\n"
    assert rewards.program_of(f"{plain}or\n```\nprint(input())\n```\n") == "print(input())\n"
    assert rewards.program_of("```python\n1\n```\n```cpp\n2\n```", any_language=True) == "2\n"
    assert score("coder1_longcot", block(right, think=False), gold) == (-1.0, False, "no_think_end")
    assert score("coder1_longcot", f"{block(right)}</think>", gold) == (0.0, False, "no_code")
    assert score("toy:code", block(right), gold).correct and score("coder1", block(right, think=False), gold).correct
    assert score("coder1", "no program", gold, code_reward="signed_pass_rate") == (-1.0, False, "no_code")
    assert score("coder1", "```python\n\n```", gold).status == "no_code"


BLOCKS = [  # (response, program)
    ("```py3\n1\n```", "1"), ("```python3.11\n1\n```", "1"), ("```Python 3\n1\n```", "1"), ('```python title="a.py"\n1\n```', "1"),
    ("```{.python}\n1\n```", "1"), ("``` {.python .numberLines}\n1\n```", "1"), ("```python,editable\n1\n```", "1"), ("```PYTHON\n1\n```", "1"),
    ("```python:main.py\n1\n```", "1"), ("~~~python\n1\n~~~", "1"), ("~~~\n1\n~~~", "1"), ("~~~python\ns = '```'\n~~~", "s = '```'"),
    ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''"), ("1. Do:\n   ```python\n   if 1:\n       x\n   ```\n2. ok", "if 1:\n    x"),
    ("- ```python\n  x\n  ```", "x"), ("1. ```python\n   if x:\n       y\n   ```", "if x:\n    y"), ("\t```python\n\tx\n\t```", "x"),
    ("   ```python\n   def f():\n       return 1\n   ```", "def f():\n    return 1"), ("text\r\n```python\r\nx\r\ny\r\n```\r\n", "x\ny"),
    ("```python\nx\ny", "x\ny"), ("```python\nx\n```\nThen\n```python\nz\ny", "z\ny"), ("```python\ns = '```'\nprint(s)\n```", "s = '```'\nprint(s)"),
    ('```python\ns = """\n```\ncode\n```\n"""\nprint(s)\n```\nbye', 's = """\n```\ncode\n```\n"""\nprint(s)'),
    ("```python\ns = '''\n```\nbroken, then\n```python\n2\n```", "2"), ("```markdown\n```python\n1\n```\n```", "1"),
    ("Use ```print(1)``` here\n```python\n2\n```", "2"), ("I write ``` as a fence\n```python\n1\n```", "1"), ("```python\nprint(1)```", "print(1)"),
    ("```python\n1\n``` \nOutput:\n```\n3\n```", "1"), ("```python\n1\n```\nRun:\n```bash\npython a.py\n```", "1"), ("```\n1\n```", "1"),
    ("```pycon\n>>> 1\n```", ""), ("```python-repl\n1\n```", ""), ("```python\n\n```", ""), ("```cpp\n1\n```", ""), ("none", ""), ("```", ""),
    ("```python\n# a\u2028b\x0cc\n1\n```", "# a\u2028b\x0cc\n1"), ("> quoted\n\n* ~~~python\n  x\n  ~~~", "x"),
    ("> ```python\n> def f(x):\n>     return x\n> ```", "def f(x):\n    return x"), ("```python\nbroken(\n\nWait, again:\n```python\nx\n```", "x"),
    ("```sage\n1\n```", "1"), ("```jupyter-python\n1\n```", "1"), ("a ~~~ b\n```python\n1\n```", "1"), ("~~~\n```\n~~~\n```python\n1\n```", "1"),
]


@pytest.mark.parametrize("response, program", BLOCKS)
def test_fenced_blocks(response, program):
    assert rewards.program_of(response).strip() == program


def test_fenced_blocks_in_time():
    hostile = ["`" * 60000, "```" * 20000, "```a" * 20000, "```\n" * 15000, "```python\n'''\n```\n" * 4000, "`" * 30000 + "a", "~" * 60000, "> " * 30000,
               "- " * 30000 + "x", "a```\n" * 12000, "```python\n'''\n" + "```\n" * 15000, "```python\n'''\n```\n'''\n" * 3000,
               ("x" * 10 + "``` a b") * 5000, "1. " * 20000, "a:b" * 20000 + "=", "def " * 15000, "x" + "~" * 30000 + "`\n" * 9, "~" * 30000 + "`", '"""\n```\n' * 8000, "```python\n" + ("x" + " " * 8000 + "\n") * 7,
               "1" * 60000, "1. " * 20000 + "```", "```python\nx\n```\n" * 4000, "```python\n" + "".join(f"def f{k}(): pass\n" for k in range(4000)), "```python\n" + " " * 60000 + "\n```"]
    start = time.process_time()
    for response in hostile:
        rewards.program_of(response, entries=frozenset(["f"]))
    assert time.process_time() - start < 20  # seconds for all; quadratic work would take minutes


SOLUTION, USAGE = "```python\ndef plus(a, b):\n    return a + b\n```\n", "For example:\n```python\nprint(plus(1, 2))\nresult = plus(3, 4)\n```\n"


@pytest.mark.slow
@pytest.mark.sampled(4)
@pytest.mark.parametrize("truth", [
    {"inputs": [[1, 2]], "outputs": [3], "fn_name": "plus"}, {"functional": "assert plus(1, 2) == 3"}, {"functional": ["result = plus(1, 2)\nassert result == 3"]},
    {"functional": "def check(candidate):\n    assert candidate(1, 2) == 3\ncheck(plus)"}, {"pytest": "from solution import plus\ndef test_plus(): assert plus(1, 2) == 3"},
    {"pytest": "from solution import *\ndef test_plus(): assert plus(1, 2) == 3"}, {"pytest": "import solution\ndef test_plus(): assert solution.plus(1, 2) == 3"}])
def test_usage_example_does_not_replace_the_solution(truth, no_zygote_left):
    test = "```python\ndef test_plus():\n    assert plus(1, 2) == 3\n```\n"
    for response in (SOLUTION + USAGE, SOLUTION + test, SOLUTION.replace("+", "-") + SOLUTION + USAGE, SOLUTION + "```\nprint(plus(1, 2))\n```"):
        job = rewards.code_answer(response, json.dumps(truth), rewards.Options())
        assert job.args[0].strip() == "def plus(a, b):\n    return a + b", response
    assert score("coder1", SOLUTION + USAGE, truth).correct
    assert score("coder1", SOLUTION + SOLUTION.replace("+", "-"), truth).status == "wrong"  # the last one that defines it


def test_usage_example_of_a_class():
    response = "```python\nclass Solution:\n    def f(self, x): return x\n```\n```python\ns = Solution()\nprint(s.f(1))\n```"
    for truth in ({"functional": "assert Solution().f(1) == 1"}, {"inputs": [[1]], "outputs": [1], "fn_name": "f"}):
        assert rewards.code_answer(response, truth, rewards.Options()).args[0].startswith("class Solution")
    names = answers.entries_of({"functional": "import math\nfor i in range(3): assert g(i, math.pi, key=lambda v: v) == [j for j in h(i)]\nclass T: pass\nT()"})
    assert names == {"g", "h"}
    assert rewards.program_of("```python\nx = 1\n```\n```python\ny = 2\n```", entries=frozenset(["f"])) == "y = 2\n"  # nobody defines it


def test_tests_are_parsed_once_a_problem(monkeypatch):
    """Not once a response: neither here nor in a worker, which gets them as one pickle."""
    parsed = []
    monkeypatch.setattr(sandbox, "as_cases", lambda tests, real=sandbox.as_cases: parsed.append(1) or real(tests))
    monkeypatch.setattr(sandbox, "run_tests", lambda code, tests, **limits: [sandbox.TestResult(True, "ok") for _ in tests])
    truth = json.dumps({"inputs": ["[1]\n2", "[3]\n4"] * 10, "outputs": ["1"] * 20, "fn_name": "f"})
    for source, tests in (("coder1", 16), ("livecodebench", 20)):
        parsed.clear()
        jobs = [rewards.prepare(source, block(f"x = {k}"), truth, "", rewards.Options()) for k in range(5)]
        assert all(job.args[1] is jobs[0].args[1] for job in jobs) and len(jobs[0].args[1]["inputs"]) == tests
        there = [pickle.loads(pickle.dumps(job.args)) for job in jobs]
        assert all(args[1] is there[0][1] for args in there) and there[0][1] == jobs[0].args[1]
        assert [rewards.run_program(*args).correct for args in there] == [True] * 5 and len(parsed) == 1


def test_guard_against_the_sandbox_counts_tests():
    """As long as the sandbox may need, on a loaded machine too, and no longer: once it counted the letters of a test."""
    text = "assert plus(1, 2) == 3\n" * 200
    guards = [rewards.code_answer(SOLUTION, truth, rewards.Options()).timeout_s for truth in (
        {"functional": text}, {"functional": [text]}, {"pytest": "from solution import plus\ndef test(): assert plus(1, 2)"}, {"inputs": [[1, 2]], "outputs": [3], "fn_name": "plus"})]
    assert len(set(guards)) == 1 and sandbox.STARVED * 17 < guards[0] < 1000
    assert rewards.code_answer(SOLUTION, {"functional": [text] * 16}, rewards.Options()).timeout_s > 10 * guards[0]


def test_same_tests_for_the_group():
    many = json.dumps({"inputs": [str(k) for k in range(100)], "outputs": [str(k) for k in range(100)]})
    options = rewards.Options()
    one, two = (rewards.code_answer(block(code), many, options).args[1] for code in ("a", "b"))
    assert one == two and len(one["inputs"]) == 16 and one["inputs"] == one["outputs"]
    code = "import json,sys,rewards; print(json.dumps(rewards._chosen(sys.argv[1], 16)['inputs']))"  # in another process too
    other = subprocess.run([sys.executable, "-c", code, many], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(other.stdout) == one["inputs"] != [str(k) for k in range(16)]
    assert len(rewards._chosen(json.dumps(json.loads(many) | {"max_test_cases": 3}), 16)["inputs"]) == 3
    assert len(rewards._chosen(json.dumps({"functional": ["assert 1"] * 40}), 16)["functional"]) == 16
    assert len(rewards.code_answer(block("a"), json.loads(many), options, livecodebench=True).args[1]["inputs"]) == 100


def test_early_stop_only_where_it_cannot_matter(monkeypatch):
    seen = {}
    def fake(code, tests, early_stop, **limits):
        seen[early_stop] = limits
        return [sandbox.TestResult(True, "ok"), sandbox.TestResult(False, "sandbox_error")]
    monkeypatch.setattr(sandbox, "run_tests", fake)
    gold = json.dumps(DOUBLE | {"timeout": 3})
    for code_reward, stop, lowest in (("pass_rate", "", 0.0), ("signed_pass_rate", "", -1.0), ("all_or_nothing", "fail", -1.0)):
        seen.clear()
        assert score("coder1", block("1"), gold, code_reward=code_reward) == (lowest, False, "sandbox_error")
        assert seen == {stop: dict(timeout_s=3.0, memory_mb=1024, outer="", require="", compare="exact")}
    seen.clear()
    score("livecodebench", block("1"), gold, sandbox_outer="firejail", sandbox_require="full")  # its limits, not the row's
    assert seen == {"": dict(timeout_s=6.0, memory_mb=4096, outer="firejail", require="full", compare="livecodebench")}
    with pytest.raises(ValueError, match="code_reward 'half'; expected pass_rate, "):
        score("coder1", block("1"), gold, code_reward="half")


def test_a_reward_is_of_plain_types(monkeypatch):
    """numpy's numbers ended a run after its first step (no JSON), and NaN made every gradient of it useless without a word."""
    right = np.bool_(True)
    for value, expected in ((np.float32(0.5), (0.5, True, "correct")), (math.nan, (-1.0, False, "verifier_error")), ("high", (-1.0, False, "verifier_error"))):
        monkeypatch.setitem(rewards.VERIFIERS, "mine", Verifier(lambda *_: Reward(value, right, "correct"), lambda truth: None, think=False))
        found = rewards.score("mine", "x", "y")
        assert found == expected and [type(part) for part in found] == [float, bool, str]
        done = rewards.perform(pickle.dumps((Reward, (value, right, "correct"))))
        assert done == expected if expected[1] else isinstance(done, str)


@pytest.mark.parametrize("truth", ["{", "[]", "{}", '{"inputs": []}', '{"inputs": ["1"], "outputs": []}', '{"functional": [1]}',
                                   None, 5, '{"inputs": "1", "outputs": "1"}', '{"pytest": ""}'])
def test_unusable_code_ground_truth(truth):
    with pytest.raises(ValueError, match="^code ground truth.*expected .*functional") as error:
        check("coder1_longcot", truth)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("truth, said", [
    ({"inputs": None, "functional": "assert f(1)"}, "inputs"), ({"functional": None, "pytest": "from solution import f\ndef test(): assert f(1)"}, "functional"),
    ({"functional": "assert f(1"}, "parse"), ({"functional": ["assert f(1)", "assert (f(1)"]}, "parse"), ({"pytest": "def test(:"}, "parse"),
    ({"timeout": "5"}, "timeout"), ({"timeout": -1}, "timeout"), ({"timeout": 1e9}, "timeout"), ({"timeout": True}, "timeout"), ({"timeout": [5]}, "timeout"),
    ({"max_test_cases": "3"}, "max_test_cases"), ({"max_test_cases": -3}, "max_test_cases"), ({"max_test_cases": 1.5}, "max_test_cases"),
    ({"inputs": ["[1, 2"], "outputs": ["1"], "fn_name": "f"}, "JSON"), ({"inputs": [None], "outputs": ["1"]}, "null"), ({"inputs": ["1"], "outputs": [None]}, "null")])
def test_rows_that_would_fail_later_are_refused(truth, said):
    truth = truth if truth.keys() & {"inputs", "functional", "pytest"} else DOUBLE | truth
    with pytest.raises(ValueError, match=f"^code ground truth.*{said}") as error:
        check("coder1", json.dumps(truth))
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"timeout": 3}, {"timeout": 0.5}, {"timeout": None}, {"max_test_cases": 2}, {"max_test_cases": None}, {"fn_name": None}])
def test_rows_that_are_fine(more, no_zygote_left):
    check("coder1", json.dumps(DOUBLE | more))
    assert score("coder1", block("print(2 * int(input()))"), json.dumps(DOUBLE | more)).correct


def test_a_machine_that_would_fail_right_programs_is_refused(monkeypatch):
    for able, said in (({"pytest": False, "unreadable": []}, "pytest, which is not installed; pip install pytest"),
                       ({"pytest": True, "unreadable": ["/home/me/lib/site-packages/numpy"]}, "cannot import /home/me/.*/numpy.*chmod -R go")):
        rewards.sandbox_works.cache_clear()
        monkeypatch.setattr(sandbox, "capabilities", lambda able=able: able)
        with pytest.raises(ValueError, match=said):
            check("coder1", {"pytest": "from solution import f\ndef test_f(): assert f(1)"})
        if not able["unreadable"]:
            check("coder1", DOUBLE)
    rewards.sandbox_works.cache_clear()


@pytest.mark.slow
def test_a_row_that_fails_costs_itself_only():
    """A timeout too long for the clock once left the answers of all programs after it shifted by one."""
    good = item(block("print(2 * int(input()))"), json.dumps(DOUBLE), "coder1")
    with RewardPool(1) as pool:
        found = pool.score_batch([good, good | {"ground_truth": json.dumps(DOUBLE | {"timeout": 1e9})}, *[good] * 8])
    assert [r.status for r in found] == ["correct", "verifier_error", *["correct"] * 8]


@pytest.mark.slow
def test_a_program_that_dozes_is_no_failure_of_the_verifier():
    """A little work and much sleep for ever looks like a program on an overloaded machine; it must not leave the batch."""
    doze = "import time\nwhile True:\n    end = time.process_time() + 0.004\n    while time.process_time() < end: pass\n    time.sleep(0.09)"
    with RewardPool(1) as pool:
        found = pool.score_batch([item(block(doze), json.dumps({"inputs": ["1"], "outputs": ["2"], "timeout": 0.5}), "coder1")])
    assert found == [(0.0, False, "wrong")]


def test_livecodebench(no_zygote_left):
    truth = {"inputs": ["1 2", "3 4"] * 10, "outputs": ["3.0\n", "7 \n\n"] * 10}  # 20 tests, all of them count
    check("livecodebench", truth)
    right, most = "print(sum(map(int, input().split())))", "a = input()\nprint(7 if a[0] == '3' else 4)"
    assert score("livecodebench", block("print(0)") + block(right), truth) == (1.0, True, "correct")
    assert score("livecodebench", block(most), truth) == (0.5, False, "partial")
    assert score("livecodebench", block(most), truth, code_reward="all_or_nothing") == (-1.0, False, "wrong")
    call = {"inputs": ["[1, 2]\n3", "[]\n0"], "outputs": ["6", "0"], "fn_name": "total"}
    code = "class Solution:\n    def total(self, xs: List[int], y: int) -> int:\n        return sum(xs) + y"
    assert score("livecodebench", f"<think>\n{block(code)}</think>\n{block(code)}", call).correct
    assert score("livecodebench", block(code.replace("+ y", "- y")), call) == (0.5, False, "partial")


@pytest.mark.slow
@pytest.mark.needs("shared")
def test_real_code_rows():
    """Published references pass; the same programs with one operator changed, and the programs of other tasks, do not."""
    rows = []
    for name, some in (("code_functional_rl", 9), ("code_mbpp_rl", 9), ("code_stdin_rl", 6)):
        part = [json.loads(line) for line in (SHARED / f"{name}.jsonl").read_text().splitlines()]
        for row in part:
            check(row["data_source"], row["reward_model"]["ground_truth"])
        part = [row for row in part if row["extra_info"].get("reference")]
        part = sorted(part, key=lambda row: len(row["reward_model"]["ground_truth"]))
        rows += part[:max(some, len(part) // 2):max(1, len(part) // 2 // some)]
    codes = [row["extra_info"]["reference"] for row in rows]
    def items(codes):
        return [dict(data_source=row["data_source"], response=block(code), ground_truth=row["reward_model"]["ground_truth"])
                for row, code in zip(rows, codes)]
    with RewardPool(2, test_timeout_s=20) as pool:
        right = pool.score_batch(items(codes))
    assert [(row["extra_info"], r) for row, r in zip(rows, right) if not r.correct] == []
    changed = [code.replace("return ", "return 1 and not ") if "return " in code else "print(0)\n" + code for code in codes]
    with RewardPool(2, code_reward="all_or_nothing") as pool:
        found = pool.score_batch(items(changed) + items(codes[1:] + codes[:1]))
    assert {r.status for r in found} == {"wrong"}


@pytest.mark.slow
@pytest.mark.needs("shared")
def test_jury_programs():
    """Contest programs with the verdict of every test: the pass rate is exact."""
    rows = [json.loads(line) for line in (SHARED / "code_stdin_samples.jsonl").read_text().splitlines()]
    rows = sorted(rows, key=lambda row: len(json.dumps(row["tests"])))
    rows = [row for verdict in ("accepted", "wrong_answer")
            for row in [r for r in rows if r["verdict"] == verdict][:4]]
    with RewardPool(2, max_tests=1000, test_timeout_s=30) as pool:  # generous: the machine that runs this may be busy
        found = pool.score_batch([item(block(row["code"]), json.dumps(row["tests"]), "coder1") for row in rows])
    assert [(row["id"], r.score, row["pass_rate"]) for row, r in zip(rows, found) if abs(r.score - row["pass_rate"]) > 1e-9] == []
    assert {"correct", "partial"} <= {r.status for r in found} <= {"correct", "partial", "wrong"}
