"""The index of a curation: what curate.py knows of every problem and trace. Texts stay in their files.

Rows are read by workers (shards.py), which are forked and so inherit `shared`.
"""

import contextlib
import functools
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import rewards
import sandbox
from klear import answers
from klear.rows import asked, benchmark_texts, prompt_of, responses_of, row_id, truth_of
from klear.shards import map_rows
from klear.texts import digest, folded, language_of, minhash, ngrams
from runs import die, one_line

shared = SimpleNamespace()  # cfg, filters, rules, grams, keys, names, problems; of curate.py: traces, shown, prompts


@dataclass(slots=True, eq=False)
class Problem:
    name: str  # of its file
    id: str
    source: str
    exact: bytes  # digest of the messages
    digest: bytes  # of what the user says, folded
    kind: str  # math, code; "" without a data_source
    refused: str  # why the verifier does not take the row
    truth: bool  # it has a ground truth
    tests: int  # of a code problem
    match: str  # what it shares with which benchmark problem
    language: str
    signature: Any  # MinHash, where a filter asks for it
    place: tuple[int, int, int] = (0, 0, 0)  # in prompts.partial: start, bytes of the messages, bytes of the RL row
    judged: int = 0  # of its traces that came in
    right: int = 0
    votes: Counter | None = None  # answers, where there is no ground truth
    majority: str = ""  # the answer that stands in for a ground truth
    gone: bool = False
    gone_rl: bool = False
    rate = property(lambda self: self.right / self.judged if self.judged else None)
    sample = property(lambda self: None)


@dataclass(slots=True, eq=False)
class Trace:
    problem: Problem
    sample: int
    digest: bytes
    size: int  # characters
    tokens: int | None
    correct: bool | None  # None: not judged, or the verifier failed
    whys: dict[str, str]  # of the response filters that would remove it
    signature: Any
    gone: bool = False
    id = property(lambda self: self.problem.id)


def load_benchmarks(cfg: Any) -> dict[tuple[str, ...], str]:
    """n-gram -> the first benchmark problem that holds it."""
    found: dict[tuple[str, ...], str] = {}
    for name, problems in benchmark_texts(cfg.benchmarks, "benchmarks"):
        for number, text in problems:
            found |= {gram: f"{name} {number}" for gram in ngrams(text, cfg.ngram, cfg.ignore) if gram not in found}
    return found


def problem_facts(row: dict) -> tuple:
    """The id of a row, what its Problem needs, and its messages and RL row in JSON."""
    messages, name = prompt_of(row), str(row.get("data_source") or shared.cfg.data_source)
    if messages[0]["role"] == "assistant":
        raise ValueError("the conversation begins with the assistant's message, which sft.py refuses")
    extra = row.get("extra_info") if isinstance(row.get("extra_info"), dict) else {}
    text, source = asked(messages), str(row.get("source") or extra.get("source") or name or "")
    refused, kind, truth, tests = "no data_source: give the row one, or all of them --data_source", "", None, 0
    with contextlib.suppress(ValueError):  # without a ground truth the majority of the answers may stand in
        truth = truth_of(row)
    try:
        if name:
            check = rewards.verifier_of(name).check
            kind, refused = "code" if check is rewards.check_code else "math", ""
            if kind == "code" and truth is not None:
                sandbox.check_tests(found := answers.tests_of(truth))  # as rl_gppo.py, which ends at a bad row
                tests = answers.count_tests(found)
            elif truth is not None:
                check(truth)
    except (ValueError, RecursionError, MemoryError) as error:  # the last two: of Python's parser, for odd tests
        refused = one_line(error)
    match = next((gram for gram in ngrams(text, shared.cfg.ngram, shared.cfg.ignore) if gram in shared.grams), None)
    rl = {"data_source": name, "prompt": messages, "reward_model": {"ground_truth": truth, "style": "rule"},
          "extra_info": extra | {"source": source}}
    facts = (source, digest(messages), digest(folded(text)), kind, refused, truth is not None, tests,
             f"shares {' '.join(match)!r} with {shared.grams[match]}" if match else "",
             language_of(text) if "language" in shared.filters else "",
             minhash(text) if "near_duplicate_prompts" in shared.filters else None)
    return row_id(row), facts, *(json.dumps(x, ensure_ascii=False, default=str).encode() for x in (messages, rl))


def find(row: dict) -> tuple[int, list[str]]:
    """(number of the problem, responses) of a row of generations. Raises ValueError."""
    texts, name, benchmark, keys = responses_of(row), row_id(row), str(row.get("benchmark") or ""), shared.keys
    wanted = [(benchmark, name)]
    with contextlib.suppress(ValueError):  # most rows hold no prompt
        messages = prompt_of(row)
        wanted = [digest(messages), digest(folded(asked(messages))), *wanted]
    number = next((keys[key] for key in wanted if keys.get(key, -1) >= 0), None)
    if number is None and benchmark and benchmark not in shared.names:
        raise ValueError(f"benchmark {benchmark!r} is none of the problems ({', '.join(shared.names)}); "
                         f"if one of these files holds it, give {benchmark}=FILE")
    if number is None:
        why = "that of several problems" if wanted[-1] in keys else "not among the problems"
        raise ValueError(f"id {name!r} is {why}")
    opened = "<think>\n" if shared.cfg.think_opened else ""
    return number, [text if text.lstrip().startswith("<think>") else opened + text for text in texts]


def trace_facts(row: dict) -> list[tuple]:
    """What the Traces of a row need, and the answer for the vote where there is no ground truth."""
    (number, texts), found, cfg = find(row), [], shared.cfg
    p, failed = shared.problems[number], row.get("status") in ("verifier_error", "verifier_timeout", "sandbox_error")
    correct = bool(row["correct"]) if row.get("correct") in (False, True) and not failed else None
    tokens, sample = (row[k] if type(row.get(k)) is int and len(texts) == 1 else None for k in ("tokens", "sample"))
    for text in texts:
        whys = {name: why for name, rule in shared.rules.items() if (why := rule(text, row, p.language, cfg))}
        near = minhash(text) if "near_duplicate_responses" in shared.filters else None
        cut = row.get("finish_reason") == "length" and "\\boxed" not in text  # its last number is no answer
        answer = "" if p.truth or cut else " ".join(str(row.get("answer") or rewards.extract_answer(text)).split())
        answer = re.sub(r"(?<![\w\\]) | (?!\w)", "", answer)  # the spaces that matter stay: \cdot x, 1 2/3
        found.append((number, answer, sample, digest(folded(text)), len(text), tokens, correct, whys, near))
    return found


def load(cfg: Any, prompts, log: Callable) -> tuple[list[Problem], list[Trace], Counter]:
    """The index, and the number of traces in every part. Prompts and RL rows go to the file `prompts`."""
    problems, traces, keys, sizes, samples = [], [], {}, Counter(), Counter()
    bad, files = functools.partial(log, None, "bad_row"), cfg.problems or cfg.generations
    for name, _, number, (own, facts, *texts) in map_rows(problem_facts, files, "problems", cfg.workers, bad):
        own = own or str(number)
        p = Problem(name, f"{name}/{own}" if "," in files else own, *facts, place=(prompts.tell(), *map(len, texts)))
        if not cfg.problems and p.exact in keys:
            continue
        for key in ((name, own), ("", own), (name, f"{own}#{number}"), p.exact, p.digest):
            known = keys.setdefault(key, len(problems))
            if known < len(problems) and problems[known].exact != p.exact:
                keys[key] = -1  # several problems have this
        problems.append(p)
        prompts.writelines(texts)
    prompts.flush()
    if not problems:
        die("problems: no row that can be used" if cfg.problems else
            "generations: no row holds a prompt; give the file of the prompts, --problems FILE")
    shared.keys, shared.problems, shared.names = keys, problems, list(dict.fromkeys(p.name for p in problems))
    for _, at, _, found in map_rows(trace_facts, cfg.generations, "generations", cfg.workers, bad):
        sizes[at] += len(found)
        for number, answer, sample, *facts in found:
            p = problems[number]
            traces.append(t := Trace(p, samples[number] if sample is None else sample, *facts))
            samples[number] += 1
            p.judged, p.right = p.judged + (t.correct is not None), p.right + bool(t.correct)
            if not p.truth:
                p.votes = p.votes or Counter()
                p.votes[answer] += 1
    return problems, traces, sizes
