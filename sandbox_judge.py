"""Judges function, class and pytest tests: the verifier's half and the program's half of one channel (`Peer`), used by
sandbox.py.

Two processes, one set of objects. Immutable plain data travels by value. Every other object has a number and is one
object on either side: builtin mutable containers (list, dict, set, deque, Counter, ndarray, ...) are held on both
sides and what has changed goes along with the next message; all other objects stay where they were made, the other
side holds one stand-in (`Far`) for one object, of a stand-in class with the same name, bases and methods, and each use
of it is a call. So a test sees identity, aliases, changes in place, `isinstance`, `with`, operators, exceptions with
their types, callbacks, subclasses, awaitables. A subclass of a builtin is a real instance of that builtin with the
same contents. What a test prints, warns, logs, patches (`builtins.input`, `solution.x`), seeds, sets in the
environment and writes into files (the scratch folder is one) is there on both sides.

Whose name it is. A name imported from `solution`, or read as `solution.x`, is the program's, always. Of the other
names those are the program's that the test neither binds nor finds in builtins or the standard library
(`program_names` says which of the latter count, from the test alone; `undecided`: for those that it leaves open both
must agree). All others are the test's: the program cannot replace them, whatever it defines.

What is trusted, and what a forger could gain. A comparison, arithmetic or `in` between an object that the program
returned and a plain value of the test is never asked of the program: it is done on the builtin contents of the object,
and one without contents equals nothing. The program's own methods answer where the test, read alone, asks for them:
- between two objects of the program (`P(1) == P(1)`, `f(3) == Color.RED`): an `__eq__` that is always true passes
  these, as would two equal constants in place of both;
- operators of an object that the test itself made by calling a name with a capital of the program (`v * 2`, `v - 2`,
  `5 in tree`, `Money(5) < 10`, found in the syntax tree: `made`): they are the interface under test, as
  `tree.contains(5)` would be, and a program whose `__sub__`, `__contains__` or `__lt__` lies passes. `==` and
  `!=` are not among them: `Money(5) == 5` is false, for the program's `__eq__` would see the expected value;
- `len`, `bool`, `str`, `hash`, iteration, items, attributes, methods: claims that make the object's value, made
  without the expected value. A method gets the arguments that the test passes, as everywhere. An exception of the
  program can be any of Python's, but never one that skips or ends tests (SkipTest, pytest's outcomes), and
  StopIteration or IndexError do not end a loop of the test early. A failed `assert` inside a callback or `with` block
  of the program fails the test, though the program swallows it. The program may call the test's functions and use the
  attributes and operators of objects of the test's classes; frames, globals, code, modules and the tools of pytest and
  unittest are refused (`permit`).
The end of the program's process, or a message that no peer sends, ends the verifier at once (`Peer.lost`): it is no
exception. Messages are hostile data: what they say of classes is held to the rules here (`library`, `build_class`)."""

from __future__ import annotations

import ast
import builtins
import contextlib
import copy
import functools
import importlib.machinery
import json
import marshal
import math
import operator
import os
import random
import re
import struct
import symtable
import sys
import threading
import time
import traceback
import types
from typing import Any

PASS, WRONG, ERROR = 42, 43, 44  # exit codes of the verifier
dumps, loads, monotonic = json.dumps, json.loads, time.monotonic  # a test may patch them
MODULES = (
    "math cmath collections collections.abc heapq itertools bisect functools operator re string random "
    "copy decimal fractions statistics datetime time typing dataclasses enum io json queue array "
    "threading textwrap pprint struct hashlib string abc contextlib types unittest zoneinfo numpy "
    "sortedcontainers").split()


# ---------------------------------------------------------------------------------------- function and assert tests
class ListNode:
    def __init__(self, val=0, next=None):
        self.val, self.next = val, next


class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val, self.left, self.right = val, left, right


NODES = {"ListNode": ("val", "next"), "TreeNode": ("val", "left", "right")}


def list_node(values):
    head = None
    for value in reversed(values or []):
        head = ListNode(value, head)
    return head


def is_same_list(a, b) -> bool:
    while a is not None and b is not None and a.val == b.val:
        a, b = a.next, b.next
    return a is None and b is None


def tree_node(values):
    """A binary tree from its level order, None where a child is missing."""
    nodes = [None if v is None else TreeNode(v) for v in values or []]
    children = iter(nodes[1:])
    for node in nodes:
        if node is not None:
            node.left, node.right = next(children, None), next(children, None)
    return nodes[0] if nodes else None


def is_same_tree(a, b) -> bool:
    todo = [(a, b)]
    while todo:
        a, b = todo.pop()
        if a is None and b is None:
            continue
        if a is None or b is None or a.val != b.val:
            return False
        todo += [(a.left, b.left), (a.right, b.right)]
    return True


HELPERS = {f.__name__: f for f in (ListNode, TreeNode, list_node, is_same_list, tree_node, is_same_tree)}


@functools.cache
def prelude() -> dict[str, Any]:
    """Names that LeetCode-style programs use without importing them; never one that hides a builtin."""
    names: dict[str, Any] = {}
    for module in ("operator", "typing", "collections", "itertools", "functools", "bisect", "heapq", "math", "string"):
        loaded = __import__(module)
        names |= {k: getattr(loaded, k) for k in getattr(loaded, "__all__", dir(loaded)) if not k.startswith("_")}
        names[module] = loaded
    for module in MODULES:
        if module in sys.modules and "." not in module:
            names[module] = sys.modules[module]
    if "numpy" in sys.modules:
        names["np"] = sys.modules["numpy"]
    import datetime
    import decimal
    import fractions
    import random

    names |= {"deepcopy": copy.deepcopy, "Decimal": decimal.Decimal, "Fraction": fractions.Fraction,
              "randint": random.randint,
              "timedelta": datetime.timedelta, "inf": math.inf, "maxsize": sys.maxsize}
    return {k: v for k, v in names.items() if k not in vars(builtins)} | HELPERS


# ---------------------------------------------------------------------------------------- whose name it is
def free_names(code: str) -> set[str]:
    """Names that a test reads and does not bind (by assignment, import, definition, parameter, loop or `except`)."""
    top = symtable.symtable(code, "test.py", "exec")
    todo, read = [top], set()
    bound = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    while todo:
        scope = todo.pop()
        todo += scope.get_children()
        for symbol in scope.get_symbols():
            if symbol.is_referenced() and (scope is top or symbol.is_global()):
                read.add(symbol.get_name())
            if scope is not top and symbol.is_declared_global() and symbol.is_assigned():
                bound.add(symbol.get_name())
    return read - bound


def names_under(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def names_in_classes(code: str) -> list[str]:
    """Globals that class bodies read, where Python looks past `Names.__missing__`."""
    todo, read = [symtable.symtable(code, "test.py", "exec")], set()
    while todo:
        scope = todo.pop()
        todo += scope.get_children()
        if scope.get_type() == "class":
            read |= {s.get_name() for s in scope.get_symbols() if s.is_referenced() and s.is_global()}
    return sorted(read & free_names(code))


def imported(tree: ast.AST) -> set[str]:
    """Names under which a test imports names of the program (`*` is one of them)."""
    froms = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "solution"]
    return {a.asname or a.name for n in froms for a in n.names}


def modules_of_the_program(tree: ast.AST) -> set[str]:
    imports = [a for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    return {a.asname or a.name for a in imports if a.name == "solution"}


FOR_EFFECT = set("heapify heappush heappop heapreplace heappushpop insort insort_left insort_right setitem delitem "
                 "iadd iconcat update_wrapper".split())  # of the library's functions: called as a statement


def program_names(code: str) -> set[str]:
    """Names of a test that are the program's without an import: those that nobody else has. A name that the standard
    library has too (`gcd`, `merge`) is the program's where it is handed to a function of the test (`check(gcd)`),
    called as a statement (`merge(a, 3, b, 2)`) or asserted in its own right: with no name or value of the program
    beside it (`assert gcd(4, 6) == 2` or `r = gcd(4, 6)` and `assert r == 2`, not `assert isclose(f(2), 3.5)`). So is a
    builtin, in a test without any such name (`assert sum([1]) == 1`). All this is read in the test alone; what it
    leaves open is for `undecided`."""
    tree, free = ast.parse(code), free_names(code) - set(HELPERS)
    nodes = list(ast.walk(tree))
    functions = {n.name for n in nodes if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))}
    froms = [n for n in nodes if isinstance(n, ast.ImportFrom)]
    stars = [n.module for n in froms if n.names[0].name == "*" and n.module != "solution"]
    common = set(prelude()).union(*(vars(sys.modules[m]) for m in stars if m in sys.modules))
    sure = {name for name in free if name not in common and name not in vars(builtins) and not name.startswith("__")}
    explicit = imported(tree) | modules_of_the_program(tree)

    def in_their_own_right(candidates: set[str]) -> set[str]:
        tainted = sure | explicit | {n.arg for n in nodes if isinstance(n, ast.arg)}
        size = 0
        while size != len(tainted):  # what is computed from the program's names
            size = len(tainted)
            for n in nodes:
                value = (n.value if isinstance(n, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.NamedExpr)) else
                         n.iter if isinstance(n, (ast.For, ast.comprehension)) else getattr(n, "context_expr", None))
                if value is not None and names_under(value) & tainted:
                    targets = getattr(n, "targets", [getattr(n, "target", None) or getattr(n, "optional_vars", None)])
                    tainted |= {name for t in targets if t is not None for name in names_under(t)}
        found = set()
        known = vars(builtins) | prelude()
        fails = lambda n: isinstance(n, ast.If) and isinstance(n.body[0], ast.Raise)
        results: dict[str, set[str]] = {}  # variable: the candidates that it is a result of
        for n in nodes:
            used = called_plainly(n.value, tainted) & candidates if isinstance(n, ast.Assign) else ()
            for target in n.targets if used else ():
                for name in names_under(target) - tainted:
                    results.setdefault(name, set()).update(c for c in used if not isinstance(known.get(c), type))
        for n in nodes:
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id in functions:
                found |= {a.id for a in n.args if isinstance(a, ast.Name)} & candidates
            method = getattr(getattr(n, "func", None), "attr", "")
            asserted = isinstance(n, ast.Assert) or fails(n) or "assert" in method
            test = getattr(n, "test", n)
            for part in (test.values if isinstance(test, ast.BoolOp) else [test]) if asserted else ():
                if names_under(part) & (tainted - candidates):
                    continue
                found.update(*(results.get(name, ()) for name in names_under(part)))
                if used := names_under(part) & candidates:
                    calls = [c for c in ast.walk(part) if isinstance(c, ast.Call)]
                    others = lambda c, a: names_under(a) & used - {getattr(c.func, "id", "")}
                    inner = {name for c in calls for a in c.args for name in others(c, a)}
                    found |= inner - {"range", "list", "tuple", "set", "dict", "str", "int", "float", "bool"} or used
        alone = [getattr(n.value, "value", n.value) for n in nodes if isinstance(n, ast.Expr)]  # `log("x")`
        found |= {c.func.id for c in alone if isinstance(c, ast.Call) and isinstance(c.func, ast.Name)} & (
            candidates - FOR_EFFECT - set(vars(builtins)))
        called = {n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        return found or (candidates & called if not sure and not explicit and candidates <= common else set())

    owned = sure | in_their_own_right(free & common - set(vars(builtins)))
    return owned or (set() if explicit else in_their_own_right(free & set(vars(builtins))))


def called_plainly(tree: ast.AST, tainted: set[str]) -> set[str]:
    """Names that are called with arguments which hold nothing of `tainted`: `gcd(12, 18)`."""
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    return {n.func.id for n in calls if not any(names_under(a) & tainted for a in (*n.args, *n.keywords))}


def undecided(name: str, plainly: set[str]) -> Any:
    """The prelude's value of a name that may be the program's too: where the program defines it itself and the test
    calls it on plain values, both must give the same, or the test fails."""
    ours = prelude()[name]
    if name not in plainly - {"randint"}:
        return ours
    found, theirs = PEER.request("own", PEER.request("module"), name)
    if not found or theirs is ours:
        return ours

    def both(*args, **kwargs):
        given = copy.deepcopy((args, kwargs))  # heappush
        ours_says, theirs_says = ours(*args, **kwargs), theirs(*given[0], **given[1])
        if not isinstance(ours_says, types.GeneratorType) and not same(ours_says, theirs_says, 1e-9):
            PEER.swallowed = AssertionError(f"{name}: the program's own gives something else")
        return ours_says
    return both


def never_calls(code: str, collected: bool) -> str:
    """Why nothing that runs in a test reads a name of the program; "" if something may. `collected`: pytest runs it."""
    tree = ast.parse(code)
    blocks = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))]
    collects = lambda n: n.name.startswith(("test", "Test")) or isinstance(n, ast.ClassDef) and n.bases
    if collected and not any(map(collects, blocks)):
        return "it has no test function"
    wanted = program_names(code) | imported(tree) | modules_of_the_program(tree) | {"solution"}
    all_run = {"unittest", "globals", "exec", "eval", "doctest", "main"}
    reached, seen = set(), set()

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if child in blocks and child not in seen and not (collected or child.decorator_list):
                continue
            if isinstance(child, ast.Name):
                reached.add(child.id)
            elif isinstance(child, ast.Attribute):
                reached.add(child.attr)
            elif isinstance(child, ast.Constant) and isinstance(child.value, str):
                reached.update(re.findall(r"\w+", child.value))
            walk(child)

    walk(tree)
    while more := {b for b in blocks if b not in seen and (b.name in reached or reached & all_run)}:
        seen |= more
        for block in more:
            walk(block)
    return "" if reached & wanted else "nothing that runs uses a name of the program"


# ---------------------------------------------------------------------------------------- objects on two sides
ARITHMETIC = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift divmod".split()
# The program's own answer counts only against another object of its own, or where the test itself made the object.
JUDGED = {f"__{p}{name}__" for name in ARITHMETIC for p in ("", "r", "i")} | {
    f"__{name}__" for name in "eq ne lt le gt ge contains".split()}
DUNDERS = JUDGED | {f"__{name}__" for name in (
    "len bool iter next getitem setitem delitem call enter exit hash str repr format int float index complex round "
    "trunc floor ceil abs neg pos invert reversed missing bytes fspath length_hint aiter anext aenter aexit await "
    "array get set delete set_name").split()}
BINDING = ("__get__", "__set__", "__delete__", "__set_name__")
OPEN_DUNDERS = {f"__{name}__" for name in (
    "name doc qualname module annotations defaults wrapped members dataclass_fields dataclass_params slots match_args "
    "version abstractmethods orig_class args origin notes cause self func array all isabstractmethod dict").split()}
GUARDED = ("_pytest", "pytest", "unittest.case", "unittest.suite", "unittest.runner", "unittest.result", "hypothesis",
           "sandbox", "sandbox_judge")
# What a subclass of an immutable builtin may say itself: asked between objects of the program, or how it is shown.
SAID = JUDGED - {"__contains__"} | {f"__{name}__" for name in "str repr format hash neg pos abs invert".split()}
FIXED = {f"__{name}__" for name in "init new class module qualname doc dict weakref init_subclass subclasshook".split()}
PATHLIKE = ("__fspath__", "__str__", "__format__")  # of pytest's tmpdir
IMMUTABLE = (int, str, float, complex, bytes, tuple, frozenset)
# Counter compares and subtracts by these, in Python: a `__getitem__` that always says 1 would equal every count.
COUNTED = set("__getitem__ __missing__ __iter__ items keys values get".split())


@functools.cache
def content_kinds() -> tuple[dict[type, tuple], dict[str, type]]:
    """{builtin type: (values of x, a new x of a class and values, fill x)}: contents that both sides hold alike; and
    the types by name."""
    import collections as c

    new = lambda base: lambda cls, v: base.__new__(cls)
    encoded = lambda v: v[0].encode("latin-1")

    def immutable(base: type, values) -> tuple:
        return values, lambda cls, v: base.__new__(cls, v if base in (tuple, frozenset) else v[0]), None

    def mapping(base: type) -> tuple:
        def fill(x, v):
            base.clear(x)
            for key, value in zip(v[::2], v[1::2]):
                base.__setitem__(x, key, value) if base is not c.Counter else dict.__setitem__(x, key, value)
        return lambda x: [e for pair in base.items(x) for e in pair], new(base), fill

    def fill_set(x, v):
        set.clear(x)
        set.update(x, v)

    def fill_default(x, v):
        x.default_factory = v[0]
        fill_dict(x, v[1:])

    def fill_deque(x, v):
        c.deque.clear(x)
        c.deque.extend(x, v[1:])

    def new_deque(cls, v):
        x = c.deque.__new__(cls)
        c.deque.__init__(x, (), v[0])
        return x

    def new_error(cls, v):
        with contextlib.suppress(TypeError):  # UnicodeDecodeError wants five arguments
            if type(cls) is type:
                return cls(*v[3:])
        return cls.__new__(cls, *v[3:]) if type(cls) is type else BaseException.__new__(cls, *v[3:])

    def fill_error(x, v):
        for name, value in zip(("__cause__", "__context__", "__suppress_context__"), v):
            object.__setattr__(x, name, value)

    def fill_node(x, v):
        for name, value in zip(NODES[type(x).__name__], v):
            setattr(x, name, value)

    def new_array(v):
        import numpy

        dtype, shape, rest = numpy.lib.format.descr_to_dtype(loads(v[0])), v[2:2 + v[1]], v[2 + v[1]:]
        if not dtype.hasobject:
            return numpy.ndarray(shape, dtype, bytearray(rest[0], "latin-1"))
        x = numpy.empty(len(rest), object)
        x[:] = rest
        return x.reshape(shape)

    def fill_array(x, v):
        x[...] = new_array(v)

    fill_dict = mapping(dict)[2]
    kinds = {base: immutable(base, lambda x, exact=exact: [exact(x)]) for base, exact in (
        (int, int.__int__), (float, float.__float__), (complex, complex.__complex__), (str, str.__str__))} | {
        bytes: (lambda x: [bytes.decode(x, "latin-1")], lambda cls, v: bytes.__new__(cls, encoded(v)), None),
        tuple: immutable(tuple, lambda x: list(tuple.__iter__(x))),
        frozenset: immutable(frozenset, lambda x: list(frozenset.__iter__(x))),
        list: (lambda x: list(list.__iter__(x)), new(list), lambda x, v: list.__setitem__(x, slice(None), v)),
        bytearray: (lambda x: [x.decode("latin-1")], new(bytearray),
                    lambda x, v: bytearray.__setitem__(x, slice(None), encoded(v))),
        set: (lambda x: list(set.__iter__(x)), new(set), fill_set),
        c.deque: (lambda x: [x.maxlen, *c.deque.__iter__(x)], new_deque, fill_deque),
        c.defaultdict: (lambda x: [x.default_factory, *mapping(dict)[0](x)], new(c.defaultdict), fill_default),
        c.OrderedDict: mapping(c.OrderedDict), c.Counter: mapping(c.Counter), dict: mapping(dict),
        BaseException: (lambda x: [x.__cause__, x.__context__, x.__suppress_context__, *(
            OSError.__reduce__(x)[1] if isinstance(x, OSError) else
            (x.message, x.exceptions) if isinstance(x, BaseExceptionGroup) else x.args)], new_error, fill_error),
        types.FunctionType: (lambda x: [e for pair in x.__dict__.items() for e in pair], None,
                             lambda x, v: x.__dict__.update(zip(v[::2], v[1::2]))),
        ListNode: (lambda x: [getattr(x, n, None) for n in NODES[type(x).__name__]], new(object), fill_node)}
    kinds[TreeNode] = kinds[ListNode]
    if "array" in sys.modules:
        a = sys.modules["array"].array
        kinds[a] = (lambda x: [x.typecode, *x], lambda cls, v: a.__new__(cls, v[0]),
                    lambda x, v: x.__setitem__(slice(None), a(v[0], v[1:])))
    if "numpy" in sys.modules:
        n = sys.modules["numpy"]
        head = lambda x: [dumps(n.lib.format.dtype_to_descr(x.dtype)), x.ndim, *x.shape]
        body = lambda x: list(x.flat) if x.dtype.hasobject else [x.tobytes().decode("latin-1")]
        kinds[n.ndarray] = (lambda x: head(x) + body(x),
                            lambda cls, v: new_array(v), fill_array)
    return kinds, {kind.__name__: kind for kind in kinds}


class Ref(int):
    """The number of an object, in a message."""


def forwarder(name: str) -> Any:
    """A dunder method of a stand-in."""
    def forward(self, /, *args, **kwargs):
        return PEER.special(name, self, *args, **kwargs)

    def wait(self, stops: bool = False):  # __await__: the other side's loop runs in slices, both sides' tasks go on
        task = PEER.request("task", self)
        try:
            while not PEER.request("pump", task):
                yield
            return PEER.request("result", task, stops=stops)
        except BaseException:
            PEER.request("cancel", task)
            raise

    async def following(self):
        class Step:
            __await__ = lambda _: wait(PEER.special("__anext__", self), True)
        return await Step()

    forward = {"__await__": wait, "__anext__": following}.get(name, forward)
    forward.__name__ = name
    return forward


FORWARD = {name: forwarder(name) for name in sorted(DUNDERS)}


def hidden(name: str) -> bool:
    return name.startswith("__") and name.endswith("__") and name not in OPEN_DUNDERS or name == "_as_parameter_"


class Space(dict):
    """`__dict__` of the program's module or of one of its classes, for mock.patch and monkeypatch."""

    def __init__(self, owner, local=()):
        super().__init__(local)
        self.owner = owner

    def get(self, name, default=None):
        if dict.__contains__(self, name):
            return dict.__getitem__(self, name)
        found, value = PEER.request("own", self.owner, name)
        return value if found else default

    def __missing__(self, name):
        found, value = PEER.request("own", self.owner, name)
        if found:
            return value
        raise KeyError(name)


class Attributes(dict):
    """`__dict__` of an object of the test, in the program."""

    def __init__(self, owner):
        super().__init__(PEER.request("vars", owner))
        self.owner = owner

    def __setitem__(self, name, value):
        PEER.request("put", self.owner, name, value)
        super().__setitem__(name, value)

    def update(self, *args, **kwargs):
        for name, value in dict(*args, **kwargs).items():
            self[name] = value


class FarMeta(type):
    """The type of stand-ins for the other side's classes. A class that the test derives from one gets a twin there."""

    def mro(cls):
        own, more = super().mro(), type.__dict__["__dict__"].__get__(cls).get("_far_bases", ())
        cut = own.index(Far) + 1 if more else 1
        real = [c for c in more if type(c) is not FarMeta and c not in own]
        return [cls, *(c for c in more if type(c) is FarMeta), *own[1:cut], *real, *own[cut:]]

    def __new__(meta, name, bases, space, **options):
        cls = type.__new__(meta, name, bases, space)
        far = {k: v for k, v in space.items() if k not in ("__module__", "__qualname__", "__classcell__")}
        PEER.register(PEER.request("subclass", name, bases, far, options), cls)
        return cls

    def __init__(cls, *_, **__):
        pass

    def __call__(cls, /, *args, **kwargs):
        return PEER.request("call", cls, *args, **kwargs)

    def __getattr__(cls, name):
        if hidden(name):
            raise AttributeError(name)
        return PEER.request("getattr", cls, name)

    def __setattr__(cls, name, value):
        PEER.request("setattr", cls, name, value)
        if name in type.__dict__["__dict__"].__get__(cls):
            type.__setattr__(cls, name, value)

    def __delattr__(cls, name):
        PEER.request("delattr", cls, name)

    def __instancecheck__(cls, x):
        return type.__instancecheck__(cls, x) or bool(cls._far_checks and PEER.request("isinstance", x, cls))

    def __contains__(cls, x):
        return any(x is v or x == v for v in cls)

    __dict__ = property(lambda cls: Space(cls, type.__dict__["__dict__"].__get__(cls)))
    __bases__ = property(lambda cls: PEER.request("getattr", cls, "__bases__"))
    __annotations__ = property(lambda cls: PEER.request("getattr", cls, "__annotations__"))
    __bool__ = lambda cls: True
    __iter__ = lambda cls: iter(PEER.request("list", cls))
    __len__ = lambda cls: PEER.request("len", cls)
    __getitem__ = lambda cls, key: PEER.request("getitem", cls, key)
    __dir__ = lambda cls: PEER.request("dir", cls)


class Far:
    """A stand-in for an object of the other side: one for one object, its attributes and methods are calls."""

    __slots__ = ()

    def __getattr__(self, name):
        if hidden(name):
            raise AttributeError(name)
        return PEER.request("getattr", self, name)

    def __setattr__(self, name, value):
        PEER.request("setattr", self, name, value)
        if isinstance(getattr(type(self), name, None), types.FunctionType):
            object.__setattr__(self, name, value)

    def __delattr__(self, name):
        PEER.request("delattr", self, name)
        with contextlib.suppress(AttributeError):
            object.__delattr__(self, name)

    __init_subclass__ = classmethod(lambda cls, **options: None)
    __repr__ = FORWARD["__repr__"]
    __copy__ = lambda self: PEER.request("copy", self)
    __deepcopy__ = lambda self, memo: PEER.request("deepcopy", self)
    __dir__ = lambda self: PEER.request("dir", self)


def far_function(peer: Peer, number: int, waits: bool) -> Any:
    def stub(*args, **kwargs):
        return peer.request("call", Ref(number), *args, **kwargs)

    async def waiting(*args, **kwargs):
        return await peer.request("call", Ref(number), *args, **kwargs)

    return waiting if waits else stub


def awaited(awaitable: Any) -> Any:
    """A task for it, in the loop that runs or in this process's own."""
    import asyncio

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = PEER.loop = PEER.loop or asyncio.new_event_loop()

    async def run():
        try:
            return await awaitable
        except BaseException as error:  # the program may never ask for the result
            if PEER.module is None:
                PEER.failed_in_the_program(error)
            raise
    return loop.create_task(run())


def pump(task: Any) -> bool:
    loop = task.get_loop()
    if not task.done() and not loop.is_running():
        timer = loop.call_later(0.005, loop.stop)
        task.add_done_callback(stop := lambda _: loop.stop())
        loop.run_forever()
        timer.cancel()
        task.remove_done_callback(stop)
    return task.done()


def special(name: str, x: Any, /, *args, **kwargs) -> Any:  # (here and below: a program's keywords may be called so)
    method = getattr(type(x), name, None)
    if method is None:
        raise TypeError(f"{type(x).__name__!r} object has no {name}")
    if type(method).__module__ == "unittest.mock":  # takes no self, as it is no function
        return method(*args, **kwargs)
    return method(x, *args, **kwargs)


class Peer:
    """One end of the channel between the verifier and the program's child: requests, replies and nested call-backs, a
    JSON line each. What arrives is rebuilt from builtin data; nothing that the other side sends is ever executed."""

    OPERATIONS = {
        "call": lambda f, /, *a, **k: f(*a, **k), "getattr": getattr, "setattr": setattr, "delattr": delattr,
        "put": lambda x, name, value: vars(x).__setitem__(name, value),
        "special": special, "task": awaited, "pump": pump, "result": lambda task, stops=False: task.result(),
        "cancel": lambda task: task.cancel()}
    # What the verifier may ask of the program besides:
    FREE = {"getitem": operator.getitem, "isinstance": isinstance, "list": list, "len": len, "dir": dir, "vars": vars,
            "own": lambda x, name: (name in vars(x), vars(x).get(name)),
            "copy": copy.copy, "deepcopy": copy.deepcopy}
    LINE = 64 << 20

    def __init__(self, fd: int, module: types.ModuleType | None, clock: int = -1):
        """`module`: the program's; None in the verifier. `clock`: memory file for the time that the verifier waits."""
        global PEER
        PEER = self
        self.reader, self.fd, self.module, self.clock = os.fdopen(os.dup(fd), "rb", 1 << 16), fd, module, clock
        self.next = self.parity = 0 if module is None else 1  # whose number it is
        self.objects: dict[int, Any] = {}
        self.ids: dict[int, int] = {}  # id() -> number
        self.snapshots: dict[int, list] = {}  # number -> the contents that the other side knows
        self.held: dict[int, type] = {}  # number -> the builtin type of the contents
        self.pending: dict[int, list] = {}
        self.queue: list[int] = []
        self.todo: list[tuple] = []
        self.drops: list[int] = []
        self.kinds, self.names = content_kinds()
        self.room = 1000  # so many stand-ins before those that are gone are looked for
        self.depth, self.used, self.trust, self.loop, self.flags, self.waited = 0, 0, False, None, {}, 0.0
        self.nodes = True  # ListNode and TreeNode are held on both sides
        self.notes: list[list] = []  # warnings and log records of the program
        self.lock = threading.RLock()
        self.failed = ""  # the program's last error, for the report
        self.raised: dict[int, BaseException] = {}  # by the program
        self.swallowed: Any = None  # a failed assert of the test that the program could swallow
        self.known: dict[Any, Any] = {"offsets": [0, 0]}  # environment, folder, random state, patches: as last sent

    # -- the wire
    def send(self, kind: str, operation: str, args: tuple, kwargs: dict, trace: str = "") -> None:
        message = {"kind": kind, "op": operation, "args": [self.pack(a) for a in args],
                   "kw": {k: self.pack(v) for k, v in kwargs.items()}}
        if self.depth < 2 or sum(map(len, self.snapshots.values())) < 2000:  # a key function is called 100,000 times
            message["set"] = changed = []
            for number, old in list(self.snapshots.items()):
                x = self.objects[number]
                new = self.kinds[self.held[number]][0](x)
                same = len(new) == len(old) and all(map(operator.is_, new, old))
                if not same and not (self.held[number].__name__ in ("bytearray", "ndarray") and new == old):
                    self.snapshots[number] = new
                    changed.append([number, [self.pack(v) for v in new]])
        if self.flags:
            message["more"] = self.surroundings()
        if self.depth == 1:
            self.prune()
        message["new"] = new = []
        for number in self.queue:  # grows while it is walked
            new.append(self.describe(number))
        self.queue.clear()
        message["drop"], self.drops, message["trace"] = self.drops, [], trace
        data = dumps(message).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self.fd, data[: 1 << 20]):]
        except OSError as error:
            self.lost(error)

    def lost(self, error: BaseException) -> None:
        """The other side is gone or sends what no peer sends. That ends the verifier: a test must not catch it."""
        if self.module is not None:
            raise error
        os.write(2, f"{self.failed}\nsandbox: the program's side of the channel: {error}\n".encode(errors="replace"))
        os._exit(ERROR)

    def receive(self) -> dict:
        start = monotonic()
        if self.clock >= 0:
            os.pwrite(self.clock, struct.pack("dd", self.waited, start), 0)
        line = self.reader.readline(self.LINE)
        self.waited += monotonic() - start
        if self.clock >= 0:
            os.pwrite(self.clock, struct.pack("dd", self.waited, 0), 0)
        if not line.endswith(b"\n"):
            self.lost(EOFError("the program ended before it answered"))
        try:
            message = self.take(loads(line))
        except Exception as error:
            self.lost(error)
        if message.get("more"):
            self.surround(message["more"])
        return message

    def take(self, message: dict) -> dict:
        """The message, with the objects that it describes made and the contents that it tells filled in."""
        for description in message["new"]:
            if description[0] in self.objects or description[0] % 2 == self.parity:
                raise PermissionError("number of another object")
            self.pending[description[0]] = description
        for number in [d[0] for d in message["new"]]:
            self.build(number)
        self.todo += [(number, values) for number, values in message.get("set", ()) if number in self.snapshots
                      and not (number % 2 == self.parity and "mock" in getattr(self.objects[number], "__dict__", ()))]
        while self.todo:
            number, values = self.todo.pop(0)
            x = self.objects[number]
            read, _, fill = self.kinds[self.held[number]]
            fill(x, [self.unpack(v) for v in values])
            self.snapshots[number] = read(x)
        for number in message["drop"]:
            self.forget(number)
        return message

    def request(self, operation: str, /, *args, **kwargs) -> Any:
        with self.lock:  # threads of either side take turns
            return self.ask(operation, args, kwargs)

    def ask(self, operation: str, args: tuple, kwargs: dict) -> Any:
        self.depth += 1
        try:
            self.used += operation in ("call", "special", "getitem", "task") and self.module is None
            self.send("do", operation, args, kwargs)
            while (message := self.receive())["kind"] == "do":
                self.perform(message)
            try:
                (result,) = [self.unpack(a) for a in message["args"]]
            except Exception as error:
                self.lost(error)
        finally:
            self.depth -= 1
        if message["kind"] == "return":
            return result
        if not isinstance(result, BaseException):  # a class, which would be raised past `raised` and `ended`
            self.lost(TypeError("an error that is none"))
        if self.module is None:
            self.failed = message["trace"] if operation != "getattr" else self.failed
            self.raised[id(result)] = result
            result = self.ended(result, operation, args, kwargs)
        raise result

    def ended(self, error: BaseException, operation: str, args: tuple, kwargs: dict) -> BaseException:
        """The error; but one that would only end a loop of the test early (as PEP 479 has it) is a RuntimeError."""
        asyncio = sys.modules.get("asyncio")  # a task that is cancelled fails no group of tasks
        if asyncio and isinstance(error, asyncio.CancelledError) and not self.flags.get("cancels"):
            return RuntimeError("the program raised CancelledError")
        stop = isinstance(error, (StopIteration, StopAsyncIteration))
        frame, names, allowed = sys._getframe(3), set(), False
        if not stop and not isinstance(error, IndexError) or operation == "result" and kwargs.get("stops"):
            return error
        if operation == "special" and args[0] in ("__next__", "__anext__"):
            return error
        while frame:
            if frame.f_code.co_filename == self.flags.get("file"):
                names.add(frame.f_code.co_name)
                allowed |= any(first <= frame.f_lineno <= last for first, last in self.flags["stops"])
            frame = frame.f_back
        if stop and not allowed or names & {"__next__", "__anext__", "__getitem__", "__iter__"}:
            return RuntimeError(f"the program raised {type(error).__name__}")
        return error

    def perform(self, message: dict) -> None:
        self.depth += 1
        try:
            operation = message["op"]
            args = [self.unpack(a) for a in message["args"]]
            kwargs = {k: self.unpack(v) for k, v in message["kw"].items()}
            if self.module is None:  # of what the test handed out, never of a class or value that a message names
                of = message["args"][operation in ("special", "isinstance")]
                if not (isinstance(of, list) and of[0] == "@"):
                    raise PermissionError(f"{operation} of nothing that the test gave")
                self.permit(operation, args)
            function = self.OPERATIONS.get(operation) or (self.FREE.get(operation) or getattr(self, "do_" + operation))
            kind, result, trace = "return", function(*args, **kwargs), ""
            if operation == "vars" and self.module is None:
                result = dict(result)  # the test's objects keep their methods
        except BaseException as error:
            kind, result, trace = "raise", error, ""
            if self.module is not None:
                with contextlib.suppress(Exception):
                    trace = "".join(traceback.format_exception(error, limit=-4))[-2000:]
            else:
                self.failed_in_the_program(error)
        args = kwargs = None
        try:
            self.send(kind, "", (result,), {}, trace)
        except (TypeError, ValueError, RecursionError) as error:
            self.send("raise", "", (error,), {}, trace)
        self.depth -= 1

    def failed_in_the_program(self, error: Any) -> None:
        """A failed assert of the test that passes through the program, which could swallow it, is final."""
        if isinstance(error, BaseExceptionGroup):
            error = error.subgroup(AssertionError) and AssertionError(str(error))
        failed = isinstance(error, AssertionError) or type(error).__module__.startswith("_pytest")
        for frame, line in traceback.walk_tb(getattr(error, "__traceback__", None)):  # `assert x > 5` of a None
            if frame.f_code.co_filename == self.flags.get("file") and frame.f_code.co_name not in (
                    "<lambda>", "<genexpr>"):  # `assert safe(lambda: 1 / 0) is None`
                failed |= any(first <= line <= last for first, last in self.flags["asserts"])
        if failed and id(error) not in self.raised:
            self.swallowed = error

    def permit(self, operation: str, args: list) -> None:
        """What a program may do with the verifier's objects: no way to frames, globals, modules, tools of tests."""
        x, name = (args[1], args[0]) if operation == "special" else (args[0], args[1] if len(args) > 1 else "")
        kind = type(x)
        mock = any(c.__module__ == "unittest.mock" for c in kind.__mro__)
        mine = lambda c: isinstance(c, type) and not self.global_ref(c) and not any(
            b.__module__.startswith((*GUARDED, "unittest.mock")) for b in c.__mro__)
        if operation in ("task", "pump", "result", "cancel"):
            ok = True
        elif operation in ("call", "special"):
            binds = name not in BINDING or kind in (property, staticmethod, classmethod)
            ok = (operation == "call" or name in DUNDERS and binds) and (not isinstance(x, type) or mine(x))
        elif operation in ("getattr", "setattr", "delattr", "put"):
            open_name = name in {f"__{n}__" for n in (
                "name doc qualname annotations dataclass_fields members match_args".split())}
            ok = type(name) is str and kind not in CLOSED and (not isinstance(x, type) or mine(x)) and (
                open_name or not name.startswith(("__", "format"))) and (
                not mock or not name.startswith(
                    ("_", "configure", "reset", "attach", "mock_", "call_args", "method_calls")))
            if operation != "getattr":  # attributes of an object, not its methods, and nothing of a class
                ok = ok and not isinstance(x, type) and not open_name and not callable(getattr(kind, name, None)) and (
                    mine(kind) or not hasattr(kind, name))
        elif operation in ("vars", "dir", "copy", "deepcopy"):
            ok = mine(kind)
        else:
            ok = mine(name) if operation == "isinstance" else mine(x) and (
                operation in ("list", "len", "getitem") or (operation, name) == ("own", "__annotations__"))
        unittest = sys.modules.get("unittest")
        ok = ok and (not kind.__module__.startswith(GUARDED) or kind.__name__ == "LocalPath" and name in PATHLIKE)
        if not ok or unittest and isinstance(x, unittest.TestCase):
            refused = AttributeError if operation == "getattr" else PermissionError
            raise refused(f"{operation} {name} of the test's {kind.__name__}")

    def serve(self) -> None:
        with contextlib.suppress(EOFError):
            while True:
                self.perform(self.receive())

    # -- what the verifier asks the program's module for
    def do_hello(self, flags: dict) -> None:
        self.flags = flags
        self.known["environ"], self.known["cwd"] = dict(os.environ), os.getcwd()
        self.nodes = flags.get("nodes", True)
        if flags.get("notes"):
            import logging
            import warnings

            handler = logging.Handler()
            handler.emit = lambda r: self.notes.append(
                [r.name, r.levelno, r.getMessage(), r.exc_info[1] if r.exc_info else None])
            logging.basicConfig(level=1, handlers=[handler])
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, *_: self.notes.append([message])

    def do_name(self, name: str) -> Any:
        return getattr(sys.modules.get("solution", self.module), name)

    def do_entry(self, name: str, *args) -> Any:
        """Calls the entry of an fn_name row: a method of Solution wherever there is one, as LiveCodeBench does."""
        return getattr(self.module.Solution() if hasattr(self.module, "Solution") else self.module, name)(*args)

    def do_module(self) -> Any:
        return self.module

    def do_subclass(self, name: str, bases: tuple, space: dict, options: dict) -> int:
        cls = types.new_class(name, bases, options, lambda ns: ns.update(space | {"__module__": "solution"}))
        self.register(self.next, cls)
        self.next += 2
        return self.next - 2


    # -- objects to and from JSON
    def base(self, x: Any) -> type | None:
        """The builtin type whose contents x has, that are held on both sides; None: x stays where it is."""
        kind = type(x)
        if kind.__name__ in NODES and kind not in self.kinds and self.module and type(kind) is type and self.nodes:
            fields = NODES[kind.__name__]
            own = {k for k, v in vars(kind).items() if isinstance(v, types.FunctionType) and not k.startswith("__")}
            if not own and hasattr(x, fields[0]) and getattr(x, "__dict__", {}).keys() <= set(fields):
                return HELPERS[kind.__name__]
        return next((c for c in kind.__mro__ if c in self.kinds), None)

    def global_ref(self, x: Any) -> list | None:
        """How the other side finds a class or function of the standard library, of numpy or of pytest by itself."""
        module, name = getattr(x, "__module__", None), getattr(x, "__qualname__", None)
        if type(module) is not str or type(name) is not str or module.split(".")[0] not in LIBRARIES:
            return None
        try:
            return ["g", module, name] if operator.attrgetter(name)(sys.modules[module]) is x else None
        except (AttributeError, KeyError):
            return None

    def library(self, module: str, name: str) -> Any:
        """What `global_ref` names. In the verifier: loaded classes alone, none that decides about tests, wherever the
        message finds it."""
        if self.module is not None:
            return operator.attrgetter(name)(importlib.import_module(module))
        x = sys.modules.get(module) if module.split(".")[0] in LIBRARIES else None
        for part in name.split("."):  # a class or a class in a class, not through an imported module
            x = vars(x).get(part) if isinstance(x, type) or x is sys.modules.get(module) is not None else None
        owners = [str(c.__module__) for c in x.__mro__] if isinstance(x, type) else ["sandbox"]
        if any(o.startswith(GUARDED + ("bdb", "doctest", "unittest")) or o.split(".")[0] not in LIBRARIES
               for o in owners):
            return type(str(name), (Exception,), {"__module__": str(module)})
        return x

    def pack(self, x: Any) -> Any:
        kind = type(x)
        if x is None or kind in (bool, int, str, float):
            return x
        if (number := self.ids.get(id(x))) is not None:
            return ["@", number]
        if kind is tuple or kind is frozenset:
            return ["t" if kind is tuple else "s", *map(self.pack, x)]
        if kind is bytes:
            return ["b", x.decode("latin-1")]
        if kind is Ref:
            return ["@", int(x)]
        if kind is types.TracebackType:
            return None
        if x is NotImplemented or x is ...:
            return ["k", "builtins", repr(x)]
        if kind.__module__ == "dataclasses":
            for name in (n for n, v in vars(sys.modules["dataclasses"]).items() if v is x):
                return ["k", "dataclasses", name]
        if kind.__name__ in VALUES and (ref := self.global_ref(kind)):
            return ["v", ref, *map(self.pack, VALUES[kind.__name__](x))]
        if kind.__name__ in VIEWS and kind.__module__ == "builtins":
            return ["w", kind.__name__, *map(self.pack, x)]
        if kind.__module__.startswith("numpy") and "numpy" in sys.modules:
            numpy = sys.modules["numpy"]
            if isinstance(x, (numpy.generic, numpy.dtype)):
                array = numpy.zeros(0, x) if isinstance(x, numpy.dtype) else numpy.asarray(x)
                return ["n", *self.kinds[numpy.ndarray][0](array)]
        if isinstance(x, type) or self.module is None and kind in (types.FunctionType, types.BuiltinFunctionType):
            if ref := self.global_ref(x):
                return ref
        if kind is types.ModuleType and self.module is None:
            return ["m", x.__name__]
        return self.export(x)

    def export(self, x: Any) -> list:
        if (number := self.ids.get(id(x))) is None:
            number, self.next = self.next, self.next + 2
            self.register(number, x)
            self.queue.append(number)
        return ["@", number]

    def register(self, number: int, x: Any) -> None:
        self.objects[number], self.ids[id(x)] = x, number

    def forget(self, number: int) -> None:
        self.ids.pop(id(self.objects.pop(number, None)), None)
        self.snapshots.pop(number, None)
        self.held.pop(number, None)

    def prune(self) -> None:
        """Forgets what only these tables hold. The owner of an object that stays leaves that to the other side."""
        if self.flags.get("threads"):
            return
        copied = lambda kind: kind in self.kinds and kind is not types.FunctionType
        here = [n for n in self.snapshots if copied(type(self.objects[n]))]
        if len(self.objects) > self.room:
            far = [n for n in self.objects if n % 2 != self.parity and n not in self.snapshots]
            here += [n for n in far if not isinstance(self.objects[n], type)]
        for number in here:
            if number not in self.queue and sys.getrefcount(self.objects[number]) <= 2:
                self.drops.append(number)
                self.forget(number)
        self.room = max(1000, 2 * len(self.objects)) if len(self.objects) > self.room else self.room

    def describe(self, number: int) -> list:
        x = self.objects[number]
        kind = type(x)
        if isinstance(x, type):
            return self.describe_class(number, x)
        base = self.base(x)
        if base is types.FunctionType:
            waits = bool(x.__code__.co_flags & 128)  # an async function
            head = [number, "f", x.__name__, x.__qualname__, x.__doc__, x.__module__, waits, self.signature(x)]
        elif base in (ListNode, TreeNode):
            head = [number, "o", ["h", base.__name__], base.__name__]
        else:
            plain = self.global_ref(kind) if kind is base or base is BaseException else None
            head = [number, "o", plain or self.export(kind), base and base.__name__]
        if base is None:
            return head
        self.held[number] = base
        values = self.kinds[base][0](x)
        if self.kinds[base][2] and base is not BaseException:
            self.snapshots[number] = values
        return [*head, [self.pack(v) for v in values]]

    def signature(self, function: Any) -> list | None:
        if not self.flags.get("inspect"):
            return None
        signature = importlib.import_module("inspect").signature(function)
        missing = signature.empty
        given = lambda v: [] if v is missing else [self.pack(v)]
        parameters = signature.parameters.values()
        rows = [[p.name, int(p.kind), given(p.default), given(p.annotation)] for p in parameters]
        return [rows, given(signature.return_annotation)]

    def describe_class(self, number: int, kind: type) -> list:
        base = next((c for c in kind.__mro__ if c in self.kinds), None)
        held = set(base.__mro__) if base else {object}
        if base is BaseException:
            held = {c for c in kind.__mro__ if issubclass(c, BaseException) and self.global_ref(c)} | {object}
        others = [c for c in kind.__mro__[1:] if c not in held]
        owner: dict[str, type] = {}
        for c in kind.__mro__:
            if c is not object and (c not in held or c is kind):
                for name in vars(c):
                    owner.setdefault(name, c)
        functions, dunders, absent, attributes = {}, [], [], []
        for name, c in owner.items():
            if c is not kind and not self.global_ref(c):
                continue  # of a class that has a stand-in itself
            value = vars(c)[name]
            reading = not hidden(name) or name in ("__getitem__", "__iter__", "__contains__")
            if base in IMMUTABLE and hasattr(base, name) and reading:
                continue  # a str whose startswith always says yes is the text that it is
            if name in DUNDERS and not (name in ("__array__", *BINDING) and base):
                (absent if value is None else dunders).append(name)
            elif isinstance(value, types.FunctionType) and (not name.startswith("__") or name == "__init__"):
                functions[name] = self.pack(value)
            elif c is not kind and not name.startswith("_"):
                attributes.append(name)
        checks = type(kind).__instancecheck__ is not type.__instancecheck__
        reals = [self.pack(c) for c in kind.__mro__[1:-1] if c in held and c is not object and base is BaseException]
        real = self.global_ref(kind) or kind in TYPES and ["g", "types", TYPES[kind]]
        return [number, "c", kind.__name__, kind.__qualname__, kind.__module__, base and base.__name__,
                [self.pack(c) for c in others], functions, dunders, absent, attributes, checks, real, reals]

    def unpack(self, v: Any) -> Any:
        if not isinstance(v, list):
            return v
        tag, rest = v[0], v[1:]
        if tag == "@":
            return self.build(rest[0])
        if tag == "g":
            x = self.library(*rest)  # as a value not a class that would catch a failed assert of the test
            catches = self.module is None and x in (BaseException, Exception, AssertionError)
            if self.module is None and not catches and not inert(x):  # CDLL, FileIO, attrgetter, type: as a value never
                return type(x.__name__, (), {"__module__": str(x.__module__)})
            return type(x.__name__, (Exception,), {}) if catches else x
        if tag == "t":
            return tuple(map(self.unpack, rest))
        if tag == "s":
            return frozenset(map(self.unpack, rest))
        if tag == "b":
            return rest[0].encode("latin-1")
        if tag == "k" and rest[0] in ("builtins", "dataclasses"):
            plain = {"Ellipsis": ..., "NotImplemented": NotImplemented}
            x = plain[rest[1]] if rest[1] in plain else getattr(importlib.import_module("dataclasses"), rest[1])
            if rest[1] in plain or type(x).__module__ == "dataclasses":
                return x
        if tag == "v" and rest[0][2] in VALUES:
            return self.library(*rest[0][1:])(*map(self.unpack, rest[1:]))
        if tag == "w":
            values = [self.unpack(x) for x in rest[1:]]
            return (dict.fromkeys(values).keys() if rest[0] == "dict_keys" else
                    dict(values).items() if rest[0] == "dict_items" else dict(enumerate(values)).values())
        if tag == "n":
            array = self.kinds[self.names["ndarray"]][1](None, rest)
            return array[()] if array.ndim == 0 else array.dtype
        if tag == "m" and self.module is not None:
            return importlib.import_module(rest[0])
        raise ValueError(f"unknown data {tag!r}")

    def build(self, number: int) -> Any:
        """The object of that number; one that a message describes is made now, its contents once all are made."""
        if (description := self.pending.pop(number, None)) is None:
            return self.objects[number]
        what, *rest = description[1:]
        if what == "c":
            x = self.build_class(*rest)
        elif what == "f":
            name, qualname, doc, module, waits, signature, values = rest
            x = far_function(self, number, bool(waits))
            x.__name__, x.__qualname__, x.__doc__, x.__module__ = str(name), str(qualname), doc, module
            if signature:
                self.sign(x, *signature)
            self.todo.append((number, values))
            self.held[number] = types.FunctionType
        else:
            cls, base = self.unpack_class(rest[0]), self.names.get(rest[1])
            if base is None:
                if type(cls) is not FarMeta:
                    raise PermissionError(f"{cls} is no class of the other side")
                x = object.__new__(cls)
            else:
                values, (_, make, fill), self.held[number] = rest[2], self.kinds[base], base
                fits = (type(cls) is FarMeta or base is BaseException) and issubclass(cls, base)
                if not fits and cls is not base and not (self.module is not None and base.__name__ in NODES):
                    raise PermissionError(f"{cls.__name__} with the contents of {base.__name__}")
                now = base in IMMUTABLE or base is BaseException or base.__name__ == "ndarray"
                x = make(cls, [self.unpack(v) for v in values] if now else values)
                if fill and base.__name__ != "ndarray":
                    self.todo.append((number, values))
                elif fill:
                    self.snapshots[number] = self.kinds[base][0](x)
        self.register(number, x)
        return x

    def unpack_class(self, v: list) -> type:
        if v[0] == "h":
            own = getattr(self.module, v[1], None)
            return own if isinstance(own, type) else HELPERS[v[1]]
        x = self.library(*v[1:]) if v[0] == "g" else self.unpack(v)
        if v[0] != "g" and type(x) is not FarMeta and self.module is None:
            raise PermissionError(f"{x!r} is no class of the program")
        return x

    def build_class(self, name, qualname, module, base, others, functions, dunders, absent, attributes, checks, real,
                    reals) -> type:
        """The stand-in of a class. The rules hold whatever the message says: dunders are forwarders of DUNDERS, other
        names are plain identifiers, and what a builtin of IMMUTABLE has stays that builtin's."""
        real = self.library(*real[1:]) if real else None
        contents = self.names[base] if base else None
        number = lambda c: c.__module__ in ("fractions", "numbers")  # Decimal asks a Rational: 0 / 0 would equal all
        far = tuple(c for c in map(self.unpack_class, others) if isinstance(c, type) and not number(c))
        fixed = set(dir(contents)) - SAID - FIXED if contents in IMMUTABLE else COUNTED if base == "Counter" else set()
        open_name = lambda n: type(n) is str and n.isidentifier() and n not in fixed and (
            not n.startswith(("__", "_far")) and n != "mro")
        space = {"__module__": str(module), "__qualname__": str(qualname), "_far_checks": bool(checks),
                 "_far_bases": far}
        own = (lambda x: PEER.request("vars", x)) if self.module is None else Attributes
        space["__dict__"] = property(lambda self: own(self))
        space |= {n: self.unpack(f) for n, f in functions.items() if open_name(n) or n == "__init__"}
        space |= {n: property(lambda self, n=n: PEER.request("getattr", self, n)) for n in attributes if open_name(n)}
        inherited = {n for c in far for k in c.__mro__[:-1] if type(k) is not FarMeta for n in vars(k)}  # of a library
        space |= {n: FORWARD[n] for n in (inherited & DUNDERS).union(dunders) if n in FORWARD and n not in fixed}
        space |= {n: None for n in absent if n in DUNDERS and n not in fixed}
        below = {n for c in far for k in c.__mro__ if type(k) is FarMeta for n in vars(k)}
        space |= {n: getattr(contents, n) for n in fixed & below}
        if real and not number(real) and (self.module is not None or not issubclass(real, (*self.kinds, bool))):
            space["__class__"] = property(lambda self: real)
        bases = [self.names[base]] if base else []
        if base == "BaseException":
            bases = [c for c in map(self.unpack_class, reals) if issubclass(c, BaseException)]
            bases = [c for c in bases if not any(d is not c and issubclass(d, c) for d in bases)] or [Exception]
        elif base == "function":
            bases, space["__class__"] = [], property(lambda self: types.FunctionType)
        for far_bases in (space["_far_bases"], tuple(c for c in space["_far_bases"] if type(c) is FarMeta), ()):
            with contextlib.suppress(TypeError):  # a layout that does not fit
                return type.__new__(FarMeta, str(name), (Far, *bases), space | {"_far_bases": far_bases})
        return type.__new__(FarMeta, str(name), (Far, *bases[:1]), space | {"_far_bases": ()})

    def sign(self, x: Any, parameters: list, returned: list) -> None:
        inspect = importlib.import_module("inspect")
        kinds = list(inspect._ParameterKind)
        given = lambda key, v: {key: self.unpack(v[0])} if v else {}
        built = [inspect.Parameter(n, kinds[k], **given("default", d), **given("annotation", a))
                 for n, k, d, a in parameters]
        x.__signature__ = inspect.Signature(built, **given("return_annotation", returned))
        noted = {p.name: p.annotation for p in built if p.annotation is not p.empty}
        x.__annotations__ = noted | given("return", returned)

    # -- what a test compares, and what surrounds both sides
    def special(self, name: str, x: Any, /, *args, **kwargs) -> Any:
        """A dunder method of a stand-in. What the program's object says about a plain value of the test is not asked:
        the test compares the builtin contents that it has, if any; except, for all but equality, where the test made
        the object itself (`made`)."""
        trust, self.trust = self.trust, False
        if self.module is None and name in JUDGED and type(type(args[0])) is not FarMeta:
            trust = trust or name == "__radd__" and args[0] == 0 and type(args[0]) is int  # where sum() starts
            if not trust or name in ("__eq__", "__ne__"):
                base = next((c for c in type(x).__mro__ if c in self.kinds), None)
                if base is not None and hasattr(base, name):
                    return getattr(base, name)(x, *args)
                if name == "__contains__" and hasattr(type(x), "__iter__"):
                    return any(v is args[0] or v == args[0] for v in x)
                return NotImplemented if name != "__contains__" else special(name, None, *args)
        if self.module is None and name in ("__exit__", "__aexit__"):
            self.failed_in_the_program(args[1])
        return self.request("special", name, x, *args, **kwargs)

    def surroundings(self) -> dict:
        known, more = self.known, {}
        if self.module is not None and self.flags["output"]:
            texts = []
            for fd, stream in ((1, sys.stdout), (2, sys.stderr)):
                with contextlib.suppress(Exception):
                    stream.flush()
                data = os.pread(fd, 1 << 22, known["offsets"][fd - 1])
                known["offsets"][fd - 1] += len(data)
                texts.append(data.decode("utf-8", "replace"))
            if any(texts):
                more["out"] = texts
        if self.notes:
            more["notes"], self.notes = [[self.pack(v) for v in note] for note in self.notes], []
        if self.flags["environ"] and (now := self.environment()) != known["environ"]:
            more["environ"] = known["environ"] = now
        if self.flags["cwd"] and os.getcwd() != known["cwd"]:
            more["cwd"] = known["cwd"] = os.getcwd()
        if self.module is None:
            if self.flags["seed"] and (now := self.randomness()) != known.get("seed"):
                more["seed"] = known["seed"] = now
            for row in self.flags["patched"]:
                now = self.watched(*row)
                if now is not known.get(tuple(row), now):
                    original = now is known[(*row, "original")]
                    more.setdefault("patch", []).append([*row, [] if original else [self.pack(now)]])
                known[tuple(row)] = now
                known.setdefault((*row, "original"), now)
        return more

    def surround(self, more: dict) -> None:
        for stream, text in zip((sys.stdout, sys.stderr), more.get("out", ()) if self.module is None else ()):
            if text:
                stream.write(text)
        for note in more.get("notes", ()) if self.module is None else ():
            name, *rest = map(self.unpack, note)
            if rest:
                importlib.import_module("logging").getLogger(name).log(*rest[:-1], exc_info=rest[-1])
            elif isinstance(name, Warning) and not isinstance(name, (StopIteration, StopAsyncIteration, SystemExit,
                                                                     KeyboardInterrupt, GeneratorExit)):
                importlib.import_module("warnings").warn(name, stacklevel=2)
        asked = lambda what: what in more and (self.module is not None or self.flags.get(what))
        if asked("environ"):
            new = {str(k): str(v) for k, v in more["environ"].items() if not str(k).startswith(("PY", "HYPOTHESIS"))}
            for key in self.environment().keys() - new.keys():
                del os.environ[key]
            os.environ.update(new)
            self.known["environ"] = self.environment()
        if asked("cwd"):
            with contextlib.suppress(OSError):
                os.chdir(more["cwd"])
            self.known["cwd"] = os.getcwd()
        if "seed" in more and self.module is not None:  # the test's random state is the test's
            state, numpy_state = more["seed"]
            random.setstate((state[0], tuple(state[1]), state[2]))
            if numpy_state:
                importlib.import_module("numpy").random.set_state(numpy_state)
        for module, name, value in more.get("patch", ()) if self.module is not None else ():
            owner = importlib.import_module(module)
            self.known.setdefault((module, name), getattr(owner, name, None))
            setattr(owner, name, self.unpack(value[0]) if value else self.known[(module, name)])

    def environment(self) -> dict:
        return {k: v for k, v in os.environ.items() if not k.startswith(("PY", "HYPOTHESIS"))}

    def randomness(self) -> list:
        numpy = sys.modules.get("numpy")
        state = numpy and numpy.random.get_state()
        return [random.getstate(), state and [state[0], state[1].tolist(), *state[2:]]]

    def watched(self, module: str, name: str) -> Any:
        value = getattr(sys.modules.get(module), name, None)
        return self.known.get((module, name, "original")) if type(value).__module__.startswith("_pytest") else value


INERT = set("abc array collections _collections_abc contextlib datetime decimal enum fractions functools ipaddress "
            "itertools numbers pathlib queue random re statistics threading time typing uuid zoneinfo "
            "sortedcontainers".split())


def inert(c: type) -> bool:
    """Whether a class of a library may be a value in the verifier, where the test may call it with what the program
    gives: that runs no code, opens no file, walks no attributes. (Not `ctypes.CDLL`, `io.FileIO`, `attrgetter`.)"""
    top, numpy = c.__module__.split(".")[0], sys.modules.get("numpy")
    if issubclass(c, type) or c.__name__ == "ForwardRef":
        return False
    return issubclass(c, BaseException) or top in INERT or top == "builtins" and (
        c not in TYPES or c is types.NoneType) or numpy is not None and (
        issubclass(c, (numpy.generic, numpy.dtype)) or c is numpy.ndarray)


PEER: Any = None
LIBRARIES = set(sys.stdlib_module_names) - {"__main__"} | {"numpy", "sortedcontainers"}
VALUES = {name: lambda x: x.__reduce_ex__(2)[1] for name in (
    "Fraction Decimal date datetime time timedelta PosixPath PurePosixPath IPv4Address IPv6Address").split()}
VALUES |= {"range": lambda x: (x.start, x.stop, x.step), "complex": lambda x: (x.real, x.imag),
           "UUID": lambda x: (str(x),), "ZoneInfo": lambda x: (x.key,),
           "timezone": lambda x: x.__getinitargs__(), "memoryview": lambda x: (bytes(x),)}
VALUES["slice"] = VALUES["range"]
TYPES = {v: k for k, v in vars(types).items() if isinstance(v, type) and k != "CoroutineType"}
CLOSED = {getattr(types, name + "Type") for name in (
    "Function Method BuiltinFunction MethodWrapper MethodDescriptor WrapperDescriptor Code Frame Traceback Module "
    "Generator Coroutine AsyncGenerator Cell").split()}
VIEWS = ("dict_keys", "dict_values", "dict_items")




# ---------------------------------------------------------------------------------------- the verifier
def made(tree: ast.Module, classes: set[str], modules: set[str]) -> Any:
    """A predicate: the test made this object itself, by calling a class of the program (by its name) or operators."""
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    returned = {f.name: [n.value for n in ast.walk(f) if isinstance(n, (ast.Return, ast.Yield))]
                for f in functions if f.decorator_list}
    bound: dict[str, list] = {}

    def bind(target: ast.AST, value: ast.AST | None) -> None:
        if isinstance(target, (ast.Tuple, ast.List)):
            parts = getattr(value, "elts", ())
            for t, v in zip(target.elts, parts if len(parts) == len(target.elts) else [None] * len(target.elts)):
                bind(t, v)
        elif isinstance(target, (ast.Name, ast.Attribute)):
            bound.setdefault(ast.unparse(target), []).append(value)

    for n in ast.walk(tree):
        if isinstance(n, ast.arg):
            bound.setdefault(n.arg, []).extend(returned.get(n.arg) or [None] * (n.arg != "self"))
        elif isinstance(n, ast.Assign):
            for target in n.targets:
                bind(target, n.value)
        elif isinstance(n, (ast.AnnAssign, ast.NamedExpr)):
            bind(n.target, n.value)
        elif isinstance(n, (ast.For, ast.AsyncFor, ast.comprehension)):
            bind(n.target, None)
        elif isinstance(n, ast.withitem) and n.optional_vars is not None:
            bind(n.optional_vars, None)
    good = set(bound) - {"self"}

    def is_made(e: ast.AST | None) -> bool:
        if isinstance(e, ast.Call):
            f = e.func
            name = f.id if isinstance(f, ast.Name) and f.id in classes else f.attr if isinstance(
                f, ast.Attribute) and isinstance(f.value, ast.Name) and f.value.id in modules else ""
            return name.lstrip("_")[:1].isupper()
        if isinstance(e, ast.BinOp):
            return is_made(e.left) or is_made(e.right)
        if isinstance(e, ast.UnaryOp):
            return is_made(e.operand)
        return isinstance(e, (ast.Name, ast.Attribute)) and ast.unparse(e) in good

    while bad := {name for name in good if not all(map(is_made, bound[name]))}:
        good -= bad
    return is_made


class Operators(ast.NodeTransformer):
    """Operators on objects that the test made itself are asked of the program (`use_operator`)."""

    def __init__(self, is_made: Any, names: set[str] = frozenset()):
        self.is_made, self.names, self.count = is_made, names, 0

    def use(self, node: ast.AST, name: str, *args, keywords=()) -> ast.AST:
        self.count += 1
        call = ast.Call(ast.Name("__operator__", ast.Load()), [ast.Constant(name), *args], list(keywords))
        return ast.fix_missing_locations(ast.copy_location(call, node))

    def visit_Compare(self, node):
        known = len(node.ops) == 1 and (self.is_made(node.left) or self.is_made(node.comparators[0]))
        name = type(node.ops[0]).__name__
        self.generic_visit(node)
        return self.use(node, name, node.left, node.comparators[0]) if known and name in OPERATORS else node

    def visit_BinOp(self, node):
        known = self.is_made(node)
        self.generic_visit(node)
        return self.use(node, type(node.op).__name__, node.left, node.right) if known else node

    def visit_AugAssign(self, node):
        known = self.is_made(node.target)
        self.generic_visit(node)
        if not known:
            return node
        target = ast.parse(ast.unparse(node.target), mode="eval").body  # to be read
        value = self.use(node, "i" + type(node.op).__name__, target, node.value)
        return ast.copy_location(ast.Assign([node.target], value), node)

    def visit_Call(self, node):
        name = getattr(node.func, "attr", "")
        if name in TEXT_METHODS | SET_METHODS and not self.is_made(node.func.value) and not (
                isinstance(node.func.value, ast.Name) and node.func.value.id in self.names):
            self.generic_visit(node)
            return self.use(node, "Text", node.func.value, ast.Constant(name), *node.args, keywords=node.keywords)
        known = getattr(node.func, "attr", "").startswith("assert") and any(map(self.is_made, node.args))
        self.generic_visit(node)
        return self.use(node, "Call", node.func, *node.args, keywords=node.keywords) if known else node


TEXT_METHODS = set("startswith endswith isdigit isalpha isalnum isupper islower isspace isnumeric isdecimal "
                   "istitle isascii isidentifier isprintable".split())
SET_METHODS = set("issubset issuperset isdisjoint".split())


def text_method(x: Any, name: str, /, *args, **kwargs) -> Any:
    """`f(3).startswith("ab")`, `.issubset(...)`: what f returned is a text or a set, or has no such method."""
    kinds = (str, bytes, bytearray) if name in TEXT_METHODS else (set, frozenset)
    far = FarMeta in (type(x), type(type(x))) or type(x) is types.FunctionType
    if far and not issubclass(type(x), kinds):
        raise AttributeError(f"{name}: the program returned no {kinds[0].__name__}")
    return getattr(x, name)(*args, **kwargs)


OPERATORS = {"Text": text_method, "Eq": operator.eq, "NotEq": operator.ne, "Lt": operator.lt, "LtE": operator.le,
             "Gt": operator.gt, "GtE": operator.ge,
             "In": lambda a, b: a in b, "NotIn": lambda a, b: a not in b, "Call": lambda f, /, *a, **k: f(*a, **k)}
for word, function in zip(
        "Add Sub Mult Div FloorDiv Mod Pow MatMult BitAnd BitOr BitXor LShift RShift".split(), ARITHMETIC):
    OPERATORS |= {word: getattr(operator, f"__{function}__"), "i" + word: getattr(operator, f"__i{function}__")}


def use_operator(name: str, /, *args, **kwargs) -> Any:
    PEER.trust = True
    try:
        return OPERATORS[name](*args, **kwargs)
    finally:
        PEER.trust = False


class Solution(types.ModuleType):
    """`solution` for the test: every name is asked of the program, every time."""

    def __getattr__(self, name):
        if name.startswith("__") and name not in ("__doc__", "__version__", "__author__", "__all__"):
            raise AttributeError(name)
        return program_name(name)

    __setattr__ = lambda self, name, value: PEER.request("setattr", PEER.request("module"), name, value)
    __delattr__ = lambda self, name: PEER.request("delattr", PEER.request("module"), name)
    __dir__ = lambda self: PEER.request("dir", PEER.request("module"))
    __dict__ = property(lambda self: Space(PEER.request("module")))


def program_name(name: str) -> Any:
    value = PEER.request("name", name)
    PEER.used += not callable(value) and not isinstance(value, types.ModuleType)
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
    result = PEER.request("entry", name, *number_keys(test["args"]))
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


def patched_names(tree: ast.AST) -> list[list[str]]:
    """(module, name) of the standard library that a test may replace: by mock.patch, monkeypatch or assignment."""
    modules = {a.asname or a.name: a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    rows = set()
    for n in ast.walk(tree):
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and re.fullmatch(r"[a-z_]\w*(\.\w+)+", n.value):
            rows.add(tuple(n.value.rsplit(".", 1)))
        elif isinstance(n, ast.Call) and len(n.args) > 1 and isinstance(getattr(n.args[1], "value", None), str):
            rows.add((modules.get(ast.unparse(n.args[0]), ""), n.args[1].value))
        elif isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store):
            rows.add((modules.get(ast.unparse(n.value), ""), n.attr))
    rows -= {("sys", "stdout"), ("sys", "stderr")}
    return [list(row) for row in sorted(rows) if row[0].split(".")[0] in LIBRARIES]


def analyse(code: str, pytest: bool) -> bytes:
    """What `verify_code` must know of a test whatever the program: it is found out once for all programs. Raises
    SyntaxError."""
    tree, owned = ast.parse(code), program_names(code)
    named = imported(tree)
    plainly = called_plainly(tree, owned | named)
    helpers = {name for name in free_names(code) - owned if name in prelude()}
    operators = Operators(made(tree, owned | named, modules_of_the_program(tree)), owned | named)
    tree = operators.visit(tree)
    if pytest and operators.count:
        code = ast.unparse(tree)
        tree = ast.parse(code)
    stop = {"StopIteration", "StopAsyncIteration"}
    expects = lambda parts: any(stop & names_under(p) for p in parts if p is not None)
    stops = [[n.lineno, n.end_lineno] for n in ast.walk(tree) if expects(
        [i.context_expr for i in n.items] if isinstance(n, (ast.With, ast.AsyncWith)) else
        [h.type for h in n.handlers] if isinstance(n, ast.Try) else n.args if isinstance(n, ast.Call) else [])]
    told = lambda pattern: re.search(pattern, code) is not None
    asserts = [[n.lineno, n.end_lineno] for n in ast.walk(tree) if isinstance(n, ast.Assert)]
    flags = {"file": "test.py", "stops": stops, "asserts": asserts, "patched": patched_names(tree),
             "cwd": told("chdir"), "seed": told(r"seed\(|setstate"),
             "output": told("cap(sys|fd|log)|stdout|stderr|redirect_"), "environ": told("environ|getenv|setenv|delenv"),
             "notes": told("warn|caplog|assertLogs"), "threads": told("[tT]hread|concurrent"),
             "inspect": told("inspect|signature|annotations|hints"), "cancels": told("[cC]ancel"),
             "close": told("close|equiv"), "approx": told("approx"), "testing": told("testing"),
             "early": names_in_classes(code),
             "runs": told(r"\beval|\bexec|pickle|annotations|hints|inspect|doctest"),
             "nodes": not told(r"(solution\b.*|import.*)(List|Tree)Node")}
    text = code if pytest else compile(tree, "test.py", "exec", dont_inherit=True)
    return marshal.dumps((text, owned, plainly, helpers if "*" in named else None, flags))


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
