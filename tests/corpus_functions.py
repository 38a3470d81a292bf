"""Right and wrong programs for function calls (fn_name), asserts, classes and pytest files. The verdict is that of CPython (program and
asserts in one script) or pytest (solution.py and the file in one folder), computed in test_agreement.py and never written here.

Each entry is a test, a program that was written to pass it, and replacements (old, new) that make further programs of it, mostly wrong."""

from typing import NamedTuple


class Case(NamedTuple):
    name: str
    code: str
    tests: dict


CASES: list[Case] = []


def add(kind: str, name: str, tests: dict, code: str, wrong: tuple) -> None:
    CASES.append(Case(f"{kind}: {name}", code, tests))
    for i, (old, new) in enumerate(wrong):
        assert old in code, (name, old)
        CASES.append(Case(f"{kind}: {name}, changed {i + 1}", code.replace(old, new), tests))


def call(name: str, fn_name: str, inputs: list, outputs: list, code: str, *wrong: tuple[str, str]) -> None:
    add("call", name, {"fn_name": fn_name, "inputs": inputs, "outputs": outputs}, code, wrong)


def asserts(name: str, test: str, code: str, *wrong: tuple[str, str]) -> None:
    add("assert", name, {"functional": test.strip("\n")}, code.strip("\n") + "\n", wrong)


def pytests(name: str, test: str, code: str, *wrong: tuple[str, str]) -> None:
    add("pytest", name, {"pytest": test.strip("\n") + "\n"}, code.strip("\n") + "\n", wrong)


# ------------------------------------------------------------------------------------ fn_name rows
call("sum of two", "add", [[1, 2], [-1, 1]], [3, 0], "def add(a, b): return a + b", ("a + b", "a - b"))
call("method of Solution", "twoSum", [[[2, 7, 11], 9]], [[0, 1]], "class Solution:\n    def twoSum(self, nums, target):\n        seen = {}\n        for i, v in enumerate(nums):\n            if target - v in seen: return [seen[target - v], i]\n            seen[v] = i\n", ("[seen[target - v], i]", "[i, seen[target - v]]"))
call("JSON lines", "f", ["[1, 2]\n3", '"ab"\n2'], ["[1, 2, 3]", '"abab"'], "def f(x, k): return x + [k] if isinstance(x, list) else x * k")
call("tuples count as lists", "f", [[3]], [[[0, 0], [1, 1], [2, 4]]], "def f(n): return [(i, i * i) for i in range(n)]", ("i * i)", "i + i)"))
call("wrapped in a list", "f", [[3], [4]], [[9], [16]], "def f(n): return n * n", ("n * n", "n * n * n"))
call("int-keyed dict in", "f", [[{"1": 10, "2": 20}]], [30], "def f(d): return sum(v for k, v in d.items() if k + 0 > 0)", ("sum(v", "sum(k"))
call("int-keyed dict out", "f", [[[1, 1, 2]]], [{"1": 2, "2": 1}], "from collections import Counter\ndef f(xs): return dict(Counter(xs))", ("dict(Counter(xs))", "dict(Counter(xs[1:]))"))
call("int-keyed Counter out", "f", [[[1, 1, 2]]], [{"1": 2, "2": 1}], "from collections import Counter\ndef f(xs): return Counter(xs)")
call("text-keyed dict", "f", [["aab"]], [{"a": 2, "b": 1}], "from collections import Counter\ndef f(s): return Counter(s)", ("Counter(s)", "Counter(s[1:])"))
call("defaultdict", "f", [["ab"]], [{"a": [0], "b": [1]}], "from collections import defaultdict\ndef f(s):\n    d = defaultdict(list)\n    for i, c in enumerate(s): d[c].append(i)\n    return d")
call("None", "f", [[0], [1]], [None, 1], "def f(x): return x or None", ("x or None", "x or 0"))
call("booleans", "f", [[2], [3]], [True, False], "def f(x): return x % 2 == 0", ("== 0", "== 1"))
call("1 for True", "f", [[2]], [True], "def f(x): return 1")
call("floats", "f", [[1, 2], [1, 3]], [0.5, 0.3333333333333333], "def f(a, b): return a / b", ("a / b", "a // b"))
call("float rounded otherwise", "f", [[0.1, 0.2]], [0.3], "def f(a, b): return a + b")
call("float for int", "f", [[4]], [2], "def f(x): return x ** 0.5")
call("no arguments", "f", [[]], [42], "def f(): return 42")
call("a list as the only argument", "f", [[[3, 1, 2]]], [[1, 2, 3]], "def f(xs): return sorted(xs)", ("sorted(xs)", "xs"))
call("a string as the only argument", "f", [["abc"]], ["cba"], "def f(s): return s[::-1]")
call("defaults", "f", [[3], [3, 4]], [5, 7], "def f(a, b=2): return a + b")
call("*args", "f", [[1, 2, 3]], [6], "def f(*a): return sum(a)")
call("nested lists", "f", [[[[1, 2], [3, 4]]]], [[[1, 3], [2, 4]]], "def f(m): return [list(r) for r in zip(*m)]", ("zip(*m)", "zip(*m[::-1])"))
call("rows as tuples", "f", [[[[1, 2], [3, 4]]]], [[[1, 3], [2, 4]]], "def f(m): return list(zip(*m))")
call("a set", "f", [[[1, 1]]], [[1]], "def f(xs): return set(xs)")
call("a generator", "f", [[3]], [[0, 1, 2]], "def f(n): yield from range(n)")
call("a range", "f", [[3]], [[0, 1, 2]], "def f(n): return range(n)")
call("a map", "f", [[["1", "2"]]], [[1, 2]], "def f(xs): return map(int, xs)")
call("a numpy scalar", "f", [[[1, 2, 3]]], [6], "import numpy as np\ndef f(xs): return np.sum(xs)", ("np.sum", "np.prod"), ("np.sum(xs)", "np.sum(xs) - 1"))
call("a numpy bool", "f", [[[1, 2]]], [True], "import numpy as np\ndef f(xs): return np.all(np.array(xs) > 0)", ("> 0", "> 1"))
call("a list of numpy scalars", "f", [[[3, 1]]], [[1, 3]], "import numpy as np\ndef f(xs): return list(np.sort(xs))")
call("a numpy float", "f", [[[1, 2]]], [1.5], "import numpy as np\ndef f(xs): return np.mean(xs)")
call("numpy tolist", "f", [[[[1, 2], [3, 4]]]], [[[1, 3], [2, 4]]], "import numpy as np\ndef f(m): return np.array(m).T.tolist()")
call("in place, nothing returned", "f", [[[2, 1]]], [[1, 2]], "def f(xs): xs.sort()")
call("a subclass of int", "f", [[2]], [4], "class N(int): pass\ndef f(x): return N(x * x)")
call("an IntEnum", "f", [[2]], [2], "import enum\nclass C(enum.IntEnum):\n    A = 2\ndef f(x): return C.A")
call("a str Enum", "f", [[2]], ["red"], "import enum\nclass C(str, enum.Enum):\n    RED = 'red'\ndef f(x): return C.RED")
call("an Enum", "f", [[2]], ["red"], "import enum\nclass C(enum.Enum):\n    RED = 'red'\ndef f(x): return C.RED")
call("a namedtuple", "f", [[2]], [[2, 4]], "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(x): return P(x, x * x)", ("x * x)", "x + 3)"))
call("a Fraction", "f", [[1, 2]], [0.5], "from fractions import Fraction\ndef f(a, b): return Fraction(a, b)")
call("a Decimal", "f", [["0.5"]], [0.5], "from decimal import Decimal\ndef f(s): return Decimal(s)")
call("a big integer", "f", [[100]], [2 ** 100], "def f(n): return 2 ** n", ("2 ** n", "2.0 ** n"), ("2 ** n", "2 ** n + 1"))
call("a long integer text", "f", [[5000]], ["1" + "0" * 5000], "def f(n): return '1' + '0' * n")
call("unicode", "f", [["naïve 😀"]], ["NAÏVE 😀"], "def f(s): return s.upper()")
call("recursion", "f", [[10]], [55], "def f(n): return n if n < 2 else f(n - 1) + f(n - 2)", ("n - 2", "n - 3"))
call("a lambda", "f", [[3]], [9], "f = lambda x: x * x")
call("a partial", "f", [[3]], [8], "from functools import partial\nf = partial(pow, 2)")
call("a class as function", "f", [["12"]], [12], "f = int")
call("a callable object", "f", [[2]], [4], "class D:\n    def __call__(self, x): return 2 * x\nf = D()")
call("lru_cache", "f", [[50]], [12586269025], "from functools import lru_cache\n@lru_cache(maxsize=None)\ndef f(n): return n if n < 2 else f(n - 1) + f(n - 2)")
call("state between calls", "f", [[1], [1]], [1, 1], "n = 0\ndef f(x):\n    global n\n    n += x\n    return 1 if n < 3 else 0")
call("a staticmethod of Solution", "f", [[2]], [4], "class Solution:\n    @staticmethod\n    def f(x): return 2 * x")
call("a classmethod of Solution", "f", [[2]], [4], "class Solution:\n    @classmethod\n    def f(cls, x): return 2 * x")
call("Solution with __init__", "f", [[2]], [5], "class Solution:\n    def __init__(self): self.k = 3\n    def f(self, x): return x + self.k")
call("Solution and a helper class", "f", [["ab"]], [True], "class Trie:\n    def __init__(self): self.d = {}\n    def add(self, w): self.d[w] = 1\nclass Solution:\n    def f(self, w):\n        t = Trie()\n        t.add(w)\n        return w in t.d")
call("an exception", "f", [[0]], [0], "def f(x): return 1 // x")
call("prints as well", "f", [[2]], [4], "def f(x):\n    print('debug', x)\n    return 2 * x")
call("prints instead", "f", [[2]], [4], "def f(x): print(2 * x)")
call("main guard that reads stdin", "f", [[2]], [4], "def f(x): return 2 * x\nif __name__ == '__main__':\n    print(f(int(input())))")
call("reads stdin at the top", "f", [[2]], [4], "n = int(input())\ndef f(x): return 2 * x")
call("a nested tuple", "f", [[1]], [[[1, [2, 3]]]], "def f(x): return ((x, (2, 3)),)")
call("an empty list for a tuple", "f", [[[]]], [[]], "def f(x): return tuple(x)")
call("nan", "f", [[1]], [float("nan")], "def f(x): return float('nan')")
call("infinity", "f", [[1]], [float("inf")], "def f(x): return float('inf')")
call("minus zero", "f", [[1]], [0.0], "def f(x): return -0.0")
call("bytes", "f", [["a"]], ["a"], "def f(s): return s.encode()")
call("a dict with nested ints", "f", [[[[1, 2], [1, 3]]]], [{"1": [2, 3]}], "def f(es):\n    d = {}\n    for a, b in es: d.setdefault(a, []).append(b)\n    return d")
call("a list of dicts", "f", [[["a", "b"]]], [[{"k": "a"}, {"k": "b"}]], "def f(ks): return [{'k': k} for k in ks]")
call("sorted by a key", "f", [[["bb", "a"]]], [["a", "bb"]], "def f(w): return sorted(w, key=len)", ("key=len", "key=len, reverse=True"))
call("the name of a builtin", "max", [[[1, 3, 2]]], [3], "def max(xs):\n    best = xs[0]\n    for v in xs:\n        if v > best: best = v\n    return best", ("v > best", "v < best"))
call("the name of heapq's merge", "merge", [[[1, 3], [2]]], [[1, 2, 3]], "def merge(a, b): return sorted(a + b)")

# ------------------------------------------------------------------------------------ asserts on functions
asserts("MBPP", "assert similar((3, 4, 5), (5, 7, 4)) == (4, 5)\nassert set(similar((1, 2), (5, 4))) == set()", "def similar(a, b): return tuple(sorted(set(a) & set(b)))", ("&", "|"))
asserts("HumanEval", "METADATA = {'author': 'x'}\n\ndef check(candidate):\n    assert candidate([1.0, 2.0, 3.9], 0.3) == False\n    assert candidate([1.0, 2.8, 3.0], 0.3) == True\n\ncheck(has_close)",
        "from typing import List\ndef has_close(xs: List[float], t: float) -> bool:\n    xs = sorted(xs)\n    return any(b - a < t for a, b in zip(xs, xs[1:]))", ("< t", "> t"))
asserts("check with the name as parameter", "def check(f):\n    for n in range(5):\n        assert f(n) == n ** 2, f'{n}'\ncheck(f)", "def f(n): return n * n", ("n * n", "n + n"))
asserts("a loop over cases", "for args, want in [((1, 2), 3), ((0, 0), 0)]:\n    assert f(*args) == want", "def f(a, b): return a + b", ("a + b", "a * b"))
asserts("a float with a tolerance", "assert abs(area(2) - 12.566) < 1e-3", "import math\ndef area(r): return math.pi * r * r", ("r * r", "r"))
asserts("math.isclose", "import math\nassert math.isclose(f(2), 2 ** 0.5)", "def f(x):\n    y = x\n    for _ in range(50): y = (y + x / y) / 2\n    return y", ("range(50)", "range(1)"))
asserts("numpy's allclose", "import numpy as np\nassert np.allclose(softmax(np.array([1.0, 2.0])), [0.26894142, 0.73105858])", "import numpy as np\ndef softmax(x):\n    e = np.exp(x - x.max())\n    return e / e.sum()", ("e / e.sum()", "e"))
asserts("dtype and shape", "import numpy as np\nm = make(2, 3)\nassert m.shape == (2, 3) and m.dtype == np.float32 and m.ndim == 2 and m.size == 6 and (m == 0).all()", "import numpy as np\ndef make(a, b): return np.zeros((a, b), dtype=np.float32)", ("np.float32", "float"), ("(a, b),", "(b, a),"))
for dtype in ("int8", "uint8", "int32", "uint64", "float16", "float64", "complex64", "bool", "U5", "S3", "datetime64[D]", "object"):
    asserts(f"numpy {dtype}", f"import numpy as np\na = f(['1', '0'])\nassert isinstance(a, np.ndarray) and a.dtype == np.dtype('{dtype}') and len(a) == 2\nassert (a[::-1] == f(['0', '1'])).all()",
            f"import numpy as np\ndef f(xs): return np.array({'xs' if dtype in ('U5', 'S3', 'object') else '[int(x) for x in xs]'}, dtype='{dtype}')")
asserts("numpy, 0 and 3 dimensions", "import numpy as np\nassert f(np.zeros((2, 3, 4))).shape == (4, 3, 2)\nassert f(np.array(5)) == 5 and f(np.array(5)).shape == ()", "def f(a): return a.T", ("a.T", "a"))
asserts("numpy in place", "import numpy as np\na = np.arange(4)\nf(a)\nassert a.tolist() == [0, 10, 20, 30]", "def f(a): a *= 10", ("a *= 10", "a = a * 10"))
asserts("numpy view", "import numpy as np\na = np.zeros(4)\nv = f(a)\nv[0] = 7\nassert a[0] == 7 and v.base is a", "def f(a): return a[:2]", ("a[:2]", "a[:2].copy()"))
asserts("numpy structured", "import numpy as np\nr = f()\nassert r['x'].tolist() == [1, 2] and r.dtype.names == ('x', 'y')", "import numpy as np\ndef f(): return np.array([(1, 2.0), (2, 3.0)], dtype=[('x', 'i4'), ('y', 'f8')])")
asserts("numpy nan", "import numpy as np\nr = f(np.array([1.0, 0.0]))\nassert np.isnan(r[1]) and r[0] == 0", "import numpy as np\ndef f(a):\n    with np.errstate(all='ignore'): return (a - a) / a", ("(a - a)", "a"))
asserts("numpy scalars and kinds", "import numpy as np\nx = f([1, 2])\nassert isinstance(x, np.floating) and x == 1.5 and type(x) is np.float64 and x.item() == 1.5", "import numpy as np\ndef f(xs): return np.mean(xs)", ("np.mean(xs)", "float(np.mean(xs))"))
asserts("numpy order and random", "import numpy as np\nrng = np.random.default_rng(3)\na = rng.random((3, 3))\nassert np.allclose(inv(a) @ a, np.eye(3))", "import numpy as np\ndef inv(a): return np.linalg.inv(a)", ("np.linalg.inv(a)", "a"))
asserts("numpy testing", "import numpy as np\nnp.testing.assert_array_equal(f(3), np.eye(3))", "import numpy as np\ndef f(n): return np.identity(n)", ("np.identity(n)", "np.ones((n, n))"))
asserts("pandas-like callbacks", "assert apply([1, 2], lambda v: v + 1, float) == [2.0, 3.0]", "def apply(xs, *fs):\n    for f in fs: xs = [f(x) for x in xs]\n    return xs", ("for f in fs", "for f in fs[1:]"))
asserts("complex", "r = roots(1, 2, 5)\nassert sorted(r, key=lambda z: z.imag) == [-1 - 2j, -1 + 2j] and isinstance(r[0], complex) and r[0].conjugate() == r[1]", "import cmath\ndef roots(a, b, c):\n    d = cmath.sqrt(b * b - 4 * a * c)\n    return [(-b + d) / (2 * a), (-b - d) / (2 * a)]", ("4 * a", "3 * a"))
asserts("a set and a frozenset", "assert f([1, 1, 2]) == {1, 2} and type(f([])) is set\nassert g([1]) == frozenset({1}) and {g([1]): 1}", "def f(xs): return set(xs)\ndef g(xs): return frozenset(xs)", ("return set(xs)", "return xs"))
asserts("bytes", "assert f('ab') == b'ab' and isinstance(f('a'), bytes) and f('é').hex() == 'c3a9'", "def f(s): return s.encode()", ("s.encode()", "s.encode('utf-16')"))
asserts("a generator", "g = count(5)\nassert next(g) == 5 and next(g) == 6\nimport itertools\nassert list(itertools.islice(g, 2)) == [7, 8]", "def count(n):\n    while True:\n        yield n\n        n += 1", ("n += 1", "n += 2"))
asserts("a generator that ends", "g = f(2)\nassert list(g) == [0, 1]\nassert list(g) == []\ntry:\n    next(g)\nexcept StopIteration:\n    pass\nelse:\n    raise AssertionError", "def f(n):\n    for i in range(n): yield i")
asserts("next with a default", "g = f([1])\nassert next(g, None) == 1 and next(g, None) is None", "def f(xs): return iter(xs)", ("iter(xs)", "iter(xs * 2)"))
asserts("send and close", "g = acc()\nnext(g)\nassert g.send(3) == 3 and g.send(4) == 7\ng.close()", "def acc():\n    t = 0\n    while True:\n        t += yield t\n", ("t += yield t", "t = yield t"))
asserts("a generator's throw", "g = f()\nnext(g)\nassert g.throw(ValueError) == 'caught'", "def f():\n    try: yield 1\n    except ValueError: yield 'caught'", ("except ValueError", "except TypeError"))
asserts("isinstance of a generator", "import types\nassert isinstance(f(), types.GeneratorType)", "def f(): yield 1", ("yield 1", "return iter([1])"))
asserts("an iterator class", "assert list(Countdown(3)) == [3, 2, 1] and sum(Countdown(4)) == 10 and max(Countdown(2)) == 2\nassert 2 in Countdown(3) and [*zip(Countdown(2), 'ab')] == [(2, 'a'), (1, 'b')]",
        "class Countdown:\n    def __init__(self, n): self.n = n\n    def __iter__(self): return self\n    def __next__(self):\n        if self.n <= 0: raise StopIteration\n        self.n -= 1\n        return self.n + 1", ("self.n + 1", "self.n"))
asserts("__getitem__ and __len__", "p = Page([1, 2, 3, 4])\nassert len(p) == 4 and p[1] == 2 and p[-1] == 4 and p[1:3] == [2, 3] and list(p) == [1, 2, 3, 4] and p[::2] == [1, 3] and reversed(p) and list(reversed(p)) == [4, 3, 2, 1]",
        "class Page:\n    def __init__(self, xs): self.xs = xs\n    def __len__(self): return len(self.xs)\n    def __getitem__(self, i): return self.xs[i]", ("self.xs[i]", "self.xs[i if isinstance(i, slice) else 0]"))
asserts("__setitem__, __delitem__, __contains__", "d = D()\nd['a'] = 1\nd['b'] = 2\ndel d['a']\nassert 'a' not in d and 'b' in d and d['b'] == 2\ntry:\n    d['a']\nexcept KeyError as e:\n    assert e.args == ('a',)\nelse:\n    assert False",
        "class D:\n    def __init__(self): self.d = {}\n    def __setitem__(self, k, v): self.d[k] = v\n    def __getitem__(self, k): return self.d[k]\n    def __delitem__(self, k): del self.d[k]\n    def __contains__(self, k): return k in self.d", ("del self.d[k]", "pass"))
asserts("a bool and a truth", "assert Stack() == Stack() or not Stack()\ns = Stack()\ns.push(1)\nassert s and not Stack()", "class Stack:\n    def __init__(self): self.xs = []\n    def push(self, x): self.xs.append(x)\n    def __bool__(self): return bool(self.xs)", ("bool(self.xs)", "not self.xs"))
asserts("LRU cache", """
c = LRUCache(2)
c.put(1, 1)
c.put(2, 2)
assert c.get(1) == 1
c.put(3, 3)
assert c.get(2) == -1
c.put(4, 4)
assert c.get(1) == -1 and c.get(3) == 3 and c.get(4) == 4
""", """
from collections import OrderedDict
class LRUCache:
    def __init__(self, capacity):
        self.capacity, self.d = capacity, OrderedDict()
    def get(self, key):
        if key not in self.d: return -1
        self.d.move_to_end(key)
        return self.d[key]
    def put(self, key, value):
        self.d[key] = value
        self.d.move_to_end(key)
        if len(self.d) > self.capacity: self.d.popitem(last=False)
""", ("popitem(last=False)", "popitem()"), ("        self.d.move_to_end(key)\n        return", "        return"))
asserts("LRU cache on OrderedDict", "c = LRU(2)\nc['a'] = 1\nc['b'] = 2\nc['a']\nc['c'] = 3\nassert list(c) == ['a', 'c'] and 'b' not in c and len(c) == 2 and c == {'a': 1, 'c': 3} and dict(c) == {'a': 1, 'c': 3} and isinstance(c, dict)",
        "from collections import OrderedDict\nclass LRU(OrderedDict):\n    def __init__(self, n):\n        super().__init__()\n        self.n = n\n    def __getitem__(self, k):\n        v = super().__getitem__(k)\n        self.move_to_end(k)\n        return v\n    def __setitem__(self, k, v):\n        super().__setitem__(k, v)\n        if len(self) > self.n: self.popitem(last=False)", ("self.move_to_end(k)", "pass"))
asserts("Trie", "t = Trie()\nfor w in ['apple', 'app']:\n    t.insert(w)\nassert t.search('app') and t.starts_with('appl') and not t.search('ap') and t.search('app') is True and t.search('x') == False",
        "class Trie:\n    def __init__(self): self.root = {}\n    def insert(self, w):\n        n = self.root\n        for c in w: n = n.setdefault(c, {})\n        n['$'] = True\n    def find(self, w):\n        n = self.root\n        for c in w:\n            if c not in n: return None\n            n = n[c]\n        return n\n    def search(self, w):\n        n = self.find(w)\n        return n is not None and '$' in n\n    def starts_with(self, w): return self.find(w) is not None", ("and '$' in n", ""))
asserts("MinStack", "s = MinStack()\nfor v in (-2, 0, -3):\n    s.push(v)\nassert s.get_min() == -3\ns.pop()\nassert s.top() == 0 and s.get_min() == -2", "class MinStack:\n    def __init__(self): self.s = []\n    def push(self, v): self.s.append((v, min(v, self.s[-1][1] if self.s else v)))\n    def pop(self): self.s.pop()\n    def top(self): return self.s[-1][0]\n    def get_min(self): return self.s[-1][1]", ("min(v, self", "max(v, self"))
asserts("BankAccount", "a = Account('Ann', 100)\na.deposit(50)\nassert a.balance == 150 and a.owner == 'Ann'\ntry:\n    a.withdraw(500)\n    assert False, 'no error'\nexcept ValueError as e:\n    assert str(e) == 'insufficient funds' and e.args[0].startswith('insuff')\nassert a.balance == 150 and repr(a) == 'Account(Ann, 150)' and str(a) == 'Ann: 150'",
        "class Account:\n    def __init__(self, owner, balance=0): self.owner, self.balance = owner, balance\n    def deposit(self, n): self.balance += n\n    def withdraw(self, n):\n        if n > self.balance: raise ValueError('insufficient funds')\n        self.balance -= n\n    def __repr__(self): return f'Account({self.owner}, {self.balance})'\n    def __str__(self): return f'{self.owner}: {self.balance}'", ("raise ValueError('insufficient funds')", "return"), ("'insufficient funds'", "'no money'"))
asserts("nodes of the test's class", """
class Node:
    def __init__(self, val, next=None):
        self.val, self.next = val, next
a = Node(1, Node(2, Node(3)))
b = a.next
r = reverse(a)
assert r.val == 3 and r.next is b and b.next is a and a.next is None
""", "def reverse(head):\n    prev = None\n    while head:\n        head.next, prev, head = prev, head, head.next\n    return prev", ("return prev", "return None"))
asserts("nodes of the test's class, returned by identity", """
class Node:
    def __init__(self, val):
        self.val, self.left, self.right = val, None, None
root, p, q = Node(3), Node(5), Node(1)
root.left, root.right = p, q
assert lca(root, p, q) is root and lca(root, p, p) is p
""", "def lca(r, p, q):\n    if r is None or r is p or r is q: return r\n    a, b = lca(r.left, p, q), lca(r.right, p, q)\n    return r if a and b else a or b", ("return r if a and b else a or b", "return a or b"))
asserts("a cycle in a list", "class Node:\n    def __init__(self, v): self.v, self.next = v, None\nns = [Node(i) for i in range(4)]\nfor a, b in zip(ns, ns[1:]):\n    a.next = b\nassert start(ns[0]) is None\nns[3].next = ns[1]\nassert start(ns[0]) is ns[1]",
        "def start(h):\n    seen = set()\n    while h:\n        if h in seen: return h\n        seen.add(h)\n        h = h.next\n    return None", ("return h\n", "return h.next\n"))
asserts("nodes of the program's class", "root = insert(insert(insert(None, 5), 3), 8)\nassert root.val == 5 and root.left.val == 3 and root.right.val == 8 and root.left.left is None and inorder(root) == [3, 5, 8] and isinstance(root, Tree)",
        "class Tree:\n    def __init__(self, val, left=None, right=None): self.val, self.left, self.right = val, left, right\ndef insert(t, v):\n    if t is None: return Tree(v)\n    if v < t.val: t.left = insert(t.left, v)\n    else: t.right = insert(t.right, v)\n    return t\ndef inorder(t): return inorder(t.left) + [t.val] + inorder(t.right) if t else []", ("v < t.val", "v > t.val"))
asserts("LinkedList of the program", "l = LinkedList()\nfor v in 'abc':\n    l.append(v)\nassert str(l) == 'a -> b -> c' and len(l) == 3 and [n for n in l] == list('abc') and l.head.value == 'a' and l.head.next.next.next is None\nl.remove('b')\nassert list(l) == ['a', 'c'] and 'b' not in l and l.head is l.head",
        "class Node:\n    def __init__(self, value): self.value, self.next = value, None\nclass LinkedList:\n    def __init__(self): self.head = None\n    def append(self, v):\n        if not self.head:\n            self.head = Node(v)\n            return\n        n = self.head\n        while n.next: n = n.next\n        n.next = Node(v)\n    def remove(self, v):\n        p, n = None, self.head\n        while n and n.value != v: p, n = n, n.next\n        if p: p.next = n.next\n        else: self.head = n.next\n    def __iter__(self):\n        n = self.head\n        while n:\n            yield n.value\n            n = n.next\n    def __len__(self): return sum(1 for _ in self)\n    def __str__(self): return ' -> '.join(self)", ("p.next = n.next", "p.next = None"))
asserts("graph with the test's own dict of sets", "g = {'a': {'b', 'c'}, 'b': {'d'}, 'c': {'d'}, 'd': set()}\norder = topo(g)\nassert set(order) == set(g) and all(order.index(u) < order.index(v) for u in g for v in g[u])",
        "def topo(g):\n    seen, out = set(), []\n    def visit(u):\n        if u in seen: return\n        seen.add(u)\n        for v in g[u]: visit(v)\n        out.append(u)\n    for u in g: visit(u)\n    return out[::-1]", ("out[::-1]", "out"))
asserts("Enum", "assert Color.RED.value == 1 and Color.RED.name == 'RED' and Color(1) is Color.RED and Color['RED'] is Color.RED and [c.name for c in Color] == ['RED', 'BLUE'] and len(Color) == 2 and Color.RED != Color.BLUE and Color.RED in Color\nassert mix(Color.RED, Color.BLUE) == 'RED+BLUE' and Color.RED == Color(1)",
        "from enum import Enum\nclass Color(Enum):\n    RED = 1\n    BLUE = 2\ndef mix(a, b): return f'{a.name}+{b.name}'", ("BLUE = 2", "BLUE = 1"))
asserts("Enum returned", "assert light('go') is Light.GREEN and light('stop') == Light.RED and light('go') != Light.RED and light('go').value == 'g'", "import enum\nclass Light(enum.Enum):\n    RED = 'r'\n    GREEN = 'g'\ndef light(s): return Light.GREEN if s == 'go' else Light.RED", ("if s == 'go'", "if s != 'go'"))
asserts("IntEnum and Flag", "assert P.HIGH > P.LOW and P.HIGH == 3 and sorted([P.HIGH, P.LOW]) == [P.LOW, P.HIGH] and P.LOW + 1 == 2\nassert (F.R | F.W) & F.W and not F.R & F.W and F.R in (F.R | F.W)", "import enum\nclass P(enum.IntEnum):\n    LOW = 1\n    HIGH = 3\nclass F(enum.Flag):\n    R = enum.auto()\n    W = enum.auto()", ("HIGH = 3", "HIGH = 2"))
asserts("dataclass", "p = Point(1, 2)\nassert p == Point(1, 2) and p != Point(2, 1) and repr(p) == 'Point(x=1, y=2)' and p.x == 1 and p.norm() == 5 ** 0.5\np.x = 4\nassert p.x == 4 and p == Point(4, 2)", "from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: int\n    y: int\n    def norm(self): return (self.x ** 2 + self.y ** 2) ** 0.5", ("    y: int\n", "    y: int = 0\n    z: int = 0\n"))
asserts("frozen, ordered dataclass", "from dataclasses import FrozenInstanceError, asdict, replace, fields, is_dataclass\na, b = V(1, 2), V(1, 3)\nassert a < b and max(a, b) == b and sorted([b, a]) == [a, b] and len({a, V(1, 2)}) == 1 and asdict(a) == {'major': 1, 'minor': 2} and replace(a, minor=9).minor == 9 and is_dataclass(a)\ntry:\n    a.major = 3\n    assert False\nexcept FrozenInstanceError:\n    pass",
        "from dataclasses import dataclass\n@dataclass(frozen=True, order=True)\nclass V:\n    major: int\n    minor: int", ("frozen=True, ", ""))
asserts("namedtuple", "p = mid(P(0, 0), P(4, 2))\nassert p == P(2, 1) and p == (2, 1) and p.x == 2 and p[1] == 1 and isinstance(p, tuple) and p._asdict() == {'x': 2, 'y': 1} and p._replace(x=9) == (9, 1)\nx, y = p\nassert x + y == 3 and P._fields == ('x', 'y')", "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef mid(a, b): return P((a.x + b.x) / 2, (a.y + b.y) / 2)", ("/ 2, ", ", "))
asserts("typing.NamedTuple", "e = best([E('a', 2), E('b', 5)])\nassert e.name == 'b' and e == E('b', 5) and e._fields == ('name', 'score') and E('z').score == 0 and repr(e) == \"E(name='b', score=5)\"", "from typing import NamedTuple\nclass E(NamedTuple):\n    name: str\n    score: int = 0\ndef best(es): return max(es, key=lambda e: e.score)", ("max", "min"))
asserts("Counter", "c = words('a b a')\nassert c == {'a': 2, 'b': 1} and c['zz'] == 0 and c.most_common(1) == [('a', 2)] and sum(c.values()) == 3 and isinstance(c, dict) and (c + c)['a'] == 4", "from collections import Counter\ndef words(s): return Counter(s.split())", ("Counter(s.split())", "dict(Counter(s.split()))"))
asserts("Counter of the test, in place", "from collections import Counter\nc = Counter('aab')\ndrop(c, 'a')\nassert c == Counter('ab') and type(c) is Counter and c['q'] == 0", "def drop(c, k):\n    c[k] -= 1\n    if not c[k]: del c[k]", ("c[k] -= 1", "c[k] -= 2"))
asserts("defaultdict", "d = group(['ab', 'a', 'cd'])\nassert d == {2: ['ab', 'cd'], 1: ['a']} and d[9] == [] and 9 in d and d.default_factory is list", "from collections import defaultdict\ndef group(ws):\n    d = defaultdict(list)\n    for w in ws: d[len(w)].append(w)\n    return d", ("    return d", "    return dict(d)"))
asserts("deque in place", "from collections import deque\nd = deque([1, 2, 3], maxlen=5)\nrot(d, 1)\nassert d == deque([3, 1, 2]) and d.maxlen == 5 and list(d) == [3, 1, 2]", "def rot(d, k): d.rotate(k)", ("d.rotate(k)", "d.rotate(-k)"))
asserts("deque returned", "q = last(range(10), 3)\nassert list(q) == [7, 8, 9] and q.maxlen == 3 and q[0] == 7\nq.append(10)\nassert list(q) == [8, 9, 10]", "from collections import deque\ndef last(xs, n): return deque(xs, maxlen=n)", (", maxlen=n", ""))
asserts("OrderedDict", "from collections import OrderedDict\nd = f([3, 1])\nassert list(d.items()) == [(3, 0), (1, 1)] and isinstance(d, OrderedDict) and d == OrderedDict([(3, 0), (1, 1)]) and d != OrderedDict([(1, 1), (3, 0)])\nd.move_to_end(3)\nassert list(d) == [1, 3]", "from collections import OrderedDict\ndef f(xs): return OrderedDict((x, i) for i, x in enumerate(xs))", ("OrderedDict((x", "dict((x"))
asserts("ChainMap and UserDict", "from collections import UserDict\nd = Upper()\nd['a'] = 1\nassert d['A'] == 1 and list(d) == ['A'] and isinstance(d, UserDict) and d.data == {'A': 1}", "from collections import UserDict\nclass Upper(UserDict):\n    def __setitem__(self, k, v): super().__setitem__(k.upper(), v)", ("k.upper()", "k"))
asserts("dict views", "d = f()\nassert list(d.keys()) == ['a', 'b'] and d.keys() == {'a', 'b'} and set(g()) == {'a', 'b'} and sorted(h()) == [1, 2]", "def f(): return {'a': 1, 'b': 2}\ndef g(): return f().keys()\ndef h(): return f().values()", ("'b': 2", "'c': 2"))
asserts("list in place", "xs = [3, 1, 2]\nassert f(xs) is None and xs == [1, 2, 3]", "def f(xs): xs.sort()", ("xs.sort()", "sorted(xs)"), ("xs.sort()", "return xs.sort(reverse=True)"))
asserts("list of lists in place", "g = [[1, 2], [3, 4]]\nrow = g[0]\nrotate(g)\nassert g == [[3, 1], [4, 2]] and g[0] is row", "def rotate(g):\n    n = len(g)\n    m = [[g[n - 1 - j][i] for j in range(n)] for i in range(n)]\n    for i in range(n): g[i][:] = m[i]", ("g[i][:] = m[i]", "g[i] = m[i]"))
asserts("dict, set and bytearray in place", "d, s, b = {'a': 1}, {1}, bytearray(b'ab')\nf(d, s, b)\nassert d == {'a': 1, 'b': 2} and s == {1, 2} and b == bytearray(b'ba')", "def f(d, s, b):\n    d['b'] = 2\n    s.add(2)\n    b.reverse()", ("s.add(2)", "s = s | {2}"))
asserts("aliases", "row = [0]\ng = [row, row]\nf(g)\nassert g == [[5], [5]] and g[0] is g[1] and row == [5]", "def f(g): g[0][0] = 5", ("g[0][0] = 5", "g[0] = [5]"))
asserts("aliases in what is returned", "g = grid(2)\ng[0][0] = 1\nassert g == [[1, 0], [0, 0]]", "def grid(n): return [[0] * n for _ in range(n)]", ("[[0] * n for _ in range(n)]", "[[0] * n] * n"))
asserts("the same object returned", "xs = [1]\nassert f(xs) is xs and xs == [1, 2]\nd = {}\nassert f(f(xs)) is xs", "def f(xs):\n    xs.append(len(xs) + 1)\n    return xs", ("return xs", "return list(xs)"))
asserts("a copy asked for", "xs = [[1], [2]]\nys = clone(xs)\nassert ys == xs and ys is not xs and ys[0] is not xs[0]\nys[0].append(9)\nassert xs == [[1], [2]]", "import copy\ndef clone(x): return copy.deepcopy(x)", ("deepcopy", "copy"))
asserts("a mutable default", "assert f(1) == [1] and f(2) == [2]", "def f(x, acc=None):\n    acc = [] if acc is None else acc\n    acc.append(x)\n    return acc", ("acc=None):\n    acc = [] if acc is None else acc", "acc=[]):"))
asserts("the argument is kept by the object", "xs = [1]\nb = Bag(xs)\nb.add(2)\nassert xs == [1, 2] and b.items is xs", "class Bag:\n    def __init__(self, items): self.items = items\n    def add(self, x): self.items.append(x)", ("self.items = items", "self.items = list(items)"))
asserts("the argument is not kept by the object", "xs = [1]\nb = Bag(xs)\nxs.append(5)\nassert b.total() == 1", "class Bag:\n    def __init__(self, items): self.items = tuple(items)\n    def total(self): return sum(self.items)", ("tuple(items)", "items"))
asserts("a property list of the object changes", "t = Todo()\nt.items.append('a')\nt.items += ['b']\nassert t.count() == 2 and t.items == ['a', 'b'] and t.items is t.items", "class Todo:\n    def __init__(self): self.items = []\n    def count(self): return len(self.items)", ("len(self.items)", "len(self.items) - 1"))
