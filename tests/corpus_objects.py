"""Programs and assert tests that need objects to be the same on both sides: each passes (or not) as in one process."""

CASES: list[tuple[str, str, str]] = []  # name, program, test


def c(name: str, code: str, test: str) -> None:
    CASES.append((name, code, test))


DC='''
from dataclasses import dataclass, field
@dataclass(order=True)
class P:
    x: int
    y: int = 0
    tags: list = field(default_factory=list)
@dataclass(frozen=True)
class F:
    a: int
def mk(n): return [P(i) for i in range(n)]
'''
c("dataclass eq order", DC, "assert P(1) == P(1) and P(1) != P(2) and P(1) < P(2) and mk(3) == [P(0),P(1),P(2)] and sorted([P(2),P(1)])[0].x == 1 and max(mk(3)) == P(2)")
c("dataclass repr", DC, "assert repr(P(1)) == 'P(x=1, y=0, tags=[])' and str(mk(1)) == '[P(x=0, y=0, tags=[])]'")
c("dataclass tools", DC, "import dataclasses\np=P(1)\nassert dataclasses.asdict(p) == {'x':1,'y':0,'tags':[]} and dataclasses.replace(p, x=5) == P(5) and [f.name for f in dataclasses.fields(P)] == ['x','y','tags'] and dataclasses.is_dataclass(p) and dataclasses.astuple(p)==(1,0,[])")
c("dataclass frozen", DC, "import dataclasses\ntry:\n    F(1).a = 2\n    assert False\nexcept dataclasses.FrozenInstanceError: pass\nassert hash(F(1)) == hash(F(1)) and len({F(1), F(1), F(2)}) == 2 and {F(1): 3}[F(1)] == 3")
c("dataclass list alias", DC, "p=P(1)\np.tags.append(3)\nassert p.tags == [3] and P(1).tags == [] and p.tags is p.tags")
EN='''
import enum
class Color(enum.Enum):
    RED=1
    BLUE=2
    @property
    def nice(self): return self.name.title()
class Perm(enum.IntFlag):
    R=4
    W=2
class N(enum.IntEnum):
    A=1
def f(n): return Color(n)
'''
c("enum", EN, "assert f(1) is Color.RED and Color['BLUE'] is f(2) and Color.RED.name == 'RED' and f(2).value == 2 and [c.name for c in Color] == ['RED','BLUE'] and len(Color) == 2 and f(1).nice == 'Red' and f(1) == Color.RED and f(1) != Color.BLUE and repr(f(1)) == '<Color.RED: 1>' and isinstance(f(1), Color)")
c("enum error", EN, "try:\n    f(9)\n    assert False\nexcept ValueError as e:\n    assert '9 is not a valid Color' in str(e)")
c("enum in", EN, "assert f(1) in Color and Color.RED in [f(1)] and {Color.RED: 1}[f(1)] == 1")
c("intflag", EN, "assert Perm.R | Perm.W == 6 and Perm.R in (Perm.R | Perm.W) and N.A == 1 and N.A + 1 == 2 and isinstance(N.A, int) and int(Perm.R) == 4 and bool(Perm.R & Perm.W) is False")
NT='''
from collections import namedtuple
from typing import NamedTuple
Pt = namedtuple('Pt','x y')
class Q(NamedTuple):
    a: int
    b: str = 'z'
def f(n): return Pt(n, n+1)
'''
c("namedtuple", NT, "p=f(1)\nassert p == (1,2) and p.x == 1 and p._replace(x=5) == Pt(5,2) and p._asdict() == {'x':1,'y':2} and isinstance(p, tuple) and len(p) == 2\nx, y = p\nassert y == 2 and Q(3).b == 'z' and Q(3) == (3,'z') and p[0] == 1 and p[-1] == 2 and Pt._fields == ('x','y') and sorted([f(2), f(1)])[0].x == 1")
EX='''
class AppError(Exception):
    def __init__(self, msg, code=5):
        super().__init__(msg)
        self.code = code
class Sub(AppError, KeyError): pass
def f(n):
    if n == 0: raise AppError('bad', code=7)
    if n == 1: raise Sub('sub')
    try: [][n]
    except IndexError as e: raise ValueError('wrapped') from e
def g(): assert 1 == 2, 'no'
'''
c("exceptions", EX, "try: f(0)\nexcept AppError as e: assert e.code == 7 and str(e) == 'bad' and e.args == ('bad',) and type(e) is AppError and isinstance(e, Exception)\ntry: f(1)\nexcept KeyError as e: assert isinstance(e, AppError) and e.code == 5\ntry: f(2)\nexcept ValueError as e: assert isinstance(e.__cause__, IndexError) and str(e) == 'wrapped'\nassert issubclass(Sub, AppError) and issubclass(Sub, LookupError)")
c("exception made by test", EX, "e = AppError('x', 3)\nassert e.code == 3 and str(e) == 'x'\ntry:\n    raise e\nexcept AppError as g2:\n    assert g2 is e and g2.code == 3")
c("assertion in program", EX, "try:\n    g()\nexcept AssertionError as e:\n    assert str(e) == 'no'\nelse:\n    raise SystemExit(1)")
GEN='''
def acc():
    t = 0
    while True:
        x = yield t
        if x is None: return
        t += x
def chunks(xs, n):
    for i in range(0, len(xs), n): yield xs[i:i+n]
class Count:
    def __init__(self, n): self.i, self.n = 0, n
    def __iter__(self): return self
    def __next__(self):
        if self.i >= self.n: raise StopIteration
        self.i += 1
        return self.i
class R:
    def __init__(self, n): self.n = n
    def __iter__(self):
        for i in range(self.n): yield i
    def __len__(self): return self.n
    def __reversed__(self): return iter(range(self.n-1,-1,-1))
'''
c("generator send", GEN, "g = acc()\nassert next(g) == 0 and g.send(5) == 5 and g.send(2) == 7\ntry:\n    g.send(None)\n    assert False\nexcept StopIteration: pass")
c("generator close", GEN, "g = acc()\nnext(g)\ng.close()\nassert list(g) == []\nassert list(chunks([1,2,3],2)) == [[1,2],[3]]")
c("iterators", GEN, "assert list(Count(3)) == [1,2,3] and sum(Count(3)) == 6 and [a+b for a,b in zip(Count(3), 'abc')] == 1 if False else True\nit = Count(1)\nassert next(it) == 1 and next(it, 'end') == 'end' and sorted(Count(3), reverse=True) == [3,2,1] and list(map(str, Count(2))) == ['1','2'] and dict(zip('ab', Count(2))) == {'a':1,'b':2}")
c("iterators 2", GEN, "r = R(3)\nassert list(r) == [0,1,2] and list(reversed(r)) == [2,1,0] and len(r) == 3 and 2 in r and 9 not in r and bool(R(0)) is False and not R(0)\na, *b = r\nassert b == [1,2] and [*r] == [0,1,2] and max(r) == 2 and set(r) == {0,1,2} and tuple(enumerate(r))[1] == (1,1)")
c("stop iteration expected", GEN, "it = Count(0)\ntry:\n    next(it)\n    assert False\nexcept StopIteration:\n    pass\ntry:\n    it.__next__()\n    assert False\nexcept StopIteration:\n    pass")
SEQ='''
class L:
    def __init__(self, xs): self.xs = list(xs)
    def __getitem__(self, i):
        return L(self.xs[i]) if isinstance(i, slice) else self.xs[i]
    def __setitem__(self, i, v): self.xs[i] = v
    def __delitem__(self, i): del self.xs[i]
    def __len__(self): return len(self.xs)
    def __contains__(self, v): return v in self.xs
    def __eq__(self, o): return self.xs == (o.xs if isinstance(o, L) else o)
    def __add__(self, o): return L(self.xs + list(o))
    def __radd__(self, o): return L(list(o) + self.xs)
    def __mul__(self, n): return L(self.xs * n)
    def __iadd__(self, o):
        self.xs += list(o)
        return self
    def __neg__(self): return L(-x for x in self.xs)
    def __bool__(self): return bool(self.xs)
    def __call__(self, k): return [k * x for x in self.xs]
    def __repr__(self): return f'L({self.xs})'
    def __hash__(self): return 3
'''
c("sequence", SEQ, "l = L([1,2,3])\nassert l[0] == 1 and l[-1] == 3 and l[1:] == L([2,3]) and l[1:].xs == [2,3] and 2 in l and 7 not in l and len(l) == 3\nl[0] = 9\ndel l[1]\nassert l.xs == [9,3] and l == L([9,3]) and l != [1] and l == L([9,3])")
c("sequence ops", SEQ, "l = L([1])\nm = l\nl += [2]\nassert m is l and l.xs == [1,2] and (l + [3]).xs == [1,2,3] and ([0] + l).xs == [0,1,2] and (l * 2).xs == [1,2,1,2] and (-l).xs == [-1,-2] and l(3) == [3,6] and repr(l) == 'L([1, 2])' and f'{l}' == 'L([1, 2])' and not L([]) and l and {l: 1}[l] == 1")
c("index error", SEQ, "try:\n    L([])[3]\n    assert False\nexcept IndexError: pass\nassert [x for x in L([4,5])] == [4,5]")
VEC='''
import functools, math
@functools.total_ordering
class V:
    def __init__(self, x, y): self.x, self.y = x, y
    def __eq__(self, o): return isinstance(o, V) and (self.x, self.y) == (o.x, o.y)
    def __lt__(self, o): return abs(self) < abs(o)
    def __add__(self, o): return V(self.x+o.x, self.y+o.y)
    def __radd__(self, o): return self if o == 0 else NotImplemented
    def __sub__(self, o): return V(self.x-o.x, self.y-o.y)
    def __mul__(self, k): return V(self.x*k, self.y*k) if isinstance(k, (int, float)) else self.x*k.x+self.y*k.y
    __rmul__ = __mul__
    def __abs__(self): return math.hypot(self.x, self.y)
    def __iter__(self): yield self.x; yield self.y
    def __bool__(self): return bool(self.x or self.y)
    def __matmul__(self, o): return self * o
    def __round__(self, n=0): return V(round(self.x, n), round(self.y, n))
    def __format__(self, s): return f'<{self.x:{s}}>' if s else str(self.x)
    def __str__(self): return f'({self.x}, {self.y})'
    @classmethod
    def zero(cls): return cls(0, 0)
    @staticmethod
    def dot(a, b): return a * b
    @property
    def length(self): return abs(self)
    @length.setter
    def length(self, v): k = v / abs(self); self.x *= k; self.y *= k
'''
c("vector", VEC, "a, b = V(3,4), V(1,2)\nassert a + b == V(4,6) and a - b == V(2,2) and a * 2 == V(6,8) and 2 * a == V(6,8) and a * b == 11 and a @ b == 11 and abs(a) == 5 and b < a and a >= b and sorted([a,b]) == [b,a] and max(a,b) is a")
c("vector 2", VEC, "a = V(3,4)\nassert sum([V(1,1), V(2,2)]) == V(3,3) and list(a) == [3,4] and not V.zero() and V.dot(a, a) == 25 and a.length == 5 and str(a) == '(3, 4)' and f'{a:.1f}' == '<3.0>' and round(V(1.26,2), 1) == V(1.3, 2) and a != 5 and not (a == None)\na.length = 10\nassert a == V(6.0,8.0)")
c("vector type error", VEC, "try:\n    V(1,2) < 5\n    assert False\nexcept TypeError: pass\nx, y = V(1,2)\nassert (x, y) == (1,2)")
c("vector wrong", VEC.replace("self.x+o.x","self.x-o.x"), "a, b = V(3,4), V(1,2)\nassert a + b == V(4,6)")
LRU='''
from collections import OrderedDict
class LRU(OrderedDict):
    def __init__(self, cap): super().__init__(); self.cap = cap
    def get(self, k):
        if k not in self: return -1
        self.move_to_end(k)
        return self[k]
    def put(self, k, v):
        self[k] = v
        self.move_to_end(k)
        if len(self) > self.cap: self.popitem(last=False)
class Stack(list):
    def push(self, x): self.append(x)
    def peek(self): return self[-1]
class D(dict):
    def __missing__(self, k):
        self[k] = len(self)
        return self[k]
    def __getattr__(self, n):
        try: return self[n]
        except KeyError: raise AttributeError(n)
'''
c("lru", LRU, "l = LRU(2)\nl.put(1,1)\nl.put(2,2)\nassert l.get(1) == 1\nl.put(3,3)\nassert l.get(2) == -1 and list(l) == [1,3] and len(l) == 2 and 3 in l and l == OrderedDict([(1,1),(3,3)]) if False else list(l.keys()) == [1,3]")
c("stack(list)", LRU, "s = Stack()\ns.push(1)\ns.append(2)\nassert s == [1,2] and s.peek() == 2 and s.pop() == 2 and len(s) == 1 and isinstance(s, list) and s[0] == 1 and [*s] == [1]\ns.extend([5])\ns.push(6)\nassert s == [1,5,6] and s[1:] == [5,6]")
c("dict subclass", LRU, "d = D(a=1)\nassert d['a'] == 1 and d['q'] == 1 and d == {'a':1,'q':1} and d.a == 1 and sorted(d) == ['a','q'] and d.get('z') is None\nd['x'] = 5\nassert d.x == 5 and dict(d) == {'a':1,'q':1,'x':5} and {**d}['x'] == 5\nimport json\nassert json.loads(json.dumps(d)) == {'a':1,'q':1,'x':5}")
ABC='''
from abc import ABC, abstractmethod
from typing import Generic, TypeVar, Protocol, runtime_checkable
T = TypeVar('T')
class Shape(ABC):
    registry = []
    def __init_subclass__(cls, **k): super().__init_subclass__(**k); Shape.registry.append(cls.__name__)
    def __init__(self, name='s'): self.name = name
    @abstractmethod
    def area(self): ...
    def describe(self): return f'{self.name}: {self.area()}'
class Sq(Shape):
    def __init__(self, a): super().__init__('sq'); self.a = a
    def area(self): return self.a ** 2
class Box(Generic[T]):
    def __init__(self, v: T): self.v = v
    def get(self) -> T: return self.v
@runtime_checkable
class HasArea(Protocol):
    def area(self): ...
def total(shapes): return sum(s.area() for s in shapes)
'''
c("abc", ABC, "try:\n    Shape()\n    assert False\nexcept TypeError: pass\ns = Sq(3)\nassert s.area() == 9 and s.describe() == 'sq: 9' and isinstance(s, Shape) and issubclass(Sq, Shape) and isinstance(s, HasArea) and not isinstance(3, Shape) and total([s, Sq(1)]) == 10 and type(s).__name__ == 'Sq' and type(s) is Sq")
c("abc subclass of test", ABC, "class Ci(Shape):\n    def __init__(self, r):\n        super().__init__('ci')\n        self.r = r\n    def area(self): return 3 * self.r\nx = Ci(2)\nassert x.area() == 6 and x.describe() == 'ci: 6' and isinstance(x, Shape) and total([x, Sq(1)]) == 7 and Shape.registry == ['Sq','Ci'] and x.r == 2 and x.name == 'ci'")
c("abc subclass incomplete", ABC, "class Bad(Shape): pass\ntry:\n    Bad()\n    assert False\nexcept TypeError as e: assert 'abstract' in str(e)")
c("generic", ABC, "assert Box[int](3).get() == 3 and Box('a').v == 'a' and isinstance(Box(1), Box)")
c("duck typed object of test", ABC, "class Fake:\n    def area(self): return 5\nassert total([Fake(), Sq(1)]) == 6 and isinstance(Fake(), HasArea)")
NODE='''
def reverse(head):
    prev = None
    while head: head.next, prev, head = prev, head, head.next
    return prev
def find(root, v):
    while root and root.val != v: root = root.left if v < root.val else root.right
    return root
def has_cycle(head):
    seen = set()
    while head:
        if head in seen: return True
        seen.add(head)
        head = head.next
    return False
def insert(head, v):
    n = type(head)(v)
    n.next = head
    return n
def depth(t): return 0 if t is None else 1 + max(depth(t.left), depth(t.right))
'''
ND="class N:\n    def __init__(self, val, next=None, left=None, right=None): self.val, self.next, self.left, self.right = val, next, left, right\n"
c("nodes of the test", NODE, ND+"a = N(1, N(2, N(3)))\nb, d = a.next, a.next.next\nr = reverse(a)\nassert r is d and r.next is b and b.next is a and a.next is None")
c("nodes 2", NODE, ND+"t = N(5, None, N(3), N(8))\nassert find(t, 8) is t.right and find(t, 9) is None and depth(t) == 2\na = N(1)\na.next = N(2, a)\nassert has_cycle(a) and not has_cycle(N(1, N(2)))\nh = insert(a, 0)\nassert isinstance(h, N) and h.next is a and h.val == 0 and type(h) is N")
c("ids of nodes", "def f(h):\n    seen = set()\n    while h:\n        if id(h) in seen: return True\n        seen.add(id(h))\n        h = h.next\n    return False", ND+"a = N(0)\nx = a\nfor i in range(50):\n    x.next = N(i)\n    x = x.next\nassert not f(a)\nx.next = a\nassert f(a)")
OWN='''
class Node:
    def __init__(self, v): self.v, self.kids, self.parent = v, [], None
    def add(self, k): self.kids.append(k); k.parent = self; return self
class ListNode:
    def __init__(self, val=0, next=None): self.val, self.next = val, next
def build(xs):
    h = None
    for x in reversed(xs): h = ListNode(x, h)
    return h
def middle(h):
    s = f = h
    while f and f.next: s, f = s.next, f.next.next
    return s
'''
c("own nodes", OWN, "a, b = Node(1), Node(2)\nassert a.add(b) is a and a.kids == [b] and a.kids[0] is b and b.parent is a and b.parent.kids[0].parent.v == 1\na.kids.append(Node(3))\nassert [k.v for k in a.kids] == [2,3] and len(a.kids) == 2")
c("own ListNode", OWN, "h = build([1,2,3,4])\nout = []\nn = h\nwhile n:\n    out.append(n.val)\n    n = n.next\nassert out == [1,2,3,4] and middle(h) is h.next.next and middle(h).val == 3")
c("own ListNode by test", OWN, "h = ListNode(1, ListNode(2))\nassert h.next.val == 2 and middle(h) is h.next and isinstance(h, ListNode)")
CM='''
from contextlib import contextmanager, suppress
log = []
class T:
    def __enter__(self): log.append('in'); return self
    def __exit__(self, t, e, tb):
        log.append(t.__name__ if t else None)
        return t is ValueError
@contextmanager
def cd(x):
    log.append(x)
    try: yield x * 2
    finally: log.append('out')
'''
c("context manager", CM, "with T() as t:\n    assert isinstance(t, T)\nwith T():\n    raise ValueError\ntry:\n    with T():\n        raise KeyError('x')\n    assert False\nexcept KeyError: pass\nassert log == ['in', None, 'in', 'ValueError', 'in', 'KeyError']")
c("contextmanager fn", CM, "with cd(4) as v:\n    assert v == 8\nassert log == [4, 'out']")
CB='''
import functools
class Bus:
    def __init__(self): self.h = {}
    def on(self, e, f): self.h.setdefault(e, []).append(f); return f
    def off(self, e, f): self.h[e].remove(f)
    def emit(self, e, *a): return [f(*a) for f in self.h.get(e, [])]
def retry(n):
    def deco(f):
        @functools.wraps(f)
        def w(*a, **k):
            for i in range(n):
                try: return f(*a, **k)
                except ValueError:
                    if i == n - 1: raise
        w.tries = n
        return w
    return deco
def counter(f):
    def w(*a):
        w.calls += 1
        return f(*a)
    w.calls = 0
    return w
@functools.lru_cache(None)
def fib(n): return n if n < 2 else fib(n-1) + fib(n-2)
def compose(*fs): return functools.reduce(lambda f, g: lambda x: g(f(x)), fs)
def apply_n(f, n, x):
    for _ in range(n): x = f(x)
    return x
def by(xs, key): return sorted(xs, key=key)
'''
c("events", CB, "b = Bus()\ngot = []\n@b.on\ndef x(): pass\n" if False else "b = Bus()\ngot = []\nf = b.on('a', lambda v: got.append(v))\nb.emit('a', 1)\nb.off('a', f)\nb.emit('a', 2)\nassert got == [1] and b.h == {'a': []}")
c("bound method as callback", CB, "class L:\n    def __init__(self): self.got = []\n    def on(self, v): self.got.append(v); return len(self.got)\nl = L()\nb = Bus()\nb.on('e', l.on)\nassert b.emit('e', 5) == [1] and l.got == [5]\nout = []\nb.on('e', out.append)\nb.emit('e', 6)\nassert out == [6]")
c("retry", CB, "n = [0]\n@retry(3)\ndef g():\n    n[0] += 1\n    if n[0] < 3: raise ValueError('x')\n    return 'ok'\nassert g() == 'ok' and n == [3] and g.__name__ == 'g' and g.tries == 3")
c("retry fails", CB, "@retry(2)\ndef g(): raise ValueError('x')\ntry:\n    g()\n    assert False\nexcept ValueError as e: assert str(e) == 'x'")
c("counter", CB, "@counter\ndef g(x): return x\ng(1)\ng(2)\nassert g.calls == 2\ng.calls = 0\ng(1)\nassert g.calls == 1")
c("lru_cache", CB, "assert fib(30) == 832040 and fib.cache_info().hits > 0 and fib.cache_info().misses == 31\nfib.cache_clear()\nassert fib.cache_info().currsize == 0")
c("compose", CB, "assert compose(lambda x: x + 1, str, len)(99) == 3 and apply_n(lambda x: x * 2, 5, 1) == 32 and by(['bb','a'], len) == ['a','bb'] and by([3,1], key=lambda v: -v) == [3,1] and compose(abs, float)(-3) == 3.0")
c("recursive callback", "def memo(f):\n    c = {}\n    def w(n):\n        if n not in c: c[n] = f(n)\n        return c[n]\n    return w", "@memo\ndef fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)\nassert fib(60) == 1548008755920")
c("global state", "count = 0\nitems = []\ndef inc():\n    global count\n    count += 1\n    items.append(count)\n    return count", "inc()\ninc()\nassert count == 2 and items == [1, 2]")
c("class attrs", "class A:\n    n = 0\n    all = {}\n    def __init__(self): A.n += 1; self.id = A.n; A.all[self.id] = self\n    @classmethod\n    def reset(cls): cls.n = 0; cls.all.clear()\nclass B(A): pass", "A.reset()\na, b = A(), B()\nassert A.n == 2 and b.id == 2 and A.all[1] is a and A.all == {1: a, 2: b} and B.n == 2\nA.n = 10\nassert A().id == 11 and hasattr(a, 'id') and not hasattr(a, 'zz') and getattr(a, 'zz', 4) == 4\na.new = 5\nassert a.new == 5 and vars(a) == {'id': 1, 'new': 5}\ndel a.new\nassert not hasattr(a, 'new')")
c("slots and privacy", "class A:\n    __slots__ = ('x',)\n    def __init__(self): self.x = 1\nclass B:\n    def __init__(self): self.__p = 4; self._q = 5\n    @property\n    def p(self): return self.__p", "a = A()\ntry:\n    a.y = 2\n    assert False\nexcept AttributeError: pass\nb = B()\nassert b.p == 4 and b._q == 5 and b._B__p == 4\ntry:\n    b.p = 3\n    assert False\nexcept AttributeError: pass\ntry:\n    b.__p\n    assert False\nexcept AttributeError: pass")
c("alias", "def grid(n):\n    row = [0] * n\n    return [row] * n\ndef same(x): return x\ndef wrap(x): return {'a': x, 'b': [x]}\ndef push(d, k): d.setdefault(k, []).append(1); return d", "g = grid(2)\ng[0][0] = 7\nassert g == [[7,0],[7,0]] and g[0] is g[1]\nx = [1]\nassert same(x) is x and wrap(x)['a'] is x and wrap(x)['b'][0] is x\nd = {}\nassert push(d, 'k') is d and d == {'k': [1]}\npush(d, 'k')\nassert d == {'k': [1,1]}\nx.append(wrap(x))\nassert same(x)[1]['a'] is x")
c("in place types", "def f(d, q, c, s, b, m):\n    q.rotate(1); q.append(9); c.update('aab'); c.subtract('b'); s |= {5}; s.discard(1); b.extend(b'xy'); b[0] = 65; m['z'].append(3); del d['a']; d['n'] = (1, [2])", "from collections import *\nd = {'a': 1}\nq = deque([1,2,3], maxlen=3)\nc = Counter('a')\ns = {1,2}\nb = bytearray(b'q')\nm = defaultdict(list)\nf(d, q, c, s, b, m)\nassert d == {'n': (1,[2])} and q == deque([1,2,9]) and q.maxlen == 3 and c['a'] == 3 and c == Counter(a=3, b=0) and s == {2,5} and b == b'Axy' and m == {'z': [3]} and m['new'] == [] and type(m) is defaultdict and c.most_common(1) == [('a', 3)]")
c("returned collections", "from collections import *\ndef f(s): return Counter(s), defaultdict(int, a=1), OrderedDict(b=1, a=2), deque([1], maxlen=2), frozenset([1]), ChainMap({'a': 1}, {'b': 2})", "from collections import *\nc, d, o, q, z, m = f('aab')\nassert c == {'a': 2, 'b': 1} and c.most_common()[0] == ('a', 2) and c['zz'] == 0 and d['zz'] == 0 and list(o) == ['b','a'] and o == OrderedDict(b=1, a=2) and q.maxlen == 2 and z == {1} and m['b'] == 2 and type(o) is OrderedDict and isinstance(c, Counter) and (c + Counter('a'))['a'] == 3")
c("heap and bisect", "import heapq, bisect\ndef push(h, x): heapq.heappush(h, x)\ndef ins(xs, x): bisect.insort(xs, x)", "import heapq\nh = []\nfor x in [3,1,2]: push(h, x)\nassert heapq.heappop(h) == 1 and h[0] == 2\nxs = [1,3]\nins(xs, 2)\nassert xs == [1,2,3]")
c("numpy", "import numpy as np\ndef z(s, t): return np.zeros(s, t)\ndef inc(a): a += 1\ndef m(a): return a.mean(), a.max(), a.argmax(), a.shape, a.dtype\ndef st(): return np.array([(1, 'a')], dtype=[('n', 'i4'), ('s', 'U3')])\ndef sc(): return np.float32(1.5), np.int64(3), np.bool_(True), np.datetime64('2020-01-01'), np.complex64(1+2j)\ndef ob(): return np.array([1, 'a', None], dtype=object)", "import numpy as np\nfor t in ('f2','f4','f8','i1','u8','?','c16','U5','S3','M8[D]'):\n    a = z((2,0,3), t)\n    assert a.dtype == np.dtype(t) and a.shape == (2,0,3)\na = np.arange(6.).reshape(2,3)\ninc(a)\nassert a[1,2] == 6 and m(a) == (3.5, 6.0, 5, (2,3), np.dtype('f8'))\ns = st()\nassert s['n'][0] == 1 and s['s'][0] == 'a'\nf, i, b, d, c = sc()\nassert f.dtype == np.float32 and type(i) is np.int64 and b and d == np.datetime64('2020-01-01') and c.imag == 2 and list(ob()) == [1,'a',None] and z((), 'f8').ndim == 0")
c("numpy args", "import numpy as np\ndef f(a, k): return (a * k).astype(a.dtype)\ndef g(a): return isinstance(a, np.ndarray) and a.flags['C_CONTIGUOUS']", "import numpy as np\nx = np.array([1,2], dtype=np.int16)\nr = f(x, 2)\nassert r.dtype == np.int16 and (r == [2,4]).all() and g(x) and np.testing.assert_array_equal(r, [2,4]) is None and np.allclose(f(np.ones(2), .5), .5)")
c("complex etc", "from fractions import Fraction\nfrom decimal import Decimal\nimport datetime\ndef f(): return 1+2j, Fraction(1,3), Decimal('1.10'), datetime.date(2020,1,2), datetime.timedelta(days=1), range(3), slice(1,2), b'x', ..., NotImplemented, float('inf'), -0.0, 10**30, int, len", "import datetime, math\nfrom fractions import Fraction\nfrom decimal import Decimal\nc, fr, de, da, td, r, sl, b, e, n, i, z, big, t, ln = f()\nassert c == 1+2j and c.imag == 2 and fr == Fraction(1,3) and de == Decimal('1.1') and str(de) == '1.10' and da + td == datetime.date(2020,1,3) and list(r) == [0,1,2] and [0,1,2][sl] == [1] and b == b'x' and e is ... and n is NotImplemented and i == math.inf and math.copysign(1, z) == -1 and big == 10**30 and t is int and t('3') == 3 and ln([1]) == 1")
c("thread", "import threading\nclass C:\n    def __init__(self): self.n, self.l = 0, threading.Lock()\n    def inc(self):\n        with self.l: self.n += 1\ndef par(f, xs):\n    out = [None] * len(xs)\n    def w(i): out[i] = f(xs[i])\n    ts = [threading.Thread(target=w, args=(i,)) for i in range(len(xs))]\n    [t.start() for t in ts]; [t.join() for t in ts]\n    return out", "import threading\nc = C()\nts = [threading.Thread(target=lambda: [c.inc() for _ in range(20)]) for _ in range(5)]\n[t.start() for t in ts]\n[t.join() for t in ts]\nassert c.n == 100 and par(lambda x: x * x, [1,2,3]) == [1,4,9]\nfrom concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(4) as ex:\n    assert list(ex.map(lambda i: par(abs, [i])[0], [-1,-2])) == [1,2]")
AS='''
import asyncio
async def f(x):
    await asyncio.sleep(0.001)
    return x * 2
async def gen(n):
    for i in range(n):
        await asyncio.sleep(0)
        yield i
class Con:
    async def __aenter__(self): self.open = True; return self
    async def __aexit__(self, *a): self.open = False
    async def q(self, x): return x + 1
async def slow(): await asyncio.sleep(30)
async def bad(): raise ValueError('async')
async def use(cb, x): return await cb(x) + 1
class It:
    def __init__(self): self.n = 0
    def __aiter__(self): return self
    async def __anext__(self):
        self.n += 1
        if self.n > 3: raise StopAsyncIteration
        return self.n
async def worker(q, out):
    while True:
        x = await q.get()
        if x is None: return
        out.append(x)
'''
c("async", AS, "import asyncio\nassert asyncio.run(f(2)) == 4\nasync def main():\n    assert await asyncio.gather(f(1), f(2)) == [2, 4]\n    assert [i async for i in gen(3)] == [0,1,2]\n    async with Con() as c:\n        assert c.open and await c.q(1) == 2\n    assert not c.open and [i async for i in It()] == [1,2,3]\n    async def cb(x):\n        await asyncio.sleep(0)\n        return x * 10\n    assert await use(cb, 2) == 21\nasyncio.run(main())\nassert asyncio.iscoroutinefunction(f)")
c("async errors", AS, "import asyncio\nasync def main():\n    try:\n        await bad()\n        assert False\n    except ValueError as e: assert str(e) == 'async'\n    try:\n        await asyncio.wait_for(slow(), 0.05)\n        assert False\n    except asyncio.TimeoutError: pass\n    t = asyncio.create_task(f(4))\n    assert await t == 8\nasyncio.run(main())")
c("async queue", AS, "import asyncio\nasync def main():\n    q, out = asyncio.Queue(), []\n    t = asyncio.create_task(worker(q, out))\n    for i in (1,2,None): await q.put(i)\n    await t\n    assert out == [1,2]\nasyncio.run(main())")
c("async time", AS, "import asyncio, time\nasync def main():\n    s = time.time()\n    await asyncio.gather(*(asyncio.sleep(0.01) for _ in range(3)), *(f(i) for i in range(50)))\n    return time.time() - s\nassert asyncio.run(main()) < 5")
c("files", "import os, json, csv\ndef save(p, d):\n    with open(p, 'w') as f: json.dump(d, f)\ndef load(p): return json.load(open(p))\ndef count(p): return sum(1 for _ in open(p))\ndef names(d): return sorted(os.listdir(d))", "import json, os, tempfile, pathlib\nsave('a.json', {'x': [1]})\nassert json.load(open('a.json')) == {'x': [1]} and os.path.exists('a.json')\nwith open('b.txt', 'w') as f: f.write('1\\n2\\n')\nassert count('b.txt') == 2 and 'b.txt' in names('.')\nwith tempfile.TemporaryDirectory() as d:\n    p = pathlib.Path(d) / 'c.json'\n    save(p, [1])\n    assert load(p) == [1] and load(str(p)) == [1] and p.read_text() == '[1]' and names(d) == ['c.json']\ntry:\n    load('nope.json')\n    assert False\nexcept FileNotFoundError as e: assert e.filename == 'nope.json'")
c("stringio", "def total(f): return sum(int(l) for l in f)\ndef out(f): f.write('hi'); print('x', file=f)\ndef rd(f): return f.readline(), f.read()", "import io\nassert total(io.StringIO('1\\n2\\n')) == 3\ns = io.StringIO()\nout(s)\nassert s.getvalue() == 'hix\\n' and rd(io.StringIO('a\\nb')) == ('a\\n', 'b')")
c("stdout", "import sys\ndef hello(n): print('hello', n); sys.stdout.write('!\\n')\ndef ask(): return int(input('n? ')) + 1", "import io, contextlib, sys\nb = io.StringIO()\nwith contextlib.redirect_stdout(b):\n    hello('bob')\nassert b.getvalue() == 'hello bob\\n!\\n'\nfrom unittest.mock import patch\nwith patch('builtins.input', return_value='4'):\n    assert ask() == 5\nwith patch('builtins.input', side_effect=['1','2']) as m:\n    assert ask() + ask() == 5 and m.call_count == 2\nold = sys.stdin\nsys.stdin = io.StringIO('7\\n')\nassert ask() == 8\nsys.stdin = old\nwith patch('builtins.print') as p:\n    hello('x')\np.assert_called_once_with('hello', 'x')")
c("patch sleep", "import time, random, os\ndef slow(): time.sleep(100); return random.randint(1, 6), os.environ.get('K')", "from unittest.mock import patch\nimport os\nwith patch('time.sleep') as s, patch('random.randint', return_value=4), patch.dict(os.environ, {'K': 'v'}):\n    assert slow() == (4, 'v')\ns.assert_called_once_with(100)")
c("seed", "import random\ndef roll(n): return [random.randint(1,6) for _ in range(n)]\ndef sh(xs): random.shuffle(xs)", "import random\nrandom.seed(3)\nwant = [random.randint(1,6) for _ in range(5)]\nrandom.seed(3)\nassert roll(5) == want\nrandom.seed(3)\na = roll(4)\nrandom.seed(3)\nassert a == roll(4)\nxs = [1,2,3]\nsh(xs)\nassert sorted(xs) == [1,2,3]")
c("mock objects", "def send(c, m): r = c.post('/x', json=m); return r.status_code, c.session.token\ndef each(f, xs):\n    for x in xs: f(x)", "from unittest.mock import Mock, MagicMock, call\nc = Mock()\nc.post.return_value.status_code = 201\nc.session.token = 't'\nassert send(c, {'a': 1}) == (201, 't')\nc.post.assert_called_once_with('/x', json={'a': 1})\nf = Mock()\neach(f, [1,2])\nassert f.mock_calls == [call(1), call(2)]\nf = Mock(side_effect=ValueError('z'))\ntry:\n    each(f, [1])\n    assert False\nexcept ValueError as e: assert str(e) == 'z'")
c("unittest", "class Acc:\n    def __init__(self, b=0): self.b = b\n    def dep(self, x):\n        if x <= 0: raise ValueError('positive')\n        self.b += x", "import unittest\nclass T(unittest.TestCase):\n    def setUp(self): self.a = Acc(10)\n    def test_dep(self):\n        self.a.dep(5)\n        self.assertEqual(self.a.b, 15)\n        self.assertIsInstance(self.a, Acc)\n    def test_bad(self):\n        with self.assertRaises(ValueError) as c: self.a.dep(-1)\n        self.assertEqual(str(c.exception), 'positive')\n        self.assertRaises(ValueError, self.a.dep, 0)\n        with self.assertRaisesRegex(ValueError, 'pos'): self.a.dep(0)\n    @unittest.skip('no')\n    def test_s(self): self.fail()\n    def test_sub(self):\n        for i in range(2):\n            with self.subTest(i=i): self.assertEqual(Acc(i).b, i)\nif __name__ == '__main__':\n    unittest.main()")
c("type things", "class A: pass\nclass B(A): pass\ndef mk(n): return B() if n else A()\ndef t(x): return type(x).__name__\ndef isa(x, c): return isinstance(x, c)", "assert type(mk(1)) is B and type(mk(0)) == A and mk(1).__class__ is B and issubclass(B, A) and B.__name__ == 'B' and t(3) == 't' if False else t(3) == 'int'\nassert isa(3, int) and isa(mk(1), A) and not isa(mk(0), B) and t(mk(1)) == 'B' and B.__bases__[0].__name__ == 'A' and B.__mro__[1] is A and A.__module__ in ('__main__', 'solution')")
c("user containers", "from collections import UserDict, UserList\nfrom collections.abc import MutableMapping, Iterable\nclass Low(UserDict):\n    def __setitem__(self, k, v): super().__setitem__(k.lower(), v)\nclass M(MutableMapping):\n    def __init__(self): self.d = {}\n    def __getitem__(self, k): return self.d[k]\n    def __setitem__(self, k, v): self.d[k] = v\n    def __delitem__(self, k): del self.d[k]\n    def __iter__(self): return iter(self.d)\n    def __len__(self): return len(self.d)", "from collections.abc import *\nl = Low()\nl['A'] = 1\nassert 'a' in l and l['a'] == 1 and dict(l) == {'a': 1} and list(l.items()) == [('a', 1)] and l == Low(a=1)\nm = M()\nm['x'] = 1\nm.update(y=2)\nassert m.get('x') == 1 and m.pop('y') == 2 and list(m) == ['x'] and isinstance(m, Mapping) and dict(m) == {'x': 1} and m.setdefault('q', 3) == 3 and isinstance(m, Iterable) and 'x' in m and len(m) == 2\ntry:\n    m['none']\n    assert False\nexcept KeyError: pass")
c("getattr magic", "class Dyn:\n    def __getattr__(self, n):\n        if n.startswith('get_'): return lambda: n[4:]\n        raise AttributeError(n)\nclass Prox:\n    def __init__(self, t): object.__setattr__(self, 't', t)\n    def __getattr__(self, n): return getattr(self.t, n)\n    def __setattr__(self, n, v): setattr(self.t, n, v)", "d = Dyn()\nassert d.get_name() == 'name' and not hasattr(d, 'zzz')\nclass Q: pass\nq = Q()\np = Prox(q)\np.a = 5\nassert q.a == 5 and p.a == 5\nassert Prox([3,1]).index(1) == 1")
c("money", "class Money:\n    def __init__(self, a): self.a = a\n    def __eq__(self, o): return self.a == (o.a if isinstance(o, Money) else o)\n    def __lt__(self, o): return self.a < (o.a if isinstance(o, Money) else o)\n    def __add__(self, o): return Money(self.a + (o.a if isinstance(o, Money) else o))\n    __radd__ = __add__\n    def __int__(self): return self.a\n    def __float__(self): return float(self.a)\n    def __index__(self): return self.a\n    def __hash__(self): return hash(self.a)", "m = Money(5)\nassert m.a == 5 and Money(5) == Money(5) and m != 6 and m < 7 and m + 3 == Money(8) and 3 + m == Money(8) and int(m) == 5 and float(m) == 5.0 and 'abcdefg'[m] == 'f' and range(10)[m] == 5 and hash(m) == 5 and sum([m, Money(1)]) == Money(6)")
c("str subclass", "class Name(str):\n    def shout(self): return self.upper() + '!'\nclass Age(int):\n    def next(self): return Age(self + 1)\ndef f(): return Name('bob'), Age(3)", "n, a = f()\nassert n == 'bob' and n.shout() == 'BOB!' and n + 'x' == 'bobx' and isinstance(n, str) and a == 3 and a.next() == 4 and type(a.next()) is Age and a + 1 == 4 and len(n) == 3 and n[0] == 'b' and n.startswith('b') and {n: 1}['bob'] == 1 and f'{a:03d}' == '003'")
c("weakref", "class A: pass\ndef mk(): return A()", "import weakref\na = mk()\nr = weakref.ref(a)\nassert r() is a")
c("pickle", "class A:\n    def __init__(self, x): self.x = x\ndef mk(x): return A(x)", "import copy\na = mk([1])\nb = copy.deepcopy(a)\nassert b.x == [1] and b.x is not a.x and copy.copy(a).x is a.x and isinstance(b, A)")
c("operator funcs", "import operator\ndef red(f, xs):\n    it = iter(xs)\n    a = next(it)\n    for x in it: a = f(a, x)\n    return a\ndef pick(k): return operator.itemgetter(k)\ndef part(): \n    import functools\n    return functools.partial(pow, 2)", "import operator\nassert red(operator.add, [1,2,3]) == 6 and red(max, [1,5,2]) == 5 and red(lambda a, b: a * b, iter([2,3])) == 6 and pick(1)([5,6]) == 6 and sorted([(1,'b'),(0,'c')], key=pick(0))[0] == (0,'c') and part()(5) == 32 and red(str.__add__, ['a','b']) == 'ab' and red(set.union, [{1},{2}]) == {1,2}")
c("default args and kwargs", "def f(a, b=2, *c, d=4, **e): return a, b, c, d, e\ndef g(*, k): return k", "assert f(1) == (1,2,(),4,{}) and f(1,2,3,d=5,z=6) == (1,2,(3,),5,{'z':6}) and f(*[1,2], **{'q': 1}) == (1,2,(),4,{'q':1}) and g(k=[1]) == [1]\ntry:\n    g(1)\n    assert False\nexcept TypeError: pass\ntry:\n    f()\n    assert False\nexcept TypeError as e: assert 'missing 1 required positional argument' in str(e)")
c("deep recursion", "import sys\nsys.setrecursionlimit(10**6)\ndef f(n): return 0 if n == 0 else 1 + f(n-1)", "assert f(20000) == 20000")
c("recursion error", "def f(n): return f(n+1)", "try:\n    f(0)\n    assert False\nexcept RecursionError: pass")
c("closure state", "def counter():\n    n = 0\n    def inc(by=1):\n        nonlocal n\n        n += by\n        return n\n    def get(): return n\n    return inc, get\ndef bank(): \n    b = {'t': 0}\n    return {'dep': lambda x: b.__setitem__('t', b['t'] + x), 'bal': lambda: b['t']}", "i, g = counter()\ni()\ni(by=4)\nassert g() == 5\ni2, g2 = counter()\nassert g2() == 0\nb = bank()\nb['dep'](5)\nassert b['bal']() == 5")
c("singledispatch", "import functools\n@functools.singledispatch\ndef d(x): return 'obj'\n@d.register\ndef _(x: int): return 'int'\n@d.register(list)\ndef _(x): return 'list'", "assert d(1) == 'int' and d([]) == 'list' and d('a') == 'obj'\n@d.register(str)\ndef s(x): return 'str'\nassert d('a') == 'str'")
c("matrix eq plain returned", "class M:\n    def __init__(self, r): self.r = r\n    def __matmul__(self, o): return M([[sum(a*b for a,b in zip(x,y)) for y in zip(*o.r)] for x in self.r])\n    def __eq__(self, o): return self.r == (o.r if isinstance(o, M) else o)\n    def __getitem__(self, ij): return self.r[ij[0]][ij[1]]\n    @classmethod\n    def eye(cls, n): return cls([[int(i==j) for j in range(n)] for i in range(n)])\n    @property\n    def T(self): return M([list(x) for x in zip(*self.r)])", "a = M([[1,2],[3,4]])\nassert a @ M.eye(2) == a and a[0,1] == 2 and a.T.r == [[1,3],[2,4]] and a.T.T == a and (a @ a).r == [[7,10],[15,22]] and a == M([[1,2],[3,4]])")
c("match", "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n    y: int\ndef mk(a, b): return P(a, b)", "match mk(1, 2):\n    case P(x=1, y=v): assert v == 2\n    case _: assert False\nmatch mk(3, 4):\n    case P(3, b): assert b == 4\n    case _: assert False")
c("inventory", "class Inv:\n    def __init__(self): self._i = {}\n    def add(self, n, q=1):\n        if q < 0: raise ValueError('Quantity cannot be negative')\n        self._i[n] = self._i.get(n, 0) + q\n        return self\n    def __getitem__(self, n): return self._i[n]\n    def __iter__(self): return iter(sorted(self._i))\n    def __len__(self): return sum(self._i.values())\n    @property\n    def items(self): return self._i.items()", "i = Inv().add('a', 2).add('b')\nassert i['a'] == 2 and list(i) == ['a','b'] and len(i) == 3 and dict(i.items) == {'a': 2, 'b': 1} and sorted(i.items) == [('a',2),('b',1)] and ('a', 2) in i.items")
c("kw subclass of program exception in test", EX, "class Mine(AppError):\n    pass\ndef cb(): raise Mine('m', 9)\ntry:\n    cb()\nexcept AppError as e: assert e.code == 9 and isinstance(e, Mine)\nassert issubclass(Mine, AppError)\ntry: f(0)\nexcept AppError: pass")
c("test's enum passed", "def nxt(c, cls): xs = list(cls); return xs[(xs.index(c) + 1) % len(xs)]\ndef nm(c): return c.name.lower(), c.value\ndef is_red(c, R): return c is R", "import enum\nclass C(enum.Enum):\n    A = 1\n    B = 2\nassert nxt(C.A, C) is C.B and nxt(C.B, C) is C.A and nm(C.A) == ('a', 1) and is_red(C.A, C.A)")
c("test's dataclass passed", "import dataclasses\ndef older(p): p.age += 1; return p\ndef names(ps): return [p.name for p in sorted(ps, key=lambda p: p.age)]\ndef d(p): return dataclasses.asdict(p)\ndef rep(p): return dataclasses.replace(p, age=0)\ndef js(p): return dict(p.__dict__)", "from dataclasses import dataclass\n@dataclass\nclass P:\n    name: str\n    age: int\np = P('a', 3)\nassert older(p) is p and p.age == 4 and names([p, P('b', 1)]) == ['b','a'] and d(p) == {'name': 'a', 'age': 4} and rep(p) == P('a', 0) and js(p) == {'name': 'a', 'age': 4}")
c("test's iterator passed", "def take(n, it): return [next(it) for _ in range(n)]\ndef tot(it): return sum(it)\ndef lz(it):\n    for x in it: yield x * 2", "import itertools\ndef nat():\n    n = 0\n    while True:\n        yield n\n        n += 1\ng = nat()\nassert take(3, g) == [0,1,2] and next(g) == 3 and tot(x for x in [1,2]) == 3 and tot(iter([4])) == 4 and list(itertools.islice(lz(nat()), 3)) == [0,2,4] and tot(range(4)) == 6 and tot(map(int, '12')) == 3 and take(2, itertools.cycle('ab')) == ['a','b']")
c("test's operators class", "def add(a, b): return a + b\ndef eq(a, b): return a == b\ndef lt(xs): return sorted(xs)\ndef ln(x): return len(x), bool(x), str(x), x[0], 3 in x, -x, x(2)", "class Q:\n    def __init__(self, v): self.v = v\n    def __add__(self, o): return Q(self.v + o.v)\n    def __eq__(self, o): return self.v == o.v\n    def __lt__(self, o): return self.v < o.v\n    def __len__(self): return 4\n    def __str__(self): return 'Q'\n    def __getitem__(self, i): return i\n    def __contains__(self, x): return True\n    def __neg__(self): return 'neg'\n    def __call__(self, x): return x\nassert add(Q(1), Q(2)).v == 3 and eq(Q(1), Q(1)) and not eq(Q(1), Q(2)) and [q.v for q in lt([Q(2), Q(1)])] == [1,2] and ln(Q(0)) == (4, True, 'Q', 0, True, 'neg', 2)")
c("heavy lists", "def f(xs): return [x + 1 for x in xs]\ndef s(xs): xs.sort()", "xs = list(range(50000, 0, -1))\nassert f(xs)[0] == 50001\ns(xs)\nassert xs[:2] == [1,2] and len(f(xs)) == 50000\nm = [[i] * 10 for i in range(2000)]\nassert f([1]) == [2] and s(m) is None")
c("key callback heavy", "def srt(xs, k): return sorted(xs, key=k)", "assert srt(list(range(3000)), lambda v: -v)[0] == 2999")
c("interning 2000 objects", "class P:\n    def __init__(self, i): self.i = i\ndef mk(n): return [P(i) for i in range(n)]\ndef tot(ps): return sum(p.i for p in ps)", "ps = mk(2000)\nassert tot(ps) == 1999000 and tot(ps[:3]) == 3 and ps[5].i == 5 and [p.i for p in mk(1500)][-1] == 1499\nfor _ in range(30): mk(100)\nassert tot(ps) == 1999000")


# keywords that the channel's own functions have as names
c("keyword operation", "def calc(a, b, operation): return a + b if operation == 'add' else a - b", "assert calc(1, 2, operation='add') == 3 and calc(a=3, b=2, operation='sub') == 1")
c("keyword f", "def apply(f, xs): return [f(x) for x in xs]", "assert apply(f=abs, xs=[-1]) == [1]")
c("keywords of a callable object", "class M:\n    def __init__(self, k): self.k = k\n    def __call__(self, x, name='a'): return name, self.k * x", "assert M(3)(x=4, name='b') == ('b', 12)")
c("keywords of a class", "class T:\n    def __init__(self, operation, f, cls=0): self.all = operation, f, cls", "assert T(operation='x', f=1, cls=2).all == ('x', 1, 2)")
c("keywords of a method", "class A:\n    def do(self, operation, f=None, x=1, name=2): return operation, x, name, f and f(2)", "assert A().do(operation='q', x=3, name=4, f=lambda v: v + 1) == ('q', 3, 4, 3)")
c("keywords of a dataclass", "from dataclasses import dataclass\n@dataclass\nclass Job:\n    name: str\n    operation: str = 'a'\n    f: int = 0\n    x: int = 0", "assert Job(name='n', x=2, f=3, operation='b') == Job('n', 'b', 3, 2)")
c("keywords of a callback", "def run(cb): return cb(operation=1), cb(f=2), cb(x=3, name=4)", "assert run(lambda **k: k) == ({'operation': 1}, {'f': 2}, {'x': 3, 'name': 4})")
# changes to an equal value
c("1 becomes True in place", "def f(row): row[0] = bool(row[0])", "row = [1, 'name']\nf(row)\nassert row[0] is True and row[1] == 'name'")
c("5.0 becomes 5 in place", "def f(d): d['age'] = int(d['age'])", "d = {'age': 5.0, 'name': 'x'}\nf(d)\nassert type(d['age']) is int and d == {'age': 5, 'name': 'x'}")
c("a datetime with a zone", "from zoneinfo import ZoneInfo\nfrom datetime import datetime\ndef f(t): return t.astimezone(ZoneInfo('UTC')).replace(tzinfo=ZoneInfo('UTC'))",
  "from datetime import datetime, timezone\nfrom zoneinfo import ZoneInfo\nt = datetime(2024, 1, 2, 3, tzinfo=ZoneInfo('UTC'))\nassert f(t) == t and f(t).tzinfo == ZoneInfo('UTC') and f(datetime(2024, 1, 2, 3, tzinfo=timezone.utc)) == t")
c("isinstance of a value by the test's class", "def f(cls, x): return isinstance(x, cls), isinstance(5, cls)", "class T: pass\nassert f(T, T()) == (True, False)")
c("a set that the program made", "def f(x): return {1, 2}", "assert f(3).issubset({1, 2, 3}) and f(3).isdisjoint([5]) and not f(3).issuperset({9})")
c("empty arrays beside empty ones", "import numpy as np\ndef f(x): return np.array(x, float)",
  "import numpy as np, pytest\nassert np.allclose(f([]), []) and np.array_equal(f([]), []) and np.isclose(f([1]), 1).all() and f([1]) == pytest.approx([1])\n"
  "np.testing.assert_allclose(f([]), np.zeros(0))\nnp.testing.assert_array_equal(actual=f([2]), desired=[2])\nassert not np.allclose(f([3]), 4) and (f([]) >= 0).all() and f([]).size == 0")
c("a text of the program evaluated", "def f(x): return '(1 + 2) * (3 + 5)'", "assert eval(f(3)) == 24 and eval('f(3)') == f(3)\nexec('import math')\nassert eval(f(3), {}) == 24")
c("hints of a function", "from typing import List, Optional\ndef f(x: List[int], y: 'int | str' = 1) -> 'int': return len(x)", "import typing\nassert f([1]) == 1 and typing.get_type_hints(f)['y'] == int | str")
c("a pickle of plain values", "import pickle\nfrom collections import OrderedDict\ndef f(x): return pickle.dumps(OrderedDict(a=[x, (1, 2)]))", "import pickle\nassert pickle.loads(f(3)) == {'a': [3, (1, 2)]}")
c("classes of the library as values", "from collections import Counter, OrderedDict\nfrom decimal import Decimal\ndef f(x): return [int, list, Counter, OrderedDict, Decimal, ValueError]",
  "import collections\nkinds = f(3)\nassert kinds[0]('5') == 5 and kinds[2]('aab')['a'] == 2 and kinds[3] is collections.OrderedDict and issubclass(kinds[5], ValueError)")
c("a static startswith of the program's class", "class Trie:\n    words = ['abc']\n    @staticmethod\n    def startswith(p): return any(w[:len(p)] == p for w in Trie.words)", "assert Trie.startswith('ab') and not Trie.startswith('b')")
c("an exit of the test", "def f(x): return x", "import sys\nassert f(3) == 3\nsys.exit()")
c("a task that is cancelled", "import asyncio\nasync def f(x):\n    await asyncio.sleep(9)", "import asyncio\nasync def main():\n    t = asyncio.create_task(f(1))\n    await asyncio.sleep(0.01)\n    t.cancel()\n    try:\n        await t\n    except asyncio.CancelledError:\n        return 'cancelled'\nassert asyncio.run(main()) == 'cancelled'")
c("an error in an assert of a callback, that the program's own function raised", "def inner(x):\n    if x is None: raise ValueError\n    return x\ndef f(cb):\n    try: cb(None)\n    except ValueError: return 'none'",
  "def cb(x):\n    assert inner(x) > 0\nassert f(cb) == 'none'")
SAFE = "def safe(f, default=None, *a):\n    try: return f(*a)\n    except Exception: return default\n"
c("a lambda in an assert that raises in the program", SAFE, "assert safe(lambda: 1 / 0, 'err') == 'err' and safe(lambda: {}['k']) is None\nassert safe(int, 0, 'x') == 0")
c("a generator in an assert that raises in the program", "def first(it, d):\n    try: return next(iter(it))\n    except ZeroDivisionError: return d", "assert first((1 // x for x in [0]), 5) == 5")
c("json patched", "import json\ndef enc(x): return json.dumps(x)\ndef dec(x): return json.loads(x)", "from unittest.mock import patch\nwith patch('json.dumps', return_value='z'):\n    assert enc(1) == 'z'\nwith patch('json.loads', return_value=7):\n    assert dec('1') == 7\nassert enc([1]) == '[1]'")
c("the monotonic clock patched", "import time\nclass Timer:\n    def __enter__(s): s.a = time.monotonic(); return s\n    def __exit__(s, *a): s.t = time.monotonic() - s.a",
  "from unittest.mock import patch\nwith patch('time.monotonic', side_effect=[10.0, 12.5]):\n    with Timer() as t: pass\nassert t.t == 2.5")
c("lines of a file that is a mock", "def lines(p):\n    with open(p) as f: return [l.strip() for l in f]", "from unittest.mock import patch, mock_open\nwith patch('builtins.open', mock_open(read_data='a\\nb')) as m:\n    assert lines('x') == ['a', 'b']\n    m.assert_called_once_with('x')")
c("items of a MagicMock", "def total(d): return d['a'] + d['b']", "from unittest.mock import MagicMock\nm = MagicMock()\nm.__getitem__.side_effect = {'a': 1, 'b': 2}.__getitem__\nassert total(m) == 3\nm.__getitem__.assert_called_with('b')")
c("names of the program in a class body", "def memo(f):\n    seen = {}\n    def call(self, *a):\n        if a not in seen: seen[a] = f(self, *a)\n        return seen[a]\n    return call\nLIMIT = 3",
  "class T:\n    n, limit = 0, LIMIT\n    @memo\n    def sq(self, x):\n        T.n += 1\n        return x * x\nt = T()\nassert t.sq(2) == t.sq(2) == 4 and T.n == 1 and T.limit == 3\n"
  "try:\n    class U: x = Nothing\nexcept NameError: pass\nelse: assert False")
TYPED = "class Typed:\n    def __init__(s, t): s.t = t\n    def __set_name__(s, o, n): s.n = n\n    def __get__(s, o, t=None): return s if o is None else o.__dict__.get(s.n)\n" \
        "    def __set__(s, o, v):\n        if not isinstance(v, s.t): raise TypeError(s.n)\n        o.__dict__[s.n] = v\n"
c("a data descriptor in a class of the test", TYPED, "class P:\n    age = Typed(int)\n    def __init__(self, a): self.age = a\np, q = P(3), P(1)\np.age = 4\nassert p.age == 4 and q.age == 1 and isinstance(P.age, Typed)\n"
  "for bad in (lambda: P('x'), lambda: setattr(p, 'age', 'q')):\n    try: bad()\n    except TypeError as e: assert str(e) == 'age'\n    else: assert False\nassert p.age == 4")
c("a cached property in a class of the test", "class lazy:\n    def __init__(s, f): s.f = f\n    def __get__(s, o, t=None):\n        if o is None: return s\n        v = o.__dict__[s.f.__name__] = s.f(o)\n        return v",
  "n = []\nclass A:\n    @lazy\n    def x(self):\n        n.append(1)\n        return 5\na = A()\nassert a.x == a.x == 5 and n == [1] and A().x == 5 and len(n) == 2")
c("a property, a static and a class method in a subclass of the test", "from abc import ABC, abstractmethod\nclass Shape(ABC):\n    @property\n    @abstractmethod\n    def name(self): ...\n    def show(self): return self.name, self.make(3).k, self.twice(4)\n    def grow(self): self.size += 1",
  "class Sq(Shape):\n    def __init__(self, k): self.k = self._s = k\n    @property\n    def name(self): return 'sq'\n    @property\n    def size(self): return self._s\n    @size.setter\n    def size(self, v): self._s = v\n"
  "    @classmethod\n    def make(cls, k): return cls(k)\n    @staticmethod\n    def twice(x): return 2 * x\ns = Sq(1)\nassert s.show() == ('sq', 3, 8)\ns.grow()\nassert s.size == 2 and s._s == 2")
c("annotations of a class of the test", "import dataclasses, typing\ndef build(cls, d):\n    hints = typing.get_type_hints(cls)\n    return cls(**{f.name: hints[f.name](d[f.name]) for f in dataclasses.fields(cls)})\ndef names(c): return list(c.__annotations__)",
  "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n    s: str\nassert build(P, {'x': '3', 's': 4}) == P(3, '4') and names(P) == ['x', 's']")
c("a name of the library, called as a statement", "lines = []\ndef log(m): lines.append(m)\ndef add(d, k, v): d[k] = v\ndef size(d): return len(d)", "d = {}\nadd(d, 'a', 1)\nlog('x')\nassert size(d) == 1 and d == {'a': 1} and lines == ['x']")
c("a Counter of the program's own class", "from collections import Counter\nclass Bag(Counter):\n    def add(self, x): self[x] += 1\n    def size(self): return sum(self.values())",
  "from collections import Counter\nb = Bag()\nb.add('a')\nb.add('a')\nb['z'] += 1\nassert b == Counter('aaz') and Counter('aaz') == b and b.size() == 3 and b.most_common(1) == [('a', 2)] and b - Counter('a') == {'a': 1, 'z': 1} and b['q'] == 0")
c("a text compiled", "def f(n): return f'def g(x):\\n    y = x * {n}\\n    return y + 1\\n'", "ns = {}\nexec(compile(f(3), '<s>', 'exec'), ns)\nassert ns['g'](2) == 7 and eval(compile('f(1)', '<s>', 'eval')) == f(1)")
c("sets by assertSetEqual", "def f(x): return frozenset(x)\ndef g(x): return set(x)", "import unittest\nt = unittest.TestCase()\nt.assertSetEqual(f([1, 2]), {2, 1})\nt.assertSetEqual(set1=g([1]), set2={1}, msg='m')\nt.assertEqual(g([1]), {1})\n"
  "try: t.assertSetEqual(g([1]), {2})\nexcept AssertionError: pass\nelse: assert False")
c("examples of a docstring", "def f(x):\n    '''\n    >>> f(1)\n    2\n    >>> [f(x) for x in range(2)]\n    [1, 2]\n    '''\n    return x + 1",
  "import doctest\nr = doctest.DocTestRunner()\nfor t in doctest.DocTestFinder().find(f, 'f', globs={'f': f}): r.run(t)\nassert r.failures == 0 and r.tries == 2 and f(2) == 3")
