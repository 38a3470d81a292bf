"""From scored samples to numbers: avg@n with error bars, pass@k, maj@n, the table, the comparison of two evaluations.

Estimators, over problems i with samples j, p_i = mean_j correct_ij:
    avg@n      mean_i p_i; stderr = std_i(p_i) / sqrt(problems), clustered by problem: it holds their spread too
    stderr_resample = sqrt(sum_i p_i(1-p_i)/(n_i-1)) / problems: what a new run with other seeds on THESE problems moves
    ci95       avg ± t(0.975, problems-1) * stderr, cut to [0, 1]; Clopper-Pearson if all or none are right
    pass@k     mean_i 1 - C(n-c_i, k)/C(n, k), unbiased (Chen et al., arXiv 2107.03374)
    maj@n      the answer with most votes (equal as mathematics); classes that tie share the point; no answer, no vote

A sample is a dict as in generations.jsonl: correct, status, and answer, tokens, finish_reason where there are any.
"""

import json
import math
import statistics
from collections import Counter
from pathlib import Path

import yaml

from klear.answers import plain_verdict
from runs import die, one_line

# The settings that decide a figure: the report lists them, a comparison says which differ.
SETTINGS = ("model engine temperature top_p top_k repetition_penalty max_tokens yarn_factor seed system_prompt "
            "prompt_suffix enable_thinking ask_think").split()


def student_t975(dof: int) -> float:
    """0.975 quantile of Student's t: exact for 1 and 2 degrees, Cornish-Fisher above (error < 0.02, 0.001 from 6)."""
    z = 1.959963985
    if dof < 3:
        return {1: 12.7062, 2: 4.3027}.get(dof, math.nan)
    terms = (z, (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
             (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160)
    return sum(term / dof**power for power, term in enumerate(terms))


def mean_and_stderr(values: list[float]) -> tuple[float, float | None]:
    """Mean over problems and its standard error; None for a single problem."""
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def interval(mean: float, stderr: float | None, count: int, low: float, high: float) -> list[float] | None:
    if stderr is None:
        return None
    half = student_t975(count - 1) * stderr
    return [max(low, mean - half), min(high, mean + half)]


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Chance that k of the n samples, drawn without replacement, hold a correct one: 1 - C(n-c, k)/C(n, k)."""
    return 1 - math.comb(n - correct, k) / math.comb(n, k)


def same_answers(groups: dict[str, dict[str, list[dict]]], pool) -> set[tuple[str, str]]:
    """Pairs of differently written wrong answers to one problem that are equal as mathematics, asked of math_verify in
    the reward workers, all at once. Right answers need no question: they all equal the ground truth."""
    pairs = set()
    for rows in (rows for part in groups.values() for rows in part.values()):
        wrong = sorted({r["answer"] for r in rows if r.get("answer") is not None and not r["correct"]})
        for at, one in enumerate(wrong):
            pairs.update((one, two) for two in wrong[at + 1:] if plain_verdict(one, two) is None)
    asked = sorted(pairs)
    items = [dict(data_source="math_verify", ground_truth=one, response=f"\\boxed{{{two}}}") for one, two in asked]
    return {pair for pair, reward in zip(asked, pool.score_batch(items)) if reward.correct} if asked else set()


def majority(rows: list[dict], same: set[tuple[str, str]]) -> float:
    """The point of one problem under majority vote: 1 if the class of answers with most votes is right; classes that
    tie share it. rows: samples with "answer" (None votes for nothing) and "correct"; same: see same_answers()."""
    classes: list[list] = []  # [answer, votes, correct]
    for row in rows:
        answer, correct = row.get("answer"), row["correct"]
        if answer is not None:
            for c in classes:
                if c[2] == correct and (correct or c[0] == answer or (min(c[0], answer), max(c[0], answer)) in same):
                    c[1] += 1
                    break
            else:
                classes.append([answer, 1, correct])
    most = max((c[1] for c in classes), default=0)
    top = [c for c in classes if c[1] == most]
    return sum(c[2] for c in top) / len(top) if top else 0.0


def summarise(groups: dict[str, list[dict]], ks: list[int], same: set[tuple[str, str]], code: bool) -> dict:
    """The line of one benchmark in results.json. groups: problem id -> its scored samples."""
    counts = {name: (sum(r["correct"] for r in rows), len(rows)) for name, rows in groups.items()}
    rates = [c / n for c, n in counts.values()]
    rows = [r for part in groups.values() for r in part]
    avg, stderr = mean_and_stderr(rates)
    again = [p * (1 - p) / (n - 1) for p, (_, n) in zip(rates, counts.values()) if n > 1]
    tokens = sorted(r["tokens"] for r in rows if isinstance(r.get("tokens"), int))
    ended = [r["finish_reason"] for r in rows if r.get("finish_reason")]
    status = Counter(r["status"] for r in rows)
    least = min(n for _, n in counts.values())
    ci95 = interval(avg, stderr, len(rates), 0.0, 1.0)
    if avg in (0, 1):  # no spread to estimate from: the exact interval for a share of which 0 of len(rates) were seen
        ci95 = [0.0, 1 - 0.025 ** (1 / len(rates))] if avg == 0 else [0.025 ** (1 / len(rates)), 1.0]
    return {
        "avg": avg, "stderr": stderr, "ci95": ci95,
        "stderr_resample": math.sqrt(sum(again)) / len(rates) if len(again) == len(rates) else None,
        "n": least, "problems": len(groups), "samples": len(rows),
        **{f"pass@{k}": statistics.fmean(pass_at_k(n, c, k) for c, n in counts.values()) for k in ks if k <= least},
        "maj": None if code else statistics.fmean(majority(part, same) for part in groups.values()),
        "tokens_mean": statistics.fmean(tokens) if tokens else None,
        "tokens_p95": tokens[math.ceil(0.95 * len(tokens)) - 1] if tokens else None,
        "truncated": sum(e == "length" for e in ended) / len(ended) if ended else None,
        "no_answer": sum(status[s] for s in ("no_answer", "no_code", "no_think_end", "no_think_start")) / len(rows),
        "verifier_errors": status["verifier_error"] + status["sandbox_error"],
        "verifier_timeouts": status["verifier_timeout"],
        "status": dict(sorted(status.items())), "per_problem": {name: list(c) for name, c in counts.items()},
    }


def table(results: dict[str, dict]) -> list[list[str]]:
    """The lines of the printed table and of the report's, the header first; in percent."""
    passes = {key for r in results.values() for key in r if key.startswith("pass@")}
    passes = sorted(passes, key=lambda key: int(key.removeprefix("pass@")))

    def cell(value, form="{:.1f}", scale=100):
        return "–" if value is None else form.format(value * scale)

    lines = [["benchmark", "problems", "n", "avg@n ± stderr", "95 %", "± new samples", *passes, "maj@n",
              "tokens mean / p95", "truncated", "no answer", "verifier errors / timeouts"]]
    for name, r in results.items():
        ci = r["ci95"]
        lines.append([
            name, str(r["problems"]), str(r["n"]), f"{cell(r['avg'])} ± {cell(r['stderr'])}",
            f"{cell(ci[0])} to {cell(ci[1])}" if ci else "–", cell(r["stderr_resample"]),
            *(cell(r.get(key)) for key in passes), cell(r["maj"]),
            f"{cell(r['tokens_mean'], '{:,.0f}', 1)} / {cell(r['tokens_p95'], '{:,.0f}', 1)}",
            cell(r["truncated"], "{:.1f} %"), cell(r["no_answer"], "{:.1f} %"),
            f"{r['verifier_errors']} / {r['verifier_timeouts']}"])
    return lines


def markdown(results: dict[str, dict]) -> str:
    lines = table(results)
    widths = [max(3, *map(len, column)) for column in zip(*lines)]
    lines.insert(1, ["-" * (w - 1) + ":" if i else "-" * w for i, w in enumerate(widths)])
    aligned = ([c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths))] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in aligned)


def compare(a: Path, b: Path) -> str:
    """A table of the differences A - B, paired by problem, for the benchmarks that two evaluations share, and how their
    settings differ."""
    results, settings = [], []
    for folder in (a, b):
        try:
            results.append(json.loads((folder / "results.json").read_text(encoding="utf-8")))
            if not all(isinstance(part["per_problem"], dict) for part in results[-1].values()):
                raise TypeError("of another program")
            there = (folder / "config.yaml").exists()  # what score_only wrote has none
            settings.append(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")) if there else {})
        except (OSError, ValueError, AttributeError, TypeError, KeyError, yaml.YAMLError) as error:
            die(f"compare: {folder} has no readable results.json ({one_line(error)}); give two folders of eval.py")
    lines = ["| benchmark | problems | A | B | A - B ± stderr | 95 % |", "|---|---:|---:|---:|---:|---:|"]
    pooled: list[tuple[float, float]] = []

    def add(name: str, pairs: list[tuple[float, float]], note: str = "") -> None:
        mean, stderr = mean_and_stderr([x - y for x, y in pairs])
        ci = interval(mean, stderr, len(pairs), -100, 100)
        averages = " | ".join(f"{statistics.fmean(side):.1f}" for side in zip(*pairs))
        found = f"{mean:+.1f} ± {stderr:.1f} | {ci[0]:+.1f} to {ci[1]:+.1f}" if ci else f"{mean:+.1f} ± – | –"
        lines.append(f"| {name} | {len(pairs)} | {averages} | {found} |{note}")

    for name in results[0]:
        one, two = (r.get(name, {}).get("per_problem", {}) for r in results)
        pairs = [(100 * one[key][0] / one[key][1], 100 * two[key][0] / two[key][1]) for key in one if key in two]
        if pairs:
            few = len(pairs) < max(len(one), len(two))
            add(name, pairs, f" only the problems in both (of {len(one)} and {len(two)})" * few)
            pooled += pairs
    if len(lines) == 2:
        die(f"compare: {a} ({', '.join(results[0])}) and {b} ({', '.join(results[1])}) share no problem")
    if len(lines) > 3:
        add("all problems", pooled)
    return "\n".join([f"A = {a}, B = {b}", "", *lines, "", differences(*settings)])


def differences(a: dict, b: dict) -> str:
    """One line on the settings that two evaluations do not share."""
    if not a or not b:
        return f"Settings are not compared: no config.yaml in {'A' if b else 'B' if a else 'A and B'}."
    found = [f"{key} {a.get(key)!r} and {b.get(key)!r}" for key in (*SETTINGS, "n", "yarn_original", "dtype")
             if a.get(key) != b.get(key)]
    one, two = (settings.get("problems") or {} for settings in (a, b))
    found += [f"problems or prompts of {name}" for name in one if two.get(name, one[name]) != one[name]]
    return "Settings that differ: " + ("; ".join(found) or "none") + "."
