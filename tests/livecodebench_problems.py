# ruff: noqa: E501 (programs as text)
"""24 problems in the format of livecodebench/code_generation_lite, written for these tests, with solutions of every kind.

    python tests/livecodebench_problems.py     # writes tests/livecodebench_24.jsonl again (the same bytes)

PROBLEMS[i] = Problem(name, function name or "", statement, starter code, inputs, right program, {kind: (program, passes)}).
Expected outputs come from running the right program here, in this process.
"""

import base64
import contextlib
import io
import json
import pickle
import random
import zlib
from dataclasses import dataclass, field
from pathlib import Path

FILE = Path(__file__).with_name("livecodebench_24.jsonl")


@dataclass
class Problem:
    name: str
    function: str  # "" for stdin problems
    statement: str
    inputs: list  # stdin texts, or lists of arguments
    right: str
    others: dict[str, tuple[str, bool]] = field(default_factory=dict)  # kind -> (program, whether all tests pass)

    @property
    def starter(self) -> str:
        if not self.function:
            return ""
        head = next(line for line in self.right.splitlines() if f"def {self.function}(" in line)
        return f"class Solution:\n{head}\n        "


def run_here(problem: Problem, arguments) -> str:
    """The right program's output in LiveCodeBench's notation."""
    scope = {"__name__": "__main__"}
    if problem.function:
        exec(problem.right, scope)
        return json.dumps(getattr(scope["Solution"](), problem.function)(*arguments))
    out, lines = io.StringIO(), io.StringIO(arguments)
    with contextlib.redirect_stdout(out):
        scope["input"] = lambda: lines.readline().rstrip("\n")
        exec(problem.right, scope)
    return out.getvalue()


def row(problem: Problem, number: int) -> dict:
    kind = "functional" if problem.function else "stdin"
    tests = [{"input": "\n".join(map(json.dumps, x)) if problem.function else x, "output": run_here(problem, x), "testtype": kind}
             for x in problem.inputs]
    public, private = tests[:2], tests[2:]
    packed = json.dumps(private) if number % 4 == 3 else base64.b64encode(zlib.compress(pickle.dumps(json.dumps(private), 4), 9)).decode()
    months = ["2024-07-20", "2024-08-01", "2024-11-16", "2025-01-31", "2025-02-01", "2025-04-06", "2025-05-01"]
    return {"question_title": problem.name.replace("_", " ").title(), "question_content": problem.statement,
            "platform": "leetcode" if problem.function else ("atcoder", "codeforces")[number % 2], "question_id": f"{problem.name}_{number}",
            "contest_id": f"contest_{number % 7}", "contest_date": months[number % 7] + "T00:00:00", "starter_code": problem.starter,
            "difficulty": ("easy", "medium", "hard")[number % 3], "public_test_cases": json.dumps(public), "private_test_cases": packed,
            "metadata": json.dumps({"func_name": problem.function} if problem.function else {})}


def ints(rng, count, low=-50, high=50):
    return [rng.randint(low, high) for _ in range(count)]


def array_text(rng, count, low=-50, high=50):
    return f"{count}\n{' '.join(map(str, ints(rng, count, low, high)))}\n"


R = random.Random(7)
LOOP = "while True:\n    pass\n"
PROBLEMS = [
    Problem("sum_two", "", "Read two integers on one line and print their sum.", [f"{a} {b}\n" for a, b in zip(ints(R, 100), ints(R, 100))],
            "a, b = map(int, input().split())\nprint(a + b)", {
                "wrong on negatives": ("a, b = map(int, input().split())\nprint(abs(a) + abs(b))", False),
                "as a decimal": ("a, b = map(int, input().split())\nprint(f'{a + b}.0')", True),
                "no newline": ("a, b = map(int, input().split())\nprint(a + b, end='')", True),
                "words around": ("a, b = map(int, input().split())\nprint('sum:', a + b)", False)}),
    Problem("max_of_list", "", "Read n, then n integers. Print the largest.", [array_text(R, n) for n in range(1, 31)],
            "n = int(input())\nprint(max(map(int, input().split())))", {
                "wrong start value": ("input()\nbest = 0\nfor x in input().split():\n    best = max(best, int(x))\nprint(best)", False),
                "crash": ("n = int(input())\nx = list(map(int, input().split()))\nprint(max(x[:n // 0]))", False)}),
    Problem("reverse_words", "", "Read a line of words. Print them in reverse order, separated by spaces.",
            [" ".join(R.choices(["ab", "c", "def", "x1"], k=k)) + "\n" for k in range(1, 13)], "print(*input().split()[::-1])", {
                "reversed letters": ("print(input()[::-1])", False), "spaces around": ("print('  ', *input().split()[::-1], '  ')\nprint()", True),
                "commas": ("print(','.join(input().split()[::-1]))", False)}),
    Problem("count_primes", "", "Read n. Print how many primes are at most n.", [f"{n}\n" for n in (1, 2, 3, 10, 97, 1000, 4999)],
            "n = int(input())\ns = [True] * (n + 1)\nc = 0\nfor p in range(2, n + 1):\n    if s[p]:\n        c += 1\n        for q in range(p * p, n + 1, p):\n"
            "            s[q] = False\nprint(c)", {
                "one is a prime": ("n = int(input())\nprint(sum(all(k % d for d in range(2, k)) for k in range(1, n + 1)))", False),
                "slow": ("n = int(input())\n" + LOOP, False)}),
    Problem("grid_path", "", "Read h and w and a grid of . and #. Print the length of the shortest path from the upper left to the lower right, or -1.",
            [f"{h} {w}\n" + "\n".join("".join("#" if R.random() < .25 and (i, j) not in ((0, 0), (h - 1, w - 1)) else "." for j in range(w)) for i in range(h)) + "\n"
             for h, w in ((1, 1), (2, 2), (3, 5), (5, 5), (6, 4), (7, 7), (8, 8), (4, 9))],
            "from collections import deque\nh, w = map(int, input().split())\ng = [input() for _ in range(h)]\nd = {(0, 0): 0}\nq = deque(d)\nwhile q:\n    i, j = q.popleft()\n"
            "    for a, b in ((i+1, j), (i-1, j), (i, j+1), (i, j-1)):\n        if 0 <= a < h and 0 <= b < w and g[a][b] == '.' and (a, b) not in d:\n"
            "            d[a, b] = d[i, j] + 1\n            q.append((a, b))\nprint(d.get((h-1, w-1), -1))", {
                "manhattan": ("h, w = map(int, input().split())\nprint(h + w - 2)", False),
                "recursion": ("def f(x):\n    return f(x + 1)\nf(0)", False)}),
    Problem("sort_pairs", "", "Read n, then n lines with a name and a score. Print the names by falling score, one a line.",
            [f"{n}\n" + "".join(f"p{i} {s}\n" for i, s in enumerate(R.sample(range(100), n))) for n in range(1, 11)],
            "n = int(input())\nrows = [input().split() for _ in range(n)]\nfor name, _ in sorted(rows, key=lambda r: -int(r[1])):\n    print(name)", {
                "as text": ("n = int(input())\nrows = [input().split() for _ in range(n)]\nfor r in sorted(rows, key=lambda r: r[1], reverse=True):\n    print(r[0])", False),
                "on one line": ("n = int(input())\nrows = [input().split() for _ in range(n)]\nprint(*[r[0] for r in sorted(rows, key=lambda r: -int(r[1]))])", False),
                "spaces at line ends": ("n = int(input())\nrows = [input().split() for _ in range(n)]\nfor r in sorted(rows, key=lambda r: -int(r[1])):\n    print(' ' + r[0] + '  ')", True)}),
    Problem("average", "", "Read n, then n integers. Print their mean.", [array_text(R, n) for n in (1, 2, 4, 5, 8, 10, 16)],
            "n = int(input())\nprint(sum(map(int, input().split())) / n)", {
                "rounded": ("n = int(input())\nprint(round(sum(map(int, input().split())) / n))", False),
                "trailing zeros": ("n = int(input())\nprint(f'{sum(map(int, input().split())) / n:.6f}')", True)}),
    Problem("fibonacci", "", "Read n. Print the n-th Fibonacci number (F(0) = 0, F(1) = 1).", [f"{n}\n" for n in (0, 1, 2, 3, 10, 50, 90, 300)],
            "a, b = 0, 1\nfor _ in range(int(input())):\n    a, b = b, a + b\nprint(a)", {
                "floating point": ("n = int(input())\ns = 5 ** .5\nprint(int(round(((1 + s) / 2) ** n / s)))", False),
                "exponential": ("def f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)\nprint(f(int(input())))", False)}),
    Problem("bracket_match", "", "Read a string of ()[]{}. Print Yes if it is balanced, else No.",
            [s + "\n" for s in ("()", "([)]", "{[()]}", "(", "]", "()[]{}", "((((", "}{", "[({})]()", "(]")],
            "s, st, ok = input(), [], True\nfor c in s:\n    if c in '([{':\n        st.append(c)\n    elif not st or st.pop() + c not in ('()', '[]', '{}'):\n        ok = False\n"
            "print('Yes' if ok and not st else 'No')", {
                "counts only": ("s = input()\nprint('Yes' if s.count('(') == s.count(')') and s.count('[') == s.count(']') else 'No')", False),
                "other case": ("print('YES')", False), "exit code": ("import sys\nsys.exit(3)", False)}),
    Problem("coin_change", "", "Read the amount, then the coins on a line. Print the least number of coins, or -1.",
            ["11\n1 2 5\n", "3\n2\n", "0\n1\n", "30\n7 10 3\n", "27\n4 9\n", "100\n3 7\n", "6\n1 3 4\n"],
            "a = int(input())\nc = list(map(int, input().split()))\nd = [0] + [10 ** 9] * a\nfor x in range(1, a + 1):\n    for k in c:\n        if k <= x:\n"
            "            d[x] = min(d[x], d[x - k] + 1)\nprint(d[a] if d[a] < 10 ** 9 else -1)", {
                "greedy": ("a = int(input())\nn = 0\nfor c in sorted(map(int, input().split()), reverse=True):\n    n += a // c\n    a %= c\nprint(-1 if a else n)", False)}),
    Problem("matrix_transpose", "", "Read h and w and a matrix. Print its transpose.",
            [f"{h} {w}\n" + "".join(" ".join(map(str, ints(R, w))) + "\n" for _ in range(h)) for h, w in ((1, 1), (1, 4), (3, 2), (4, 4), (5, 3))],
            "h, w = map(int, input().split())\nm = [input().split() for _ in range(h)]\nfor c in zip(*m):\n    print(*c)", {
                "not transposed": ("h, w = map(int, input().split())\nfor _ in range(h):\n    print(input())", False),
                "blank lines between": ("h, w = map(int, input().split())\nm = [input().split() for _ in range(h)]\nfor c in zip(*m):\n    print(*c)\n    print()", False),
                "decimals": ("h, w = map(int, input().split())\nm = [input().split() for _ in range(h)]\nfor c in zip(*m):\n    print(*(float(x) for x in c))", True)}),
    Problem("caesar", "", "Read a shift and a line of lower-case letters and spaces. Print it shifted.",
            [f"{k}\n{''.join(R.choices('abcxyz ', k=12)).strip() or 'a'}\n" for k in range(1, 9)],
            "k = int(input())\nprint(''.join(chr((ord(c) - 97 + k) % 26 + 97) if c != ' ' else c for c in input()))", {
                "no wrap": ("k = int(input())\nprint(''.join(chr(ord(c) + k) for c in input()))", False),
                "endless output": ("while True:\n    print('x' * 10000)", False), "memory": ("x = [0] * (10 ** 10)\nprint(len(x))", False)}),
    Problem("two_sum", "twoSum", "Return the indices i < j of the two numbers that add up to target.",
            [[a, a[i] + a[j]] for a, i, j in ((R.sample(range(-99, 99), n), *sorted(R.sample(range(n), 2))) for n in range(2, 12))
             if sum(x + y == a[i] + a[j] for q, x in enumerate(a) for y in a[q + 1:]) == 1],
            "class Solution:\n    def twoSum(self, nums: list[int], target: int) -> list[int]:\n        seen = {}\n        for j, x in enumerate(nums):\n            if target - x in seen:\n"
            "                return [seen[target - x], j]\n            seen[x] = j", {
                "values": ("class Solution:\n    def twoSum(self, nums, target):\n        return [x for x in nums if target - x in nums]", False),
                "as a tuple": ("class Solution:\n    def twoSum(self, nums, target):\n        return next((i, j) for i in range(len(nums)) for j in range(i + 1, len(nums)) if nums[i] + nums[j] == target)", True),
                "printed, not returned": ("class Solution:\n    def twoSum(self, nums, target):\n        print([0, 1])", False)}),
    Problem("is_palindrome", "isPalindrome", "Return whether s reads the same backwards, ignoring case and all but letters.",
            [[s] for s in ("", "a", "Aa", "ab", "A man, a plan, a canal: Panama", "race a car", "..", "No lemon, no melon")],
            "class Solution:\n    def isPalindrome(self, s: str) -> bool:\n        t = [c.lower() for c in s if c.isalpha()]\n        return t == t[::-1]", {
                "case": ("class Solution:\n    def isPalindrome(self, s):\n        return s == s[::-1]", False),
                "as text": ("class Solution:\n    def isPalindrome(self, s):\n        t = [c.lower() for c in s if c.isalpha()]\n        return str(t == t[::-1])", False)}),
    Problem("longest_run", "longestRun", "Return the length of the longest run of equal neighbours; 0 for an empty list.",
            [[R.choices([1, 2], k=k)] for k in range(0, 100)],
            "class Solution:\n    def longestRun(self, a: list[int]) -> int:\n        best = run = 0\n        for i, x in enumerate(a):\n            run = run + 1 if i and a[i - 1] == x else 1\n"
            "            best = max(best, run)\n        return best", {
                "off by one": ("class Solution:\n    def longestRun(self, a):\n        best = run = 1\n        for x, y in zip(a, a[1:]):\n            run = run + 1 if x == y else 1\n            best = max(best, run)\n        return best", False),
                "slow": ("class Solution:\n    def longestRun(self, a):\n        while len(a) > 50:\n            pass\n        return max((len(s) for s in ''.join(map(str, a)).replace('12', '1 2').replace('21', '2 1').split()), default=0)", False)}),
    Problem("merge_intervals", "merge", "Merge overlapping intervals; return them sorted.",
            [[[]], [[[1, 3], [2, 6], [8, 10]]], [[[1, 4], [4, 5]]], [[[5, 6], [1, 2]]], [[[1, 10], [2, 3], [4, 5]]], [[[0, 0], [0, 0]]]],
            "class Solution:\n    def merge(self, intervals: list[list[int]]) -> list[list[int]]:\n        out = []\n        for a, b in sorted(intervals):\n            if out and a <= out[-1][1]:\n"
            "                out[-1][1] = max(out[-1][1], b)\n            else:\n                out.append([a, b])\n        return out", {
                "touching apart": ("class Solution:\n    def merge(self, intervals):\n        out = []\n        for a, b in sorted(intervals):\n            if out and a < out[-1][1]:\n                out[-1][1] = max(out[-1][1], b)\n            else:\n                out.append([a, b])\n        return out", False),
                "exception": ("class Solution:\n    def merge(self, intervals):\n        raise ValueError('no')", False)}),
    Problem("char_counts", "charCounts", "Return a dictionary from each letter of s to its count.",
            [[s] for s in ("", "a", "banana", "abcabc", "zzz")], "class Solution:\n    def charCounts(self, s: str) -> dict[str, int]:\n        return {c: s.count(c) for c in s}", {
                "ones": ("class Solution:\n    def charCounts(self, s):\n        return {c: 1 for c in s}", False),
                "other name": ("class Solution:\n    def countChars(self, s):\n        return {c: s.count(c) for c in s}", False)}),
    Problem("power_mod", "powerMod", "Return a**b modulo m.", [[2, 10, 1000], [3, 200, 7], [10, 0, 9], [7, 123456, 998244353], [5, 3, 1]],
            "class Solution:\n    def powerMod(self, a: int, b: int, m: int) -> int:\n        return pow(a, b, m)", {
                "no modulus": ("class Solution:\n    def powerMod(self, a, b, m):\n        return a ** min(b, 20)", False),
                "no class": ("def powerMod(a, b, m):\n    return pow(a, b, m)", True)}),
    Problem("split_groups", "splitGroups", "Return the numbers grouped by remainder modulo k, groups by remainder, empty groups left out.",
            [[[1, 2, 3, 4, 5], 2], [[], 3], [[9, 6, 3], 3], [[5, 4, 3, 2, 1, 0], 4]],
            "class Solution:\n    def splitGroups(self, a: list[int], k: int) -> list[list[int]]:\n        return [g for r in range(k) if (g := [x for x in a if x % k == r])]", {
                "empty groups": ("class Solution:\n    def splitGroups(self, a, k):\n        return [[x for x in a if x % k == r] for r in range(k)]", False),
                "tuples inside": ("class Solution:\n    def splitGroups(self, a, k):\n        return tuple(g for r in range(k) if (g := [x for x in a if x % k == r]))", True)}),
    Problem("median", "median", "Return the median of the numbers.", [[[1]], [[1, 2]], [[3, 1, 2]], [[4, 1, 3, 2]], [[5, 5, 5, 6]]],
            "class Solution:\n    def median(self, a: list[int]) -> float:\n        s, n = sorted(a), len(a)\n        return (s[n // 2] + s[(n - 1) // 2]) / 2", {
                "unsorted": ("class Solution:\n    def median(self, a):\n        return a[len(a) // 2]", False),
                "whole where whole": ("class Solution:\n    def median(self, a):\n        s, n = sorted(a), len(a)\n        x = (s[n // 2] + s[(n - 1) // 2]) / 2\n        return int(x) if x == int(x) else x", True)}),
    Problem("unicode_upper", "upper", "Return s in upper case.", [["abc"], ["äöü"], ["ñandú"], [""], ["a\"b\\c"], ["line\nbreak"]],
            "class Solution:\n    def upper(self, s: str) -> str:\n        return s.upper()", {
                "ascii only": ("class Solution:\n    def upper(self, s):\n        return ''.join(chr(ord(c) - 32) if 'a' <= c <= 'z' else c for c in s)", False)}),
    Problem("tree_depth", "depth", "parents[i] is the parent of node i, -1 for the root. Return the depth of the tree in nodes.",
            [[[-1]], [[-1, 0, 0]], [[-1, 0, 1, 2, 3]], [[1, -1, 1]], [[-1, *range(40)]]],
            "class Solution:\n    def depth(self, parents: list[int]) -> int:\n        def up(i):\n            return 0 if i < 0 else 1 + up(parents[i])\n        return max(map(up, range(len(parents))))", {
                "edges": ("class Solution:\n    def depth(self, parents):\n        def up(i):\n            return -1 if i < 0 else 1 + up(parents[i])\n        return max(map(up, range(len(parents))))", False),
                "syntax error": ("class Solution:\n    def depth(self, parents)\n        return 1", False)}),
    Problem("queries", "", "Read n numbers (n on the first line), q, then q pairs l r (1-based, inclusive). Print each sum.",
            [f"{n}\n{' '.join(map(str, ints(R, n)))}\n{q}\n" + "".join("{} {}\n".format(*sorted(R.choices(range(1, n + 1), k=2))) for _ in range(q))
             for n, q in ((1, 1), (5, 3), (10, 20), (50, 40))],
            "n = int(input())\na = list(map(int, input().split()))\np = [0]\nfor x in a:\n    p.append(p[-1] + x)\nfor _ in range(int(input())):\n    l, r = map(int, input().split())\n"
            "    print(p[r] - p[l - 1])", {
                "exclusive": ("n = int(input())\na = list(map(int, input().split()))\nfor _ in range(int(input())):\n    l, r = map(int, input().split())\n    print(sum(a[l - 1:r - 1]))", False),
                "reads stdin whole": ("import sys\nd = list(map(int, sys.stdin.read().split()))\nn = d[0]\na = d[1:n + 1]\nfor k in range(d[n + 1]):\n    l, r = d[n + 2 + 2 * k:n + 4 + 2 * k]\n    sys.stdout.write(f'{sum(a[l - 1:r])}\\n')", True),
                "one line missing": ("n = int(input())\na = list(map(int, input().split()))\nq = int(input())\nfor _ in range(q - 1):\n    l, r = map(int, input().split())\n    print(sum(a[l - 1:r]))", False)}),
    Problem("hello", "", "Read a name. Print Hello, NAME!", ["Ann\n", "Bob\n", "Zoë\n"], "print(f'Hello, {input()}!')", {
                "no comma": ("print(f'Hello {input()}!')", False),
                "guarded main": ("def main():\n    print('Hello, ' + input() + '!')\n\nif __name__ == '__main__':\n    main()", True),
                "reads files": ("print(open('/etc/hostname').read())", False)}),
]


if __name__ == "__main__":
    FILE.write_text("".join(json.dumps(row(p, at), ensure_ascii=False) + "\n" for at, p in enumerate(PROBLEMS)), encoding="utf-8")
    print(FILE, len(PROBLEMS), "problems", sum(len(p.inputs) for p in PROBLEMS), "tests", sum(1 + len(p.others) for p in PROBLEMS), "programs")
