"""What decides a function, class or pytest test: whose time it is, what an object may claim, which ground truths are refused.

The corpora in tests/corpus_*.py compare verdicts with CPython's; here are the rules that no single verdict shows."""

import subprocess
import sys
from pathlib import Path

import pytest

import sandbox
from klear.judge.names import program_names

sys.path.insert(0, str(Path(__file__).parent))
import corpus_objects  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def no_zygote_at_the_end():
    yield
    sandbox.close()


def statuses(code: str, *tests: str, kind: str = "functional", **limits) -> list[str]:
    return [r.status for test in tests for r in sandbox.run_tests(code, {kind: test}, **limits)]


# ------------------------------------------------------------------------------------ objects, against CPython
@pytest.mark.sampled(5)
@pytest.mark.parametrize("case", corpus_objects.CASES, ids=lambda case: case[0])
def test_objects_as_in_one_process(case, tmp_path):
    name, code, test = case
    (tmp_path / "program.py").write_text(code + "\n\n" + test + "\n")
    alone = subprocess.run([sys.executable, "-B", "program.py"], cwd=tmp_path, capture_output=True, stdin=subprocess.DEVNULL, timeout=120)
    split = sandbox.run_tests(code, {"functional": test}, timeout_s=20)[0]
    assert split.passed == (alone.returncode == 0), (split.stderr[-1500:], alone.stderr[-500:])


# ------------------------------------------------------------------------------------ whose time it is
BUSY = "import time\nend = time.process_time() + 2.5\nwhile time.process_time() < end: pass\nassert f(1) == 2"


@pytest.mark.slow
def test_the_program_is_not_charged_for_the_time_of_its_verifier():
    assert statuses("def f(x): return 2 * x", BUSY, timeout_s=0.5, wall_s=1.0) == ["ok"]
    assert statuses("import time\ndef f(x):\n    time.sleep(60)", "assert f(1) == 2", timeout_s=0.5, wall_s=1.0) == ["timeout"]


@pytest.mark.needs("time")
@pytest.mark.slow
@pytest.mark.parametrize("code, test", [
    ("def f(x):\n    while True: yield x", "assert list(f(1)) == [1]"),
    ("def f(g):\n    while True: g(1)", "assert f(lambda x: x) == 1"),
    ("class A:\n    def __iter__(self): return self\n    def __next__(self): return A()\ndef f(x): return A()", "assert 5 in f(1)"),
    ("def f(x): return 'a' * 40 + 'b'", "import re\nassert re.fullmatch('(a+)+', f(1))"),
    ("import time\ndef f(x):\n    time.sleep(0.02)\n    return lambda: f(x)", "g = f(1)\nwhile True: g = g()"),
])
def test_what_keeps_the_verifier_busy_is_the_programs_timeout(code, test):
    assert statuses(code, test, timeout_s=0.3, wall_s=1.0) == ["timeout"]


# ------------------------------------------------------------------------------------ what an object may claim
LIAR = "class P:\n    def __init__(self, x=0): self.x = x\n    def __eq__(self, o): return True\n    def __hash__(self): return 5\ndef f(x): return P(x)\n"
MONEY = LIAR.replace("return True", "return self.x == (o.x if isinstance(o, P) else o)")


@pytest.mark.parametrize("test, liar, honest", [
    ("assert P(5) == 5", "wrong", "wrong"), ("p = P(5)\nassert p == 5 and 5 == p", "wrong", "wrong"), ("assert P('ab') == 'ab'", "wrong", "wrong"),
    ("assert P([1, 2]) == [1, 2]", "wrong", "wrong"), ("assert P({'a': 1}) == {'a': 1}", "wrong", "wrong"), ("assert P(5) != 6", "ok", "ok"),
    ("assert f(5) == 5", "wrong", "wrong"), ("p = P(5)\np = f(5)\nassert p == 5", "wrong", "wrong"), ("assert P(1) == P(1)", "ok", "ok"),
    ("def g(p=P(5)): return p\nassert g(f(5)) == 5", "wrong", "wrong"), ("assert [P(5)] == [5]", "wrong", "wrong")])
def test_equality_with_a_plain_value(test, liar, honest):
    """`P(5) == 5` is never asked of the program: its `__eq__` would see the expected value, whoever made P(5)."""
    assert statuses(LIAR, test) == [liar] and statuses(MONEY, test) == [honest]


def test_an_object_that_the_test_made_and_the_program_returned_is_a_returned_one():
    code = "class Solution:\n    def f(self, x): return self\n    def __eq__(self, o): return True\n    __lt__ = __contains__ = __eq__\n"
    for test in ("s = Solution()\nassert s.f(3) == 10", "assert Solution().f(3) < 10", "s = Solution()\nr = s.f(3)\nassert 10 in r",
                 "s = Solution()\nfor r in [s.f(3)]:\n    assert r == 10"):
        assert statuses(code, test)[0] in ("wrong", "error"), test


@pytest.mark.parametrize("code, test", [
    ("class C:\n    def __enter__(self): return 0\n    def __exit__(self, *a): return True\ndef f(x): return 0", "with C():\n    assert f(3) == 10"),
    ("from contextlib import suppress\ndef quiet(): return suppress(BaseException)\ndef f(x): return 0", "with quiet():\n    assert f(3) == 10"),
    ("def run(g):\n    try: g()\n    except BaseException: pass\ndef f(x): return 0", "def t():\n    assert f(3) == 10\nrun(t)"),
    ("def timed(g): return lambda *a: None\ndef f(x): return 0", "@timed\ndef t():\n    assert f(3) == 10\nt()\nassert f(3) == 10"),
    ("class C:\n    async def __aenter__(self): return 0\n    async def __aexit__(self, *a): return True\ndef f(x): return 0",
     "import asyncio\nasync def main():\n    async with C():\n        assert f(3) == 10\nasyncio.run(main())"),
    ("MyError = AssertionError\ndef f(x): return 0", "try:\n    f(-1)\n    assert False\nexcept MyError: pass"),
    ("MyError = Exception\ndef f(x): return 0", "try:\n    f(-1)\n    raise AssertionError\nexcept MyError: pass"),
    ("class MyError(AssertionError): pass\ndef f(x): return 0", "try:\n    f(-1)\n    assert False\nexcept MyError: pass"),
])
def test_a_failed_assert_cannot_be_swallowed(code, test):
    assert statuses(code, test)[0] in ("wrong", "error")


def test_contexts_and_callbacks_of_honest_programs():
    code = ("class C:\n    def __enter__(self): return 1\n    def __exit__(self, t, e, b): return t is ValueError\n"
            "def run(g):\n    try: return g()\n    except KeyError: return 'caught'\n")
    assert statuses(code, "with C() as c:\n    assert c == 1\n    raise ValueError", "def t(): raise KeyError\nassert run(t) == 'caught'") == ["ok", "ok"]


@pytest.mark.slow
def test_what_the_program_leaves_in_the_shared_folder_is_not_imported_by_the_verifier():
    code = ("import os\nfor n in ('conftest', 'json', 'math', 'solution', 'test_solution', 'sitecustomize', 'pytest', 'usercustomize', 'colorsys'):\n"
            "    open(n + '.py', 'w').write('import os\\nos._exit(42)\\n')\nopen('pytest.ini', 'w').write('[pytest]\\naddopts = --co\\n')\ndef f(x): return 0")
    test = "import colorsys\nimport math\nfrom solution import f\ndef test_f(): assert f(3) == 10\n"
    assert statuses(code, test, kind="pytest") == ["wrong"] and statuses(code, "import colorsys\nassert f(3) == 10") == ["wrong"]


# ------------------------------------------------------------------------------------ ground truths
def test_ground_truths_that_cannot_call_the_program_are_refused():
    calls = ["assert f(1) == 2", "def check(c):\n    assert c(1) == 2\ncheck(f)", "assert sum([1]) == 1", "assert gcd(4, 6) == 2",
             "from solution import f as g\nassert g(1)", "import solution\nsolution.f()", "import unittest\nclass T(unittest.TestCase):\n"
             "    def test(self): f(1)\nif __name__ == '__main__':\n    unittest.main()", "def a(): b()\ndef b(): f(1)\na()"]
    never = ["", "# f(1)", "import math", "assert True", "def check(c):\n    assert c(1) == 2", "def test():\n    assert f(1) == 2",
             "import unittest\nclass T: pass", "x = 3\nassert x == 3", "from solution import f"]
    for test in calls:
        sandbox.check_tests({"functional": [test]})
    for test in never:
        with pytest.raises(ValueError, match="^sandbox: functional test 2 can never call") as error:
            sandbox.check_tests({"functional": [calls[0], test]})
        assert "\n" not in str(error.value)
    sandbox.check_tests({"pytest": "from solution import f\ndef test_f(): assert f(1)"})
    sandbox.check_tests({"pytest": "from solution import *\nclass TestF:\n    def test_f(self): assert f(1)"})
    sandbox.check_tests({"inputs": ["1"], "outputs": ["1"]})
    for test in ("", "from solution import f\ndef check(): f(1)", "def test_f(): assert 1 == 1", "from solution import f\nassert f(1)"):
        with pytest.raises(ValueError, match="^sandbox: pytest test 1 can never call"):
            sandbox.check_tests({"pytest": test})


@pytest.mark.parametrize("test, owned", [
    ("assert f(2) == isclose(1, 2)", {"f"}), ("assert gcd(4, 6) == 2\nassert lcm_of(4, 6) == 12", {"gcd", "lcm_of"}),
    ("def check(f):\n    assert isclose(f(2), 1)\ncheck(g)", {"g"}), ("r = f(1)\nassert r == Counter('a')", {"f"}), ("assert sum([1]) == 1", {"sum"}),
    ("for f in [g]:\n    assert all(f(x) for x in range(3))", {"g"}), ("assert all(sum(range(n)) == n for n in range(3))", {"sum"}),
    ("from math import *\nassert f(factorial(3)) == 6", {"f"}), ("try: f()\nexcept ValueError as e: print(e)", {"f"}), ("def check(g): pass\ncheck(merge)", {"merge"}),
    ("global g\ndef h():\n    global g\n    g = 3\nassert f(g) == [x for x in range(3)]", {"f"}), ("from solution import f\nassert f(len) == max", set())])
def test_names_by_scopes(test, owned):
    assert program_names(test) == owned
