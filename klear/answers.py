"""What a response answers (the last box, the last program), what a code ground truth asks (its tests), and a Reward.

A policy may write anything, and this runs in the trainer's process: every function here takes time that is linear in
the length of the text (tests/test_rewards.py tries texts that make regular expressions slow)."""

import ast
import builtins
import functools
import hashlib
import json
import math
import pickle
import random
import re
import textwrap
from typing import Any, NamedTuple

import sandbox

TAIL = 4000  # characters that math_verify sees of a response without a box; its regexes are quadratic at worst
MANY = 32  # boxes side by side that are read as one set; more are no answer but an attempt on the verifier
# info strings of Python: py3, Python 3, python title=.., {.python}
PYTHON = re.compile(r"\{?\s{0,9}\.?(?:[ij]?python|jupyter-python|py|pypy|sage)\s?[\d.]*(?![\w+#-])", re.I)
MARKERS = re.compile(r"(?:[ \t>*+-]|\d{1,9}[.)][ \t])*")  # what stands before a fence in lists and quotes
DEFINED = re.compile(r"^[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+(\w+)|^(\w+)[ \t]*(?::[^=\n]*)?=(?!=)", re.M)


class Reward(NamedTuple):
    score: float
    correct: bool
    status: str  # correct, wrong, partial, no_think_end, no_think_start, no_answer, no_code,
    #              verifier_error, verifier_timeout, sandbox_error


def in_plain_types(reward: Any) -> Reward:
    """A verifier's Reward as the logs and the advantages need it: numpy's numbers are no JSON, and NaN is no score."""
    if not isinstance(reward, Reward):
        raise TypeError(f"expected a Reward, got {type(reward).__name__}")
    if not math.isfinite(score := float(reward.score)):
        raise ValueError(f"a score of {score}")
    return Reward(score, bool(reward.correct), str(reward.status))


def after_thinking(response: str) -> str:
    return response[response.rfind("</think>") + len("</think>"):] if "</think>" in response else response


def boxes(text: str) -> list[str]:
    r"""Contents of the last `\boxed{}` and of those before it that math_verify would join with it, last one first.
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
    numbers = re.findall(r"-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+)?", tail_of(text))
    return numbers[-1].rstrip(",") if numbers else ""


def tail_of(text: str) -> str:
    """The last TAIL characters, from the start of a line if there is one: a cut in `$...$` pairs the rest wrongly."""
    if len(text) <= TAIL:
        return text
    tail = text[-TAIL:]
    return tail[tail.find("\n", 0, TAIL // 2) + 1:]


PLAIN_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")


def plain_verdict(gold: str, answer: str) -> bool | None:
    """Verdict on two plain integers (no leading zero, no -0); None: ask math_verify."""
    if PLAIN_INTEGER.fullmatch(gold) and PLAIN_INTEGER.fullmatch(answer):
        return gold == answer
    return None


def as_box(text: str) -> str:
    return text if "\\boxed{" in text else f"\\boxed{{{text}}}"


def check_math(ground_truth: Any) -> None:
    text = json.dumps(ground_truth) if isinstance(ground_truth, dict) else str(ground_truth)
    if re.match(r'\s*\{.*?"(inputs|functional|pytest)"\s*:', text, re.DOTALL):
        raise ValueError(f"ground truth {text[:60]!r} holds tests of a program; give its data_source, e.g. coder1")
    answer = isinstance(ground_truth, str | int | float) and not isinstance(ground_truth, bool)
    if not answer or not str(ground_truth).strip():
        raise ValueError(f"ground truth {str(ground_truth)[:60]!r} is no answer; expected a text such as '42' or 'x^2'")


def opening(line: str) -> tuple[str, str, str]:
    """(what stands before, fence, info) of a line that opens a block; else the fence is empty."""
    lead = MARKERS.match(line).group()
    rest = line[len(lead):]
    fence = rest[:len(rest) - len(rest.lstrip(rest[:1]))] if rest[:1] in ("`", "~") else ""
    if len(fence) >= 3 and (fence[0] == "~" or "`" not in rest[len(fence):]):
        return lead, fence, rest[len(fence):].strip()
    head = line[:line.rfind("`") + 1]
    before, info = head.rstrip("`"), line[len(head):].strip()  # in running text, with one word or a language behind it
    inline = len(head) - len(before) >= 3 and "```" not in before and (" " not in info or PYTHON.match(info))
    return ("", head[len(before):], info) if inline else ("", "", "")


def closing(line: str, fence: str) -> tuple[str, bool] | None:
    """(code before the fence, whether the line belongs to the block) of a line that ends an open block."""
    text = MARKERS.sub("", line, count=1).rstrip()
    run = text[:len(text) - len(text.lstrip(fence[0]))]
    rest = text[len(run):]
    if len(run) >= len(fence) and not rest[:1].strip():
        return "", True
    if len(run) >= 3 and re.fullmatch(r"[\w{][^`]*", rest):  # a block begun again, the first one broken off
        return "", False
    return (text[:-len(fence)] + "\n", True) if text.endswith(fence) else None


def blocks(text: str) -> list[tuple[str, str]]:
    """(info, code) of the fenced blocks in order; one that is never closed ends with the text. In a Python block a
    fence inside a triple-quoted text closes nothing, unless no other one does."""
    lines, found, at = text.replace("\r\n", "\n").split("\n"), [], 0
    while at < len(lines):
        lead, fence, info = opening(lines[at])
        at += 1
        if not fence or info.lower() in ("markdown", "md"):  # the second wraps a whole answer
            continue
        quotes, ends = 0, []
        for number in range(at, len(lines)):
            if end := closing(lines[number], fence):
                ends.append((number, *end))
                if quotes % 2 == 0 or not PYTHON.match(info) or len(ends) > 50:
                    break
            quotes += lines[number].count('"""') + lines[number].count("'''")
        number, last, whole = (ends[-1] if ends and quotes % 2 == 0 else ends[0]) if ends else (len(lines), "", True)
        code = [line[len(lead):] if line[:len(lead)].isspace() or ">" in lead else line for line in lines[at:number]]
        code = "\n".join([*code, last])
        if code.lstrip("\n")[:1].isspace():
            code = textwrap.dedent(code)
        if ends or code.strip():
            found.append((info, code))
        at = number + whole
    return found


def does_something(code: str) -> bool:
    """Whether it is Python, and more than values: a sample output is not."""
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(isinstance(n, ast.Call) or isinstance(n, ast.stmt) and not isinstance(n, ast.Expr) for n in nodes)


def program_of(text: str, any_language: bool = False, entries: frozenset[str] = frozenset()) -> str:
    """The last fenced Python block, or, if none is marked as Python, the last without a language that does something
    (others show what a program prints), or the last of them; "" if there is none.
    `entries`: names that the tests call; the last block that defines the most of them is the program."""
    found = [(info, code) for info, code in blocks(text) if any_language or not info or PYTHON.match(info)]
    needed = [len(entries & {a or b for a, b in DEFINED.findall(code)}) if entries else 0 for _, code in found]
    if most := max(needed, default=0):
        return [code for (_, code), count in zip(found, needed) if count == most][-1]
    plain = [code for _, code in found]
    marked = [code for info, code in found if any_language or info] or [*filter(does_something, plain)] or plain
    return marked[-1] if marked and marked[-1].strip() else ""


# ---------------------------------------------------------------------------------------------------------------- tests
def kind_of(tests: dict) -> str:
    """The published format of a ground truth."""
    return next((kind for kind in ("inputs", "functional", "pytest") if kind in tests), "")


def tests_of(ground_truth: Any) -> dict:
    """The dict of tests: {"inputs": [...], "outputs": [...]} for stdin programs, with "fn_name" calls, {"functional":
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
        inputs, outputs = tests["inputs"], tests.get("outputs")
        if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
            raise ValueError(f"code ground truth: inputs and outputs are no lists of one length; {expected}")
    elif not all(isinstance(text, str) for text in (tests[kind] if isinstance(tests[kind], list) else [tests[kind]])):
        raise ValueError(f"code ground truth: test code is not text; {expected}")
    for key, kinds, most in (("timeout", int | float, 3600), ("max_test_cases", int, 1 << 30)):
        value = tests.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value <= most):
            raise ValueError(f"code ground truth: {key} is {str(value)[:60]!r}; expected a number from 0 to {most}")
    return tests


def count_tests(tests: dict) -> int:
    """The tests in what `tests_of` returns; in one text its assert statements are counted."""
    found = tests.get("inputs") or tests.get("functional") or tests["pytest"]
    return len(found) if isinstance(found, list) else max(1, len(re.findall(r"^\s*assert\b", found, re.MULTILINE)))


def entries_of(tests: dict) -> frozenset[str]:
    """Names that the program defines: fn_name; what the test code takes from `solution`, or what it leaves open."""
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
    """The tests of a ground truth. They travel as one pickle and are parsed once a problem in each process, not once a
    response."""

    pickled = functools.cached_property(lambda self: pickle.dumps(dict(self)))
    cases = functools.cached_property(lambda self: sandbox.as_cases(dict(self)))
    entries = functools.cached_property(entries_of)

    def __reduce__(self):
        return received, (self.pickled,)


@functools.lru_cache(maxsize=4)
def received(pickled: bytes) -> Tests:
    return Tests(pickle.loads(pickled))


@functools.lru_cache(maxsize=4)
def all_tests(ground_truth: str) -> Tests:
    return Tests(tests_of(ground_truth))


@functools.lru_cache(maxsize=64)
def _chosen(ground_truth: str, most: int) -> Tests:
    tests = tests_of(ground_truth)
    most, cases = min(most, tests.get("max_test_cases") or most), tests[kind_of(tests)]
    if isinstance(cases, list) and len(cases) > most:  # by the problem: the same for all responses, ranks and steps
        seed = hashlib.sha256(ground_truth.encode()).hexdigest()
        chosen = sorted(random.Random(seed).sample(range(len(cases)), max(1, most)))
        tests |= {key: [tests[key][i] for i in chosen] for key in {kind_of(tests), "outputs"} & tests.keys()}
    return Tests(tests)
