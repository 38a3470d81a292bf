"""Verifiers: (data_source, response, ground truth) -> Reward, and the pool of workers that runs them.

    reward = score("math_longcot_math_verify", "<think>..</think>So it is \\boxed{42}.", "42")  # (1.0, True, "correct")
    with RewardPool(workers=8, timeout_s=10) as pool:
        rewards = pool.score_batch([dict(data_source=..., response=..., ground_truth=..., prompt_tail="<think>\n")])

| data_source | think tags | ground truth | what counts after the last `</think>` |
|---|---|---|---|
| `math_longcot_math_verify`, `toy:math` | asked for | an answer: "42", "x^2" | the last `\\boxed{}` |
| `math_verify`, `math_dapo_math_verify` | no: ordinary instruct models | the same | the same |
| `coder1_longcot`, `toy:code` | asked for | tests, see `tests_of` | the last Python block (with what they call) |
| `coder1` | no: ordinary instruct models | the same | the same |
| `livecodebench` | no | the same: all tests, its comparison, 6 s a test | the last block |
Another name that holds one of these is judged by the longest such, with a warning.

Math. The judge is math_verify, on `\\boxed{answer}` alone: the length of a response costs nothing.
- Boxes side by side (`\\boxed{1} and \\boxed{2}`), a set for math_verify, count if the last or the set is right.
- Without a box, or if the last is empty or never closed, math_verify reads the last 4,000 characters in its own way.
- Two plain integers are compared here; tests/test_rewards.py compares that with math_verify on thousands of pairs.
math_verify guards itself with SIGALRM, which works only in a main thread, cannot stop a long call inside C and turns a
timeout into "wrong". Its timeouts are therefore off; pebble kills the worker, and the Reward says `verifier_timeout`.

Code. sandbox.py runs the program against at most `max_tests` tests, the same for a problem's responses. `pass_rate`
p, `signed_pass_rate` 2p - 1 (as released), `all_or_nothing` 1 or -1 (it stops at the first failure, the others cannot).
A failure of the sandbox is tried again alone, then reported as `sandbox_error`.

Scores of math: correct 1, wrong -1. Where think tags are asked for, a missing `</think>` (checked first) or `<think>`
costs -1 too, so that a truncated response never beats an honest wrong one (the released system gave -0.5 and -2:
`no_think_end`, `no_think_start`). A prompt that ends in `<think>` (see `prompt_tail`) counts as opened.
`verifier_timeout`, `verifier_error` and `sandbox_error` say that the verifier failed, not the response: such a Reward
carries the score of a wrong answer, so that nobody gains by it, and correct=False; a trainer should leave it out.

A new reward is a function `(text after </think>, ground_truth, options) -> Reward`, or -> Job if it is slow or may hang
(it runs in a worker: a function at the top level of a file), and an entry in VERIFIERS, here or in a file for `load`.
"""

import atexit
import ctypes
import functools
import importlib.util
import io
import json
import logging
import multiprocessing.context
import multiprocessing.resource_tracker
import multiprocessing.spawn
import os
import pickle
import resource
import signal
import sys
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
from klear import answers
from klear.answers import (Reward, Tests, after_thinking, as_box, boxes, check_math, in_plain_types, kind_of,
                           plain_verdict, program_of, tests_of)

extract_answer, _chosen = answers.extract_answer, answers._chosen
WORKER_MEMORY_MB = 2048  # address space while math_verify runs: a huge power ends in MemoryError
SAID: set = set()  # keys of `say`


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
            raise ValueError(f"code_reward {self.code_reward!r}; expected pass_rate, signed_pass_rate, all_or_nothing")


def say(text: str, key: Any) -> None:  # once a key
    if key not in SAID:
        SAID.add(key)
        warnings.warn(f"rewards: {text}", stacklevel=3)


def one_line(error: BaseException) -> str:
    at = "".join(f" ({frame.filename}:{frame.lineno})" for frame in traceback.extract_tb(error.__traceback__)[-1:])
    return " ".join(f"{type(error).__name__}: {error}".split())[:300] + at


# ----------------------------------------------------------------------------------------------------------------- math
@functools.lru_cache(maxsize=4096)
def parsed(text: str) -> list:
    from math_verify import parse  # here, not on top: the trainer itself never needs sympy
    return parse(text, parsing_timeout=None)


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
        return Job(judged, (gold, (answers.tail_of(text),)))
    verdict = plain_verdict(gold, found[0]) if len(found) == 1 else None
    if verdict is not None:
        return Reward(1.0, True, "correct") if verdict else Reward(-1.0, False, "wrong")
    texts = tuple(as_box(t) for t in dict.fromkeys((found[0], ",".join(dict.fromkeys(reversed(found))))))
    return Job(judged, (gold, texts))


# ----------------------------------------------------------------------------------------------------------------- code
def code_answer(text: str, ground_truth: Any, options: Options, livecodebench: bool = False) -> Reward | Job:
    if livecodebench:
        tests = answers.all_tests(ground_truth) if isinstance(ground_truth, str) else Tests(tests_of(ground_truth))
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
    # the sandbox ends each test in time, on an overloaded machine too; this guards against the sandbox itself
    wall = count * (sandbox.STARVED * (3 * seconds + 2) + 60) + 60
    return Job(run_program, (code, tests, options.code_reward, limits), lowest, wall)


def run_program(code: str, tests: Tests, code_reward: str, limits: dict) -> Reward:
    results = sandbox.run_tests(code, tests.cases, **limits)
    rate = sum(result.passed for result in results) / len(results)
    lowest = 0.0 if code_reward == "pass_rate" else -1.0
    if any(result.status == "sandbox_error" for result in results):
        return Reward(lowest, False, "sandbox_error")
    whole = 1.0 if rate == 1 else -1.0
    score = {"pass_rate": rate, "signed_pass_rate": 2 * rate - 1, "all_or_nothing": whole}[code_reward]
    return Reward(score, rate == 1, "correct" if rate == 1 else "partial" if score > lowest else "wrong")


@functools.cache
def sandbox_works() -> dict:
    """sandbox.capabilities(). Raises ValueError, before any training, where right programs would fail."""
    able = sandbox.capabilities()
    sandbox.close()
    for path in able["unreadable"]:
        raise ValueError(f"sandbox: programs cannot import {path}: other users may not read it; "
                         f"chmod -R go+rX {os.path.dirname(path)}, or use an interpreter outside a private home")
    return able


def check_code(ground_truth: Any) -> None:
    tests = tests_of(ground_truth)
    try:
        sandbox.check_tests(tests)
    except ValueError as error:
        raise ValueError(f"code ground truth: {str(error).removeprefix('sandbox: ')}") from None
    if not sandbox_works()["pytest"] and kind_of(tests) == "pytest":
        raise ValueError("code ground truth: its tests need pytest, which is not installed; pip install pytest")


# ---------------------------------------------------------------------------------------------------------------- score
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
        raise ValueError(f"{path}: cannot be imported as {name!r}; expected a Python file with a name of its own")
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
    if not isinstance(theirs := getattr(import_file(path), "VERIFIERS", {}), dict):
        raise ValueError(f"{path}: VERIFIERS is {theirs!r}, no dict of names and rewards.Verifier")
    VERIFIERS.update(theirs)
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
    """The cheap part, whatever the length: think tags, answer. Returns the Reward or what is left to do."""
    verifier = verifier_of(data_source)
    if verifier.think:
        end = response.rfind("</think>")
        if end < 0:
            return Reward(options.no_think_end, False, "no_think_end")
        if not prompt_tail.rstrip().endswith("<think>") and response.find("<think>", 0, end) < 0:
            return Reward(options.no_think_start, False, "no_think_start")
    try:
        found = verifier.prepare(after_thinking(response), ground_truth, options)
        return found if isinstance(found, Job) else in_plain_types(found)
    except Exception as error:  # costs this row only
        say(f"{data_source}: verifier_error, {one_line(error)}, ground truth {str(ground_truth)[:60]!r}",
            (data_source, type(error)))
        return Reward(-1.0, False, "verifier_error")


def score(data_source: str, response: str, ground_truth: Any, *, prompt_tail: str = "", **options) -> Reward:
    """Reward of one response. What may be slow runs for at most 10 s in one worker, started at the first need; for many
    responses take RewardPool. prompt_tail is the end of the rendered prompt, options the fields of Options.
    Raises ValueError for an unknown data_source."""
    job = prepare(data_source, response, ground_truth, prompt_tail, Options(**options))
    if isinstance(job, Reward):
        return job
    childless = multiprocessing.process.current_process().daemon or importlib.util.find_spec("pebble") is None
    if job.run is run_program or WORKER or childless:
        return job.run(*job.args)
    return own_pool(os.getpid()).give(job, data_source).result()


@functools.cache
def own_pool(pid: int) -> "RewardPool":
    pool = RewardPool(1)
    atexit.register(pool.close)
    return pool


# ----------------------------------------------------------------------------------------------------------------- pool
WORKER = None  # in a worker process: the id of the process that owns the pool
SCRIPT = ""  # in a worker process: the file that is __main__ in the owner


def start_worker(owner: int, files: list[str], script: str) -> None:
    """Runs first in every worker: die with the owner, even if it is killed; import what every answer needs."""
    global WORKER, SCRIPT
    WORKER, SCRIPT = owner, script
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != owner:  # it died before the line above
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # pebble ignores it by now
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # pebble's handler waits in vain while C code runs, then pebble 3 s
    warnings.filterwarnings("ignore", "sandbox:")  # what this machine lacks was said by the owner (sandbox_works)
    for path in files:
        try:
            load(path)
        except ValueError as error:  # not so in the owner: its jobs fail, the others go on
            print(f"rewards: a worker: {error}", file=sys.stderr)
    judged("1", ("\\boxed{\\frac{1}{2}}",))


def script_of_main() -> str:
    path = os.path.abspath(getattr(sys.modules["__main__"], "__file__", None) or "")
    return path if os.path.isfile(path) else ""  # an interactive session


class Unpickler(pickle.Unpickler):
    """In a worker, what the owner calls __main__ is the owner's script, imported under its own name."""

    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(import_file(SCRIPT).__name__ if module == "__main__" else module, name)


def perform(sent: bytes | str) -> Reward | str:
    """In a worker: the Reward of a job, or why there is none. A job that cannot even be loaded costs itself only."""
    if isinstance(sent, str):
        return sent
    try:
        run, args = Unpickler(io.BytesIO(sent)).load()
        return in_plain_types(run(*args))
    except (Exception, SystemExit) as error:
        return one_line(error)


class CleanSpawn(multiprocessing.context.SpawnContext):
    """Spawn, but the child does not run the caller's script again: that would import torch and vLLM in every worker."""

    Process = staticmethod(lambda **call: multiprocessing.context.SpawnProcess(**call | {"name": "rewards.RewardPool"}))


def _preparation_without_main(name: str, whole=multiprocessing.spawn.get_preparation_data) -> dict:
    return {k: v for k, v in whole(name).items() if name != "rewards.RewardPool" or not k.startswith("init_main_from_")}


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
            return str, (one_line(error),)


class RewardPool:
    """Worker processes that score responses. A response that hangs, crashes or exhausts memory costs itself only.

    workers: by default one per core this process may use. timeout_s: seconds for the judge of one answer (a program has
    the limits of its tests). rewards_file: see `load`. score_options: the fields of Options."""

    def __init__(self, workers: int | None = None, timeout_s: float = 10.0, rewards_file: str = "", **score_options):
        if WORKER:
            raise ValueError("a script whose functions are Jobs is imported by the workers: it must start its "
                             'RewardPool under `if __name__ == "__main__":`')
        if importlib.util.find_spec("math_verify") is None:
            raise ValueError("math_verify is not installed; pip install math-verify")
        if rewards_file:
            load(rewards_file)
        # here: score() on a machine under test needs neither this nor sympy; and not in the thread, which nobody hears
        self._process_pool = importlib.import_module("pebble").ProcessPool
        self.options, self.timeout_s, self.patience_s = Options(**score_options), timeout_s, 120  # workers start slowly
        cores = len(os.sched_getaffinity(0))
        self.workers = min(workers or cores, cores)
        self._alone = ThreadPoolExecutor(1)  # second tries of jobs that the sandbox failed, one at a time
        self._known: dict[tuple, Future] = {}  # math answers seen: a group mostly gives a few different ones
        self._open: dict[Future, Entry] = {}  # not scored yet
        self._pool: Any = None  # pebble's ProcessPool; None: being started or replaced
        self._lock, self._wake, self.closed = threading.Lock(), threading.Event(), False
        self._last = time.monotonic()  # when a job was last given to the workers or ended
        # A worker's death signal comes when the thread that started it ends: a thread of the pool's own starts them
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def _keep(self) -> None:
        """Starts pebble's pool and replaces it if it breaks (pebble gives up if a worker is killed while idle)."""
        multiprocessing.resource_tracker.ensure_running()  # it would unblock SIGINT here when a worker needs it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # workers begin so: no traceback of what they import
        while True:
            pool = self._process_pool(self.workers, initializer=start_worker, context=CleanSpawn(),
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
            if self.closed:
                return

    def _stalled(self) -> bool:
        """Whether nothing ended for longer than any job may take: a worker killed with pebble's lock blocks all."""
        limits = [entry.job.timeout_s or self.timeout_s for entry in list(self._open.values())]
        return bool(limits) and time.monotonic() - self._last > max(limits) + self.patience_s

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
            raise ValueError(f"rewards: {data_source}: the function of a Job cannot be sent to a worker ({error}); "
                             "define it at the top level of a file, and give that file as --rewards") from None
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
            if entry and not self.closed:
                if pool is None:
                    return  # the keeper schedules it as soon as there is a pool
                try:
                    running = pool.schedule(perform, args=(entry,), timeout=entry.job.timeout_s or self.timeout_s)
                except RuntimeError:  # it broke
                    return self._wake.set()
                entry.tries, self._last = entry.tries + 1, time.monotonic()
        if entry and self.closed:
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
        elif isinstance(reward, Reward) and (reward.status != "sandbox_error" or entry.alone or self.closed):
            self._finish(future, reward)
        elif isinstance(reward, Reward):
            entry.alone = True
            self._alone.submit(self._run_alone, future)
        else:
            with self._lock:
                self._known.pop(entry.job.args if entry.job.run is judged else None, None)  # it may go well later
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
            self.closed = True
        self._wake.set()
        self._keeper.join()
        for future, entry in list(self._open.items()):
            self._finish(future, Reward(entry.job.lowest, False, "verifier_error"))
        self._alone.shutdown()

    def __enter__(self) -> "RewardPool":
        return self

    def __exit__(self, *_) -> None:
        self.close()
