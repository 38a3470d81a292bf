"""What a test alone says, whatever the program: whose its names are, whether it calls the program, what it needs."""

from __future__ import annotations

import ast
import builtins
import marshal
import re
import symtable
import sys

from klear.judge.contents import LIBRARIES
from klear.judge.operators import Operators, made
from klear.judge.prelude import HELPERS, prelude


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
