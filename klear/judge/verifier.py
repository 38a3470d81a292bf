"""The verifier's life: one test against the program at the other end of the channel."""

from __future__ import annotations

import ast
import builtins
import contextlib
import copy
import functools
import importlib.machinery
import marshal
import math
import os
import random
import re
import sys
import traceback
import types
from typing import Any

from klear.judge import standins
from klear.judge.channel import ERROR, PASS, WRONG, Peer
from klear.judge.contents import INERT, inert
from klear.judge.operators import text_method, use_operator
from klear.judge.prelude import HELPERS, prelude
from klear.judge.standins import FarMeta, Space


def undecided(name: str, plainly: set[str]) -> Any:
    """The prelude's value of a name that may be the program's too: where the program defines it itself and the test
    calls it on plain values, both must give the same, or the test fails."""
    ours = prelude()[name]
    if name not in plainly - {"randint"}:
        return ours
    found, theirs = standins.PEER.request("own", standins.PEER.request("module"), name)
    if not found or theirs is ours:
        return ours

    def both(*args, **kwargs):
        given = copy.deepcopy((args, kwargs))  # heappush
        ours_says, theirs_says = ours(*args, **kwargs), theirs(*given[0], **given[1])
        if not isinstance(ours_says, types.GeneratorType) and not same(ours_says, theirs_says, 1e-9):
            standins.PEER.swallowed = AssertionError(f"{name}: the program's own gives something else")
        return ours_says
    return both


class Solution(types.ModuleType):
    """`solution` for the test: every name is asked of the program, every time."""

    def __getattr__(self, name):
        if name.startswith("__") and name not in ("__doc__", "__version__", "__author__", "__all__"):
            raise AttributeError(name)
        return program_name(name)

    __setattr__ = lambda self, *a: standins.PEER.request("setattr", standins.PEER.request("module"), *a)
    __delattr__ = lambda self, name: standins.PEER.request("delattr", standins.PEER.request("module"), name)
    __dir__ = lambda self: standins.PEER.request("dir", standins.PEER.request("module"))
    __dict__ = property(lambda self: Space(standins.PEER.request("module")))


def program_name(name: str) -> Any:
    value = standins.PEER.request("name", name)
    standins.PEER.used += not callable(value) and not isinstance(value, types.ModuleType)
    return value


class Names(dict):
    """The globals of an assert test: the program's names are asked of it, those of the prelude are there as for it."""

    def __init__(self, owned: set[str], plainly: set[str]):
        super().__init__(HELPERS, __name__="__main__", __builtins__=builtins)
        self.owned, self.plainly = owned, plainly

    def __missing__(self, name: str) -> Any:
        if name.startswith("__"):
            raise KeyError(name)
        if name not in self.owned and (name in vars(builtins) or name in prelude()):
            self[name] = undecided(name, self.plainly) if name in prelude() else vars(builtins)[name]
            return self[name]
        try:
            value = program_name(name)
        except AttributeError:
            raise NameError(f"name {name!r} is not defined in the program", name=name) from None
        if type(type(value)) is FarMeta or type(value) in (FarMeta, types.FunctionType):
            self[name] = value  # a global that holds a number may change
        return value


def same(a: Any, b: Any, tolerance: float | None) -> bool:
    """Equality of plain values; tuples count as lists, as in the published function tests."""
    a, b = contents_of(a), contents_of(b)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y, tolerance) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k], tolerance) for k in a)
    if tolerance is not None and all(isinstance(x, (int, float)) for x in (a, b)):
        return a == b or math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)  # not 10 ** 400
    return bool(a == b)


def contents_of(x: Any) -> Any:
    """The plain value that x holds, by the methods of its builtin type and not by those of a subclass."""
    readers = {list: list.__iter__, tuple: tuple.__iter__, dict: dict.items, bool: None, int: int.__int__,
               float: float.__float__, str: str.__str__}
    base = next((c for c in readers if issubclass(type(x), c)), None)
    value = readers[base](x) if base and base is not bool else x
    return list(value) if base in (list, tuple) else dict(value) if base is dict else value


def number_keys(x: Any) -> Any:
    """JSON has no other keys than texts: APPS means integers by those that are."""
    if isinstance(x, list):
        return [number_keys(v) for v in x]
    try:
        return {int(k): v for k, v in x.items()} if isinstance(x, dict) else x
    except ValueError:
        return x


def verify(test: dict, peer: Peer, plan: bytes) -> int:
    """The verifier's whole life: a test against the program on the other end; returns PASS, WRONG or ERROR. `plan`: of
    an assert or pytest test, what `analyse` says."""
    try:
        if test["kind"] == "call":
            return PASS if verify_call(test) else WRONG
        return verify_code(test, peer, *marshal.loads(plan))
    except AssertionError:
        traceback.print_exc(limit=-2)
        return WRONG
    except BaseException:
        traceback.print_exc(limit=-2)
        return ERROR
    finally:
        print(peer.failed, file=sys.stderr, flush=True)


def verify_call(test: dict) -> bool:
    name, expected, tolerance = test["fn_name"], test["expected"], test["tolerance"]
    result = standins.PEER.request("entry", name, *number_keys(test["args"]))
    # APPS writes some expected values wrapped in a list of one
    wanted = [expected, number_keys(expected), *(expected if isinstance(expected, list) and len(expected) == 1 else [])]
    return any(same(result, w, tolerance) for w in wanted)


class Main(types.ModuleType):
    """`__main__` of an assert test, for unittest and pickle."""

    def __init__(self, names: Names):
        super().__init__("__main__")
        self.__dict__["_names"] = names

    def __getattr__(self, name):
        if name in self._names:
            return self._names[name]
        raise AttributeError(name)

    __dir__ = lambda self: list(self._names)


def verify_code(test: dict, peer: Peer, code: Any, owned: set[str], plainly: set[str], helpers: set[str] | None,
                flags: dict) -> int:
    """`code`: compiled, or the text of a pytest file. `helpers`: of a test with `from solution import *`, the names of
    the prelude that it uses."""
    flags["inspect"] |= test["inspect"]
    if test["kind"] == "pytest":
        flags["file"] = os.path.join("/verifier" if os.path.isdir("/verifier") else os.getcwd(), "test_solution.py")
    builtins.__operator__ = use_operator
    for owner in [random, getattr(sys.modules.get("numpy"), "random", None)] if flags["seed"] else []:
        if owner is not None:
            owner.seed = lambda *a, seed=owner.seed: (peer.known.pop("seed", None), seed(*a))[1]
    peer.request("hello", copy.deepcopy(flags))  # (what is sent changes as the program says) its own top level has run
    peer.known["environ"], peer.known["cwd"], peer.flags = peer.environment(), os.getcwd(), flags
    peer.surroundings()
    solution = sys.modules["solution"] = Solution("solution")
    if helpers is not None:
        theirs = set(dir(solution))
        listed = program_name("__all__") if "__all__" in theirs else [n for n in theirs if not n.startswith("_")]
        found = {name: undecided(name, plainly) for name in helpers if name in listed}
        space = types.ModuleType.__dict__["__dict__"].__get__(solution)
        space.update(found, __all__=[*found, *(owned & set(listed) & theirs)])
    sys.setrecursionlimit(20_000)
    refuse_files()
    case = importlib.import_module("unittest").TestCase  # asks its arguments for their `difference`
    case.assertSetEqual = lambda self, set1, set2, msg=None, equal=case.assertSetEqual: equal(
        self, *(text_method(x, "issuperset", ()) and frozenset(x) for x in (set1, set2)), msg)
    if flags["runs"]:
        refuse_code(flags["file"])
    if "numpy" in sys.modules and (flags["close"] or flags["approx"] or flags["testing"]):
        refuse_empty(sys.modules["numpy"], flags["approx"], flags["testing"])
    if test["kind"] == "pytest":
        passed = verify_pytest(code, flags["file"])
    else:
        names = Names(owned, plainly)
        sys.modules["__main__"] = Main(names)
        for name in flags["early"]:
            with contextlib.suppress(NameError, KeyError):
                names[name] = names[name]
        try:
            exec(code, names)
            passed = True
        except SystemExit as error:
            *_, (last, _) = traceback.walk_tb(error.__traceback__)  # not argparse's, of the program's ["-h"]
            ours = last.f_code.co_filename.endswith(("test.py", "unittest/main.py", "_sitebuiltins.py"))
            passed = error.code in (None, 0, False) and id(error) not in peer.raised and ours
    if peer.swallowed:
        raise peer.swallowed
    if not peer.used:
        print("sandbox: the test never called the program", file=sys.stderr)
    return PASS if passed and peer.used else WRONG


def refuse_files() -> None:
    """Imports and runpy read files of the library alone, none that the program may have written: a test may say
    `sys.path.insert(0, ".")`."""
    places = tuple(sys.path)

    def guard(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def judged(x, *args):  # a loader or a path
            path = getattr(x, "path", x)
            if not os.path.abspath(path).startswith(places):
                raise ImportError(f"{path} may be the program's")
            return function(x, *args)
        setattr(owner, name, judged)

    guard(importlib.machinery.SourceFileLoader.__mro__[1], "get_data")  # FileLoader's, which bytecode has too
    guard(importlib.machinery.ExtensionFileLoader, "create_module")
    guard(importlib.import_module("io"), "open_code")


OPENING = set("open exec eval compile getattr setattr delattr vars globals locals dir breakpoint exit quit input help "
              "type import".split())


def refuse_code(file: str) -> None:
    """What a test evaluates (`eval(f(3))`, `typing.get_type_hints(f)`, `pickle.loads(f(3))`) may be the program's: it
    may use values, operators and what the test has, but no way out of that. A constant of the test is its own."""
    import dis

    def check(source: Any, space: dict) -> None:
        if isinstance(source, types.CodeType):  # of an annotation, which calls nothing
            opened = any("CALL" in i.opname or "FUNCTION" in i.opname for i in dis.get_instructions(source))
            names = {*source.co_names, *["eval"] * opened}
        else:
            tree = source if isinstance(source, ast.AST) else ast.parse(
                source if isinstance(source, bytes) else str(source).strip())
            nodes = list(ast.walk(tree))
            names = {str(getattr(n, key)) for n in nodes for key in ("id", "attr") if hasattr(n, key)}
            names |= {"import" for n in nodes if isinstance(n, (ast.Import, ast.ImportFrom))}
        for name in names:
            value = space.get(name)
            module = value.__name__ if isinstance(value, types.ModuleType) else "math"
            if name[:1] == "_" or name in OPENING or module.split(".")[0] not in INERT | {"math", "cmath"}:
                raise NameError(f"{name!r} in a text that the test evaluates")

    def judged(run: Any) -> Any:
        def evaluate(source, globals=None, locals=None, /, **more):
            frame = sys._getframe(1)
            spaces = ((frame.f_globals, frame.f_locals) if globals is None else
                      (globals, globals if locals is None else locals))
            own = isinstance(source, types.CodeType) or source in frame.f_code.co_consts
            if frame.f_code.co_filename == file and not own:
                check(source, {**spaces[0], **spaces[1]})
            return run(source, *spaces, **more)
        return evaluate

    def compiled(source, *args, compile=compile, **more):  # for `exec`, which then takes the code object
        frame = sys._getframe(1)
        example = frame.f_globals.get("__name__") == "doctest" and frame.f_locals.get("test")
        if example or frame.f_code.co_filename == file and source not in frame.f_code.co_consts:
            check(source, {**frame.f_globals, **frame.f_locals, **getattr(example, "globs", {})})
        return compile(source, *args, **more)

    def annotation(source, *spaces):
        check(source, {})
        return plain(source, *spaces)

    def audit(event: str, args: tuple) -> None:
        if event == "pickle.find_class" and args[0] not in ("__main__", "solution", "test_solution"):
            found = getattr(sys.modules.get(args[0]), args[1], None)
            if not (isinstance(found, type) and inert(found)):
                raise PermissionError(f"{args[0]}.{args[1]} in a pickle that the test loads")

    plain = eval
    builtins.eval, builtins.exec, builtins.compile = judged(eval), judged(exec), compiled
    for name in ("typing", "inspect"):
        importlib.import_module(name).eval = annotation
    sys.addaudithook(audit)


def refuse_empty(numpy: types.ModuleType, approx: bool, testing: bool) -> None:
    """For want of an element that differs, numpy and pytest find nothing to be close to anything (`return np.array([])`
    against `np.allclose(f(3), 10)`): here to nothing alone."""
    def once(x):
        array = type(type(x)) is FarMeta and (hasattr(type(x), "__array__") or hasattr(type(x), "__len__"))
        return numpy.asanyarray(x) if array and not isinstance(x, (dict, str, bytes)) else x

    def guard(owner: Any, name: str, both: tuple, refuse: Any) -> None:
        function = getattr(owner, name)

        @functools.wraps(function)
        def judged(*args, **kwargs):
            args, kwargs = [once(x) for x in args], {k: once(v) for k, v in kwargs.items()}  # it may change its mind
            sizes = set()
            with contextlib.suppress(Exception):  # ragged, or no array at all: numpy's own function says so
                sizes = {numpy.asarray(x).size > 0 for x in (*args[:2], *(v for k, v in kwargs.items() if k in both))}
            return function(*args, **kwargs) if len(sizes) < 2 else refuse()
        setattr(owner, name, judged)

    def fail(*_):
        raise AssertionError("an empty array beside one that is not")

    for name in ("allclose", "isclose", "array_equiv"):
        guard(numpy, name, ("a", "b", "a1", "a2"), lambda: numpy.False_)
    tools = importlib.import_module("numpy.testing") if testing else None  # takes a tenth of a second
    for name in list(vars(tools)) if testing else []:
        if re.fullmatch("assert_.*(equal|close|less).*", name):
            guard(tools, name, ("actual", "desired", "x", "y"), fail)
    if approx:
        scalar = type(importlib.import_module("pytest").approx(0))
        scalar.__eq__ = lambda self, x, equal=scalar.__eq__: getattr(x := once(x), "size", 1) != 0 and equal(self, x)


def verify_pytest(code: str, path: str) -> bool:
    """Runs the file by pytest, as pytest counts: nothing failed, and something passed (or failed as its xfail says)."""
    import pytest

    folder = os.path.dirname(path)
    with open(path, "w") as f:
        f.write(code)
    if "hypothesis" in code:
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = folder
        import hypothesis
        hypothesis.settings.register_profile("sandbox", deadline=None, derandomize=True,
                                             suppress_health_check=list(hypothesis.HealthCheck))
        hypothesis.settings.load_profile("sandbox")
    passed = []

    class Collect:
        def pytest_collection_finish(self, session):  # a path that the program returns, or a link, may lead there
            import shutil
            os.unlink(path)
            shutil.rmtree(os.path.join(folder, "__pycache__"), ignore_errors=True)

        def pytest_runtest_logreport(self, report):
            passed.append(report.when == "call" and (report.passed or hasattr(report, "wasxfail")))

    warning = "ignore::pytest.PytestAssertRewriteWarning"  # of plugins that the zygote loaded
    options = ["-q", "-x", "-p", "no:cacheprovider", "-W", warning, "--rootdir", folder]
    code = pytest.main([*options, path], plugins=[Collect()])
    return code == 0 and any(passed)
