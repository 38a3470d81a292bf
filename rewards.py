"""Verifiers: (data_source, response, ground truth) -> Reward, and the pool of worker processes that runs them.

    reward = score("math_longcot_math_verify", "<think>...</think>So it is \\boxed{42}.", "42")  # (1.0, True, "correct")
    with RewardPool(workers=8, timeout_s=10) as pool:
        rewards = pool.score_batch([dict(data_source=..., response=..., ground_truth=..., prompt_tail="<think>\n"), ...])

Math. The answer is the last `\\boxed{}` after the last `</think>`, the judge is math_verify. Only the answer is handed
to it, as `\\boxed{answer}`, so the length of a response costs nothing. Three rules go with that:
- Boxes side by side (`\\boxed{1} and \\boxed{2}`), which math_verify joins to a set, count if the last or the set is right.
- Without a box, or if the last one is empty or never closed, math_verify reads the last 4,000 characters in its own way.
- Two plain integers are compared here; tests/test_rewards.py compares that with math_verify on thousands of pairs.
math_verify guards itself with SIGALRM, which works only in a main thread, cannot stop a long call inside C and turns a
timeout into "wrong". Its timeouts are therefore off; pebble kills the worker, and the Reward says `verifier_timeout`.

Code. The program is the last fenced Python block after the last `</think>`, sandbox.py runs it against at most `max_tests`
tests, drawn once per ground truth, so that all responses to a problem meet the same ones. `pass_rate` p, `signed_pass_rate`
2p - 1 (as released), `all_or_nothing` 1 or -1 (it stops at the first failure, the others cannot). A failure of the sandbox is
tried again alone, when nothing else runs, and then reported as `sandbox_error`. `livecodebench`: all tests, its comparison,
6 s of CPU time a test, the last fenced block whatever its language.

Scores of math: correct 1, wrong -1. Where think tags are asked for, a missing `</think>` (checked first) or `<think>` costs -1
too, so that a truncated response never beats an honest wrong one (the released system gave -0.5 and -2: `no_think_end`,
`no_think_start`). A prompt that ends in `<think>` (see `prompt_tail`) counts as opened.
`verifier_timeout`, `verifier_error` and `sandbox_error` say that the verifier failed, not the response: such a Reward
carries the score of a wrong answer, so that nobody gains by it, and correct=False; a trainer should leave it out.

A new reward is a function `(text after </think>, ground_truth, options) -> Reward`, or -> Job if it is slow or may hang
(a Job runs in a worker), and an entry in VERIFIERS.
"""

import ctypes
import functools
import hashlib
import importlib.util
import json
import logging
import multiprocessing.context
import multiprocessing.spawn
import os
import random
import re
import resource
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, TimeoutError, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # imported where the pool starts: score() alone, as on a GPU machine under test, needs neither pebble nor sympy
    from pebble import ProcessPool

TAIL = 4000  # characters that math_verify sees of a response without a box; its regexes are quadratic at worst
WORKER_MEMORY_MB = 2048  # address space while math_verify runs: a huge power ends in MemoryError, not in the OOM killer


MANY = 32  # boxes side by side that are read as one set; more are no answer but an attempt on the verifier


class Reward(NamedTuple):
    score: float
    correct: bool
    status: str  # correct, wrong, partial, no_think_end, no_think_start, no_answer, no_code,
    #              verifier_error, verifier_timeout, sandbox_error


class Job(NamedTuple):
    """Work for a worker process."""

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
    """The last TAIL characters, from the start of a line if there is one: a cut inside `$...$` would pair the rest wrongly."""
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
    if isinstance(ground_truth, bool) or not isinstance(ground_truth, str | int | float) or not str(ground_truth).strip():
        raise ValueError(f"ground truth {str(ground_truth)[:60]!r} is no answer; expected a text such as '42' or 'x^2'")


def equivalent(a: str, b: str) -> bool:
    """Whether two answers (as extract_answer gives them) are equal as mathematics, a in the place of the ground truth.
    Without a time limit; for untrusted answers that may hang use RewardPool on `\\boxed{b}`."""
    if a.strip() == b.strip():
        return True
    verdict = plain_verdict(a.strip(), b.strip())
    return judged(a.strip(), (as_box(b.strip()),)).correct if verdict is None else verdict


# ------------------------------------------------------------------------------------------------------------------ code
FENCE = re.compile(r"```([^\n`]*)\n(.*?)```", re.DOTALL)


def program_of(text: str, any_language: bool = False) -> str:
    """The last fenced Python block (or, if none is marked as Python, the last without a language); "" if there is none."""
    blocks = [(language.strip().lower(), code) for language, code in FENCE.findall(text)]
    for wanted in (None,) if any_language else (("python", "python3", "py"), ("",)):
        found = [code for language, code in blocks if wanted is None or language in wanted]
        if found:
            return found[-1] if found[-1].strip() else ""
    return ""


def tests_of(ground_truth: Any) -> dict:
    """The dict of tests in one of the published formats; raises ValueError (one line)."""
    expected = 'expected {"inputs": [...], "outputs": [...]} (and "fn_name"), {"functional": ...} or {"pytest": ...}'
    try:
        tests = json.loads(ground_truth) if isinstance(ground_truth, str) else ground_truth
    except ValueError as error:
        raise ValueError(f"code ground truth is not JSON ({error}); {expected}") from None
    if not isinstance(tests, dict) or not any(tests.get(key) for key in ("inputs", "functional", "pytest")):
        raise ValueError(f"code ground truth without tests; {expected}")
    if inputs := tests.get("inputs"):
        outputs = tests.get("outputs")
        if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
            raise ValueError(f"code ground truth: inputs and outputs are no lists of one length; {expected}")
    else:
        texts = tests.get("functional") or tests["pytest"]
        if not all(isinstance(text, str) for text in (texts if isinstance(texts, list) else [texts])):
            raise ValueError(f"code ground truth: test code is not text; {expected}")
    return tests


def count_tests(tests: dict) -> int:
    """The tests in what `tests_of` returns; in one text its assert statements are counted."""
    found = tests.get("inputs") or tests.get("functional") or tests["pytest"]
    return len(found) if isinstance(found, list) else max(1, len(re.findall(r"^\s*assert\b", found, re.MULTILINE)))


@functools.lru_cache(maxsize=64)
def _chosen(ground_truth: str, most: int) -> dict:
    tests = tests_of(ground_truth)
    most = min(most, int(tests.get("max_test_cases") or most))
    many = [key for key in ("inputs", "outputs", "functional", "pytest") if isinstance(tests.get(key), list)]
    count = len(tests[many[0]]) if many else 1
    if count > most:  # seeded by the problem: every response, rank and step meets the same tests
        seed = hashlib.sha256(ground_truth.encode()).hexdigest()
        chosen = sorted(random.Random(seed).sample(range(count), max(1, most)))
        tests = tests | {key: [tests[key][i] for i in chosen] for key in many}
    return tests


def code_answer(text: str, ground_truth: Any, options: Options, livecodebench: bool = False) -> Reward | Job:
    lowest = 0.0 if options.code_reward == "pass_rate" else -1.0
    code = program_of(text, any_language=livecodebench)
    if not code:
        return Reward(lowest, False, "no_code")
    if livecodebench:
        tests = tests_of(ground_truth)
    else:
        as_text = ground_truth if isinstance(ground_truth, str) else json.dumps(ground_truth, sort_keys=True)
        tests = _chosen(as_text, options.max_tests)
    seconds = 6.0 if livecodebench else float(tests.get("timeout") or options.test_timeout_s)
    limits = dict(timeout_s=seconds, memory_mb=4096 if livecodebench else options.memory_mb,
                  outer=options.sandbox_outer, require=options.sandbox_require,
                  compare="livecodebench" if livecodebench else "exact",
                  early_stop="fail" if options.code_reward == "all_or_nothing" else "")
    count = max(len(tests[key]) for key in ("inputs", "functional", "pytest") if isinstance(tests.get(key), list | str))
    wall = count * (3 * seconds + 2) + 30  # the sandbox ends each test in time; this guards against the sandbox itself
    return Job(run_program, (code, tests, options.code_reward, limits), lowest, wall)


def run_program(code: str, tests: dict, code_reward: str, limits: dict) -> Reward:
    import sandbox  # here, not on top: a trainer that scores math never needs it
    results = sandbox.run_tests(code, tests, **limits)
    rate = sum(result.passed for result in results) / len(results)
    lowest = 0.0 if code_reward == "pass_rate" else -1.0
    if any(result.status == "sandbox_error" for result in results):
        return Reward(lowest, False, "sandbox_error")
    if rate == 1:
        return Reward(1.0, True, "correct")
    score = {"pass_rate": rate, "signed_pass_rate": 2 * rate - 1, "all_or_nothing": -1.0}[code_reward]
    return Reward(score, False, "partial" if rate > 0 and code_reward != "all_or_nothing" else "wrong")


@functools.cache
def sandbox_works() -> None:
    """Raises ValueError, before any training, on a machine where sandbox.py would refuse every program."""
    import sandbox
    sandbox.capabilities()
    sandbox.close()


def check_code(ground_truth: Any) -> None:
    tests_of(ground_truth)
    sandbox_works()


# ----------------------------------------------------------------------------------------------------------------- score
VERIFIERS: dict[str, Verifier] = {  # the first name that is part of a row's data_source decides
    "math_longcot_math_verify": Verifier(math_answer, check_math, think=True),
    "math_dapo_math_verify": Verifier(math_answer, check_math, think=False),
    "math_verify": Verifier(math_answer, check_math, think=False),
    "toy:math": Verifier(math_answer, check_math, think=True),
    "coder1_longcot": Verifier(code_answer, check_code, think=True),
    "coder1": Verifier(code_answer, check_code, think=False),
    "toy:code": Verifier(code_answer, check_code, think=True),
    "livecodebench": Verifier(functools.partial(code_answer, livecodebench=True), check_code, think=False),
}


def verifier_of(data_source: str) -> Verifier:
    for name, verifier in VERIFIERS.items():
        if name in str(data_source):
            return verifier
    raise ValueError(f"unknown data_source {data_source!r}; a known name must be part of it: {', '.join(VERIFIERS)}")


def check(data_source: str, ground_truth: Any) -> None:
    """Raises ValueError (one line) for an unknown data_source, with the known ones, or a ground truth that cannot be used."""
    verifier_of(data_source).check(ground_truth)


def prepare(data_source: str, response: str, ground_truth: Any, prompt_tail: str, options: Options) -> Reward | Job:
    """The cheap part, microseconds whatever the length: think tags, answer. Returns the Reward or what is left to do."""
    verifier = verifier_of(data_source)
    if verifier.think:
        end = response.rfind("</think>")
        if end < 0:
            return Reward(options.no_think_end, False, "no_think_end")
        if not prompt_tail.rstrip().endswith("<think>") and response.find("<think>", 0, end) < 0:
            return Reward(options.no_think_start, False, "no_think_start")
    return verifier.prepare(after_thinking(response), ground_truth, options)


def score(data_source: str, response: str, ground_truth: Any, *, prompt_tail: str = "", **options) -> Reward:
    """Reward of one response, in this process and without a guard against endless work (RewardPool has one).

    prompt_tail is the end of the rendered prompt. options: the fields of Options.
    Raises ValueError for an unknown data_source."""
    job = prepare(data_source, response, ground_truth, prompt_tail, Options(**options))
    return job.run(*job.args) if isinstance(job, Job) else job


# ------------------------------------------------------------------------------------------------------------------ pool
WORKER = None  # in a worker process: the id of the process that owns the pool


def start_worker(owner: int) -> None:
    """Runs first in every worker: die with the owner, even if it is killed; import and warm up what every answer needs."""
    global WORKER
    WORKER = owner
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != owner:  # it died before the line above
        os._exit(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # pebble's handler waits in vain while C code runs, then pebble waits 3 s
    warnings.filterwarnings("ignore", "sandbox:")  # what this machine lacks was said by the owner (sandbox_works)
    judged("1", ("\\boxed{\\frac{1}{2}}",))


class CleanSpawn(multiprocessing.context.SpawnContext):
    """Spawn, but the child does not run the caller's script again: that would import torch and vLLM in every worker."""

    class Process(multiprocessing.context.SpawnProcess):
        def start(self) -> None:
            _hide_main.active = True
            try:
                super().start()
            finally:
                _hide_main.active = False


_hide_main = threading.local()
_preparation_data = multiprocessing.spawn.get_preparation_data


def _preparation_without_main(name: str) -> dict:
    data = _preparation_data(name)
    if getattr(_hide_main, "active", False):
        data = {key: value for key, value in data.items() if not key.startswith("init_main_from_")}
    return data


multiprocessing.spawn.get_preparation_data = _preparation_without_main


@dataclass
class Entry:
    """A job that is not done: how often it was given to a worker, and whether it is tried again alone."""

    job: Job
    tries: int = 0
    alone: bool = False


class RewardPool:
    """Worker processes that score responses. A response that hangs, crashes or exhausts memory costs itself only.

    workers: by default one per core this process may use. timeout_s: seconds for the judge of one answer (a program has the
    limits of its tests instead). score_options: the fields of Options."""

    def __init__(self, workers: int | None = None, timeout_s: float = 10.0, **score_options):
        if importlib.util.find_spec("math_verify") is None:
            raise ValueError("math_verify is not installed; pip install math-verify")
        self.options, self.timeout_s = Options(**score_options), timeout_s
        self.workers = max(1, min(workers or os.cpu_count(), len(os.sched_getaffinity(0))))
        self._alone = ThreadPoolExecutor(1)  # second tries of jobs that the sandbox failed, one at a time
        self._known: dict[tuple, Future] = {}  # math answers seen: a group mostly gives a few different ones
        self._open: dict[Future, Entry] = {}  # not scored yet
        self._pool: ProcessPool | None = None  # None: being started or replaced
        self._lock, self._wake, self._closed = threading.Lock(), threading.Event(), False
        self._last = time.monotonic()  # when a job was last given to the workers or ended
        # The death signal of a worker comes when the thread that started it ends, so a thread of the pool's own starts them.
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def _keep(self) -> None:
        """Starts pebble's pool and replaces it if it breaks (pebble gives up if a worker is killed while idle)."""
        from pebble import ProcessPool

        while True:
            pool = ProcessPool(self.workers, initializer=start_worker, initargs=(os.getpid(),), context=CleanSpawn())
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
        Raises ValueError at once for an unknown data_source."""
        job = prepare(item["data_source"], item["response"], item["ground_truth"], item.get("prompt_tail", ""), self.options)
        future: Future = Future()
        if isinstance(job, Reward):
            future.set_result(job)
            return future
        if job.run is judged:
            with self._lock:
                if len(self._known) > 100_000:
                    self._known.clear()
                if (known := self._known.setdefault(job.args, future)) is not future:
                    return known
        with self._lock:
            self._open[future] = Entry(job)
        self._schedule(future)
        return future

    def _schedule(self, future: Future) -> None:
        with self._lock:
            entry, pool = self._open.get(future), self._pool
            if entry and not self._closed:
                if pool is None:
                    return  # the keeper schedules it as soon as there is a pool
                try:
                    running = pool.schedule(entry.job.run, args=entry.job.args, timeout=entry.job.timeout_s or self.timeout_s)
                except RuntimeError:  # it broke
                    return self._wake.set()
                entry.tries, self._last = entry.tries + 1, time.monotonic()
        if entry and self._closed:
            self._finish(future, Reward(entry.job.lowest, False, "verifier_error"))
        elif entry:
            running.add_done_callback(lambda done: self._done(done, future, entry, pool))

    def _done(self, done: Future, future: Future, entry: Entry, pool: "ProcessPool") -> None:
        self._last = time.monotonic()
        error = CancelledError() if done.cancelled() else done.exception()
        if isinstance(error, BrokenProcessPool):  # most likely the fault of another job: the keeper schedules all again
            if pool is self._pool:
                self._wake.set()
        elif error is None and done.result().status == "sandbox_error" and not entry.alone and not self._closed:
            entry.alone = True
            self._alone.submit(self._run_alone, future)
        elif error is None:
            self._finish(future, done.result())
        else:
            with self._lock:
                self._known.pop(entry.job.args if entry.job.run is judged else None, None)  # another time it may go well
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
