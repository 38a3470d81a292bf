"""Verifiers: (data_source, response, ground truth) -> Reward, and the pool of worker processes that runs them.

    reward = score("math_longcot_math_verify", "<think>...</think>So it is \\boxed{42}.", "42")  # (1.0, True, "correct")
    with RewardPool(workers=8, timeout_s=10) as pool:
        rewards = pool.score_batch([dict(data_source=..., response=..., ground_truth=..., prompt_tail="<think>\n"), ...])

| data_source | think tags | ground truth | what counts after the last `</think>` |
|---|---|---|---|
| `math_longcot_math_verify`, `toy:math` | asked for | an answer: "42", "x^2" | the last `\\boxed{}` |
| `math_verify`, `math_dapo_math_verify` | no: ordinary instruct models | the same | the same |
| `coder1_longcot`, `toy:code` | asked for | tests, see `tests_of` | the last Python block |
| `coder1` | no: ordinary instruct models | the same | the same |
| `livecodebench` | no | the same: all tests, its comparison, 6 s a test | the last block |
Another name that holds one of these is judged by the longest such, with a warning. Own verifiers: `load("my_rewards.py")`.

Math. The judge is math_verify. Only the answer is handed to it, as `\\boxed{answer}`: the length of a response costs nothing.
- Boxes side by side (`\\boxed{1} and \\boxed{2}`), which math_verify joins to a set, count if the last or the set is right.
- Without a box, or if the last one is empty or never closed, math_verify reads the last 4,000 characters in its own way.
- Two plain integers are compared here; tests/test_rewards.py compares that with math_verify on thousands of pairs.
math_verify guards itself with SIGALRM, which works only in a main thread, cannot stop a long call inside C and turns a
timeout into "wrong". Its timeouts are therefore off; pebble kills the worker, and the Reward says `verifier_timeout`.

Code. sandbox.py runs the program against at most `max_tests` tests, drawn once per ground truth, so that all responses to
a problem meet the same ones. `pass_rate` p, `signed_pass_rate` 2p - 1 (as released), `all_or_nothing` 1 or -1 (it stops at
the first failure, the others cannot). A failure of the sandbox is tried again alone, then reported as `sandbox_error`.

Scores of math: correct 1, wrong -1. Where think tags are asked for, a missing `</think>` (checked first) or `<think>`
costs -1 too, so that a truncated response never beats an honest wrong one (the released system gave -0.5 and -2:
`no_think_end`, `no_think_start`). A prompt that ends in `<think>` (see `prompt_tail`) counts as opened.
`verifier_timeout`, `verifier_error` and `sandbox_error` say that the verifier failed, not the response: such a Reward
carries the score of a wrong answer, so that nobody gains by it, and correct=False; a trainer should leave it out.

A new reward is a function `(text after </think>, ground_truth, options) -> Reward`, or -> Job if it is slow or may hang (a
Job runs in a worker: its function stands at the top level of a file), and an entry in VERIFIERS.
"""

import ast
import atexit
import builtins
import ctypes
import functools
import hashlib
import importlib.util
import io
import itertools
import json
import logging
import multiprocessing.context
import multiprocessing.spawn
import os
import pickle
import random
import re
import resource
import signal
import sys
import textwrap
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, TimeoutError, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, NamedTuple

import sandbox

TAIL = 4000  # characters that math_verify sees of a response without a box; its regexes are quadratic at worst
WORKER_MEMORY_MB = 2048  # address space while math_verify runs: a huge power ends in MemoryError, not in the OOM killer
MANY = 32  # boxes side by side that are read as one set; more are no answer but an attempt on the verifier


class Reward(NamedTuple):
    score: float
    correct: bool
    status: str  # correct, wrong, partial, no_think_end, no_think_start, no_answer, no_code,
    #              verifier_error, verifier_timeout, sandbox_error


class Job(NamedTuple):
    run: Callable[..., Reward]
    args: tuple
    lowest: float = -1.0  # score if it hangs or crashes
    timeout_s: float | None = None  # None: the pool's


class Verifier(NamedTuple):
    prepare: Callable[[str, Any, "Options"], Reward | Job]  # cheap, runs in the caller's process
    check: Callable[[Any], None]  # raises ValueError for a ground truth that cannot be used
    think: bool  # whether the think tags are asked for


@dataclass(frozen=True)
class Options:
    no_think_end: float = -1.0  # score without </think>; the released system gave -0.5
    no_think_start: float = -1.0  # score without <think>; the released system gave -2
    code_reward: str = "pass_rate"  # pass_rate | signed_pass_rate | all_or_nothing
    max_tests: int = 16  # tests of a program, the same for all responses to a problem; a ground truth may ask for fewer
    test_timeout_s: float = 5.0  # CPU seconds of one test where the ground truth has no "timeout"
    memory_mb: int = 1024  # of a program
    sandbox_outer: str = ""  # "firejail": Firejail around the sandbox
    sandbox_require: str = ""  # "full": refuse a machine that cannot give every layer of isolation

    def __post_init__(self) -> None:
        if self.code_reward not in ("pass_rate", "signed_pass_rate", "all_or_nothing"):
            raise ValueError(f"code_reward {self.code_reward!r}; expected pass_rate, signed_pass_rate or all_or_nothing")


SAID: set = set()


def say(text: str, key: Any) -> None:
    """Warns once a key."""
    if key not in SAID:
        SAID.add(key)
        warnings.warn(f"rewards: {text}", stacklevel=3)


def one_line(error: BaseException) -> str:
    at = "".join(f" ({frame.filename}:{frame.lineno})" for frame in traceback.extract_tb(error.__traceback__)[-1:])
    return " ".join(f"{type(error).__name__}: {error}".split())[:300] + at


# ---------------------------------------------------------------------------------------------------------------- answer
def after_thinking(response: str) -> str:
    return response[response.rfind("</think>") + len("</think>"):] if "</think>" in response else response


def boxes(text: str) -> list[str]:
    r"""Contents of the last `\boxed{}` and of those right before it that math_verify would join with it, last one first.
    Empty if the last box is empty or is not closed. Of nested boxes the innermost counts."""
    found, end = [], len(text)
    while len(found) < MANY and (start := text.rfind("\\boxed{", 0, end)) >= 0:
        depth = 0
        for brace in re.compile(r"[{}]").finditer(text, start, end if found else len(text)):
            depth += 1 if brace.group() == "{" else -1
            if depth == 0:
                break
        if depth:
            break
        contents = text[start + 7:brace.start()].strip()
        between = text[brace.end():end] if found else ""
        # math_verify's rule for boxes that belong together (latex2sympy2_extended, extract_boxed_content)
        if not contents or found and len(between) >= 10 and not (
                len(between) < 70 and contents != found[-1] and re.search(r"\b(and|or)\b|,|;", between)):
            break
        percent = re.match(r"\s*(?:\$\$?|\\\)|\\\])\s*(?:\\?%|[Pp]ercent|[Pp]ct)", text[brace.end():brace.end() + 30])
        found.append(contents + r"\%" if percent else contents)
        end = start
    return found


def extract_answer(response: str) -> str:
    """The answer of a math response, as written: the last box, else the last number, else "". For grouping (maj@n)."""
    text = after_thinking(response)
    if found := boxes(text):
        return found[0]
    numbers = re.findall(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?", tail_of(text))
    return numbers[-1].rstrip(",") if numbers else ""


def tail_of(text: str) -> str:
    """The last TAIL characters, from the start of a line if there is one: a cut inside `$...$` pairs the rest wrongly."""
    if len(text) <= TAIL:
        return text
    tail = text[-TAIL:]
    return tail[tail.find("\n", 0, TAIL // 2) + 1:]


# ------------------------------------------------------------------------------------------------------------------ math
PLAIN_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")


def plain_verdict(gold: str, answer: str) -> bool | None:
    """Verdict on two plain integers (no leading zero, no -0); None: ask math_verify."""
    if PLAIN_INTEGER.fullmatch(gold) and PLAIN_INTEGER.fullmatch(answer):
        return gold == answer
    return None


@functools.lru_cache(maxsize=4096)
def parsed(text: str) -> list:
    from math_verify import parse  # here, not on top: the trainer itself never needs sympy
    return parse(text, parsing_timeout=None)


def as_box(text: str) -> str:
    return text if "\\boxed{" in text else f"\\boxed{{{text}}}"


def judged(gold: str, texts: tuple[str, ...]) -> Reward:
    """math_verify on each text in turn; correct if one is. Slow or endless for some inputs: run it in a worker."""
    from math_verify import verify
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its timeouts are off
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if WORKER is not None:
        most = WORKER_MEMORY_MB << 20
        resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    answers = 0
    try:
        for text in texts:
            answer = parsed(text)
            answers += len(answer)
            try:
                if answer and verify(parsed(as_box(gold)), answer, timeout_seconds=None, raise_on_error=True):
                    return Reward(1.0, True, "correct")
            except (MemoryError, RecursionError):
                raise
            except Exception:  # sympy raises what it likes on odd pairs; math_verify takes that as "not equal"
                continue
    except (MemoryError, RecursionError):
        return Reward(-1.0, False, "verifier_error")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    return Reward(-1.0, False, "wrong" if answers else "no_answer")


def math_answer(text: str, ground_truth: Any, options: Options) -> Reward | Job:
    gold, found = str(ground_truth).strip(), boxes(text)
    if not found:
        return Job(judged, (gold, (tail_of(text),)))
    verdict = plain_verdict(gold, found[0]) if len(found) == 1 else None
    if verdict is not None:
        return Reward(1.0, True, "correct") if verdict else Reward(-1.0, False, "wrong")
    texts = tuple(as_box(t) for t in dict.fromkeys((found[0], ",".join(dict.fromkeys(reversed(found))))))
    return Job(judged, (gold, texts))


def check_math(ground_truth: Any) -> None:
    answer = isinstance(ground_truth, str | int | float) and not isinstance(ground_truth, bool)
    if not answer or not str(ground_truth).strip():
        raise ValueError(f"ground truth {str(ground_truth)[:60]!r} is no answer; expected a text such as '42' or 'x^2'")


def equivalent(a: str, b: str) -> bool:
    """Whether two answers (as extract_answer gives them) are equal as mathematics, a in the place of the ground truth."""
    if a.strip() == b.strip():
        return True
    verdict = plain_verdict(a.strip(), b.strip())
    return bounded(Job(judged, (a.strip(), (as_box(b.strip()),)))).correct if verdict is None else verdict


# ------------------------------------------------------------------------------------------------------------------ code
PYTHON = re.compile(r"\{?\s*\.?(?:i?python|py|pypy)\s?[\d.]*(?![\w+#-])", re.I)  # py3, Python 3, python title=.., {.python}
OPENING = re.compile(r"^([ \t>*+-]*(?:\d{1,9}[.)][ \t]+)?|.*[^`\n])(`{3,20}|~{3,20})([^`\n]*)$", re.M)
DEFINED = re.compile(r"^[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+(\w+)|^(\w+)[ \t]*(?::[^=\n]*)?=(?!=)", re.M)
KINDS = ("inputs", "functional", "pytest")


def blocks(text: str) -> list[tuple[str, str]]:
    """(info, code) of the fenced blocks, in order; one that is never closed ends with the text. In a Python block a fence
    inside a triple-quoted text closes nothing, unless no other one does."""
    text, found, at = text.replace("\r\n", "\n") + "\n", [], 0
    while opening := OPENING.search(text, at):
        lead, fence, info = opening[1], opening[2], opening[3].strip()
        at, listed = opening.end() + 1, not lead.strip(" \t>*+-.)0123456789")
        if info.lower() in ("markdown", "md") or fence in lead or not listed and " " in info and not PYTHON.match(info):
            continue  # a wrapper of the whole answer; a fence that running text speaks of
        quotes, first, end, since = 0, None, None, at
        closings = re.compile(rf"^[ \t]*{fence}{fence[0]}*(?=[ \t\n])|{fence}(?=\n)", re.M).finditer(text, at)
        for closing in itertools.islice(closings, 50):
            quotes, since = quotes + len(re.findall("\"{3}|'{3}", text[since:closing.start()])), closing.start()
            first = first or closing
            if not quotes % 2 or not PYTHON.match(info):
                end = closing
                break
        end = end or first
        code = text[at:end.start() if end else len(text)].rstrip("\n") + "\n"
        if lead and listed and code[:len(lead)].isspace():
            code = re.sub(rf"^[ \t]{{1,{len(lead)}}}", "", code, flags=re.M)
        if code.lstrip("\n")[:1].isspace():
            code = textwrap.dedent(code)
        if end or code.strip():
            found.append((info, code))
        at = text.find("\n", end.end()) if end else len(text)
    return found


def program_of(text: str, any_language: bool = False, entries: frozenset[str] = frozenset()) -> str:
    """The last fenced Python block, or, if none is marked as Python, the last without a language; "" if there is none.
    `entries`: names that the tests call; the last block that defines the most of them is the program."""
    found = [(info, code) for info, code in blocks(text) if any_language or not info or PYTHON.match(info)]
    needed = [len(entries & {a or b for a, b in DEFINED.findall(code)}) if entries else 0 for _, code in found]
    if most := max(needed, default=0):
        return [code for (_, code), count in zip(found, needed) if count == most][-1]
    marked = [code for info, code in found if any_language or info] or [code for _, code in found]
    return marked[-1] if marked and marked[-1].strip() else ""


def kind_of(tests: dict) -> str:
    return next((key for key in KINDS if key in tests), "")


def tests_of(ground_truth: Any) -> dict:
    """The dict of tests: {"inputs": [...], "outputs": [...]} for stdin programs, with "fn_name" for calls, {"functional":
    assert code or a list} or {"pytest": a test file}; with "timeout" (CPU seconds of a test) and "max_test_cases", if
    given. A dict or JSON. Raises ValueError (one line)."""
    expected = 'expected {"inputs": [...], "outputs": [...]} (and "fn_name"), {"functional": ...} or {"pytest": ...}'
    try:
        tests = json.loads(ground_truth) if isinstance(ground_truth, str) else ground_truth
    except (ValueError, RecursionError) as error:
        raise ValueError(f"code ground truth is not JSON ({error}); {expected}") from None
    kind = kind_of(tests) if isinstance(tests, dict) else ""
    if not kind or not tests[kind]:
        raise ValueError(f"code ground truth without tests{f' ({kind} is empty)' if kind else ''}; {expected}")
    if kind == "inputs":
        if not all(isinstance(tests.get(key), list) for key in ("inputs", "outputs")) or len(tests["inputs"]) != len(tests["outputs"]):
            raise ValueError(f"code ground truth: inputs and outputs are no lists of one length; {expected}")
    elif not all(isinstance(text, str) for text in (tests[kind] if isinstance(tests[kind], list) else [tests[kind]])):
        raise ValueError(f"code ground truth: test code is not text; {expected}")
    for key, kinds, most in (("timeout", int | float, 3600), ("max_test_cases", int, 1 << 30)):
        value = tests.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value <= most):
            raise ValueError(f"code ground truth: {key} is {str(value)[:60]!r}; expected a number above 0, at most {most}")
    return tests


def entries_of(tests: dict) -> frozenset[str]:
    """Names that the program defines: fn_name; what the test code takes from `solution`, or else what it alone leaves open."""
    kind = kind_of(tests)
    if kind == "inputs":
        return frozenset([tests["fn_name"]] if tests.get("fn_name") else [])
    nodes = list(ast.walk(ast.parse("\n".join(tests[kind]) if isinstance(tests[kind], list) else tests[kind])))
    names = {a.name for n in nodes if isinstance(n, ast.ImportFrom) and n.module == "solution" for a in n.names} - {"*"}
    names |= {n.attr for n in nodes if isinstance(n, ast.Attribute) and getattr(n.value, "id", "") == "solution"}
    if not names:
        used = [n for n in nodes if isinstance(n, ast.Name)]
        names = {n.id for n in used} - {n.id for n in used if not isinstance(n.ctx, ast.Load)} - set(vars(builtins))
        names -= {getattr(n, "arg", None) or getattr(n, "asname", None) or getattr(n, "name", None) for n in nodes}
    return frozenset(names)


class Tests(dict):
    """The tests of a ground truth. They travel as one pickle and are parsed once a problem in each process, however many
    responses meet them."""

    pickled = functools.cached_property(lambda self: pickle.dumps(dict(self)))
    cases = functools.cached_property(lambda self: sandbox.as_cases(dict(self)))
    entries = functools.cached_property(entries_of)

    def __reduce__(self):
        return received, (self.pickled,)


@functools.lru_cache(maxsize=4)
def received(pickled: bytes) -> Tests:
    return Tests(pickle.loads(pickled))


@functools.lru_cache(maxsize=4)
def _all(ground_truth: str) -> Tests:
    return Tests(tests_of(ground_truth))


@functools.lru_cache(maxsize=64)
def _chosen(ground_truth: str, most: int) -> Tests:
    tests = tests_of(ground_truth)
    most, cases = min(most, tests.get("max_test_cases") or most), tests[kind_of(tests)]
    if isinstance(cases, list) and len(cases) > most:  # seeded by the problem: every response, rank and step meets the same
        seed = hashlib.sha256(ground_truth.encode()).hexdigest()
        chosen = sorted(random.Random(seed).sample(range(len(cases)), max(1, most)))
        tests |= {key: [tests[key][i] for i in chosen] for key in {kind_of(tests), "outputs"} & tests.keys()}
    return Tests(tests)


def code_answer(text: str, ground_truth: Any, options: Options, livecodebench: bool = False) -> Reward | Job:
    if livecodebench:
        tests = _all(ground_truth) if isinstance(ground_truth, str) else Tests(tests_of(ground_truth))
    else:
        as_text = ground_truth if isinstance(ground_truth, str) else json.dumps(ground_truth, sort_keys=True)
        tests = _chosen(as_text, options.max_tests)
    lowest = 0.0 if options.code_reward == "pass_rate" else -1.0
    code = program_of(text, any_language=True) if livecodebench else program_of(text, entries=tests.entries)
    if not code:
        return Reward(lowest, False, "no_code")
    seconds = 6.0 if livecodebench else float(tests.get("timeout") or options.test_timeout_s)
    limits = dict(timeout_s=seconds, memory_mb=4096 if livecodebench else options.memory_mb,
                  outer=options.sandbox_outer, require=options.sandbox_require,
                  compare="livecodebench" if livecodebench else "exact",
                  early_stop="fail" if options.code_reward == "all_or_nothing" else "")
    count = len(tests[kind_of(tests)]) if isinstance(tests[kind_of(tests)], list) else 1
    # the sandbox ends each test in time, also on an overloaded machine; this guards against the sandbox itself
    wall = count * (sandbox.STARVED * (3 * seconds + 2) + 60) + 60
    return Job(run_program, (code, tests, options.code_reward, limits), lowest, wall)


def run_program(code: str, tests: Tests, code_reward: str, limits: dict) -> Reward:
    results = sandbox.run_tests(code, tests.cases, **limits)
    rate = sum(result.passed for result in results) / len(results)
    lowest = 0.0 if code_reward == "pass_rate" else -1.0
    if any(result.status == "sandbox_error" for result in results):
        return Reward(lowest, False, "sandbox_error")
    if rate == 1:
        return Reward(1.0, True, "correct")
    score = {"pass_rate": rate, "signed_pass_rate": 2 * rate - 1, "all_or_nothing": -1.0}[code_reward]
    return Reward(score, False, "partial" if rate > 0 and code_reward != "all_or_nothing" else "wrong")


@functools.cache
def sandbox_works() -> dict:
    """sandbox.capabilities(). Raises ValueError, before any training, where programs would be refused or wrongly fail."""
    able = sandbox.capabilities()
    sandbox.close()
    for path in able["unreadable"]:
        raise ValueError(f"sandbox: programs cannot import {path}: other users may not read it; "
                         f"chmod -R go+rX {os.path.dirname(path)}, or use an interpreter outside a private home")
    return able


def check_code(ground_truth: Any) -> None:
    tests = tests_of(ground_truth)
    try:
        getattr(sandbox, "check_tests", sandbox.as_cases)(tests)
    except ValueError as error:
        raise ValueError(f"code ground truth: {str(error).removeprefix('sandbox: ')}") from None
    if not sandbox_works()["pytest"] and kind_of(tests) == "pytest":
        raise ValueError("code ground truth: its tests need pytest, which is not installed; pip install pytest")


# ----------------------------------------------------------------------------------------------------------------- score
VERIFIERS: dict[str, Verifier] = {  # by data_source, see the table at the top
    "math_longcot_math_verify": Verifier(math_answer, check_math, think=True),
    "math_dapo_math_verify": Verifier(math_answer, check_math, think=False),
    "math_verify": Verifier(math_answer, check_math, think=False),
    "toy:math": Verifier(math_answer, check_math, think=True),
    "coder1_longcot": Verifier(code_answer, check_code, think=True),
    "coder1": Verifier(code_answer, check_code, think=False),
    "toy:code": Verifier(code_answer, check_code, think=True),
    "livecodebench": Verifier(functools.partial(code_answer, livecodebench=True), check_code, think=False),
}
FILES: list[str] = []  # users' files of verifiers; the workers import them too


def import_file(path: str) -> Any:
    """The module that a file is, under its own name. Raises ValueError (file:line: what)."""
    name = os.path.basename(path).removesuffix(".py")
    if name in sys.modules and os.path.abspath(getattr(sys.modules[name], "__file__", None) or "") == path:
        return sys.modules[name]
    if name in sys.modules or name in sys.stdlib_module_names or not name.isidentifier() or not os.path.isfile(path):
        raise ValueError(f"{path}: cannot be imported as {name!r}; expected a Python file whose name no other module has")
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    sys.path.append(os.path.dirname(path))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        frames = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
        line = frames[-1] if frames else getattr(error, "lineno", None) or 1
        raise ValueError(f"{path}:{line}: {one_line(error).rpartition(' (')[0]}") from None
    return module


def load(path: str) -> None:
    """Imports a user's file of verifiers, here and in the workers of every pool started from now on: what it adds to
    rewards.VERIFIERS, or its own dict VERIFIERS. Raises ValueError (one line)."""
    if (path := os.path.abspath(path)) in FILES:
        return
    before = dict(VERIFIERS)
    VERIFIERS.update(getattr(import_file(path), "VERIFIERS", {}))
    if wrong := [name for name, verifier in VERIFIERS.items() if not isinstance(verifier, Verifier)]:
        raise ValueError(f"{path}: VERIFIERS[{wrong[0]!r}] is no rewards.Verifier(prepare, check, think)")
    if VERIFIERS == before:
        raise ValueError(f"{path}: adds nothing to VERIFIERS")
    FILES.append(path)


def verifier_of(data_source: str) -> Verifier:
    name = str(data_source)
    if name not in VERIFIERS:
        known = max((known for known in VERIFIERS if known in name), key=len, default=None)
        if known is None:
            raise ValueError(f"unknown data_source {name!r}; a known name must be part of it: {', '.join(VERIFIERS)}")
        say(f"data_source {name!r} is not in VERIFIERS; judged as {known!r}, the longest known name in it", name)
        name = known
    return VERIFIERS[name]


def check(data_source: str, ground_truth: Any) -> None:
    """Raises ValueError (one line) for an unknown data_source, with the known ones, or a ground truth of no use."""
    try:
        verifier_of(data_source).check(ground_truth)
    except Exception as error:  # in a user's check of any kind
        raise error if type(error) is ValueError else ValueError(one_line(error)) from None


def prepare(data_source: str, response: str, ground_truth: Any, prompt_tail: str, options: Options) -> Reward | Job:
    """The cheap part, microseconds whatever the length: think tags, answer. Returns the Reward or what is left to do."""
    verifier = verifier_of(data_source)
    if verifier.think:
        end = response.rfind("</think>")
        if end < 0:
            return Reward(options.no_think_end, False, "no_think_end")
        if not prompt_tail.rstrip().endswith("<think>") and response.find("<think>", 0, end) < 0:
            return Reward(options.no_think_start, False, "no_think_start")
    try:
        found = verifier.prepare(after_thinking(response), ground_truth, options)
        if not isinstance(found, Reward | Job):
            raise TypeError(f"expected a Reward or a Job, got {type(found).__name__}")
    except Exception as error:  # costs this row only
        say(f"{data_source}: verifier_error, {one_line(error)}, ground truth {str(ground_truth)[:60]!r}",
            (data_source, type(error)))
        return Reward(-1.0, False, "verifier_error")
    return found


def score(data_source: str, response: str, ground_truth: Any, *, prompt_tail: str = "", **options) -> Reward:
    """Reward of one response. What may be slow runs in one worker process, started at the first need, for at most 10 s;
    for many responses take RewardPool.

    prompt_tail is the end of the rendered prompt. options: the fields of Options.
    Raises ValueError for an unknown data_source."""
    job = prepare(data_source, response, ground_truth, prompt_tail, Options(**options))
    return bounded(job, data_source) if isinstance(job, Job) else job


def bounded(job: Job, data_source: str = "") -> Reward:
    """Runs a job with a limit: the sandbox's, or that of a pool of one worker."""
    childless = multiprocessing.process.current_process().daemon or importlib.util.find_spec("pebble") is None
    if job.run is run_program or WORKER or childless:
        return job.run(*job.args)
    return own_pool(os.getpid()).give(job, data_source).result()


@functools.cache
def own_pool(pid: int) -> "RewardPool":
    pool = RewardPool(1)
    atexit.register(pool.close)
    return pool


# ------------------------------------------------------------------------------------------------------------------ pool
WORKER = None  # in a worker process: the id of the process that owns the pool
SCRIPT = ""  # in a worker process: the file that is __main__ in the owner


def start_worker(owner: int, files: list[str], script: str) -> None:
    """Runs first in every worker: die with the owner, even if it is killed; import and warm up what every answer needs."""
    global WORKER, SCRIPT
    WORKER, SCRIPT = owner, script
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != owner:  # it died before the line above
        os._exit(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # pebble's handler waits in vain while C code runs, then pebble 3 s
    warnings.filterwarnings("ignore", "sandbox:")  # what this machine lacks was said by the owner (sandbox_works)
    for path in files:
        try:
            load(path)
        except ValueError as error:  # not so in the owner: its jobs fail, the others go on
            print(f"rewards: a worker: {error}", file=sys.stderr)
    judged("1", ("\\boxed{\\frac{1}{2}}",))


def script_of_main() -> str:
    """The file that is __main__; "" in an interactive session."""
    path = os.path.abspath(getattr(sys.modules["__main__"], "__file__", None) or "")
    return path if os.path.isfile(path) else ""


class Unpickler(pickle.Unpickler):
    """In a worker, what the owner calls __main__ is the owner's script, imported under its own name."""

    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(import_file(SCRIPT).__name__ if module == "__main__" else module, name)


def perform(pickled: bytes) -> Reward | str:
    """In a worker: the Reward of a job, or why there is none. A job that cannot even be loaded costs itself only."""
    try:
        run, args = Unpickler(io.BytesIO(pickled)).load()
        reward = run(*args)
        return reward if isinstance(reward, Reward) else f"expected a Reward, got {type(reward).__name__}"
    except (Exception, SystemExit) as error:
        return one_line(error)


def unsent(why: str) -> None:
    raise ValueError(why)


class CleanSpawn(multiprocessing.context.SpawnContext):
    """Spawn, but the child does not run the caller's script again: that would import torch and vLLM in every worker."""

    @staticmethod
    def Process(**arguments) -> multiprocessing.context.SpawnProcess:
        return multiprocessing.context.SpawnProcess(**arguments | {"name": "rewards.RewardPool"})


def _preparation_without_main(name: str, whole=multiprocessing.spawn.get_preparation_data) -> dict:
    data = whole(name)
    return data if name != "rewards.RewardPool" else {k: v for k, v in data.items() if not k.startswith("init_main_from_")}


multiprocessing.spawn.get_preparation_data = _preparation_without_main


@dataclass
class Entry:
    """A job that is not done: how often it was given to a worker, and whether it is tried again alone."""

    job: Job
    data_source: str
    tries: int = 0
    alone: bool = False

    def __reduce__(self):  # it waits as it is, and goes to a worker as bytes, for `perform` to load
        try:
            return bytes, (pickle.dumps((self.job.run, self.job.args)),)
        except Exception as error:  # it would end a thread of pebble's
            return bytes, (pickle.dumps((unsent, (one_line(error),))),)


class RewardPool:
    """Worker processes that score responses. A response that hangs, crashes or exhausts memory costs itself only.

    workers: by default one per core this process may use. timeout_s: seconds for the judge of one answer (a program has the
    limits of its tests instead). rewards_file: see `load`. score_options: the fields of Options."""

    def __init__(self, workers: int | None = None, timeout_s: float = 10.0, rewards_file: str = "", **score_options):
        if WORKER:
            raise ValueError("a script whose functions are Jobs is imported by the workers, and must start its RewardPool "
                             'under `if __name__ == "__main__":`')
        if rewards_file:
            load(rewards_file)
        if importlib.util.find_spec("math_verify") is None:
            raise ValueError("math_verify is not installed; pip install math-verify")
        self.options, self.timeout_s = Options(**score_options), timeout_s
        self.workers = max(1, min(workers or os.cpu_count(), len(os.sched_getaffinity(0))))
        self._alone = ThreadPoolExecutor(1)  # second tries of jobs that the sandbox failed, one at a time
        self._known: dict[tuple, Future] = {}  # math answers seen: a group mostly gives a few different ones
        self._open: dict[Future, Entry] = {}  # not scored yet
        self._pool: Any = None  # pebble's ProcessPool; None: being started or replaced
        self._lock, self._wake, self._closed = threading.Lock(), threading.Event(), False
        self._last = time.monotonic()  # when a job was last given to the workers or ended
        # The death signal of a worker comes when the thread that started it ends, so a thread of the pool's own starts them.
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def _keep(self) -> None:
        """Starts pebble's pool and replaces it if it breaks (pebble gives up if a worker is killed while idle)."""
        from pebble import ProcessPool  # here, not on top: score() on a machine under test needs neither this nor sympy

        while True:
            pool = ProcessPool(self.workers, initializer=start_worker, context=CleanSpawn(),
                               initargs=(os.getpid(), list(FILES), script_of_main()))
            pool.schedule(os.getpid)  # starts the workers now
            with self._lock:
                self._pool, waiting = pool, list(self._open.items())
            for future, entry in waiting:
                if entry.tries < 3:
                    self._schedule(future)
                else:
                    self._finish(future, Reward(entry.job.lowest, False, "verifier_error"))
            while not self._wake.wait(1) and pool.active and not self._stalled():
                pass
            with self._lock:
                self._pool = None
                self._wake.clear()
            pool.stop()
            pool.join()
            if self._closed:
                return

    def _stalled(self) -> bool:
        """Whether nothing ended for longer than any job may take: a worker killed while it held pebble's lock blocks all."""
        limits = [entry.job.timeout_s or self.timeout_s for entry in list(self._open.values())]
        return bool(limits) and time.monotonic() - self._last > max(limits) + 120  # a busy machine starts slowly

    def submit(self, item: dict) -> Future:
        """Future of the Reward of dict(data_source, response, ground_truth, prompt_tail=""); its result() never raises.
        Raises ValueError at once for an unknown data_source, or a Job whose function no worker can find."""
        source, tail = item["data_source"], item.get("prompt_tail", "")
        job = prepare(source, item["response"], item["ground_truth"], tail, self.options)
        if isinstance(job, Job):
            return self.give(job, source)
        future: Future = Future()
        future.set_result(job)
        return future

    def give(self, job: Job, data_source: str) -> Future:
        """Future of the Reward of a job; see `submit`."""
        try:
            if b"__main__" in pickle.dumps(job.run) and not script_of_main():
                raise ValueError("it was defined in an interactive session")
        except Exception as error:
            raise ValueError(f"rewards: {data_source}: the function of a Job cannot be sent to a worker ({error}); define it at "
                             "the top level of a file, and give that file as --rewards") from None
        future: Future = Future()
        if job.run is judged:
            with self._lock:
                if len(self._known) > 100_000:
                    self._known.clear()
                if (known := self._known.setdefault(job.args, future)) is not future:
                    return known
        with self._lock:
            self._open[future] = Entry(job, data_source)
        self._schedule(future)
        return future

    def _schedule(self, future: Future) -> None:
        with self._lock:
            entry, pool = self._open.get(future), self._pool
            if entry and not self._closed:
                if pool is None:
                    return  # the keeper schedules it as soon as there is a pool
                try:
                    running = pool.schedule(perform, args=(entry,), timeout=entry.job.timeout_s or self.timeout_s)
                except RuntimeError:  # it broke
                    return self._wake.set()
                entry.tries, self._last = entry.tries + 1, time.monotonic()
        if entry and self._closed:
            self._finish(future, Reward(entry.job.lowest, False, "verifier_error"))
        elif entry:
            running.add_done_callback(lambda done: self._done(done, future, entry, pool))

    def _done(self, done: Future, future: Future, entry: Entry, pool: Any) -> None:
        self._last = time.monotonic()
        error = CancelledError() if done.cancelled() else done.exception()
        reward = done.result() if error is None else None
        if isinstance(error, BrokenProcessPool):  # most likely the fault of another job: the keeper schedules all again
            if pool is self._pool:
                self._wake.set()
        elif isinstance(reward, Reward) and (reward.status != "sandbox_error" or entry.alone or self._closed):
            self._finish(future, reward)
        elif isinstance(reward, Reward):
            entry.alone = True
            self._alone.submit(self._run_alone, future)
        else:
            with self._lock:
                self._known.pop(entry.job.args if entry.job.run is judged else None, None)  # another time it may go well
            if reward:
                say(f"{entry.data_source}: verifier_error, {reward}", (entry.data_source, reward.partition(":")[0]))
            status = "verifier_timeout" if isinstance(error, TimeoutError) else "verifier_error"
            self._finish(future, Reward(entry.job.lowest, False, status))

    def _run_alone(self, future: Future) -> None:
        end = time.monotonic() + 60  # under a steady stream of work "alone" is given up after a minute
        while (others := {f for f, entry in list(self._open.items()) if not entry.alone}) and time.monotonic() < end:
            wait(others, timeout=0.2)
        self._schedule(future)
        wait([future])

    def _finish(self, future: Future, reward: Reward) -> None:
        if self._open.pop(future, None) is not None:
            future.set_result(reward)

    def score_batch(self, items: Iterable[dict]) -> list[Reward]:
        """Rewards in the order of the items."""
        return [future.result() for future in [self.submit(item) for item in items]]

    def close(self) -> None:
        """Stops the workers; what is not scored yet gets `verifier_error`."""
        with self._lock:
            self._closed = True
        self._wake.set()
        self._keeper.join()
        for future, entry in list(self._open.items()):
            self._finish(future, Reward(entry.job.lowest, False, "verifier_error"))
        self._alone.shutdown()

    def __enter__(self) -> "RewardPool":
        return self

    def __exit__(self, *_) -> None:
        self.close()
