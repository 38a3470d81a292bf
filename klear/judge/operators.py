"""Operators and text methods in a test: which ask the program, since the test made the object itself."""

from __future__ import annotations

import ast
import operator
import types
from typing import Any

from klear.judge import standins
from klear.judge.contents import ARITHMETIC
from klear.judge.standins import FarMeta


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
    standins.PEER.trust = True
    try:
        return OPERATORS[name](*args, **kwargs)
    finally:
        standins.PEER.trust = False
