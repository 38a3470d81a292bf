"""Small problems for the sandbox's tests: each with a right, a wrong and a partly right solution and the exact share of tests it passes."""

from typing import NamedTuple


class Problem(NamedTuple):
    name: str
    inputs: list  # argument tuples, or stdin texts
    outputs: list
    solutions: list[tuple[str, float]]  # program, pass rate


def function(name: str, inputs: list, right: str, wrong: str, partly: str, rate: float) -> Problem:
    """Solutions are expressions (lambdas) for the name; the expected values are those of `right`."""
    solve = eval(right)
    programs = [(right, 1.0), (wrong, 0.0), (partly, rate)]
    return Problem(name, [list(i) for i in inputs], [solve(*i) for i in inputs], [(f"{name} = {code}\n", share) for code, share in programs])


FUNCTIONS = [
    function("add", [(1, 2), (-1, 5), (0, 0), (3, -4)], "lambda a, b: a + b", "lambda a, b: str(a + b)", "lambda a, b: a + abs(b)", 0.75),
    function("is_even", [(0,), (1,), (2,), (7,)], "lambda n: n % 2 == 0", "lambda n: n % 2 == 1", "lambda n: True", 0.5),
    function("largest", [([1, 5, 2],), ([-3, -1],), ([7],), ([2, 2],)], "lambda x: max(x)", "lambda x: x", "lambda x: max(0, *x)", 0.75),
    function("total", [([1, 2],), ([],), ([-1],), ([5, 5, 5],)], "lambda x: sum(x)", "lambda x: sum(x) + 1", "lambda x: sum(set(x))", 0.75),
    function("reverse_text", [("abc",), ("",), ("aa",), ("xyz",)], "lambda s: s[::-1]", "lambda s: list(s)", "lambda s: s", 0.5),
    function("is_palindrome", [("aba",), ("ab",), ("",), ("abba",), ("abcd",)], "lambda s: s == s[::-1]", "lambda s: not s == s[::-1]",
             "lambda s: len(s) % 2 == 1", 0.6),
    function("factorial", [(0,), (1,), (5,), (20,)], "lambda n: __import__('math').factorial(n)",
             "lambda n: -1", "lambda n: max(n, 1)", 0.5),
    function("fib", [(0,), (1,), (2,), (10,), (30,)], "lambda n: round(((1 + 5 ** .5) / 2) ** n / 5 ** .5)", "lambda n: n + 100", "lambda n: min(n, 1)", 0.6),
    function("gcd_of", [(4, 6), (7, 3), (10, 5), (0, 9)], "lambda a, b: __import__('math').gcd(a, b)", "lambda a, b: 0", "lambda a, b: 1", 0.25),
    function("count_vowels", [("hello",), ("",), ("AEI",), ("xyz",)], "lambda s: sum(c in 'aeiouAEIOU' for c in s)", "lambda s: -1",
             "lambda s: sum(c in 'aeiou' for c in s)", 0.75),
    function("sort_desc", [([3, 1, 2],), ([],), ([1, 1],), ([1, 2],)], "lambda x: sorted(x, reverse=True)", "lambda x: None", "lambda x: sorted(x)", 0.5),
    function("unique", [([1, 1, 2],), ([],), ([3, 2, 3],), ([5],)], "lambda x: list(dict.fromkeys(x))", "lambda x: 0", "lambda x: sorted(set(x))", 0.75),
    function("flatten", [([[1], [2, 3]],), ([],), ([[]],), ([[1, 1]],)], "lambda x: [v for r in x for v in r]", "lambda x: [x]",
             "lambda x: x[0] if x else []", 0.75),
    function("word_counts", [("a b a",), ("",), ("x",), ("x y",)], "lambda s: {w: s.split().count(w) for w in s.split()}", "lambda s: [s]",
             "lambda s: dict.fromkeys(s.split(), 1)", 0.75),
    function("transpose", [([[1, 2], [3, 4]],), ([[1]],), ([[1, 2]],), ([[1, 2], [2, 1]],)], "lambda m: [list(r) for r in zip(*m)]", "lambda m: {}",
             "lambda m: m", 0.5),
    function("digits_sum", [(123,), (0,), (99,), (5,)], "lambda n: sum(map(int, str(n)))", "lambda n: n + 1", "lambda n: n % 10", 0.5),
    function("is_prime", [(2,), (9,), (11,), (1,), (25,), (4,)], "lambda n: n > 1 and all(n % d for d in range(2, n))", "lambda n: 'yes'",
             "lambda n: n % 2 == 1 or n == 2", 0.5),
    function("collatz", [(1,), (2,), (3,), (7,)], "lambda n: (lambda f: f(f, n))(lambda f, n: 0 if n == 1 else 1 + f(f, n // 2 if n % 2 == 0 else 3 * n + 1))",
             "lambda n: -n", "lambda n: n - 1", 0.5),
    function("rotate", [([1, 2, 3], 1), ([1, 2, 3], 0), ([1, 2], 2), ([1, 2, 3], 4)], "lambda x, k: x[-k % len(x):] + x[:-k % len(x)] if k % len(x) else x",
             "lambda x, k: k", "lambda x, k: x", 0.5),
    function("is_anagram", [("ab", "ba"), ("ab", "aa"), ("", ""), ("aab", "ab")], "lambda a, b: sorted(a) == sorted(b)", "lambda a, b: sorted(a) != sorted(b)",
             "lambda a, b: set(a) == set(b)", 0.75),
    function("caesar", [("abc", 1), ("xyz", 3), ("", 5), ("z", 1)], "lambda s, k: ''.join(chr((ord(c) - 97 + k) % 26 + 97) for c in s)", "lambda s, k: s + '!'",
             "lambda s, k: ''.join(chr(ord(c) + k) for c in s)", 0.5),
    function("second_largest", [([1, 2, 3],), ([5, 5, 4],), ([9, 1],), ([2, 2, 1],)], "lambda x: sorted(set(x))[-2]", "lambda x: max(x)",
             "lambda x: sorted(x)[-2]", 0.5),
    function("mean_of", [([1, 2],), ([2],), ([1, 1, 4],), ([0, 1],)], "lambda x: sum(x) / len(x)", "lambda x: 'nan'", "lambda x: sum(x) // len(x)", 0.5),
    function("longest_word", [("a bb",), ("ccc b",), ("x",), ("aa bb",)], "lambda s: max(s.split(), key=len)", "lambda s: ''",
             "lambda s: s.split()[-1]", 0.5),
    function("as_tuple", [([1, 2],), ([],), ([3],)], "lambda x: tuple(x)", "lambda x: set(x)", "lambda x: tuple(sorted(x, reverse=True))", 2 / 3),
    function("pairs_with_sum", [([1, 2, 3], 3), ([1, 1], 2), ([], 1), ([5], 5)], "lambda x, s: sum(a + b == s for i, a in enumerate(x) for b in x[:i])",
             "lambda x, s: 99", "lambda x, s: int(len(x) > 2)", 0.75),
    function("binary", [(0,), (1,), (5,), (8,)], "lambda n: bin(n)[2:]", "lambda n: n", "lambda n: str(n)", 0.5),
    function("chunks", [([1, 2, 3], 2), ([], 3), ([1], 1), ([1, 2], 1)], "lambda x, k: [x[i:i + k] for i in range(0, len(x), k)]", "lambda x, k: x + [k]",
             "lambda x, k: [x] if x else []", 0.5),
    function("clamp", [(5, 0, 3), (-1, 0, 3), (2, 0, 3), (3, 0, 3)], "lambda v, a, b: max(a, min(v, b))", "lambda v, a, b: None", "lambda v, a, b: min(v, b)", 0.75),
    function("none_if_empty", [([],), ([1],), ([0],)], "lambda x: x[0] if x else None", "lambda x: 'no'", "lambda x: x[0] if x and x[0] else None", 2 / 3),
]


def stdin(name: str, inputs: list[str], outputs: list[str], right: str, wrong: str, partly: str, rate: float) -> Problem:
    return Problem(name, inputs, outputs, [(right, 1.0), (wrong, 0.0), (partly, rate)])


STDIN = [
    stdin("sum of two", ["1 2\n", "5 -7\n", "0 0\n", "9 9\n"], ["3\n", "-2\n", "0\n", "18\n"], "a, b = map(int, input().split())\nprint(a + b)",
          "print('x')", "a, b = map(int, input().split())\nprint(abs(a + b))", 0.75),
    stdin("echo lines", ["2\na\nb\n", "1\nz\n", "0\n", "3\nx\nx\ny\n"], ["a\nb\n", "z\n", "", "x\nx\ny\n"],
          "for _ in range(int(input())): print(input())", "print('none')", "n = int(input())\nif n: print(input())", 0.5),
    stdin("maximum", ["3\n1 2 3\n", "1\n-5\n", "2\n-1 -2\n", "4\n0 0 0 0\n"], ["3\n", "-5\n", "-1\n", "0\n"],
          "input()\nprint(max(map(int, input().split())))", "print(10 ** 9)", "input()\nprint(max([0, *map(int, input().split())]))", 0.5),
    stdin("fizzbuzz", ["3\n", "5\n", "1\n", "2\n"], ["1\n2\nFizz\n", "1\n2\nFizz\n4\nBuzz\n", "1\n", "1\n2\n"],
          "for i in range(1, int(input()) + 1): print('Fizz' * (i % 3 == 0) + 'Buzz' * (i % 5 == 0) or i)", "print('Fizz')",
          "for i in range(1, int(input()) + 1): print(i)", 0.5),
    stdin("sort", ["3 1 2\n", "1\n", "2 1\n", "1 2\n"], ["1 2 3\n", "1\n", "1 2\n", "1 2\n"], "print(*sorted(map(int, input().split())))",
          "print(sorted(map(int, input().split())))", "print(input())", 0.5),
    stdin("trailing space", ["3\n", "1\n", "2\n"], ["1 2 3\n", "1\n", "1 2\n"], "n = int(input())\nfor i in range(1, n + 1): print(i, end=' ')\nprint('\\n')",
          "print()", "print(1)", 1 / 3),
    stdin("line ends", ["1\n", "2\n"], ["a\r\nb\r\n", "a\r\nb\r\n"], "print('a\\nb')", "print('a b')", "print('a\\nb' if input() == '1' else 'b\\na')", 0.5),
    stdin("reads all", ["1 2 3", "4", "10\n20\n", ""], ["6", "4", "30", "0"], "import sys\nprint(sum(map(int, sys.stdin.read().split())))", "print(-1)",
          "print(sum(map(int, input().split())))", 0.5),
    stdin("islands", ["2 2\n#.\n.#\n", "1 1\n.\n", "2 3\n##.\n..#\n", "1 3\n#.#\n"], ["2\n", "0\n", "2\n", "2\n"], """
n, m = map(int, input().split())
grid = {(i, j) for i in range(n) for j, c in enumerate(input()) if c == '#'}
count = 0
while grid:
    todo = [grid.pop()]
    count += 1
    while todo:
        i, j = todo.pop()
        for p in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
            if p in grid:
                grid.remove(p)
                todo.append(p)
print(count)""", "print('islands')", "n, m = map(int, input().split())\nprint(sum(input().count('#') for _ in range(n)))", 0.75),
    stdin("shortest path", ["2 1\n1 2 5\n", "2 0\n", "3 3\n1 2 1\n2 3 1\n1 3 5\n", "1 0\n"], ["5\n", "-1\n", "2\n", "0\n"], """
import heapq, sys
n, m, *rest = map(int, sys.stdin.read().split())
edges = {}
for i in range(m):
    a, b, w = rest[3 * i:3 * i + 3]
    edges.setdefault(a, []).append((b, w)); edges.setdefault(b, []).append((a, w))
best, heap = {}, [(0, 1)]
while heap:
    d, v = heapq.heappop(heap)
    if v not in best:
        best[v] = d
        for b, w in edges.get(v, []): heapq.heappush(heap, (d + w, b))
print(best.get(n, -1))""", "print('far')", "n, m = map(int, input().split())\nprint(-1 if m == 0 else input().split()[2])", 0.5),
    stdin("crashes on some", ["1\n", "0\n", "2\n", "0\n"], ["1\n", "0\n", "0\n", "0\n"], "n = int(input())\nprint(1 // n if n else 0)", "print(1 / 0)",
          "print(1 // int(input()))", 0.5),
    stdin("slow on some", ["1\n", "2\n", "3\n", "9\n"], ["1\n", "2\n", "3\n", "9\n"], "print(input())", "while True: pass",
          "n = int(input())\nwhile n == 9: pass\nprint(n)", 0.75),
    stdin("unicode", ["é\n", "漢字\n"], ["1\n", "2\n"], "print(len(input()))", "print(0)", "print(len(input().encode()) - 1)", 0.5),
    stdin("big numbers", ["100\n", "10\n", "2\n", "3\n"], [f"{2 ** 100}\n", "1024\n", "4\n", "8\n"], "print(2 ** int(input()))", "print('inf')",
          "n = int(input())\nprint(1 << n if n < 64 else 0)", 0.75),
]
