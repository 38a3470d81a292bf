"""Wrong, absent or untested programs that try to get the verdict "passed", each with the reason why it is a forgery.

Not one of them may pass, whatever CPython or pytest say: an object that equals everything passes `assert f(3) == 10` in CPython too.
`FORGERIES` is made by `forge` (a wrong program against the forms of test named by letters) and `empty` (a test in which the program
is not called, against a right program). The problem is `f(x) = 2 x + 4` unless the test says otherwise."""

from typing import NamedTuple

RIGHT = "def f(x):\n    return 2 * x + 4\n"
FORMS = {
    "a": {"functional": "assert f(3) == 10\nassert f(4) == 12"},
    "k": {"functional": "def check(candidate):\n    assert candidate(3) == 10\n    assert candidate(4) == 12\n\ncheck(f)"},
    "p": {"pytest": "from solution import f\n\ndef test_f():\n    assert f(3) == 10\n    assert f(4) == 12\n"},
    "s": {"pytest": "import math\nimport pytest\nfrom solution import *\n\ndef test_f():\n    assert f(3) == pytest.approx(10)\n    assert math.isclose(f(4), 12)\n"},
    "m": {"pytest": "import solution\n\n\nclass TestF:\n    def test_f(self):\n        assert solution.f(3) == 10\n        assert solution.f(4) == 12\n"},
    "u": {"pytest": "import unittest\nfrom solution import f\n\nclass TestF(unittest.TestCase):\n    def test_f(self):\n        self.assertEqual(f(3), 10)\n"
                    "        self.assertEqual(f(4), 12)\n\nif __name__ == '__main__':\n    unittest.main()\n"},
    "r": {"pytest": "import pytest\nfrom solution import f\n\ndef test_raises():\n    with pytest.raises(ValueError, match='negative'):\n        f(-1)\n\n"
                    "def test_value():\n    assert f(3) == 10\n"},
    "c": {"inputs": [[3], [4]], "outputs": [10, 12], "fn_name": "f"},
    "x": {"pytest": "import pytest\nfrom solution import f\n\n@pytest.mark.parametrize('x, want', [(3, 10), (4, 12)])\ndef test_f(x, want):\n    assert f(x) == want\n"},
    "i": {"inputs": ["3\n", "4\n"], "outputs": ["10\n", "12\n"]},
}
FORM_NAMES = {"a": "assert", "k": "check", "p": "pytest", "s": "star import", "m": "module", "u": "unittest", "r": "raises", "c": "call",
              "x": "parametrize", "i": "stdin"}


class Forgery(NamedTuple):
    name: str
    why: str
    code: str
    tests: dict


FORGERIES: list[Forgery] = []


def forge(name: str, why: str, code: str, forms: str = "ap") -> None:
    for form in forms:
        FORGERIES.append(Forgery(f"{name} [{FORM_NAMES[form]}]", why, code, FORMS[form]))


def against(name: str, why: str, code: str, *, functional: str = "", pytest: str = "", call: tuple = ()) -> None:
    """A wrong program and a test of its own; call: (fn_name, arguments, expected)."""
    tests = {"functional": functional} if functional else {"pytest": pytest} if pytest else {
        "fn_name": call[0], "inputs": [call[1]], "outputs": [call[2]]}
    FORGERIES.append(Forgery(name, why, code, tests))


def empty(name: str, *, functional: str | None = None, pytest: str | None = None, code: str = RIGHT) -> None:
    """A ground truth that cannot tell a right program from a wrong one."""
    tests = {"functional": functional} if pytest is None else {"pytest": pytest}
    FORGERIES.append(Forgery(f"empty: {name}", "nothing of the program was called", code, tests))


# ------------------------------------------------------------------------------------ names of the standard library in pytest files
NAMES = {"add": "add(1, 2) == 3", "gcd": "gcd(12, 18) == 6", "factorial": "factorial(5) == 120", "merge": "list(merge([1, 3], [2])) == [1, 2, 3]",
         "count": "count([1, 2, 1], 1) == 2", "Counter": "Counter('aab')['a'] == 2", "reduce": "reduce(lambda a, b: a + b, [1, 2, 3]) == 6",
         "sqrt": "sqrt(16) == 4", "comb": "comb(5, 2) == 10", "accumulate": "list(accumulate([1, 2, 3])) == [1, 3, 6]", "isqrt": "isqrt(17) == 4",
         "capwords": "capwords('ab cd') == 'Ab Cd'", "deepcopy": "deepcopy([[1]]) == [[1]]", "sorted": "sorted([2, 1]) == [1, 2]",
         "sum": "sum([1, 2]) == 3", "abs": "abs(-2) == 2"}
WRONG = "def {0}(*a, **k):\n    return 0\n"
for name, test in NAMES.items():
    shown = test.replace(name, f"solution.{name}", 1) if test.startswith(name) else test.replace(f"({name}", f"(solution.{name}", 1)
    against(f"wrong {name}, imported", "the name is the program's, and its function is wrong", WRONG.format(name),
            pytest=f"from solution import {name}\n\ndef test_it():\n    assert {test}\n")
    against(f"no {name}, imported", "the program has no such name", "x = 1", pytest=f"from solution import {name}\n\ndef test_it():\n    assert {test}\n")
    if name in ("add", "gcd", "Counter", "sum"):
        against(f"no {name}, read from the module", "the program has no such name", "x = 1", pytest=f"import solution\n\ndef test_it():\n    assert {shown}\n")
for name in ("add", "gcd", "factorial", "merge"):
    against(f"no {name}, imported under another name", "the program has no such name", "x = 1",
            pytest=f"from solution import {name} as g\n\ndef test_it():\n    assert {NAMES[name].replace(name, 'g')}\n")
    against(f"no {name}, star import", "the program has no such name", "x = 1", pytest=f"from solution import *\n\ndef test_it():\n    assert {NAMES[name]}\n")
    against(f"no {name}, asserted", "the program has no such name", "x = 1", functional=f"assert {NAMES[name]}")
    against(f"wrong {name}, asserted", "the program's function is wrong", WRONG.format(name), functional=f"assert {NAMES[name]}")
    against(f"no {name}, by fn_name", "the program has no such name", "x = 1", call=(name, [[1, 3], [2]] if name == "merge" else [4, 6], 7))
against("no gcd, by getattr", "the program has no such name", "x = 1", pytest="import solution\n\ndef test_it():\n    assert getattr(solution, 'gcd')(12, 18) == 6\n")
against("no gcd, by importlib", "the program has no such name", "x = 1",
        pytest="import importlib\n\ndef test_it():\n    assert importlib.import_module('solution').gcd(12, 18) == 6\n")
against("no ListNode's helper", "is_same_list is the program's where the test imports it", "x = 1",
        pytest="from solution import is_same_list\n\ndef test_it():\n    assert is_same_list(None, None)\n")

# ------------------------------------------------------------------------------------ star import over the test's own names
forge("star: a class pytest", "the program's pytest.approx would be the judge",
      "class pytest:\n    @staticmethod\n    def approx(*a, **k):\n        return 0\n    mark = None\ndef f(x): return 0", "s")
forge("star: math", "the program's isclose would be the judge", "class math:\n    isclose = staticmethod(lambda *a, **k: True)\nimport pytest\n"
      "class pytest:\n    approx = staticmethod(lambda x: 0)\ndef f(x): return 0", "s")
forge("star: everything by __all__", "dunder names of the test module", "__all__ = ['f', '__name__', '__builtins__', '__file__', '__test__', 'pytest', 'math']\n"
      "__test__ = False\n__builtins__ = {}\npytest = math = None\ndef f(x): return 0", "s")
forge("star: pytestmark skips all", "a skipped test is no pass", "import pytest\npytestmark = pytest.mark.skip(reason='no')\ndef f(x): return 0", "s")
forge("star: pytestmark expects failure", "an expected failure that the program ordered", "import pytest\npytestmark = pytest.mark.xfail\ndef f(x): return 0", "s")
forge("star: setup_module skips", "a skipped test is no pass", "import pytest\ndef setup_module(m=None): pytest.skip('no')\nsetup_function = setup_module\n"
      "def f(x): return 0", "s")
forge("star: setup_module patches the test", "the test's function is replaced", "def setup_module(module):\n    module.test_f = lambda: None\n"
      "    module.pytest = module.math = None\ndef f(x): return 0", "s")
forge("star: autouse fixture", "a fixture of the program decides", "import pytest\n@pytest.fixture(autouse=True)\ndef zero(): pytest.skip('no')\ndef f(x): return 0", "s")
forge("star: generates no tests", "pytest_generate_tests is the program's", "def pytest_generate_tests(metafunc):\n    metafunc.fixturenames.clear()\n"
      "    metafunc.parametrize((), [])\ndef f(x): return 0", "s")
against("star: tests of the program's own", "the test file has no test; the program brings one that passes", "def f(x): return 0\ndef test_mine(): assert f(1) == 0",
        pytest="from solution import *\n")
against("star: builtins", "the program's all, abs and sorted would judge", "all = abs = sorted = zip = range = isinstance = len = lambda *a, **k: []\ndef f(x): return 0",
        pytest="from solution import *\n\ndef test_f():\n    assert all([f(x) == 2 * x + 4 for x in range(5)])\n    for x in range(5):\n        assert abs(f(x) - 2 * x - 4) < 1\n")
against("star: a helper that the test imported before", "from math import isclose is the test's", "isclose = lambda *a, **k: True\ndef f(x): return 0",
        pytest="from math import isclose\nfrom solution import *\n\ndef test_f():\n    assert isclose(f(3), 10)\n")
against("star: a constant of the test", "CASES is the test's, although the star comes later", "CASES = []\ndef f(x): return 0",
        pytest="CASES = [(3, 10), (4, 12)]\nfrom solution import *\n\ndef test_f():\n    for x, want in CASES:\n        assert f(x) == want\n    assert f(5) == 14 or not CASES\n")
against("star: numpy", "np is the test's", "class np:\n    allclose = array = staticmethod(lambda *a, **k: True)\ndef f(x): return 0",
        pytest="import numpy as np\nfrom solution import *\n\ndef test_f():\n    assert np.allclose(f(np.array([3, 4])), [10, 12])\n")
against("star: unittest", "unittest is the test's", "class unittest:\n    class TestCase:\n        def assertEqual(self, *a): pass\ndef f(x): return 0",
        pytest="import unittest\nfrom solution import *\n\nclass TestF(unittest.TestCase):\n    def test_f(self):\n        self.assertEqual(f(3), 10)\n")

# ------------------------------------------------------------------------------------ who owns a name in an assert program
OWNS = "def f(x): return 0\ndef {0}(*a, **k): return {1}\n"
for name, value, test in [
        ("range", "[]", "def check(f):\n    for x in range(3, 5):\n        assert f(x) == 2 * x + 4\ncheck(f)"),
        ("range", "[]", "for f in [f]:\n    for x in range(3, 5):\n        assert f(x) == 2 * x + 4"),
        ("range", "[]", "try:\n    raise ValueError\nexcept ValueError as error:\n    for x in range(3, 5):\n        assert f(x) == 2 * x + 4, error"),
        ("all", "True", "def check(f):\n    assert all(f(x) == 2 * x + 4 for x in (3, 4))\ncheck(f)"),
        ("all", "True", "xs = [3, 4]\nassert all([f(x) == 2 * x + 4 for x in xs])"),
        ("abs", "0", "candidate = f\nassert abs(candidate(3) - 10) < 1e-6"),
        ("sorted", "[10]", "def check(f):\n    assert sorted([f(3)]) == [10]\ncheck(f)"),
        ("isclose", "True", "from math import isclose\ndef check(f):\n    assert isclose(f(3), 10)\ncheck(f)"),
        ("isclose", "True", "import math\nassert (lambda f: math.isclose(f(3), 10))(f)"),
        ("len", "2", "f_ = [f(x) for x in [3, 4] if f(x) == 2 * x + 4]\nassert len(f_) == 2"),
        ("isinstance", "True", "got = [f for f in [f(3)]]\nassert isinstance(got[0], int) and got == [10]"),
        ("any", "False", "assert not any(f(x) != 2 * x + 4 for x in (3, 4))"),
        ("zip", "[]", "for got, want in zip([f(3), f(4)], [10, 12]):\n    assert got == want"),
        ("map", "[10, 12]", "assert list(map(f, [3, 4])) == [10, 12]"),
        ("max", "0", "assert max(abs(f(x) - 2 * x - 4) for x in [3, 4]) == 0"),
        ("set", "{10, 12}", "assert set([f(3), f(4)]) == {10, 12}"),
        ("str", "'10'", "assert str(f(3)) == '10'"),
        ("round", "10", "assert round(f(3), 2) == 10"),
        ("AssertionError", "None", "if f(3) != 10:\n    raise AssertionError('wrong')"),
        ("enumerate", "[]", "import math\nwith open('log', 'w') as f_:\n    for i, x in enumerate([3, 4]):\n        assert f(x) == 2 * x + 4"),
        ("print", "None", "class f_:\n    f = f\nprint(f_)\nassert f_.f(3) == 10"),
        ("approx", "0", "from pytest import approx\nassert f(3) == approx(10)"),
        ("check", "None", "def check(candidate):\n    assert candidate(3) == 10\ncheck(f)"),
        ("METADATA", "None", "METADATA = {3: 10}\nfor x in METADATA:\n    assert f(x) == METADATA[x]")]:
    against(f"owns {name} #{len(FORGERIES)}", "every name of the test but the entry is the test's own", OWNS.format(name, value), functional=test)
against("the entry is a builtin", "`sum` is the entry, `all` and `range` are not", "def sum(*a): return 0\ndef all(*a): return True\ndef range(*a): return []\n",
        functional="assert all(sum(list(range(n))) == n * (n - 1) // 2 for n in range(5))")
against("the entry is a builtin, loop", "`max` is the entry, `range` is not", "def max(*a): return 0\ndef range(*a): return []\n",
        functional="for i in range(3):\n    assert max([i, i + 1]) == i + 1")
against("two entries, one of the standard library", "gcd is wrong", "def gcd(a, b): return 1\ndef lcm_of(a, b): return a * b // __import__('math').gcd(a, b)\n",
        functional="assert gcd(12, 18) == 6\nassert lcm_of(4, 6) == 12")
against("two entries, one missing", "gcd is not there", "def lcm_of(a, b): return a * b // __import__('math').gcd(a, b)\n",
        functional="assert gcd(12, 18) == 6\nassert lcm_of(4, 6) == 12")
against("two entries, pytest", "gcd is not there", "def lcm_of(a, b): return a * b // __import__('math').gcd(a, b)\n",
        pytest="from solution import gcd, lcm_of\n\ndef test_both():\n    assert gcd(12, 18) == 6\n    assert lcm_of(4, 6) == 12\n")
against("builtins module replaced before the test reads it", "patched builtins live in the program's process only",
        "import builtins\nbuiltins.all = lambda *a: True\nbuiltins.range = lambda *a: []\nbuiltins.abs = lambda *a: 0\ndef f(x): return 0",
        functional="assert all(f(x) == 2 * x + 4 for x in range(3))\nassert abs(f(3) - 10) < 1")

# ------------------------------------------------------------------------------------ exceptions that end the test's own loops
STOP = "def f(x):\n    raise StopIteration\n"
for test in ["assert all(map(f, [True, 3]))", "assert all(v == w for v, w in zip(map(f, [3, 4]), [10, 12]))",
             "for got, want in zip(map(f, [3, 4]), [10, 12]):\n    assert got == want", "assert not any(map(f, [1, 2]))",
             "assert not list(filter(lambda x: f(x) != 2 * x + 4, [3, 4]))", "assert sum(map(lambda x: f(x) != 2 * x + 4, [3, 4])) == 0",
             "for i, got in enumerate(map(f, [3, 4])):\n    assert got == [10, 12][i]",
             "import itertools\nfor got in itertools.starmap(f, [(3,), (4,)]):\n    assert got in (10, 12)",
             "class It:\n    def __iter__(self): return self\n    n = 2\n    def __next__(self):\n        It.n += 1\n        if It.n > 4: raise StopIteration\n"
             "        return f(It.n), 2 * It.n + 4\nfor got, want in It():\n    assert got == want",
             "bad = [x for x in map(lambda x: f(x) - 2 * x - 4, [3, 4]) if x]\nassert bad == []",
             "assert max(map(lambda x: abs(f(x) - 2 * x - 4), [3, 4]), default=0) == 0",
             "assert dict(zip([3, 4], map(f, [3, 4]))).get(3, 10) == 10"]:
    against(f"StopIteration #{len(FORGERIES)}", "an exception of the program ends the test's loop early", STOP, functional=test)
against("StopIteration in a pytest loop", "an exception of the program ends the test's loop early", STOP,
        pytest="from solution import f\n\ndef test_f():\n    for got, want in zip(map(f, [3, 4]), [10, 12]):\n        assert got == want\n")
against("StopIteration with a value", "an exception of the program ends the test's loop early", "class S(StopIteration): pass\ndef f(x): raise S(10)\n",
        functional="assert all(map(lambda x: f(x) == 2 * x + 4, [3, 4]))")
against("StopIteration from the second call on", "the first answer is right, the loop then ends", "n = [0]\ndef f(x):\n    n[0] += 1\n    if n[0] > 1: raise StopIteration\n"
        "    return 10\n", functional="assert all(map(lambda x: f(x) == 2 * x + 4, [3, 4, 5]))")
against("IndexError ends the old iteration protocol", "an exception of the program ends the test's loop early", "def f(x): raise IndexError\n",
        functional="class Seq:\n    def __getitem__(self, i):\n        return f(i + 3), 2 * (i + 3) + 4 if i < 3 else [][0]\nfor got, want in Seq():\n    assert got == want")
against("StopAsyncIteration", "an exception of the program ends the test's loop early", "async def f(x): raise StopAsyncIteration\n",
        functional="import asyncio\nclass It:\n    def __aiter__(self): return self\n    async def __anext__(self): return await f(3)\nasync def main():\n"
                   "    async for got in It():\n        assert got == 10\nasyncio.run(main())")

# ------------------------------------------------------------------------------------ tests in which nothing is called
TESTCASE = "import unittest\nclass T(unittest.TestCase):\n    def test_f(self): self.assertEqual(f(3), 10)\n"
for name, test in {
        "no text": "", "spaces": "  \n\n", "a comment": "# assert f(3) == 10", "pass": "pass", "an import": "import math", "a docstring": '"""f(3) == 10"""',
        "the name alone": "f", "callable": "assert callable(f)", "assert f": "assert f", "assert True": "assert True", "f is f": "assert f is f",
        "an empty loop": "for x in []:\n    assert f(x) == 1", "if False": "if False:\n    assert f(3) == 10", "while 0": "while 0: assert f(3) == 9",
        "check is not called": "def check(candidate):\n    assert candidate(3) == 10", "test_ is not called": "def test_f():\n    assert f(3) == 10",
        "a lambda": "check = lambda: f(3)", "a method": "class TestF:\n    def test_f(self):\n        assert f(3) == 10", "a TestCase that nobody runs": TESTCASE,
        "exit first": "import sys\nsys.exit(0)\nassert f(3) == 10", "SystemExit first": "raise SystemExit\nassert f(3) == 10", "quit": "quit()\nassert f(3) == 9",
        "a coroutine not awaited": "async def main():\n    assert f(3) == 10\nc = main()\nc.close()", "a generator not started": "def cases():\n    assert f(3) == 9\n    yield\ncases()",
        "another name, caught": "try:\n    assert g(3) == 10\nexcept NameError:\n    pass", "__name__ is not test": "if __name__ == 'test_solution':\n    assert f(3) == 9",
        "a constant": "CASES = [(3, 10), (4, 12)]", "only the test's own": "def g(x): return x\nassert g(3) == 3", "a doctest": "def test():\n    '''\n    >>> f(3)\n    10\n    '''",
        "short circuit": "assert True or f(3) == 10", "partial": "import functools\ng = functools.partial(f, 3)", "del": "del f" if False else "f_ = f\ndel f_",
        "os._exit": "import os\nos._exit(0)\nassert f(3) == 10", "asserts in a string": "s = 'assert f(3) == 9'", "annotations": "x: f = 3",
        "reading an attribute": "assert f.__name__ == 'f'", "only the test's own mock": "from unittest.mock import Mock\nf_ = Mock(return_value=10)\nassert f_(3) == 10"}.items():
    empty(name, functional=test)
for name, test in {
        "no text": "", "imports alone": "from solution import f\n", "only a helper": "from solution import f\ndef check():\n    assert f(3) == 9\n",
        "main guard alone": "from solution import f\nif __name__ == '__main__':\n    assert f(3) == 9\n",
        "unittest.main under the guard, no test": "import unittest\nfrom solution import f\nif __name__ == '__main__':\n    unittest.main()\n",
        "skip": "import pytest\nfrom solution import f\n@pytest.mark.skip\ndef test_f(): assert f(3) == 9\n",
        "skipif": "import pytest\nfrom solution import f\n@pytest.mark.skipif(True, reason='x')\ndef test_f(): assert f(3) == 9\n",
        "skip in the test": "import pytest\nfrom solution import f\ndef test_f():\n    pytest.skip('x')\n    assert f(3) == 9\n",
        "skip of the module": "import pytest\npytest.skip('x', allow_module_level=True)\nfrom solution import f\ndef test_f(): assert f(3) == 9\n",
        "importorskip": "import pytest\npytest.importorskip('no_such_module')\nfrom solution import f\ndef test_f(): assert f(3) == 9\n",
        "unittest skip": "import unittest\nfrom solution import f\nclass T(unittest.TestCase):\n    @unittest.skip('x')\n    def test_f(self): assert f(3) == 9\n",
        "skip in setUp": "import unittest\nfrom solution import f\nclass T(unittest.TestCase):\n    def setUp(self): self.skipTest('x')\n    def test_f(self): assert f(3) == 9\n",
        "no parameters": "import pytest\nfrom solution import f\n@pytest.mark.parametrize('x', [])\ndef test_f(x): assert f(x) == 9\n",
        "a class with __init__": "from solution import f\nclass TestF:\n    def __init__(self): pass\n    def test_f(self): assert f(3) == 9\n",
        "__test__ = False": "from solution import f\nclass TestF:\n    __test__ = False\n    def test_f(self): assert f(3) == 9\n",
        "asserts nothing of the program": "from solution import f\ndef test_f(): assert 1 + 1 == 2\n",
        "callable": "from solution import f\ndef test_f(): assert callable(f)\n", "hasattr": "import solution\ndef test_f(): assert hasattr(solution, 'f')\n",
        "an assertion on a lambda": "from solution import f\ndef test_f():\n    g = lambda: f(3) == 9\n    assert g\n",
        "one skipped, one of the test's own": "import pytest\nfrom solution import f\n@pytest.mark.skip\ndef test_f(): assert f(3) == 9\ndef test_g(): assert True\n",
        "a comment": "# def test_f(): assert f(3) == 10\n", "the name is no test": "from solution import f\ndef should_work(): assert f(3) == 10\n",
        "xfail without running": "import pytest\nfrom solution import f\n@pytest.mark.xfail(run=False)\ndef test_f(): assert f(3) == 9\n",
        "an async test without a plugin": "from solution import f\nasync def test_f(): assert f(3) == 9\n"}.items():
    empty(f"pytest, {name}", pytest=test)
against("main guard with a wrong program", "`__name__` is `__main__`: the assert runs", "def f(x): return 0", functional="if __name__ == '__main__':\n    assert f(3) == 10")
against("unittest.main with a wrong program", "`__name__` is `__main__`: the tests run", "def f(x): return 0",
        functional=TESTCASE + "if __name__ == '__main__':\n    unittest.main()")
against("unittest.main with exit=False and a wrong program", "the result that unittest reports is a failure", "def f(x): return 0",
        functional="assert f(3) == 10 or f(3) == 0\n" + TESTCASE + "r = unittest.main(exit=False, argv=['t']).result\nassert r.wasSuccessful()")
against("check called with a wrong program", "the usual HumanEval form", "def f(x): return 2 * x + 5", functional=FORMS["k"]["functional"])

# ------------------------------------------------------------------------------------ objects that lie
LIAR = """class Liar{base}:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __contains__ = __lt__
    def __bool__(self): return True
    def __hash__(self): return 10
    def __sub__(self, other): return Liar({zero})
    __rsub__ = __add__ = __radd__ = __mul__ = __abs__ = __round__ = lambda self, *a: Liar({zero})
    def __getattr__(self, name):
        if name.startswith('__'): raise AttributeError(name)
        return lambda *a, **k: Liar({zero})
"""
for base, zero in {"": "", "(int)": "0", "(float)": "0.0", "(str)": "''", "(list)": "[]", "(dict)": "{}", "(tuple)": "()", "(complex)": "0j",
                   "(bytes)": "b''", "(set)": "", "(frozenset)": ""}.items():
    if not base:
        lies = LIAR.format(base=base, zero=zero) + "    def __len__(self): return 1\n    def __iter__(self): return iter([Liar()])\n"
    else:
        lies = LIAR.format(base=base, zero=zero)
    forge(f"equals everything{base}", "an object that says it is equal is not the value", lies + f"def f(x): return Liar({zero})\n", "asuc" if not base else "ap")
PLAIN_LIAR = LIAR.format(base="", zero="")
for name, test in {
        "in a list": "assert f(3) in [10, 12]", "list in it": "assert 10 in f(3)", "reflected": "assert 10 == f(3)", "list ==": "assert [f(3), f(4)] == [10, 12]",
        "dict value": "assert {'a': f(3)} == {'a': 10}", "dict key": "assert {10: 'ten'}[f(3)] == 'ten'", "set": "assert {f(3)} == {10}", "not !=": "assert not f(3) != 10",
        "between": "assert 9.9 < f(3) < 10.1", "abs": "assert abs(f(3) - 10) < 1e-6", "round": "assert round(f(3), 2) == 10", "truth of ==": "assert (f(3) == 10) is True",
        "str": "assert str(f(3)) == '10'", "repr": "assert repr(f(3)) == '10'", "format": "assert f'{f(3)}' == '10'", "percent": "assert '%d' % f(3) == '10'",
        "int()": "assert int(f(3)) == 10", "float()": "assert float(f(3)) == 10.0", "sum": "assert sum([f(3), f(4)]) == 22", "sorted": "assert sorted([f(4), f(3)]) == [10, 12]",
        "max": "assert max(f(3), 10) == 10", "isinstance": "assert isinstance(f(3), int) and f(3) == 10", "type": "assert type(f(3)) is int", "is": "assert f(3) is 10 or f(3) == 10",
        "count": "assert [f(3)].count(10) == 1", "index": "assert [10, 12].index(f(3)) == 0", "remove": "xs = [10]\nxs.remove(f(3))\nassert xs == []",
        "tuple": "assert (f(3), 1) == (10, 1)", "isclose": "import math\nassert math.isclose(f(3), 10)", "raise if": "if f(3) != 10:\n    raise AssertionError",
        "raise unless": "if not f(3) == 10:\n    raise SystemExit(1)", "all": "assert all(f(x) == 2 * x + 4 for x in range(3))", "operator": "import operator\nassert operator.eq(f(3), 10)",
        "unpacking": "a, = f(3)\nassert a == 10", "len": "assert len(f(3)) == 5", "slice": "assert f(3)[:2] == [1, 2]", "item": "assert f(3)['key'] == 10",
        "method": "assert f(3).startswith('ab')", "match": "match f(3):\n    case 10:\n        pass\n    case _:\n        raise AssertionError",
        "numpy": "import numpy as np\nassert np.allclose(f(3), 10)", "numpy all": "import numpy as np\nassert (f(3) == np.array([10, 10])).all()",
        "numpy array_equal": "import numpy as np\nassert np.array_equal(f(3), [10])", "numpy testing": "import numpy as np\nnp.testing.assert_array_equal(f(3), [10])",
        "json": "import json\nassert json.dumps(f(3)) == '10'", "Counter": "from collections import Counter\nassert Counter([f(3)]) == {10: 1}",
        "Fraction": "from fractions import Fraction\nassert f(3) == Fraction(10)", "deque": "from collections import deque\nassert deque([f(3)]) == deque([10])",
        "dataclass of the test": "from dataclasses import dataclass\n@dataclass\nclass R:\n    v: int\nassert R(f(3)) == R(10)",
        "namedtuple of the test": "from collections import namedtuple\nR = namedtuple('R', 'v')\nassert R(f(3)) == R(10)", "zip": "for a, b in zip(f(3), [10]):\n    assert a == b"}.items():
    against(f"liar: {name}", "the object decides what the test finds", PLAIN_LIAR + "    def __len__(self): return 4\n    def __iter__(self): return iter([Liar()])\n"
            "    def __getitem__(self, key): return Liar()\n    def __index__(self): return 0\n    def __float__(self): return 0.0\n    def __str__(self): return S('x')\n"
            "    __repr__ = __str__\n    def __format__(self, spec): return S('x')\n    __array_priority__ = 1e9\n"
            "    def __array_ufunc__(self, *a, **k): return Liar()\n    def __array_function__(self, *a, **k): return True\n"
            "    __class__ = int\n" + LIAR.replace("Liar", "S").format(base="(str)", zero="''") + "def f(x): return Liar()\n", functional=test)
for name, test in {
        "assertEqual": "self.assertEqual(f(3), 10)", "assertAlmostEqual": "self.assertAlmostEqual(f(3), 10.5)", "assertIn": "self.assertIn(f(3), [10])",
        "assertListEqual": "self.assertListEqual(f(3), [10])", "assertCountEqual": "self.assertCountEqual([f(3)], [10])", "assertLess": "self.assertLess(f(3), 11)",
        "assertTrue": "self.assertTrue(f(3) == 10)", "assertDictEqual": "self.assertDictEqual(f(3), {'a': 1})", "assertIs": "self.assertIs(f(3), True)",
        "assertRegex": "self.assertRegex(f(3), '^10$')"}.items():
    against(f"liar: {name}", "the object decides what the test finds", PLAIN_LIAR + "    __class__ = list\n    def __len__(self): return 1\ndef f(x): return Liar()\n",
            pytest=f"import unittest\nfrom solution import f\n\nclass TestF(unittest.TestCase):\n    def test_f(self):\n        {test}\n")
against("liar: mock.ANY", "ANY equals everything", "from unittest.mock import ANY\ndef f(x): return ANY", functional=FORMS["a"]["functional"])
against("liar: MagicMock", "a mock answers everything", "from unittest.mock import MagicMock\nf = MagicMock()\nf.return_value.__eq__ = lambda s, o: True", pytest=FORMS["p"]["pytest"])
against("liar: pytest.approx", "approx of an infinite tolerance equals every number", "import pytest\ndef f(x): return pytest.approx(0, abs=float('inf'))",
        pytest=FORMS["p"]["pytest"])
against("liar: hypothesis' nothing", "dirty-equals of one's own by a metaclass", "class M(type):\n    def __eq__(cls, other): return True\n    __hash__ = None\n"
        "class f(metaclass=M):\n    def __new__(cls, x): return cls", functional=FORMS["a"]["functional"])
against("liar: dtype=object array", "an array of objects that equal everything", "import numpy as np\n" + PLAIN_LIAR + "def f(x):\n    a = np.empty(2, dtype=object)\n"
        "    a[:] = [Liar(), Liar()]\n    return a\n", functional="import numpy as np\nassert (f(np.array([3, 4])) == np.array([10, 12])).all()")
against("liar: ndarray subclass", "a subclass of ndarray that answers comparisons itself", "import numpy as np\nclass A(np.ndarray):\n"
        "    def __array_ufunc__(self, ufunc, method, *a, **k): return np.ones(2, dtype=bool)\n    def __array_function__(self, *a): return True\n"
        "    def __eq__(self, other): return np.ones(2, dtype=bool)\ndef f(x): return np.zeros(2).view(A)\n",
        functional="import numpy as np\nassert np.allclose(f(np.array([3, 4])), [10, 12])\nassert (f(np.array([3, 4])) == np.array([10, 12])).all()")
against("liar: learns from the comparison", "the first comparison tells the value, the second answer is it", "known = {}\nclass Spy:\n    def __init__(self, x): self.x = x\n"
        "    def __eq__(self, other):\n        known[self.x] = other\n        return False\n    __hash__ = None\n"
        "def f(x): return known.get(x, Spy(x))\n", functional="ok = [f(3) == 10 for _ in range(2)]\nassert ok[-1]")
against("liar: subtraction", "`__sub__` sees the expected value and says zero", "class D:\n    def __sub__(self, other): return 0.0\n    __rsub__ = __sub__\ndef f(x): return D()\n",
        pytest="from solution import f\n\ndef test_f():\n    assert abs(f(3) - 10.0) < 1e-9\n")
against("liar: in place", "a list of the test is filled with objects that equal everything", PLAIN_LIAR + "def f(xs): xs[:] = [Liar() for _ in xs]\n",
        functional="xs = [3, 1, 2]\nf(xs)\nassert xs == [1, 2, 3]")
against("liar: in place, dict", "a dict of the test is filled with objects that equal everything", PLAIN_LIAR + "def f(d):\n    for k in d: d[k] = Liar()\n",
        pytest="from solution import f\n\ndef test_f():\n    d = {'a': 1}\n    f(d)\n    assert d == {'a': 2}\n")
against("liar: attribute of a node", "a node of the test gets a value that equals everything", PLAIN_LIAR + "def f(node): node.val = Liar()\n",
        functional="class Node:\n    def __init__(self, val): self.val = val\nn = Node(3)\nf(n)\nassert n.val == 10")
against("liar: class of a node", "the test's object is given another class", PLAIN_LIAR + "class L2:\n    val = Liar()\ndef f(node): node.__class__ = L2; del node.__dict__['val']\n",
        functional="class Node:\n    def __init__(self, val): self.val = val\nn = Node(3)\nf(n)\nassert n.val == 10")
against("liar: __eq__ put on the test's class", "the test's own class is patched", "def f(node):\n    type(node).__eq__ = lambda a, b: True\n    return node\n",
        functional="from dataclasses import dataclass\n@dataclass\nclass Node:\n    val: int\nassert f(Node(3)) == Node(10)")
against("liar: __str__ of an exception", "str(error) is a str that equals everything", LIAR.replace("Liar", "S").format(base="(str)", zero="''") +
        "class E(ValueError):\n    def __str__(self): return S('x')\ndef f(x): raise E\n",
        pytest="import pytest\nfrom solution import f\n\ndef test_f():\n    with pytest.raises(ValueError) as e:\n        f(-1)\n    assert str(e.value) == 'negative'\n")
against("liar: args of an exception", "args hold an object that equals everything", PLAIN_LIAR + "def f(x): raise ValueError(Liar())\n",
        functional="try:\n    f(-1)\n    assert False\nexcept ValueError as e:\n    assert e.args == ('negative',)")
against("liar: generator of liars", "every element equals everything", PLAIN_LIAR + "def f(x):\n    for _ in range(x): yield Liar()\n", functional="assert list(f(3)) == [1, 2, 3]")
against("liar: keys of a dict", "keys that equal everything", PLAIN_LIAR + "def f(x): return {Liar(): Liar()}\n", functional="assert f(3) == {10: 'ten'}")
against("liar: nested", "a liar at depth 3", PLAIN_LIAR + "def f(x): return {'a': [(1, Liar())]}\n", functional="assert f(3) == {'a': [(1, 10)]}")
against("liar: by fn_name, nested", "a liar at depth 2", PLAIN_LIAR + "def f(x): return [[Liar()]]\n", call=("f", [3], [[10]]))
against("liar: a str with methods", "str methods that say yes", "class S(str):\n    def startswith(self, *a): return True\n    endswith = isdigit = startswith\ndef f(x): return S('zz')\n",
        functional="assert f(3).startswith('ab') and f(3).endswith('yz')")
against("liar: sorted with __lt__", "elements order and equal as they like", PLAIN_LIAR + "def f(xs): return [Liar() for _ in xs]\n", functional="assert sorted(f([3, 1])) == [1, 3]")
against("liar: lies after the first comparison", "only the second comparison lies", "class Late(int):\n    n = 0\n    def __eq__(self, o):\n        Late.n += 1\n        return True\n"
        "    __hash__ = int.__hash__\ndef f(x): return Late(10) if x == 3 else Late(0)\n", functional=FORMS["a"]["functional"])
against("liar: Enum", "an Enum member that equals everything", "import enum\nclass C(enum.Enum):\n    A = 1\n    def __eq__(self, o): return True\ndef f(x): return C.A\n",
        functional="assert f(3) == 'A'")
against("liar: dataclass", "a dataclass that equals everything", "import dataclasses\n@dataclasses.dataclass(eq=False)\nclass P:\n    x: int = 0\n    def __eq__(self, o): return True\n"
        "def f(x): return P()\n", functional="assert f(3) == (1, 2)")
against("liar: namedtuple", "a namedtuple that equals everything", "from collections import namedtuple\nclass P(namedtuple('P', 'x y')):\n    def __eq__(self, o): return True\n"
        "def f(x): return P(0, 0)\n", pytest="from solution import f\n\ndef test_f():\n    assert f(3) == (1, 2)\n")
against("liar: defaultdict", "a defaultdict subclass whose items are what is asked", "from collections import defaultdict\n" + PLAIN_LIAR + "class D(defaultdict):\n"
        "    def __eq__(self, o): return True\n    def __len__(self): return 2\n    def items(self): return []\ndef f(x): return D(Liar)\n",
        functional="got = f(3)\nassert len(got) == 2 and got['a'] == 1 and got['b'] == 2")
against("liar: Decimal", "a Decimal subclass", "from decimal import Decimal\nclass D(Decimal):\n    def __eq__(self, o): return True\n    def __sub__(self, o): return Decimal(0)\n"
        "def f(x): return D(0)\n", functional="from decimal import Decimal\nassert f(3) == Decimal('10.5')")
against("liar: datetime", "a datetime subclass", "from datetime import date\nclass D(date):\n    def __eq__(self, o): return True\ndef f(x): return D(1, 1, 1)\n",
        functional="from datetime import date\nassert f(3) == date(2024, 2, 29)")
against("liar: isinstance by __instancecheck__", "the program's class says that everything is its instance", "class M(type):\n    def __instancecheck__(cls, o): return True\n"
        "class Shape(metaclass=M): pass\ndef f(x): return 0\n", functional="assert isinstance(f(3), Shape) and f(3) == 10")

# ------------------------------------------------------------------------------------ ends of the process
for name, code in {
        "sys.exit(0)": "import sys\nsys.exit(0)", "os._exit(0)": "import os\nos._exit(0)", "os._exit(42)": "import os\nos._exit(42)", "sys.exit(42)": "import sys\nsys.exit(42)",
        "raise SystemExit": "raise SystemExit", "quit()": "quit()", "abort": "import os\nos.abort()", "SIGKILL to itself": "import os\nos.kill(os.getpid(), 9)",
        "sys.exit in the call": "import sys\ndef f(x): sys.exit(0)", "os._exit in the call": "import os\ndef f(x): os._exit(0)",
        "exit code of the sandbox in the call": "import os, sys\ndef f(x):\n    import re\n    for m in list(sys.modules.values()):\n        if isinstance(getattr(m, 'PASS', None), int): os._exit(m.PASS)\n    os._exit(42)",
        "exit codes guessed one a run": "import os, time\ndef f(x): os._exit(time.time_ns() // 1000 % 256)", "KeyboardInterrupt": "def f(x): raise KeyboardInterrupt",
        "GeneratorExit": "def f(x): raise GeneratorExit", "BaseException": "def f(x): raise BaseException", "atexit": "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): return 0",
        "atexit, 42": "import atexit, os\natexit.register(os._exit, 42)\ndef f(x): return 0", "__del__": "import os\nclass A:\n    def __del__(self): os._exit(0)\na = A()\ndef f(x): return 0",
        "__del__ of the result": "import os\nclass A:\n    def __del__(self): os._exit(0)\ndef f(x): return A()",
        "excepthook": "import sys, os\nsys.excepthook = lambda *a: os._exit(0)\ndef f(x): return 0", "unraisablehook": "import sys, os\nsys.unraisablehook = lambda *a: os._exit(0)\n"
        "class A:\n    def __del__(self): 1 / 0\ndef f(x): A(); return 0", "exit in __eq__": "import os\nclass A:\n    def __eq__(self, o): os._exit(0)\ndef f(x): return A()",
        "exit in __repr__": "import os\nclass A:\n    def __repr__(self): os._exit(0)\ndef f(x): return A()", "exit in __bool__": "import os\nclass A:\n    def __eq__(self, o): return self\n    def __bool__(self): os._exit(0)\ndef f(x): return A()",
        "exit in an exception's __str__": "import os\nclass E(Exception):\n    def __str__(self): os._exit(0)\ndef f(x): raise E", "weakref.finalize": "import weakref, os\nclass A: pass\na = A()\nweakref.finalize(a, os._exit, 0)\ndef f(x): return 0",
        "SystemExit subclass": "class E(SystemExit): code = 0\ndef f(x): raise E", "closes stdout": "import os\nos.close(1); os.close(2)\ndef f(x): return 0",
        "a signal handler": "import signal, os\nsignal.signal(signal.SIGTERM, lambda *a: os._exit(0))\nsignal.signal(signal.SIGINT, lambda *a: os._exit(0))\ndef f(x): os.kill(os.getpid(), 15); return 0",
        "setitimer": "import signal, os\nsignal.signal(signal.SIGALRM, lambda *a: os._exit(0))\nsignal.setitimer(signal.ITIMER_REAL, 0.01)\ndef f(x): return 0",
        "setitimer that raises": "import signal\ndef h(*a): raise SystemExit(0)\nsignal.signal(signal.SIGALRM, h)\nsignal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)\ndef f(x): return 0",
        "a thread that exits": "import threading, os, time\nthreading.Thread(target=lambda: (time.sleep(0.01), os._exit(0)), daemon=True).start()\ndef f(x):\n    time.sleep(0.02)\n    return 0",
        "a thread that outlives": "import threading, os, time\nthreading.Thread(target=lambda: (time.sleep(0.3), os._exit(0))).start()\ndef f(x): return 0",
        "faulthandler": "import faulthandler\nfaulthandler.dump_traceback_later(0.01, exit=True)\nimport time\ndef f(x):\n    time.sleep(0.05)\n    return 0",
        "exec of true": "import os\ndef f(x): os.execv('/bin/true', ['true'])", "fork, the child answers": "import os\ndef f(x):\n    if os.fork() == 0: os._exit(0)\n    return 0"}.items():
    forge(f"end: {name}", "a process that ends is no verdict", code, "cp" if "exit" in name and "guess" not in name else "a")
for name, code in {
        "SkipTest": "import unittest\ndef f(x): raise unittest.SkipTest('x')", "pytest.skip": "import pytest\ndef f(x): pytest.skip('x')", "pytest.xfail": "import pytest\ndef f(x): pytest.xfail('x')",
        "pytest.exit 0": "import pytest\ndef f(x): pytest.exit('x', returncode=0)", "importorskip": "import pytest\ndef f(x): pytest.importorskip('nothing')",
        "Skipped by name": "class Skipped(BaseException): pass\nSkipped.__module__ = 'builtins'\ndef f(x): raise Skipped('x')",
        "Skipped of _pytest": "import _pytest.outcomes as o\ndef f(x): raise o.Skipped('x')", "Exit of _pytest": "import _pytest.outcomes as o\ndef f(x): raise o.Exit('x', 0)",
        "skip at import": "import pytest\npytest.skip('x', allow_module_level=True)", "exit at import": "import pytest\npytest.exit('x', 0)", "SkipTest at import": "import unittest\nraise unittest.SkipTest('x')",
        "skip in __eq__": "import pytest\nclass A:\n    def __eq__(self, o): pytest.skip('x')\ndef f(x): return A()", "hypothesis.assume": "import hypothesis\ndef f(x): hypothesis.assume(False)",
        "_SubTest": "import unittest.case\ndef f(x): raise unittest.case._ShouldStop", "StopTest": "import unittest.case as c\ndef f(x): raise c._UnexpectedSuccess"}.items():
    forge(f"outcome: {name}", "a skipped, stopped or expected failure ordered by the program", code, "u" if "unittest" in code else "p")
against("outcome: only what fails is skipped", "one of two tests is skipped by the program", "import pytest\ndef f(x):\n    return 10 if x == 3 else pytest.skip('x')\n", pytest=FORMS["x"]["pytest"])
against("outcome: rejected examples", "hypothesis takes the program's exception as `assume`", "from hypothesis import reject\ndef f(x): return x if x >= 0 else reject()\n",
        pytest="from hypothesis import given, strategies as st\nfrom solution import f\n\n@given(st.integers(-50, 50))\ndef test_f(x):\n    assert f(x) == abs(x)\n")
against("outcome: hypothesis patched", "given is replaced in the program's process", "import hypothesis\nhypothesis.given = lambda *a, **k: lambda g: (lambda: None)\n"
        "hypothesis.settings.register_profile('x', max_examples=1)\nhypothesis.settings.load_profile('x')\ndef f(x): return x\n",
        pytest="from hypothesis import given, strategies as st\nfrom solution import f\n\n@given(st.integers(-50, -1))\ndef test_f(x):\n    assert f(x) == abs(x)\n")

# ------------------------------------------------------------------------------------ search for the expected value
TOKEN_TESTS = {"a": {"functional": "WANT = {3: 'token-4711'}\nassert f(3) == 'token-4711' == WANT[3]"},
               "p": {"pytest": "from solution import f\n\nWANT = {3: 'token-4711'}\n\ndef test_f():\n    expected = 'token-4711'\n    assert f(3) == expected == WANT[3]\n"},
               "c": {"inputs": [[3]], "outputs": ["token-4711"], "fn_name": "f"}}
LOOK = "import re\ndef look(*texts):\n    for t in texts:\n        m = re.search('tok' + r'en-\\d+', t if isinstance(t, str) else repr(t)[:200000])\n        if m: return m.group()\n"


def search(name: str, body: str, forms: str = "ap") -> None:
    for form in forms:
        FORGERIES.append(Forgery(f"search: {name} [{FORM_NAMES[form]}]", "finds the expected value instead of computing it", LOOK + body, TOKEN_TESTS[form]))


search("frames", "import sys\ndef f(x):\n    g = sys._getframe()\n    while g:\n        r = look(g.f_locals, g.f_globals, g.f_code.co_consts)\n        if r: return r\n        g = g.f_back\n", "apc")
search("all frames", "import sys\ndef f(x):\n    for g in sys._current_frames().values():\n        while g:\n            r = look(g.f_locals, g.f_globals, g.f_code.co_consts)\n            if r: return r\n            g = g.f_back\n")
search("gc objects", "import gc\ndef f(x):\n    for o in gc.get_objects():\n        try: r = look(o)\n        except Exception: continue\n        if r: return r\n", "ac")
search("code objects", "import gc, types\ndef f(x):\n    for o in gc.get_objects():\n        for r in gc.get_referents(o):\n            if isinstance(r, types.CodeType) and look(r.co_consts): return look(r.co_consts)\n")
search("modules", "import sys\ndef f(x):\n    for m in list(sys.modules.values()):\n        try: r = look(vars(m).get('WANT'), vars(m).get('expected'), vars(m).get('test'))\n        except Exception: continue\n        if r: return r\n", "apc")
search("files", "import os, sys\ndef f(x):\n    for top in ['.', '/box', '/tmp', *sys.path[:2]]:\n        for path, _, names in os.walk(top):\n            for n in names:\n"
       "                if n.startswith(('test', 'case')) or n.endswith(('.json', '.txt')):\n                    try: r = look(open(os.path.join(path, n), errors='replace').read(1 << 20))\n"
       "                    except OSError: continue\n                    if r: return r\n        if top == '/tmp': break\n")
search("descriptors", "import os\ndef f(x):\n    for fd in range(64):\n        for g in (lambda: os.pread(fd, 1 << 20, 0), lambda: os.readlink(f'/proc/self/fd/{fd}')):\n            try: r = look(str(g()))\n            except OSError: continue\n            if r: return r\n", "apc")
search("linecache and inspect", "import inspect, linecache\ndef f(x):\n    for s in inspect.stack():\n        r = look(s.code_context, linecache.getlines(s.filename))\n        if r: return r\n")
search("memory maps", "import ctypes, sys\ndef f(x):\n    try: maps = open('/proc/self/maps').read().splitlines()\n    except OSError: return None\n    mem = open('/proc/self/mem', 'rb')\n    for m in maps:\n"
       "        if ' rw-p ' in m:\n            a, b = (int(v, 16) for v in m.split()[0].split('-'))\n            mem.seek(a)\n            r = look(str(mem.read(b - a)))\n            if r: return r\n", "ap")
search("heap by ctypes", "import ctypes\ndef f(x):\n    base = id('abc' + str(x)) & ~0xfffff\n    for k in range(-1, 2):\n        try: r = look(str(ctypes.string_at(base + (k << 18), 1 << 16)))\n        except Exception: continue\n        if r: return r\n")
search("referrers of the argument", "import gc\ndef f(x):\n    for o in gc.get_referrers(x):\n        for q in [o, *gc.get_referrers(o)]:\n            try: r = look(q)\n            except Exception: continue\n            if r: return r\n")
search("environment and argv", "import os, sys\ndef f(x): return look(dict(os.environ), sys.argv, sys.orig_argv) or ''\n")
search("traceback of an exception", "import sys\ndef f(x):\n    try: raise ValueError\n    except ValueError as e:\n        t = e.__traceback__.tb_frame\n        while t:\n            r = look(t.f_locals, t.f_globals)\n            if r: return r\n            t = t.f_back\n")
search("the solution's own globals", "def f(x): return look(globals(), __builtins__) or look(vars(__import__('__main__')))\n", "apc")
against("search: globals of a callback", "the test's lambda leads to its globals", LOOK + "def f(g): return look(getattr(g, '__globals__', {}), getattr(g, '__code__', None) and g.__code__.co_consts)\n",
        functional="WANT = 'token-4711'\nassert f(lambda v: v) == WANT")
against("search: closure of a callback", "the test's closure holds the value", LOOK + "def f(g): return look(*[c.cell_contents for c in g.__closure__ or ()])\n",
        pytest="from solution import f\n\ndef test_f():\n    want = 'token-4711'\n    assert f(lambda: want) == want or f(lambda: 0) == want\n" if False else
        "from solution import f\n\ndef make(want):\n    def cb(v): return len(want) * v\n    return cb\n\ndef test_f():\n    assert f(make('token-4711')) == 'token-4711'\n")
against("search: class of an argument", "a method of the test's class leads to its globals", LOOK + "def f(node): return look(type(node).__init__.__globals__.get('WANT'))\n",
        functional="WANT = 'token-4711'\nclass Node:\n    def __init__(self, v): self.v = v\nassert f(Node(3)) == WANT")
against("search: referrers of a list", "the test's table of cases refers to the argument", LOOK + "import gc\ndef f(xs):\n    for o in gc.get_referrers(xs):\n        if isinstance(o, tuple): return o[-1]\n",
        functional="for xs, want in [([3, 1], [1, 3]), ([9, 7], [7, 9])]:\n    assert f(xs) == want")
against("search: iterator of the caller", "the test passes an iterator of its own table", "def f(it):\n    return list(it)[-1]\n",
        functional="def check(rows):\n    for args, want in rows:\n        assert f(iter(args)) == want\ncheck([([1, 2, 3], 6), ([4], 4)])")
search("attributes of what is returned", "class Spy:\n    def __eq__(self, other):\n        global f\n        f = lambda x: other\n        return NotImplemented\ndef f(x): return Spy()\n")
for name, body in {"stdin's neighbours": "import os\nfor fd in range(3, 64):\n    try: print(os.pread(fd, 1 << 16, 0).decode())\n    except OSError: pass",
                   "stdout's old contents": "import os\nprint(os.pread(1, 1 << 16, 0).decode())", "stderr's contents": "import os\nprint(os.pread(2, 1 << 16, 0).decode())",
                   "exit 0": "raise SystemExit(0)", "exit 42": "import os\nos._exit(42)", "echo": "print(input())", "all numbers": "print(*range(100), sep='\\n')",
                   "right and more": "x = int(input())\nprint(2 * x + 4)\nprint('ok')", "right, then an exception": "x = int(input())\nprint(2 * x + 4, flush=True)\nraise ValueError",
                   "right, then exit 1": "import sys\nprint(2 * int(input()) + 4)\nsys.exit(1)", "right on stderr": "import sys\nprint(2 * int(input()) + 4, file=sys.stderr)",
                   "right, then for ever": "print(2 * int(input()) + 4, flush=True)\nwhile True: pass",
                   "nothing": ""}.items():
    forge(f"stdin: {name}", "a program that does not print the answer and end well", body, "i")

# ------------------------------------------------------------------------------------ patches of what the test uses
for name, code in {
        "unittest.TestCase": "import unittest\nfor n in dir(unittest.TestCase):\n    if n.startswith('assert'): setattr(unittest.TestCase, n, lambda *a, **k: None)",
        "TestCase.run": "import unittest\nunittest.TestCase.run = lambda self, result=None: result.addSuccess(self)", "pytest.raises": "import pytest, contextlib\npytest.raises = lambda *a, **k: contextlib.nullcontext()\n"
        "pytest.approx = lambda *a, **k: 0", "pytest.main": "import pytest\npytest.main = lambda *a, **k: 0", "_pytest.runner": "import _pytest.runner as r\nr.call_and_report = r.runtestprotocol = lambda *a, **k: []",
        "pytest Function": "import _pytest.python as p\np.Function.runtest = lambda self: None\np.pytest_pyfunc_call = lambda pyfuncitem: True", "assertion rewriting": "import _pytest.assertion.rewrite as r\n"
        "r.AssertionRewritingHook.exec_module = lambda self, m: None", "TestReport": "import _pytest.reports as r\nr.TestReport.from_item_and_call = classmethod(lambda c, i, k: c(i.nodeid, i.location, {}, 'passed', None, 'call'))",
        "builtins": "import builtins\nfor n in ('all', 'any', 'abs', 'len', 'isinstance', 'str', 'sorted', 'range', 'zip', 'AssertionError', 'compile', 'exec', 'open'):\n    setattr(builtins, n, lambda *a, **k: True)",
        "AssertionError": "import builtins\nclass Quiet(Exception):\n    def __new__(cls, *a): raise SystemExit(0)\nbuiltins.AssertionError = Quiet", "operator": "import operator\noperator.eq = operator.ne = lambda a, b: True",
        "math": "import math, cmath\nmath.isclose = cmath.isclose = lambda *a, **k: True\nmath.fabs = lambda x: 0.0", "json": "import json\njson.loads = lambda *a, **k: 10\njson.dumps = lambda *a, **k: '10'",
        "json decoder": "import json.decoder, json.encoder\njson.decoder.JSONDecoder.decode = lambda *a: 10\njson.encoder.JSONEncoder.encode = lambda *a: '10'", "pickle": "import pickle\npickle.loads = lambda *a, **k: 10\npickle.dumps = lambda *a, **k: b'10'",
        "sys.modules": "import sys, types\nfor n in ('math', 'pytest', 'unittest', 'json', 'operator', 'solution', 'conftest', 'test_solution'):\n    m = types.ModuleType(n)\n    m.isclose = m.approx = m.f = lambda *a, **k: 10\n"
        "    m.main = lambda *a, **k: 0\n    sys.modules[n] = m", "sys.modules None": "import sys\nfor n in list(sys.modules):\n    if n.split('.')[0] in ('pytest', '_pytest', 'unittest'): sys.modules[n] = None",
        "meta_path": "import sys, importlib.machinery, types\nclass F:\n    def find_spec(self, n, p=None, t=None): return importlib.machinery.ModuleSpec(n, self)\n    def create_module(self, s): return types.ModuleType(s.name)\n"
        "    def exec_module(self, m): m.test_f = lambda: None\nsys.meta_path.insert(0, F())\nsys.modules.pop('pytest', None)", "__import__": "import builtins, types\nold = builtins.__import__\ndef imp(n, *a):\n    m = old(n, *a)\n"
        "    if n in ('pytest', 'unittest', 'math'): vars(m).update(approx=lambda *a: 0, isclose=lambda *a: True)\n    return m\nbuiltins.__import__ = imp", "os._exit and sys.exit": "import os, sys\nreal = os._exit\nos._exit = sys.exit = lambda c=0: real(0)",
        "traceback": "import traceback, os\ntraceback.print_exc = traceback.print_exception = lambda *a, **k: os._exit(0)", "warnings": "import warnings\nwarnings.simplefilter('error')\nwarnings.warn = lambda *a, **k: None",
        "settrace": "import sys\nsys.settrace(lambda f, e, a: None)\nsys.setprofile(lambda f, e, a: None)", "a trace that jumps over lines": "import sys\ndef t(fr, e, a):\n    if fr.f_code.co_name in ('test_f', '<module>', 'check') and e == 'line' and fr.f_code.co_filename != __file__:\n"
        "        try: fr.f_lineno = fr.f_lineno + 2\n        except Exception: pass\n    return t\nsys.settrace(t)\ng = sys._getframe()\nwhile g:\n    g.f_trace = t\n    g = g.f_back", "recursion limit": "import sys\nsys.setrecursionlimit(60)",
        "gc and memory": "import gc, resource\ngc.disable()\nresource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 28))", "stdout": "import sys, io\nsys.stdout = sys.stderr = io.StringIO()", "small ints by ctypes": "import ctypes\nfor v in (10, 12):\n    ctypes.memmove(id(v) + 24, id(0) + 24, 4)",
        "type slots by ctypes": "import ctypes, sys\nt = ctypes.c_void_p * (int.__basicsize__ and 40)\na, b = t.from_address(id(int)), t.from_address(id(object))\nclass Eq:\n    def __eq__(self, o): return True\nc = t.from_address(id(Eq))\n"
        "for i in range(20, 30):\n    if c[i] != b[i] and a[i] != b[i]: a[i] = c[i]", "the caller's constants": "import sys, gc, types, ctypes\ndef f(x):\n    for c in [sys._getframe(1).f_code.co_consts]:\n        for i, v in enumerate(c):\n            if v == 10: ctypes.c_void_p.from_address(id(c) + 24 + 8 * i).value = id(0)\n    return 0",
        "the caller's locals": "import sys\ndef f(x):\n    g = sys._getframe(1)\n    for k in list(g.f_globals):\n        if k not in ('f', '__builtins__'): g.f_globals[k] = 0\n    g.f_globals['want'] = 0\n    return 0",
        "the test function's code": "import sys\ndef f(x):\n    g = sys._getframe(1)\n    t = g.f_globals.get('test_f')\n    if t: t.__code__ = (lambda: None).__code__\n    return 0"}.items():
    forge(f"patch: {name}", "what the program patches is its own process, never the judge", code + ("" if "def f(" in code else "\ndef f(x): return 0"), "aps" if "math" in name or "pytest" in name else "au" if "unit" in name or "Case" in name else "ap")
against("patch: unittest.mock", "the test's patch is the test's", "import unittest.mock as m\nm.patch = m.MagicMock()\ndef f(x): return 0",
        pytest="from unittest import mock\nfrom solution import f\n\ndef test_f():\n    with mock.patch('builtins.input', return_value='3'):\n        assert f(3) == 10\n")
against("patch: random", "the test's generator is the test's", "import random\nrandom.random = lambda: 0.0\nrandom.randint = lambda a, b: a\nrandom.Random = None\ndef f(xs): return xs",
        functional="import random\nrandom.seed(7)\nxs = [random.randint(0, 99) for _ in range(20)]\nassert f(list(xs)) == sorted(xs)")
against("patch: copy.deepcopy", "the test's copy is not an alias", "import copy\ncopy.deepcopy = copy.copy = lambda x, *a: x\ndef f(xs):\n    xs.sort()\n    return xs",
        functional="import copy\nxs = [3, 1, 2]\nbefore = copy.deepcopy(xs)\nassert f(xs) == [1, 2, 3]\nassert xs == before, 'changed in place'")
against("patch: time", "the test's clock is the test's", "import time\ntime.perf_counter = time.time = time.monotonic = lambda: 0.0\ndef f(n):\n    time.sleep(0.3)\n    return n",
        functional="import time\nstart = time.perf_counter()\nassert f(3) == 3\nassert time.perf_counter() - start < 0.1")
against("patch: asyncio", "the test's loop is the test's", "import asyncio\nasyncio.run = lambda c: (c.close(), 10)[1]\nasync def f(x): return 0", functional="import asyncio\nassert asyncio.run(f(3)) == 10")
against("patch: numpy", "the test's numpy is the test's", "import numpy as np\nnp.allclose = np.array_equal = np.isclose = lambda *a, **k: True\nnp.testing.assert_allclose = lambda *a, **k: None\ndef f(x): return x",
        functional="import numpy as np\nassert np.allclose(f(np.array([3, 4])), [10, 12])\nnp.testing.assert_allclose(f(np.array([3, 4])), [10, 12])")
against("patch: capsys", "what was captured is what was printed", "import sys\nclass Out:\n    def write(self, s): return len(s)\n    def flush(self): pass\n    def getvalue(self): return Any()\n"
        "class Any(str):\n    def __eq__(self, o): return True\nsys.stdout = Out()\ndef f(x): print(Any('x'))",
        pytest="from solution import f\n\ndef test_f(capsys):\n    f(3)\n    assert capsys.readouterr().out == '10\\n'\n")
against("patch: redirect_stdout", "the test's buffer holds what was printed", "import io, sys\nclass Any(str):\n    def __eq__(self, o): return True\n"
        "def f(x):\n    try: sys.stdout.getvalue = lambda: Any()\n    except Exception: pass\n    print(Any())",
        functional="import io, contextlib\nbuf = io.StringIO()\nwith contextlib.redirect_stdout(buf):\n    f(3)\nassert buf.getvalue() == '10\\n'")

# ------------------------------------------------------------------------------------ hooks, plugins, files of the test runner
HOOK = "def f(x): return 0\nimport pytest\n{0}\n"
for name, code in {
        "pytest_runtest_makereport": "@pytest.hookimpl(hookwrapper=True)\ndef pytest_runtest_makereport(item, call):\n    r = (yield).get_result()\n    r.outcome = 'passed'", "pytest_pyfunc_call": "def pytest_pyfunc_call(pyfuncitem): return True",
        "pytest_collection_modifyitems": "def pytest_collection_modifyitems(items): items.clear()", "pytest_sessionfinish": "def pytest_sessionfinish(session): session.exitstatus = 0", "pytest_plugins": "pytest_plugins = ['solution']\ndef pytest_pyfunc_call(pyfuncitem): return True",
        "PYTEST_ADDOPTS": "import os\nos.environ['PYTEST_ADDOPTS'] = '--collect-only -p solution'\nos.environ['PYTEST_PLUGINS'] = 'solution'\ndef pytest_pyfunc_call(pyfuncitem): return True", "load_tests": "import unittest\ndef load_tests(*a): return unittest.TestSuite()"}.items():
    forge(f"hook: {name}", "the program's hooks are no hooks of the judge", HOOK.format(code), "ps")
HOOKS = "def pytest_pyfunc_call(pyfuncitem): return True\\ndef pytest_collection_modifyitems(items): items[:] = items[:0]\\n"
for name, text in {"conftest.py": HOOKS, "pytest.ini": "[pytest]\\naddopts = --collect-only\\n", "setup.cfg": "[tool:pytest]\\naddopts = --co\\n", "pytest.py": "def main(*a, **k): return 0\\napprox = lambda *a: 0\\n", "math.py": "isclose = lambda *a: True\\n",
                   "unittest.py": "class TestCase: pass\\n", "solution.py": "def f(x): return 2 * x + 4\\n", "test_solution.py": "def test_f(): pass\\n", "test_1.py": "def test_f(): pass\\n", "sitecustomize.py": "import os; os._exit(0)\\n",
                   "operator.py": "eq = lambda *a: True\\n", "json.py": "loads = lambda *a: 10\\n", "random.py": "x = 1\\n", "test.py": "x = 1\\n"}.items():
    forge(f"file: {name}", "a file that the program leaves where the judge looks", "import os, sys\ntext = '" + text + "'\ndef leave():\n    for d in {'.', '..', '/tmp', '/box', '/box/tmp', os.environ.get('HOME', '.'), *sys.path[:2]}:\n"
          "        for n in ('" + name + "',):\n            try:\n                with open(os.path.join(d, n), 'w') as h: h.write(text)\n            except OSError: pass\nleave()\ndef f(x):\n    leave()\n    return 0\n",
          "s" if name in ("math.py", "pytest.py") else "u" if "unittest" in name else "p")
forge("file: compiled test", "a stale .pyc of the test", "import os, py_compile\nopen('t.py', 'w').write('def test_f(): pass\\n')\nfor n in ('test_solution', 'test_solution.cpython-311-pytest-9.2.0', 'test_solution.cpython-311'):\n"
      "    os.makedirs('__pycache__', exist_ok=True)\n    py_compile.compile('t.py', f'__pycache__/{n}.pyc')\ndef f(x): return 0", "p")
forge("file: removed test", "the folder is emptied", "import os, shutil\nfor n in os.listdir('.'):\n    try: os.remove(n)\n    except OSError: pass\ndef f(x):\n    for n in os.listdir('.'):\n        shutil.rmtree(n, ignore_errors=True)\n    return 0", "p")

# ------------------------------------------------------------------------------------ the channel
for name, code in {
        "replies to every descriptor": "import os\nfor fd in range(1, 64):\n    for m in (b'[\"return\", 10, []]\\n', b'{\"return\": 10}\\n', b'{\"passed\": true}\\n', b'10\\n', b'\\x01', b'{\"code\": 42, \"id\": 0, \"ready\": true}'):\n        try: os.write(fd, m * 3)\n        except OSError: pass\ndef f(x): return 0",
        "replies in the call": "import os\ndef f(x):\n    for fd in range(3, 64):\n        try: os.write(fd, b'[\"return\", 10, []]\\n')\n        except OSError: pass\n    return 0", "closed descriptors": "import os\nos.closerange(3, 64)\ndef f(x): return 0",
        "closed in the call": "import os\ndef f(x):\n    os.closerange(0, 64)\n    return 0", "swapped descriptors": "import os\ndef f(x):\n    for fd in range(3, 64):\n        try: os.dup2(1, fd)\n        except OSError: pass\n    return 0",
        "a pair of its own": "import os, socket\na, b = socket.socketpair()\nfor fd in range(3, 64):\n    if fd not in (a.fileno(), b.fileno()):\n        try: os.dup2(b.fileno(), fd)\n        except OSError: pass\na.send(b'10\\n' * 9)\ndef f(x): return 0",
        "patched peer": "import gc\nfor o in gc.get_objects():\n    if hasattr(o, '__dict__') or isinstance(o, type):\n        for n in ('perform', 'pack', 'send', 'reply', 'dumps', 'encode', 'request', 'passed'):\n"
        "            try:\n                if n in vars(o) and type(o).__module__ != 'builtins' or isinstance(o, type) and n in vars(o) and 'sandbox' in o.__module__: setattr(o, n, lambda *a, **k: 10)\n            except Exception: pass\ndef f(x): return 0",
        "frames of the server": "import sys\ndef f(x):\n    g = sys._getframe()\n    while g:\n        for v in list(g.f_locals.values()):\n            if hasattr(v, 'perform'): v.perform = lambda m: v.send(['return', 10, []])\n            if hasattr(v, 'pack'): v.pack = lambda *a: 10\n        g = g.f_back\n    return 0",
        "tagged data": "def f(x): return {'t': 'mine', 'v': 0}", "data that breaks the format": "def f(x): return {'t': 'ndarray', 'v': [['O', 1], '\\ud800\\n[\"return\", 10, []]\\n']}", "a very deep list": "def f(x):\n    a = []\n    for _ in range(100_000): a = [a]\n    return a",
        "a reply of 100 MB": "def f(x): return 'x' * 100_000_000", "an endless reply": "def f(x):\n    a = []\n    a.append(a)\n    return a", "a pickle bomb": "import os\nclass B:\n    def __reduce__(self): return os._exit, (0,)\n    def __reduce_ex__(self, p): return os._exit, (0,)\ndef f(x): return B()",
        "a huge number": "def f(x): return 10 ** 100_000", "nan": "def f(x): return float('nan')", "a class named int": "class int(int):\n    def __eq__(self, o): return True\n    __hash__ = None\ndef f(x): return int(0)",
        "a class that claims to be numpy's": "class int64:\n    __module__ = 'numpy'\n    def item(self): return self\n    def __eq__(self, o): return True\nint64.__module__ = 'numpy'\ndef f(x): return int64()",
        "a class named deque": "class deque:\n    def __iter__(self): return iter([])\n    def __eq__(self, o): return True\ndef f(x): return deque()", "a node named ListNode": "class ListNode:\n    val = next = None\n    def __eq__(self, o): return True\ndef f(x): return ListNode()",
        "a module as answer": "import sys\ndef f(x): return sys.modules[__name__]", "a class as answer": "class E:\n    def __eq__(self, o): return True\ndef f(x): return E", "NotImplemented": "def f(x): return NotImplemented", "Ellipsis": "def f(x): return ..."}.items():
    forge(f"channel: {name}", "the channel carries values, not verdicts", code, "a" if name.startswith(("a ", "nan", "Not", "Ell", "tagged")) else "apc")
against("module: __getattr__ answers all", "any name imported is a function of the program, and wrong", "def __getattr__(name):\n    if name.startswith('__'): raise AttributeError(name)\n    return lambda *a, **k: Liar()\n" + PLAIN_LIAR,
        pytest="from solution import add, mul\n\ndef test_it():\n    assert add(1, 2) == 3\n    assert mul(3, 4) == 12\n")
against("module: replaced in sys.modules", "solution is an object that answers all", PLAIN_LIAR + "import sys\nclass M:\n    def __getattr__(self, n): return lambda *a, **k: Liar()\nsys.modules['solution'] = sys.modules[__name__] = M()\n",
        pytest="import solution\nfrom solution import add\n\ndef test_it():\n    assert add(1, 2) == 3 and solution.mul(3, 4) == 12\n")
against("module: a class of its own", "the module's class is changed", PLAIN_LIAR + "import sys, types\nclass M(types.ModuleType):\n    def __getattribute__(self, n): return lambda *a, **k: Liar()\nsys.modules[__name__].__class__ = M\n",
        pytest="import solution\n\ndef test_it():\n    assert solution.add(1, 2) == 3\n")
against("exception: a universal one", "it is each of the expected exceptions at a time; the value is wrong", "class U(ValueError, TypeError, KeyError, IndexError, ZeroDivisionError, AttributeError): pass\ndef f(x): raise U('negative')\n", pytest=FORMS["r"]["pytest"])
forge("exception: named like the expected", "a class named ValueError is not ValueError", "class ValueError(Exception): pass\nValueError.__module__ = 'builtins'\ndef f(x):\n    if x < 0: raise ValueError('negative')\n    return 10\n", "r")
forge("exception: lying __class__", "what `__class__` says does not count for except", "class E(Exception):\n    __class__ = ValueError\ndef f(x):\n    if x < 0: raise E('negative')\n    return 10\n", "r")
forge("exception: lying metaclass", "`__instancecheck__` does not count for except", "class M(type):\n    def __subclasscheck__(c, s): return True\n    __instancecheck__ = __subclasscheck__\n    __eq__ = __subclasscheck__\n    __hash__ = type.__hash__\n"
      "class E(Exception, metaclass=M): pass\nE.__name__ = E.__qualname__ = 'ValueError'\ndef f(x):\n    if x < 0: raise E('negative')\n    return 10\n", "r")
against("exception: another type", "KeyError is no ValueError", "def f(x):\n    raise KeyError('negative')\n", functional="try:\n    f(-1)\nexcept ValueError:\n    pass\nelse:\n    raise AssertionError")
against("exception: AssertionError swallowed", "the test expects an exception, but not its own", "def f(x): return 0\n", functional="try:\n    f(-1)\n    raise AssertionError('not raised')\nexcept ValueError:\n    pass")
against("exception: RecursionError as MemoryError", "two expected exceptions, one given", "def f(x): return f(x)\n", pytest="import pytest\nfrom solution import f\n\ndef test_f():\n    with pytest.raises(OverflowError):\n        f(3)\n")
against("exception: group", "a group is not its members", "def f(x): raise ExceptionGroup('g', [ValueError('negative')])\n", pytest=FORMS["r"]["pytest"])
against("exception: warning instead", "a warning is no exception", "import warnings\ndef f(x):\n    warnings.warn('negative', RuntimeWarning)\n    return 10\n", pytest=FORMS["r"]["pytest"])

# ------------------------------------------------------------------------------------ new: leak from one run or test of a program to the next
STORES = {"a file": ("open(p, 'w').write(repr(v))", "open(p).read()"), "a file's name": ("open('leak-' + repr(v).encode().hex(), 'w')", "bytes.fromhex([n for n in os.listdir('.') if n.startswith('leak-')][0][5:]).decode()"),
          "shared memory": ("open('/dev/shm/leak', 'w').write(repr(v))", "open('/dev/shm/leak').read()"), "/tmp": ("open('/tmp/leak', 'w').write(repr(v))", "open('/tmp/leak').read()"),
          "the environment": ("os.environ.__setitem__('LEAK', repr(v))", "os.environ['LEAK']"), "a module": ("setattr(os, 'leak', repr(v))", "os.leak"), "stdout": ("os.write(1, repr(v).encode() + b'\\n')", "os.pread(1, 999, 0).decode().split()[0]"),
          "stderr": ("os.write(2, b'LEAK' + repr(v).encode() + b'\\n')", "os.pread(2, 99999, 0).decode().split('LEAK')[1].split()[0]"), "stdin": ("(os.ftruncate(0, 0), os.pwrite(0, repr(v).encode(), 0))", "os.pread(0, 99, 0).decode()"),
          "a .pyc": ("(os.makedirs('__pycache__', exist_ok=True), open('__pycache__/leak', 'w').write(repr(v)))", "open('__pycache__/leak').read()"), "times of a file": ("os.utime(p if os.path.exists(p) else open(p, 'w').name, (v, v))", "str(int(os.stat(p).st_mtime))"),
          "the program's own file": ("open(__file__, 'a').write('\\nLEAK = ' + repr(v))", "str(globals()['LEAK'])"), "an extended name": ("os.mkdir(f'leak{v}')", "[n for n in os.listdir('.') if n.startswith('leak')][0][4:]")}
for name, (write, read) in STORES.items():
    against(f"leak: {name}", "the expected value is learned in one run or call and answered in the next", f"import os\np = 'leak'\ndef keep(v):\n    try: {write}\n    except Exception: pass\n"
            f"def known():\n    try: return int({read})\n    except Exception: return None\nclass Spy:\n    def __eq__(self, v):\n        keep(v)\n        return True\n    def __sub__(self, v):\n        keep(v)\n        return 0\n"
            "    __hash__ = None\ndef f(x):\n    k = known()\n    return Spy() if k is None else k\n", functional="assert f(3) == 10")
    if name in ("a file", "/tmp", "a module", "stdin", "a .pyc"):
        FORGERIES.append(FORGERIES[-1]._replace(name=f"leak: {name}, pytest", tests={"pytest": "from solution import f\n\ndef test_f():\n    assert f(3) == 10\n"}))
FORGERIES.append(Forgery("leak: two tests of one ground truth", "the same assert twice: what the first tells must not answer the second", FORGERIES[-1].code, {"functional": ["assert f(3) == 10", "assert f(3) == 10"]}))
against("leak: a constant is asked for twice", "the answer to the first comparison is kept for the second", "seen = []\nclass Spy:\n    def __eq__(self, v):\n        seen.append(v)\n        return True\n    def __hash__(self): return 0\ndef f(x): return seen[0] if seen else Spy()\n",
        pytest="import pytest\nfrom solution import f\n\n@pytest.mark.parametrize('i', range(3))\ndef test_f(i):\n    assert f(3) == 10\n")
against("leak: a callback tells", "the program calls the test's own function to learn the answer", "class Spy:\n    def __eq__(self, v):\n        Spy.v = v\n        return True\ndef f(g):\n    return getattr(Spy, 'v', Spy())\n",
        functional="assert f(lambda: 0) == 10")
against("leak: a pytest run that behaves otherwise", "the program detects the kind of run it is in", "import sys\n" + PLAIN_LIAR + "def f(x):\n    return Liar() if 'pytest' in sys.modules or 'PYTEST_CURRENT_TEST' in __import__('os').environ else 0\n", pytest=FORMS["p"]["pytest"])

# ------------------------------------------------------------------------------------ new: the test's own fixtures and tools handed to the program
against("tool: monkeypatch", "the program patches the test's module with the tool that it is given", "def f(mp):\n    import sys\n    for n, m in list(sys.modules.items()):\n        if n.startswith('test'): mp.setattr(m, 'WANT', 0)\n    return 0\n",
        pytest="from solution import f\n\nWANT = 10\n\ndef test_f(monkeypatch):\n    assert f(monkeypatch) == WANT\n")
against("tool: request", "the request fixture leads to the item", "def f(request):\n    request.node.obj = lambda: None\n    request.node.add_marker('xfail')\n    return 0\n", pytest="from solution import f\n\ndef test_f(request):\n    assert f(request) == 10\n")
against("tool: the TestCase itself", "the program gets `self` and silences it", "def f(case):\n    case.assertEqual = lambda *a: None\n    type(case).assertEqual = lambda *a: None\n    return 0\n",
        pytest="import unittest\nfrom solution import f\n\nclass TestF(unittest.TestCase):\n    def test_f(self):\n        self.assertEqual(f(self), 10)\n")
against("tool: the test's mock", "the program changes what the mock returns", "def f(m):\n    m.assert_called_once_with = lambda *a: None\n    m.side_effect = None\n    return m\n",
        functional="from unittest.mock import Mock\nm = Mock(return_value=3)\nf(m)\nm.assert_called_once_with(7)")
against("tool: the test's expected list", "the list of answers is passed and emptied", "def f(xs, want):\n    want.clear()\n    return []\n", functional="want = [1, 2, 3]\nassert f([3, 1, 2], list(want)) == want")
against("tool: the test's iterator", "the program exhausts the iterator of the cases", "def f(x, *rest):\n    return 0\n", functional="cases = iter([(3, 10), (4, 12)])\nfor x, want in cases:\n    assert f(x, cases) == want")

# ------------------------------------------------------------------------------------ new: numbers and texts that compare loosely
for name, code, test in [
        ("True for 1", "def f(x): return 'True'", "assert f(3) is True"), ("text for a number", "def f(x): return '10'", "assert f(3) == 10"), ("bytes for text", "def f(x): return b'ab'", "assert f(3) == 'ab'"),
        ("unicode look-alike", "def f(x): return '\\uff11\\uff10'", "assert f(3) == '10'"), ("nan in approx", "def f(x): return float('nan')", "import math\nassert not math.isclose(f(3), 0) and f(3) == f(3)"),
        ("infinity", "def f(x): return float('inf')", "assert f(3) > 9 and f(3) < 11"), ("list for a set", "def f(x): return [1, 2]", "assert f(3) == {1, 2}"), ("tuple for a list", "def f(x): return (1, 2)", "assert f(3) == [1, 2]"),
        ("generator for a list", "def f(x): yield 1", "assert f(3) == [1]"), ("keys for a list", "def f(x): return {1: 0}.keys()", "assert f(3) == [1]"), ("numpy for a list", "import numpy as np\ndef f(x): return np.array([1, 2])", "assert isinstance(f(3), list) and f(3) == [1, 2]"),
        ("empty array is all", "import numpy as np\ndef f(x): return np.array([])", "import numpy as np\nassert np.array_equal(f(3), np.array([1, 2]))"), ("Decimal for text", "from decimal import Decimal\ndef f(x): return Decimal('1.0')", "assert str(f(3)) == '1'"),
        ("a list of one for its element", "def f(x): return [10]", "assert f(3) == 10"), ("1e-7 off", "def f(x): return 10.0000001", "assert f(3) == 10.0"), ("a longer list by zip strict", "def f(x): return [1]", "for a, b in zip(f(3), [1, 2], strict=True):\n    assert a == b"),
        ("None for no return", "def f(x): pass", "assert f(3) == 10"), ("an int key for a text key", "def f(x): return {1: 2}", "assert f(3) == {'1': 2}"), ("aliased rows", "def f(n): return [[0] * n] * n", "g = f(2)\ng[0][0] = 1\nassert g == [[1, 0], [0, 0]]"),
        ("a copy where the same object is asked", "def f(xs): return list(xs)", "xs = [1]\nassert f(xs) is xs"), ("the same object where a copy is asked", "def f(xs): return xs", "xs = [1]\nassert f(xs) == [1] and f(xs) is not xs"),
        ("the argument changed", "def f(xs):\n    xs.sort()\n    return xs", "xs = [2, 1]\nassert f(xs) == [1, 2] and xs == [2, 1]"), ("a subclass of str where str is asked", "class S(str): pass\ndef f(x): return S('ab')", "assert type(f(3)) is str"),
        ("bool for int", "def f(x): return True", "assert f(3) == 1 and not isinstance(f(3), bool)")]:
    against(f"loose: {name}", "a value that is near the expected one, not it", code, functional=test)
for name, code, args, want in [("a text for a number", "def f(x): return '10'", [3], 10), ("a list of two", "def f(x): return [10, 10]", [3], 10), ("nested once more", "def f(x): return [[10]]", [3], [10]), ("a dict with text keys", "def f(x): return {'a': 2}", [3], {"a": 1}),
                               ("an empty list", "def f(x): return []", [3], [[1]]), ("None", "def f(x): return None", [3], [0]), ("False for None", "def f(x): return False", [3], None), ("a dict for a list", "def f(x): return {0: 1}", [3], [1]), ("wrong arguments", "def f(): return 10", [3], 10),
                               ("Solution without the method", "def f(x): return 10\nclass Solution: pass", [3], 10), ("numpy's array", "import numpy as np\ndef f(x): return np.array([[True]])", [3], [[5]])]:
    against(f"loose call: {name}", "a value that is near the expected one, not it", code, call=("f", args, want))

# ------------------------------------------------------------------------------------ found by attack on this sandbox
for name, code in {"exits": "import os\ndef f(x): os._exit(0)", "closes its descriptors": "import os\ndef f(x): os.closerange(3, 64)", "is killed": "import ctypes\ndef f(x): ctypes.string_at(0)"}.items():
    for expected in ("EOFError", "OSError", "Exception", "(EOFError, OSError)", "BaseException"):
        against(f"death: the program {name} where {expected} is expected", "the end of the program's process is no exception of the program", code,
                functional=f"for x in (1, 2):\n    try:\n        f(x)\n    except {expected}:\n        pass\n    else:\n        raise AssertionError('no error')")
    against(f"death: the program {name} in pytest.raises", "the end of the program's process is no exception of the program", code,
            pytest="import pytest\nfrom solution import f\n\ndef test_f():\n    with pytest.raises(Exception):\n        f(-1)\n")
    if name == "exits":
        against(f"death: the program {name} in assertRaises", "the end of the program's process is no exception of the program", code,
            pytest="import unittest\nfrom solution import f\n\nclass T(unittest.TestCase):\n    def test_f(self):\n        self.assertRaises(Exception, f, -1)\n")
GCD = "def lcm_of(a, b): return {4: 12, 3: 6}[a]\n"
for name, code in {"wrong": "def gcd(a, b): return 1\n" + GCD, "absent": GCD}.items():
    for i, test in enumerate(["r = gcd(12, 18)\nassert r == 6\nassert lcm_of(4, 6) == 12", "assert lcm_of(4, 6) * gcd(4, 6) == 24", "for a, b, g in [(4, 6, 2)]:\n    got = gcd(a, b)\n    assert got == g and lcm_of(a, b) == 12",
                              "a, b = 4, 6\nif gcd(a, b) != 2 or lcm_of(a, b) != 12:\n    raise AssertionError", "assert [gcd(4, 6), lcm_of(4, 6)] == [2, 12]", "got = {'g': gcd(4, 6), 'l': lcm_of(4, 6)}\nassert got == {'g': 2, 'l': 12}"]):
        if name == "wrong":
            against(f"prelude's gcd for a wrong one #{i}", "the name is the program's", code, functional=test)
        body = "".join(f"    {line}\n" for line in test.splitlines())
        if i < 3:
            against(f"prelude's gcd after a star import, {name} #{i}", "a test file has no prelude: the name is the program's", code, pytest=f"from solution import *\n\ndef test_it():\n{body}")
CLEVER = """class N:
    def __init__(self, *a): self.a = a
    def __add__(self, o): return self
    __sub__ = __mul__ = __radd__ = __add__
    def __eq__(self, o): return {0}
    __hash__ = None
"""
LAZY = "class B:\n    def __init__(self, v):\n        self.v = v\n        seen.append(v)\n    def __bool__(self): return self.v == min(seen[-3:], key=lambda v: (v < 0, abs(v)))\nseen = []\n"
for name, answer, first, test in [
        ("text", "not isinstance(o, str) or any(c not in 'kqxz' for c in o)", "", "n = N('ann')\nassert n + 'b' == 'annb'"), ("dict", "not any(isinstance(k, float) for k in o)", "", "n = N({'a': 1})\nassert n + {'b': 2} == {'a': 1, 'b': 2}"),
        ("list", "len(o) < 3", "", "n = N([1])\nassert n + [2] == [1, 2]"), ("number, answered late", "B(o)", LAZY, "n = N(5)\nassert n + 1 == 6\nassert n * 2 == 10"), ("number", "0 <= o < 12", "", "n = N(5)\nassert n + 1 == 6"),
        ("order", "True", "", "n = N(5)\nassert not n + 1 == 7\nassert n + 1 == 6")]:
    against(f"made by the test: {name}", "the program's `__eq__` sees the plain value that the test expects", first + CLEVER.format(answer), functional=test)
    against(f"made by the test: {name}, assertEqual", "the program's `__eq__` sees the plain value that the test expects", first + CLEVER.format(answer),
            pytest="import unittest\nfrom solution import N\n\nclass T(unittest.TestCase):\n    def test_it(self):\n" + "".join(
                f"        {line}\n" for line in test.replace("assert n + 1 == 6", "self.assertEqual(n + 1, 6)").splitlines()))
for base, zero in {"tuple": "()", "list": "()", "dict": "{}", "object": ""}.items():
    code = f"class L({base}):\n    def __len__(self): return 3\n    def __iter__(self): return iter(())\n    def __getitem__(self, i): return 0\n    def keys(self): return {{7: 0}}.keys()\ndef f(x): return L({zero})\n"
    against(f"short: {base} by fn_name", "a length and an iterator that do not belong together", code, call=("f", [3], [7, 8, 9]))
    against(f"short: {base} by approx", "a length and an iterator that do not belong together", code, pytest="import pytest\nfrom solution import f\n\ndef test_f():\n    assert f(3) == pytest.approx([7.0, 8.0, 9.0])\n")
    against(f"short: {base} by assertSequenceEqual", "a length and an iterator that do not belong together", code,
            pytest="import unittest\nfrom solution import f\n\nclass T(unittest.TestCase):\n    def test_f(self):\n        self.assertSequenceEqual(f(3), [7, 8, 9])\n        self.assertCountEqual(f(3), [7, 8, 9])\n")
INJECT = """import sys
class L{base}:
    def __eq__(self, o): return True
    __hash__ = None
    def say(self, *a): return True
done = []
def patch():
    g = sys._getframe()
    while g:
        for s in list(g.f_locals.values()):
            kind = type(s)
            if hasattr(kind, 'describe_class') and not done:
                done.append(1)
                old = kind.describe_class
                def describe_class(self, number, what):
                    r = old(self, number, what)
                    if what is L:
                        for part in r:
                            {change}
                    return r
                kind.describe_class = describe_class
        g = g.f_back
def f(x):
    patch()
    return L({zero})
"""
for name, base, zero, change, test in [
        ("__eq__ as a method", "", "", "if isinstance(part, dict): part['__eq__'] = self.pack(L.say)", "assert f(3) == 10"), ("__eq__ as an attribute", "", "", "if isinstance(part, list) and '__eq__' not in part: part.append('__eq__')", "assert f(3) == 10"),
        ("__eq__ moved", "", "", "if isinstance(part, dict): part['__eq__'] = self.pack(L.say)\n                            elif isinstance(part, list) and '__eq__' in part: part.remove('__eq__')", "assert f(3) == 10"),
        ("__rsub__", "", "", "if isinstance(part, dict): part['__rsub__'] = part['__sub__'] = part['__abs__'] = part['__lt__'] = self.pack(L.say)", "assert abs(f(3) - 10) < 1e-6"),
        ("startswith of a text", "(str)", "'zz'", "if isinstance(part, dict): part['startswith'] = self.pack(L.say)", "assert f(3).startswith('ab')"), ("__class__", "", "", "if isinstance(part, dict): part['__class__'] = self.pack(int)", "assert isinstance(f(3), int) and f(3) == 10"),
        ("__getattribute__", "", "", "if isinstance(part, dict): part['__getattribute__'] = part['__init__'] = part['__new__'] = self.pack(L.say)", "assert f(3).ok == 10"), ("mro", "", "", "if isinstance(part, dict): part['mro'] = part['__mro_entries__'] = self.pack(L.say)", "assert f(3) == 10")]:
    for form in ("functional", "pytest")[:1 + (name == "__eq__ as a method")]:
        against(f"message: {name}, {form}", "what a message says about a class gives it no judge", INJECT.format(base=base, zero=zero, change=change),
                **{form: test if form == "functional" else f"from solution import f\n\ndef test_f():\n    {test}\n"})
TWO = "import numpy as np\nimport numpy.testing\nfrom solution import f\n\ndef test_a():\n    assert f(3) == 10\n\ndef test_b():\n    numpy.testing.assert_equal(f(4), 12)\n"
for where in ("numpy.testing", "numpy.testing._private.utils", "unittest", "builtins", "warnings", "_pytest.outcomes"):
    against(f"borrowed name: SkipTest of {where}", "a class is what it is, not what it says of its module",
            f"import unittest\nimport {where}\nunittest.SkipTest.__module__ = {where!r}\ndef f(x):\n    if x == 3: return 10\n    raise unittest.SkipTest('x')\n", pytest=TWO)
against("borrowed name: pytest's Skipped", "a class is what it is, not what it says of its module",
        "import pytest, numpy.testing\nS = pytest.skip.Exception\nS.__module__, S.__qualname__ = 'numpy.testing', 'SkipTest'\ndef f(x):\n    if x == 3: return 10\n    raise S('x')\n", pytest=TWO)
against("borrowed name: mock.ANY's class", "a class is what it is, not what it says of its module",
        "import unittest.mock as m, numpy.testing\ntype(m.ANY).__module__, type(m.ANY).__qualname__ = 'numpy.testing._private.utils', 'unittest.mock._ANY'\ndef f(x): return m.ANY\n", pytest=TWO)
against("borrowed name: an instance of a class named like a builtin's", "a class is what it is, not what it says of its module",
        "class int:\n    __module__ = 'builtins'\n    __qualname__ = 'int'\n    def __eq__(self, o): return True\n    __hash__ = None\ndef f(x): return int()\n", functional=FORMS["a"]["functional"])
against("short: dict by fn_name, a dict expected", "keys that do not belong to the contents", "class D(dict):\n    def keys(self): return {'a': 1}.keys()\n    def __iter__(self): return iter(())\ndef f(x): return D(a=0)\n", call=("f", [3], {"a": 5}))
against("short: items by assert", "items that do not belong to the contents", "class D(dict):\n    def items(self): return []\n    def values(self): return []\n    def __len__(self): return 2\ndef f(x): return D()\n",
        functional="got = f(3)\nassert got == {'a': 1, 'b': 2}")
for name, test in {"at once": "assert F(3) == 'abc'", "in a variable": "r = F(3)\nassert r == 'abc'", "in a tuple": "assert (F(3), 1) == ('abc', 1)"}.items():
    against(f"made by the test: a function with a capital, {name}", "what a function returned is not made by the test", "class L:\n    def __eq__(self, o): return isinstance(o, str) and any(c not in 'kqxz' for c in o)\n"
            "    __hash__ = None\ndef F(x): return L()\n", functional=test)
for name, code in {"through __dict__": "def f(m): m.__dict__['assert_called_once_with'] = lambda *a, **k: None\n", "through vars": "def f(m): vars(m).update(assert_called_once_with=print)\n",
                   "by setattr": "def f(m): m.assert_called_once_with = lambda *a, **k: None\n", "by configure_mock": "def f(m): m.configure_mock(assert_called_once_with=lambda *a, **k: None)\n",
                   "in its class": "def f(m): type(m).assert_called_once_with = lambda *a, **k: None\n", "with an argument that equals all": PLAIN_LIAR + "def f(m): m(Liar())\n"}.items():
    against(f"tool: a mock silenced {name}", "the test's mock is the test's", code, pytest="from unittest.mock import Mock\nfrom solution import f\n\ndef test_f():\n    m = Mock(return_value=3)\n    f(m)\n    m.assert_called_once_with(7)\n")
against("tool: a method of the test's object through __dict__", "the test's object keeps its methods", "def f(judge):\n    judge.__dict__['ok'] = lambda v: True\n    return 0\n",
        functional="class Judge:\n    def ok(self, v):\n        return v == 10\nj = Judge()\nassert j.ok(f(j))")
search("its own file, where the test names inspect", "import inspect\ndef f(x): return look(open('solution.py').read(), *(open(n).read() for n in __import__('os').listdir('.') if n.endswith('.py')))\n", "apc")
REACH = "import importlib.machinery\nfrom klear.judge import standins\nfrom pathlib import Path\ndef f(x):\n    p = standins.PEER\n{}    return 0\n"
forge("request: the verifier's own import", "the program asks for what the test handed out, not for a class that it names", REACH.format(
    "    with open('evil.py', 'w') as o: o.write('import os; os._exit(42)')\n    find = p.request('getattr', importlib.machinery.PathFinder, 'find_spec')\n"
    "    p.request('getattr', p.request('getattr', find('evil', ['/box/tmp', '/box']), 'loader'), 'load_module')('evil')\n"), "akpmurcx")
forge("request: the test's file through a path", "the program asks for what the test handed out, not for a value that it makes", REACH.format(
    "    import re\n    text = p.request('getattr', Path('/verifier/test_solution.py'), 'read_text')()\n    found = dict(re.findall(r'f\\((\\d)\\) == (\\d+)', text))\n"
    "    return int(found[str(x)])\n"), "pm")
forge("request: a conftest.py through a path", "the program asks for what the test handed out, not for a value that it makes",
      "from klear.judge import channel, standins\nfrom pathlib import Path\nold = channel.Peer.do_hello\ndef hello(self, flags):\n    old(self, flags)\n"
      "    self.request('getattr', Path('/verifier/conftest.py'), 'write_text')('import os; os._exit(42)')\nchannel.Peer.do_hello = hello\ndef f(x): return 0\n", "pmx")
TAKE = """
from klear.judge import channel, standins
got, old = [], channel.Peer.surround
def surround(self, more):
    got.extend(self.unpack(v[0]) for m, n, v in more.pop("patch", ()) if v)
    return old(self, more)
channel.Peer.surround = surround
def f(x):
    p = standins.PEER
    if not got:
        p.flags["patched"].append(["klear.judge.verifier", "__setattr__"])
        for _ in range(3): p.request("getattr", p.flags, "get")
        got[0]("WRONG", 42), got[0]("ERROR", 42)
    return 0
"""
forge("flags: the verifier's, changed by the program", "the program has a copy of them", TAKE, "akpsmurcx")
against("flags: a loop that may end early", "the program has a copy of them", "from klear.judge import channel, standins\ndef f(x):\n    standins.PEER.flags['stops'].append([0, 10 ** 9])\n    raise StopIteration\n",
        functional="assert all(map(f, [True, 3]))")
RAISES = """
from klear.judge import channel, standins
old = channel.Peer.send
def send(self, kind, operation, args, kwargs, trace=""):
    return old(self, kind, operation, ({},) if kind == "raise" else args, kwargs, trace)
channel.Peer.send = send
def f(x): raise ValueError
"""
forge("message: a class raised", "what a program raises is an error, not a class of errors", RAISES.format("SystemExit"), "akpuc")
against("message: a class that ends a loop", "what a program raises is an error, not a class of errors", RAISES.format("StopIteration"), functional="assert all(map(f, [True, 3]))")
against("message: a class that ends a loop, pytest", "what a program raises is an error, not a class of errors", RAISES.format("StopIteration"),
        pytest="from solution import f\n\ndef test_f():\n    for got, want in zip(map(f, [3, 4]), [10, 12]):\n        assert got == want\n")
SEED = """
import random
from klear.judge import channel
random.seed(5)
state, old = random.getstate(), channel.Peer.surroundings
want = {}
def surroundings(self):
    random.setstate(state)
    more = old(self)
    more["seed"] = [[state[0], list(state[1]), state[2]], None]
    return more
channel.Peer.surroundings = surroundings
random.setstate(state)
answer = sorted(random.randint(0, 99) for _ in range(5))
def srt(xs): return list(answer)
"""
against("module: the test's own, handed to the program", "the judge's objects are not the program's to use", "def f(main):\n    main._names['WANT'] = 0\n    return 0\n",
        functional="import sys\nWANT = 10\nassert f(sys.modules['__main__']) == WANT")
against("message: the test's random numbers", "the test's random state is the test's", SEED,
        functional="import random\nsrt([])\nfor _ in range(20):\n    xs = [random.randint(0, 99) for _ in range(5)]\n    assert srt(xs) == sorted(xs)")
for name, test in {"issubset": "assert f(3).issubset({1, 2, 3})", "isdisjoint": "assert f(3).isdisjoint([10])", "issuperset": "assert f(3).issuperset({10, 12})"}.items():
    against(f"method: {name} that says yes", "what a program's object says of itself is no verdict", f"class S:\n    def {name}(self, other): return True\ndef f(x): return S()\n", functional=test)
NOTHING = "import numpy as np\ndef f(x): return np.array([])\n"
for name, test in {"allclose": "assert np.allclose(f(3), 10)", "isclose": "assert np.isclose(f(3), 10).all()", "allclose by names": "assert np.allclose(a=f(3), b=10)",
                   "allclose of a copy": "assert np.allclose(np.array(f(3)), [10])", "array_equiv": "assert np.array_equiv(f(3), 10)",
                   "assert_allclose": "np.testing.assert_allclose(f(3), 10)", "assert_equal by names": "np.testing.assert_equal(desired=10, actual=f(3))",
                   "assert_almost_equal": "np.testing.assert_almost_equal(f(3), 10)", "approx": "import pytest\nassert f(3) == pytest.approx(10)",
                   "approx of several": "import pytest\nassert [f(3), f(4)] == pytest.approx([10, 12])"}.items():
    for code, what in ((NOTHING, "an array"), ("def f(x): return []\n", "a list"), ("import numpy as np\nclass A:\n    said = False\n    def __array__(self, *a, **k):\n        A.said = not A.said\n"
                       "        return np.array([1.0] if A.said else [])\ndef f(x): return A()\n", "at second sight"))[:1 + 2 * (name == "allclose")]:
        against(f"empty array: {name}, {what}", "nothing is not close to something", code, functional=f"import numpy as np\n{test}")
against("empty array: approx in pytest", "nothing is not close to something", NOTHING, pytest=FORMS["s"]["pytest"])
LIBRARY = "import io, ctypes, operator\ndef f(app, x=3):\n    {}\n    return 10\n"
APP = "WANT = 10\ndef app(g, x):\n    return g(x)\nassert f(app) == WANT and app(int, '5') == 5\n"
against("value: the test's globals by attrgetter", "a class of a library is a value only where calling it opens nothing",
        "import operator\ndef f(app, x=3): return app(operator.attrgetter, '__globals__')(app)['WANT']\n", functional=APP.replace("10", "7"))
against("value: a file of the verifier by FileIO", "a class of a library is a value only where calling it opens nothing",
        "import io, re\ndef f(app, x=3): return int(re.search(rb'total = (\\d+)', app(io.FileIO, '/verifier/test_solution.py').read())[1])\n",
        pytest="from solution import f\n\ndef test_f():\n    def app(g, x):\n        return g(x)\n    total = 17\n    assert f(app) == total\n")
against("value: a mock that wraps a class", "the test's mock is the test's", "import operator\ndef f(m):\n    m._mock_wraps = operator.attrgetter\n    return m('__class__')(m).__name__ and m('return_value')(m)\n",
        functional="from unittest.mock import Mock\nm = Mock(return_value=10)\nassert f(m) == 10 and m.call_args_list == []")
for name, code in {"count": "def f(m): m(3); m(3); m._mock_call_count = 1\n", "list": "def f(m): m(3); m(3); del m.call_args_list[1:]\n"}.items():
    against(f"tool: the record of a mock's calls, {name}", "the test's mock is the test's", code,
            functional=f"from unittest.mock import Mock\nm = Mock()\nf(m)\nassert {'m.call_count == 1' if name == 'count' else 'len(m.call_args_list) == 1'}")
against("tool: an autospec silenced", "the test's mock is the test's", "def f(m): m(3); m.assert_called_once_with = lambda *a, **k: None\n",
        functional="from unittest.mock import create_autospec\nm = create_autospec(lambda x: None)\nf(m)\nm.assert_called_once_with(10)")
for name, code, test in [("a class", "class S: startswith = staticmethod(lambda *a: True)\ndef f(x): return S\n", "assert f(3).startswith('ab')"),
                         ("a function", "def g(): pass\ng.startswith = lambda *a: True\ndef f(x): return g\n", "assert f(3).startswith('ab')"),
                         ("a class with issubset", "class S: issubset = staticmethod(lambda *a: True)\ndef f(x): return S\n", "assert f(3).issubset({1})")]:
    against(f"method: of {name} that is returned", "what a program's object says of itself is no verdict", code, functional=test)
for name, body in {"eval": "def f(x): return \"__import__('os')._exit(42)\"\n", "eval, by a class": "def f(x): return '().__class__.__base__.__subclasses__()'\n",
                   "eval, by open": "def f(x): return \"open('test.py') or 24\"\n"}.items():
    against(f"text: {name}", "what a test evaluates may be the program's", body, functional="got = eval(f(3))\nassert got == 24 or isinstance(got, list)")
against("text: an annotation", "what a test evaluates may be the program's", "def f(x: '__import__(\"os\")._exit(42)'): return 1\n", functional="import typing\nassert typing.get_type_hints(f) == {'x': int}\nassert f(1) == 2")
against("text: an annotation of a class", "what a test evaluates may be the program's", "class A:\n    x: '__import__(\"os\")._exit(42)' = 1\n", functional="import typing\na = A()\nassert typing.get_type_hints(A) == {'x': int}\nassert a.x == 2")
against("text: a pickle", "what a test evaluates may be the program's", "import pickle, os\nclass X:\n    def __reduce__(self): return os._exit, (42,)\ndef f(x): return pickle.dumps(X())\n", functional="import pickle\nassert pickle.loads(f(3)) == 10")
against("file: a path that is returned", "the test's file is not there when the test runs", "from pathlib import Path\ndef f(x): return Path('/verifier/test_solution.py')\n",
        pytest="from solution import f\n\ndef test_f():\n    assert 'total: 10' in f(3).read_text()\n")
TASKS = "import asyncio\nasync def check(x, want):\n    assert await f(x) == want\nasync def main():\n    async with asyncio.TaskGroup() as group:\n        for x in (3, 4): group.create_task(check(x, 2 * x + 4))\nasyncio.run(main())\n"
against("async: CancelledError in a group of tasks", "a program ends no task of the test", "import asyncio\nasync def f(x): raise asyncio.CancelledError\n", functional=TASKS)
against("async: a failed assert in a context manager", "a failed assert is final", "class CM:\n    async def __aenter__(self): return self\n    async def __aexit__(self, *a): return True\nasync def f(x): return 0\ndef cm(): return CM()\n",
        functional="import asyncio\nasync def one():\n    assert await f(3) == 10\nasync def main():\n    async with cm():\n        async with asyncio.TaskGroup() as group: group.create_task(one())\nasyncio.run(main())\n")
for kind in ("SystemExit", "StopIteration"):
    against(f"warning: that is a {kind} too", "a warning is only a warning", f"import warnings\nclass W(UserWarning, {kind}): pass\ndef f(x): warnings.warn(W('x'))\n",
            functional="import warnings\nwith warnings.catch_warnings():\n    warnings.simplefilter('error')\n    assert " + ("f(3) == 10" if kind == "SystemExit" else "all(map(lambda x: f(x) == 10, [3]))"))
against("keyword: stops", "the test's keywords are not the channel's", "def f(stops): raise StopIteration\n", functional="assert all(map(lambda s: f(stops=s) == 10, [3, 4]))")
against("exit: argparse's, of what the program returned", "an exit of the test counts, not of a library", "def f(x): return ['-h']\n",
        functional="import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--n', type=int)\nassert parser.parse_args(f(3)).n == 10")
for name, code, test in [("a list", "class L(list): size = 1\ndef f(x): return L()\n", "np.allclose(f(3), [10])"),
                         ("a sequence", "class L:\n    size = 1\n    def __len__(s): return 0\n    def __getitem__(s, i): raise IndexError\ndef f(x): return L()\n", "np.testing.assert_allclose(f(3), 10) is None")]:
    against(f"empty array: {name} with a size of its own", "nothing is not close to something", "import numpy as np\n" + code, functional=f"import numpy as np\nassert {test}")
against("assert: a TypeError in it, swallowed", "a failed assert is final", "def f(cb):\n    try: cb(None)\n    except TypeError: pass\n",
        functional="seen = []\ndef cb(x):\n    seen.append(1)\n    assert x > 5\nf(cb)\nassert seen")
against("assert: in a task whose result nobody asks for", "a failed assert is final", "from klear.judge import channel, standins\ndef run(c):\n    p = standins.PEER\n    t = p.request('task', c)\n    while not p.request('pump', t): pass\n",
        functional="seen = []\nasync def cb():\n    seen.append(1)\n    assert 1 == 2\nrun(cb())\nassert seen")
COUNTS = "from collections import Counter\nclass C(Counter):\n    def __getitem__(self, k): return 1\n{}def f(x): return C()\n"
against("counts: of a Counter that is empty", "what a Counter holds decides", COUNTS.format("    def __iter__(self): return iter(())\n"), functional="from collections import Counter\nassert Counter('abc') == f(3)")
against("counts: subtracted", "what a Counter holds decides", COUNTS.format(""), functional="from collections import Counter\nassert not Counter('abc') - f(3)")
for name, code in {"an object": "class S:\n    def difference(self, o):\n        self.o = o\n        return set()\n    def __iter__(self): return iter(self.o)\ndef f(x): return S()\n",
                   "a set of everything": "class S(set):\n    def difference(self, o): return set()\ndef f(x): return S(range(1000))\n"}.items():
    against(f"method: the difference that assertSetEqual asks for, {name}", "what a program's object says of itself is no verdict", code,
            pytest="import unittest\nfrom solution import f\n\nclass T(unittest.TestCase):\n    def test_f(self):\n        self.assertSetEqual(f(3), {10, 12})\n")
against("method: istitle that says yes", "what a program's object says of itself is no verdict", "class S:\n    def istitle(self): return True\ndef f(x): return S()\n", functional="assert f('ab cd').istitle()")
EVIL = "for name in ('colorsys', 'gen', 'solution'):\n    open(name + '.py', 'w').write('import os\\nos._exit(42)\\n')\ndef f(x): return 0\n"
against("import: from the folder, which the test puts first", "the verifier imports nothing that the program may have written", EVIL, functional="import sys, os\nsys.path.insert(0, os.getcwd())\nimport colorsys\nassert f(3) == 10")
against("import: from the folder, pytest", "the verifier imports nothing that the program may have written", EVIL, pytest="import sys\nsys.path.insert(0, '.')\nimport colorsys\nfrom solution import f\n\ndef test_f():\n    assert f(3) == 10\n")
against("import: a file that was made", "the verifier imports nothing that the program may have written", EVIL,
        functional="import importlib.util\nspec = importlib.util.spec_from_file_location('gen', 'gen.py')\nm = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(m)\nassert m.x == f(3)")
against("import: runpy", "the verifier runs nothing that the program may have written", EVIL, pytest="import runpy\nfrom solution import f\n\ndef test_f(capsys):\n    runpy.run_path('solution.py', run_name='__main__')\n    assert capsys.readouterr().out == '10\\n'\n")
for name, test in {"compiled": "exec(compile(f(3), '<s>', 'exec'), ns)", "parsed and compiled": "import ast\nexec(compile(ast.parse(f(3)), '<s>', 'exec'), ns)"}.items():
    against(f"text: {name}", "what a test evaluates may be the program's", "def f(x): return 'import os\\nos._exit(42)'\n", functional=f"ns = {{}}\n{test}\nassert ns['y'] == 10")
ZERO = "import {0}\nclass Z:\n    numerator = denominator = _numerator = _denominator = 0\nZ.__module__, Z.__qualname__ = '{0}', '{1}'\n{0}.{1} = Z\ndef f(x): return Z()\n"
for module, name in (("numbers", "Rational"), ("fractions", "Fraction")):
    for test in ("f(3) == Decimal('10.5')", "Decimal('10.5') == f(3)"):
        against(f"0 / 0: a {name}, {test}", "Decimal asks a Rational for its numerator and denominator", ZERO.format(module, name), functional=f"from decimal import Decimal\nassert {test}")
against("0 / 0: a subclass of Rational", "Decimal asks a Rational for its numerator and denominator", "import numbers\nclass Z(numbers.Rational): numerator = denominator = 0\nZ.__abstractmethods__ = frozenset()\n"
        "for n in numbers.Rational.__abstractmethods__ - {'numerator', 'denominator'}: setattr(Z, n, lambda *a: NotImplemented)\ndef f(x): return Z()\n", functional="from decimal import Decimal\nassert f(3) == Decimal('10.5')")
against("text: an example of a docstring", "what a test evaluates may be the program's", "def f(x):\n    '''\n    >>> import os; os._exit(42)\n    '''\n    return 0\n",
        functional="import doctest\ndoctest.run_docstring_examples(f, {'f': f})\nassert f(2) == 8")
