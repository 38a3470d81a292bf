"""Labelled (kind, gold, response, verdict) cases for the math verifier; the verdict follows from how a case is made.

    python tests/math_triples.py > triples.jsonl     # to look at them

`triples()` is deterministic. `house_triples()` are the few kinds where rewards.py deliberately differs from math_verify on the
whole text: each has the verdict of rewards.py and that of math_verify. `hanging_triples()` never end or exhaust memory in sympy.
"""

import json
import random
from collections.abc import Iterator

FRAMES = [
    "The answer is \\boxed{@}.",
    "So we get $x = \\boxed{@}$.",
    "Adding up, we find\n\\[\n\\boxed{@}\n\\]",
    "$$\\boxed{@}$$",
    "**Final answer:** $\\boxed{@}$",
    "We have 12 apples and 3/4 of a pear, $a^2+b^2=c^2$.\n\nHence \\(\\boxed{@}\\), as wanted.",
    "\\boxed{@}",
    "\\boxed{ @ } is what remains. Check: $2^{3} = 8$ and {so on}.",
    "The final answer is $\\boxed{@}$. I hope it is correct.",
]
UNITS = ["cm", "m", "km", "kg", "hours", "minutes", "meters", "feet", "miles", "inches"]
WORDS = ["Monday", "Tuesday", "Evelyn", "even", "odd", "Carla", "ellipse", "circle", "hyperbola", "parabola"]


def primitive(rng: random.Random, top: int = 30) -> tuple[int, int]:
    """A proper fraction in lowest terms, denominator neither 2, 5 nor a product of them, so that it is no finite decimal."""
    bottom = rng.choice([3, 7, 9, 11, 13, 17, 19, 21, 23, 27, 29])
    upper = rng.choice([n for n in range(1, top * 2) if all(n % p for p in (3, 7, 11, 13, 17, 19, 23, 29))])
    return upper, bottom


def cases(rng: random.Random) -> Iterator[tuple[str, str, str, bool]]:
    """One round: (kind, gold, answer, verdict)."""
    n, m = rng.randint(-10**rng.randint(1, 9), 10**rng.randint(1, 9)), rng.randint(2, 99)
    yield "int", str(n), str(n), True
    yield "int", str(n), str(n + m), False
    yield "int", str(n), str(-n if n else 1), False
    yield "int spelled", str(abs(n)), "00" + str(abs(n)), True
    big = 10**6 + abs(n) % 10**6
    yield "int thousands", str(big), f"{big:,}", True
    yield "int thousands", str(big), f"{big + 1:,}", False
    yield "int thousands", f"{big:,}", f"{big:,}".replace(",", "{,}"), True
    yield "int long", str(n * 10**14 + m), str(n * 10**14 + m), True
    yield "int long", str(n * 10**14 + m), str(n * 10**14 + m + 1), False
    whole, places = rng.randint(-999, 999), rng.randint(1, 5)
    digits = f"{rng.randint(1, 10**places - 1):0{places}d}"
    yield "decimal", f"{whole}.{digits}", f"{whole}.{digits}", True
    yield "decimal", f"{whole}.{digits}", f"{whole}.{digits}0", True
    yield "decimal", f"{whole}.{digits}", f"{whole + 1}.{digits}", False
    yield "decimal", str(whole), f"{whole}.0", True
    yield "decimal", str(whole), f"{whole}.5", False
    p, q = primitive(rng)
    yield "fraction", f"\\frac{{{p}}}{{{q}}}", f"\\frac{{{p * m}}}{{{q * m}}}", True
    yield "fraction", f"\\frac{{{p}}}{{{q}}}", f"\\dfrac{{{p}}}{{{q}}}", True
    yield "fraction", f"\\frac{{{p}}}{{{q}}}", f"{p}/{q}", True
    yield "fraction", f"{p}/{q}", f"\\frac{{{p}}}{{{q + 1}}}", False
    yield "fraction", f"-\\frac{{{p}}}{{{q}}}", f"\\frac{{-{p}}}{{{q}}}", True
    yield "fraction", f"-\\frac{{{p}}}{{{q}}}", f"\\frac{{{p}}}{{{q}}}", False
    yield "fraction decimal", f"\\frac{{{p}}}{{8}}" if p % 2 else "\\frac{3}{8}", f"{(p if p % 2 else 3) / 8}", True
    yield "fraction decimal", f"\\frac{{{p}}}{{{q}}}", f"{p / q + 0.01:.2f}", False
    square, free = rng.randint(2, 12), rng.choice([2, 3, 5, 6, 7, 10, 11, 13])
    yield "radical", f"{square}\\sqrt{{{free}}}", f"\\sqrt{{{square * square * free}}}", True
    yield "radical", f"{square}\\sqrt{{{free}}}", f"{square + 1}\\sqrt{{{free}}}", False
    yield "radical", f"\\frac{{{square}}}{{\\sqrt{{{free}}}}}", f"\\frac{{{square}\\sqrt{{{free}}}}}{{{free}}}", True
    yield "radical", f"{square}+\\sqrt{{{free}}}", f"\\sqrt{{{free}}}+{square}", True
    yield "radical", f"{square}+\\sqrt{{{free}}}", f"{square}-\\sqrt{{{free}}}", False
    a, b = rng.randint(-20, 0), rng.randint(1, 30)
    yield "interval", f"[{a},{b}]", f"[{a}, {b}]", True
    yield "interval", f"[{a},{b}]", f"\\left[{a}, {b}\\right]", True
    yield "interval", f"[{a},{b}]", f"[{a},{b})", False
    yield "interval", f"[{a},{b})", f"[{a},{b + 1})", False
    yield "interval", f"({a},\\infty)", f"({a}, \\infty)", True
    yield "interval", f"(-\\infty,{a})\\cup({b},\\infty)", f"(-\\infty, {a}) \\cup ({b}, \\infty)", True
    yield "interval", f"(-\\infty,{a})\\cup({b},\\infty)", f"(-\\infty, {a}] \\cup ({b}, \\infty)", False
    c = b + rng.randint(1, 9)
    yield "set", f"\\{{{a},{b},{c}\\}}", f"\\{{{c},{a},{b}\\}}", True
    yield "set", f"\\{{{a},{b},{c}\\}}", f"\\{{{a},{b}\\}}", False
    yield "set", f"{a},{b}", f"{b}, {a}", True
    yield "set", f"{a},{b}", f"{a}, {c}", False
    yield "set", f"{a},{b}", f"{a} \\text{{ and }} {b}", True
    yield "tuple", f"({a},{b},{c})", f"({a}, {b}, {c})", True
    yield "tuple", f"({a},{b},{c})", f"({b}, {a}, {c})", False
    yield "tuple", f"({a},{b})", f"\\left({a}, {b}\\right)", True
    yield "tuple", f"({a},{b})", f"({a}, {c})", False
    yield "tuple", f"(\\frac{{{p}}}{{{q}}},{b})", f"\\left(\\frac{{{2 * p}}}{{{2 * q}}}, {b}\\right)", True
    yield "matrix", f"\\begin{{pmatrix}} {a} & {b} \\\\ {c} & {m} \\end{{pmatrix}}", \
        f"\\begin{{pmatrix}}{a} & {b}\\\\{c} & {m}\\end{{pmatrix}}", True
    yield "matrix", f"\\begin{{pmatrix}} {a} & {b} \\\\ {c} & {m} \\end{{pmatrix}}", \
        f"\\begin{{pmatrix}} {b} & {a} \\\\ {c} & {m} \\end{{pmatrix}}", False
    yield "matrix", f"\\begin{{pmatrix}} {a} \\\\ {b} \\end{{pmatrix}}", f"\\begin{{bmatrix}} {a} \\\\ {b} \\end{{bmatrix}}", True
    yield "percentage", f"{m}\\%", f"{m}\\%", True
    yield "percentage", f"{m}\\%", f"{m + 1}\\%", False
    yield "percentage", f"{m}", f"{m}\\%", True
    yield "percentage", f"{m}\\%", f"{m / 100}", True
    yield "percentage", f"0.{m:02d}", f"{m}\\%", True
    unit = rng.choice(UNITS)
    yield "unit", str(b), f"{b} \\text{{ {unit}}}", True
    yield "unit", str(b), f"{b}\\,\\text{{{unit}}}", True
    yield "unit", str(b), f"{b + 1} \\text{{ {unit}}}", False
    yield "unit", f"{b}\\text{{ cm}}^2", str(b), True
    yield "unit", str(b), f"\\${b}", True
    yield "unit", f"{m}^\\circ", f"{m}^{{\\circ}}", True
    letter, other = rng.sample("ABCDFGH", 2)
    yield "choice", letter, f"\\text{{{letter}}}", True
    yield "choice", f"\\text{{({letter})}}", letter, True
    yield "choice", letter, f"\\textbf{{({letter})}}", True
    yield "choice", letter, other, False
    word, wrong = rng.sample(WORDS, 2)
    yield "word", f"\\text{{{word}}}", f"\\text{{{word}}}", True
    yield "word", f"\\text{{{word}}}", f"\\text{{{wrong}}}", False
    yield "expression", f"x^2+{b}x+{c}", f"{c} + {b}x + x^2", True
    yield "expression", f"(x+{b})(x+{c})", f"x^2+{b + c}x+{b * c}", True
    yield "expression", f"(x+{b})(x+{c})", f"x^2+{b + c}x+{b * c + 1}", False
    yield "expression", f"{b}\\pi", f"{b}\\pi", True
    yield "expression", f"{b}\\pi", f"{c}\\pi", False
    yield "expression", f"2^{{{b}}}", str(2**b), True
    yield "expression", f"{b}i+{c}", f"{c}+{b}i", True
    yield "expression", f"\\binom{{{c}}}{{1}}", str(c), True
    yield "equation", str(b), f"x = {b}", True
    yield "equation", f"y={b}x+{c}", f"y = {c} + {b}x", True
    yield "equation", f"y={b}x+{c}", f"y = {b + 1}x + {c}", False
    yield "inequality", f"x>{b}", f"x > {b}", True
    yield "inequality", f"x>{b}", f"x \\ge {b}", False
    yield "unicode", f"{b}π", f"{b}\\pi", True
    yield "unicode", str(b), f"{b}\\text{{ 米}}", True


def boxless(rng: random.Random) -> Iterator[tuple[str, str, str, bool]]:
    """(kind, gold, text, verdict) without a usable box: math_verify reads the text in its own way."""
    b, c = rng.randint(2, 500), rng.randint(501, 999)
    yield "no box", str(b), f"There are {c} of them.\nThe answer is {b}.", True
    yield "no box", str(b), f"The answer is {c}.", False
    yield "no box", str(b), f"After {c} steps we get ${b}$", True
    yield "no box", f"\\frac{{{b}}}{{{c}}}", f"**Answer:** $\\frac{{{b}}}{{{c}}}$", True
    yield "no box", str(b), "I do not know.", False
    yield "no box", str(b), "", False
    yield "unbalanced", str(b), f"The answer is \\boxed{{{c}", False
    yield "unbalanced", str(b), f"\\boxed{{{b}}} is right, that is \\boxed{{{b}", True
    yield "unbalanced", f"\\frac{{{b}}}{{{c}}}", f"It is \\boxed{{\\frac{{{c}}}{{{b}}}", False
    yield "unbalanced", str(b), f"}}}} \\boxed{{{b}}} }}", True
    yield "unbalanced", str(b), f"{{{{ \\boxed{{{b}}}", True
    yield "empty box", str(b), "\\boxed{}", False
    yield "nested", str(b), f"\\boxed{{\\boxed{{{b}}}}}", True
    yield "nested", str(b), f"\\boxed{{\\boxed{{{c}}}}}", False
    yield "nested", str(b), f"\\boxed{{x = \\boxed{{{b}}}}}", True
    far = "That was a first guess which did not hold. " * 3
    yield "repeated", str(b), f"\\boxed{{{c}}}. {far}It is \\boxed{{{b}}}.", True
    yield "repeated", str(b), f"\\boxed{{{b}}}. {far}It is \\boxed{{{c}}}.", False
    yield "repeated", str(b), f"\\boxed{{{b}}}. {far}Again: \\boxed{{{b}}}.", True
    yield "together", f"{b},{c}", f"\\boxed{{{b}}} and \\boxed{{{c}}}", True
    yield "together", f"{b},{c}", f"\\boxed{{{b}}}, \\boxed{{{c + 1}}}", False
    yield "together", str(b), f"\\boxed{{{b}}} and \\boxed{{{c}}}", False
    yield "unicode", str(b), f"答案是 \\boxed{{{b}}}。", True
    yield "unicode", str(b), f"答えは\\boxed{{{c}}}です 🎉 ∀x∈ℝ", False
    yield "percent outside", f"0.{b % 90 + 10}", f"It is $\\boxed{{{b % 90 + 10}}}$%.", True
    yield "fbox", str(b), f"$\\fbox{{{b}}}$", True


def house_triples() -> Iterator[tuple[str, str, str, bool, bool]]:
    """(kind, gold, text, verdict, verdict of math_verify on the whole text)."""
    for b in range(2, 30):
        c = b + 100
        yield "last of several", str(c), f"\\boxed{{{b}}}, no, \\boxed{{{c}}}", True, False
        yield "box before a number", str(b), f"\\boxed{{{b}}}. The final answer is ${c}$.", True, False
        yield "set of solutions", f"{b},{c}", f"$x=\\boxed{{{b}}}$ or $x=\\boxed{{{c}}}$", True, False
        yield "number outside an odd box", str(b), f"We count {b} days. \\boxed{{@ # !}}", False, True


def hanging_triples() -> list[tuple[str, str]]:
    return [("5", "\\boxed{9^{9^{9^9}}}"), ("5", "\\boxed{(10^{9})!}"), ("5", "\\boxed{10^{10^{10}}+1}"),
            ("5", "\\boxed{2^{2^{40}}}"), ("7", "It is $99999999!$"), ("5", "\\boxed{\\sum_{k=1}^{10^{9}} \\frac{\\sin k}{k!}}")]


def triples(rounds: int = 20, seed: int = 0) -> list[tuple[str, str, str, bool]]:
    rng, out = random.Random(seed), {}
    for _ in range(rounds):
        for kind, gold, answer, verdict in cases(rng):
            if verdict is not None:
                out[kind, gold, rng.choice(FRAMES).replace("@", answer)] = verdict
        for kind, gold, text, verdict in boxless(rng):
            out[kind, gold, text] = verdict
        line = rng.choice(["Let us look at $f(x) = x^2 - 3$ once more, with 17 cases. ", "Wait, 12 + 30 = 42, {hm} $a_1$. \n",
                           "\\[ \\sum_{k=1}^n k = \\frac{n(n+1)}{2} \\]\n",
                           "So the answer may be 7; the answer is still open.\n"])
        filler = line * (60_000 // len(line))
        gold = rng.randint(10, 10**6)
        out["60,000 characters", str(gold), filler + f"\n\nThus \\boxed{{{gold}}}."] = True
        out["60,000 characters", str(gold), filler + f"\n\nThe answer is {gold}."] = True
        out["60,000 characters", str(gold), filler + f"\n\nThus $\\boxed{{{gold + 1}}}$."] = False
        out["60,000 characters", str(gold), f"\\boxed{{{gold}}}" + filler] = True
    return [(*key, verdict) for key, verdict in out.items()]


if __name__ == "__main__":
    for row in triples():
        print(json.dumps(dict(zip(("kind", "gold", "response", "verdict"), row)), ensure_ascii=False))
