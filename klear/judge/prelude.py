"""Names that a program finds defined, as LeetCode defines them: the library's, linked lists and trees."""

from __future__ import annotations

import builtins
import copy
import functools
import math
import sys
from typing import Any

MODULES = (
    "math cmath collections collections.abc heapq itertools bisect functools operator re string random "
    "copy decimal fractions statistics datetime time typing dataclasses enum io json queue array "
    "threading textwrap pprint struct hashlib string abc contextlib types unittest zoneinfo numpy "
    "sortedcontainers").split()


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
