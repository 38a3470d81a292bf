"""Curation, the data stage of Klear-Reasoner (arXiv 2508.07629): a teacher's generations -> rows of sft.py, rl_gppo.py.

    python curate.py --generations runs/teacher/generations.jsonl --problems prompts.jsonl --output_dir runs/curated \\
        --benchmarks aime24 aime25 hmmt25=FILE --filters duplicate_prompts decontaminate correctness --keep right
    python curate.py --config recipes/distil_math.yaml           # the pipeline and the paper's numbers: docs/data.md

generations: rows of eval.py {"id", "sample", "response", "finish_reason", "tokens", "correct"} or of another tool {"id"
or a prompt, "response" or messages}; what has no "correct" is scored first by eval.py --score_only. problems: rows with
a prompt (klear/rows.py), FILE or NAME=FILE. A trace belongs to the problem with its prompt, else with its id: in the
FILE called as its "benchmark", if it has one. A problem without an id has its number.

output_dir: sft.jsonl {"id", "sample", "source", "messages", "tokens", "correct"}; rl.jsonl, RL rows as published;
removed.jsonl {"id", "sample", "filter", "why"}, a line for every trace not in sft.jsonl and every prompt (sample null)
not in rl.jsonl; curation.json; curation.html. Equal input, equal bytes; a killed run starts over.

Filters act in the order given, each on what the ones before it left. A new one is a function and an entry in FILTERS:
    response  (text, row, language of the prompt, cfg) -> why or "", run by the workers as they read
    trace     (traces, cfg)   -> the (Trace, why) to take out of sft.jsonl
    prompt    (problems, cfg) -> the (Problem, why) to take out of both files, with their traces
    rl        (problems, cfg) -> the (Problem, why) to take out of rl.jsonl
Texts are read twice and never kept: memory holds the index (Problem, Trace) and the n-grams of the benchmarks.
"""

import contextlib
import functools
import importlib.util
import itertools
import json
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

import rewards
from klear import answers, curation_page
from klear.curation_index import Problem, Trace, find, load, load_benchmarks, shared
from klear.folders import refuse_others, take
from klear.rows import asked, on_hub, truth_of
from klear.shards import in_parallel, named, parts, read_part
from klear.texts import digest, first_of_each, folded, language_of, most_repeated, near_first, same_language
from runs import Amount, Count, Names, Seed, Share, die, one_line, read_config


# ------------------------------------------------------------------------------------------------------------ config
@dataclass
class Config:
    # in and out
    generations: Names = ""  # JSONL or Parquet files, folders, hub data sets
    problems: Names = ""  # the same, or NAME=FILE; "" = the generations hold their prompts
    benchmarks: Names = ""  # of decontaminate: names as for eval.py --data, FILE, NAME=FILE
    data_source: str = ""  # names the verifier of problems that have no data_source, e.g. math_verify, coder1
    think_opened: bool = False  # the teacher's prompt ended in <think>: the responses get it back
    output_dir: str = "runs/curated"
    outputs: Names = "sft,rl"  # the files that must not be empty
    # filters
    filters: Names = "duplicate_prompts,decontaminate,duplicate_responses,truncated,per_prompt"  # in this order
    ngram: Count = 9  # decontaminate: words in a row that a prompt shares with a benchmark (§3.1)
    ignore: str = ""  # decontaminate: a regular expression for fixed instructions, taken out of prompts and benchmarks
    near: Share = 0.8  # near_duplicate_*: Jaccard similarity of the 5-grams of words, estimated by MinHash
    repeat_words: Count = 20  # repetition: so many words in a row
    repeat_times: Count = 5  # occur at least so often
    keep: Literal["all", "right", "right_easy"] = "all"  # correctness: right_easy keeps wrong traces of hard prompts
    easy: Share = 0.5  # correctness: from this pass rate on a prompt is easy
    max_traces: Count = 16  # per_prompt
    choose: Literal["random", "longest", "shortest"] = "random"  # per_prompt
    quotas: Names = ""  # quotas: SOURCE=TRACES, e.g. openthoughts=400000,*=1000
    pass_low: Share = 0.5  # pass_rate: the lowest for RL (Fig. 4)
    pass_high: Share = 1.0  # pass_rate: the highest
    min_tests: Count = 16  # min_tests: of a code problem
    # run
    workers: Amount = 0  # processes; 0 = all cores
    seed: Seed = 0  # of random choices


MOST_USED = "generations problems benchmarks output_dir filters keep max_traces pass_low"
READ_BY = {  # knobs: the filters that read them
    "benchmarks ngram ignore": "decontaminate", "near": "near_duplicate_prompts near_duplicate_responses",
    "repeat_words repeat_times": "repetition", "keep easy": "correctness", "max_traces choose": "per_prompt",
    "quotas": "quotas", "pass_low pass_high": "pass_rate", "min_tests": "min_tests"}
OUTPUTS = ("curation.json", "sft.jsonl", "rl.jsonl", "removed.jsonl", "curation.html")  # the first tells whose they are


# ----------------------------------------------------------------------------------------------------------- filters
def think(text: str, row: dict, prompt: str, cfg: Config) -> str:
    """One think block, closed, a thought in it and an answer after it."""
    opened, closed, (thought, _, answer) = text.count("<think>"), text.count("</think>"), text.partition("</think>")
    cases = {"no </think>": not closed, "no <think>": not opened, "several think tags": opened > 1 or closed > 1,
             "</think> before <think>": "<think>" not in thought, "no answer after </think>": not answer.strip(),
             "no thought": not thought.partition("<think>")[2].strip()}
    return next((why for why, true in cases.items() if true), "")


def repetition(text: str, row: dict, prompt: str, cfg: Config) -> str:
    times, words = most_repeated(text, cfg.repeat_words, cfg.repeat_times)
    return f"{times} times: {words[:120]}" if times else ""


def language(text: str, row: dict, prompt: str, cfg: Config) -> str:
    mine = language_of(text.partition("<think>")[2].partition("</think>")[0] or text)
    return "" if same_language(prompt, mine) else f"the prompt is in {prompt}, the thought in {mine}"


def correctness(traces: list[Trace], cfg: Config):
    for t in traces:
        verdict, rate = {None: "not judged", False: "wrong"}.get(t.correct), t.problem.rate
        if verdict and cfg.keep == "right":
            yield t, verdict
        elif verdict and cfg.keep == "right_easy" and rate is not None and rate >= cfg.easy:
            yield t, f"{verdict}, and the prompt is easy: pass rate {rate:.2f}"


def at_most(traces: list[Trace], group: Callable, limit: Callable, choose: str, cfg: Config) -> Iterator[tuple]:
    groups: dict = defaultdict(list)
    for t in traces:
        groups[group(t)].append(t)
    order = {"longest": lambda t: -t.size, "shortest": lambda t: t.size}.get(
        choose, lambda t: digest(cfg.seed, choose, t.problem.name, t.id, t.sample))
    for name, members in groups.items():
        most = limit(name, len(members))
        yield from ((t, f"more than {most}, {choose} first") for t in sorted(members, key=order)[most:])


def quotas_of(cfg: Config) -> dict[str, int]:
    return {source: int(count) for source, count in re.findall(r"([^,]+)=(\d+)", cfg.quotas)}


def quotas(traces: list[Trace], cfg: Config):
    most = quotas_of(cfg)
    # "drawn": an order of its own; in that of per_prompt, prompts that had the most traces would come first
    return at_most(traces, lambda t: t.problem.source, lambda s, n: most.get(s, most.get("*", n)), "drawn", cfg)


def pass_rate(problems: list[Problem], cfg: Config):
    for p in problems:
        if p.rate is None or not cfg.pass_low <= p.rate <= cfg.pass_high:
            yield p, "no judged sample" if p.rate is None else f"pass rate {p.rate:.2f} of {p.judged}"


def majority(problems: list[Problem], cfg: Config):
    """Math: more than half of the samples are right; without a ground truth more than half agree: they stand in."""
    for p in (p for p in problems if p.kind != "code"):
        votes = p.votes or Counter([""])
        answer, times = max(votes.items(), key=lambda item: (item[1], item[0]))
        p.majority = answer if 2 * times > votes.total() else ""
        if not (2 * p.right > p.judged if p.truth else p.majority):
            yield p, f"{p.right} of {p.judged} samples are right" if p.truth else "no ground truth, no majority"


def ground_truth(problems: list[Problem], cfg: Config):
    """The verifier takes the row, and in math finds the ground truth equal to itself. Always the last filter."""
    items = {}
    for p in problems:
        if why := p.refused or ("" if p.truth or p.majority else "no ground truth"):
            yield p, why
        elif p.kind == "math" and not answers.PLAIN_INTEGER.fullmatch(truth := str(truth_of(rl_row(p))).strip()):
            items[p] = dict(data_source="math_verify", ground_truth=truth, response=f"\\boxed{{{truth}}}")
    if items:
        with rewards.RewardPool(cfg.workers or None) as pool:
            for (p, item), reward in zip(items.items(), pool.score_batch(items.values())):
                if not reward.correct:
                    yield p, f"math_verify does not find {item['ground_truth'][:60]!r} equal to itself: {reward.status}"


FILTERS: dict[str, tuple[str, Callable]] = {
    "duplicate_prompts": ("prompt", lambda p, _: first_of_each(p, lambda p: p.digest, "as {0.name} {0.id}")),
    "near_duplicate_prompts": ("prompt", lambda p, c: near_first(p, lambda p: 0, "nearly as {0.name} {0.id}", c.near)),
    "decontaminate": ("prompt", lambda problems, _: ((p, p.match) for p in problems if p.match)),
    "truncated": ("response", lambda _, row, *__: "length limit" if row.get("finish_reason") == "length" else ""),
    "think": ("response", think), "repetition": ("response", repetition), "language": ("response", language),
    "duplicate_responses": (
        "trace", lambda t, _: first_of_each(t, lambda t: (t.problem, t.digest), "as sample {0.sample}")),
    "near_duplicate_responses": (
        "trace", lambda t, c: near_first(t, lambda t: t.problem, "nearly as sample {0.sample}", c.near)),
    "correctness": ("trace", correctness), "quotas": ("trace", quotas),
    "per_prompt": ("trace", lambda t, c: at_most(t, lambda t: t.problem, lambda *_: c.max_traces, c.choose, c)),
    "pass_rate": ("rl", pass_rate), "majority": ("rl", majority), "ground_truth": ("rl", ground_truth),
    "min_tests": ("rl", lambda problems, c: (
        (p, f"{p.tests} tests") for p in problems if p.kind == "code" and p.tests < c.min_tests)),
}


# ----------------------------------------------------------------------------------------------------------- writing
@functools.lru_cache(64)
def prompt_at(place: tuple) -> list[dict]:
    return json.loads(os.pread(shared.prompts, place[1], place[0]))


def rl_row(p: Problem) -> dict:
    row = {"id": p.id} | json.loads(os.pread(shared.prompts, p.place[2], p.place[0] + p.place[1]))
    row["extra_info"] |= {"pass_rate": p.rate, "samples": p.judged}
    if not p.truth and p.majority:
        row["reward_model"]["ground_truth"] = p.majority
        row["extra_info"]["ground_truth_from"] = f"majority, {p.votes[p.majority]} of {p.votes.total()} samples"
    return row


def sft_lines(task: tuple) -> tuple[bytes, dict[int, str], int]:
    """The lines of sft.jsonl of a part, the texts of the examples in it, the number of its traces. Runs in a worker."""
    (part, start, count), lines, shown, texts = task, [], {}, []
    for row in read_part(part):
        with contextlib.suppress(ValueError):  # such rows were named when they were read first
            texts += find(row)[1] if isinstance(row, dict) else []
    if [digest(folded(text)) for text in texts] != [t.digest for t in shared.traces[start:start + count]]:
        raise OSError(f"generations: {part[1]} gave other rows when it was read again: wait till the run that writes "
                      "it has ended (or a filter of yours raised ValueError, see the rows left out)")
    for at, text in enumerate(texts, start):
        t = shared.traces[at]
        if at in shared.shown:
            shown[at] = text if len(text) < 1500 else f"{text[:800]}\n[...]\n{text[-600:]}"
        if not t.gone:
            messages = [*prompt_at(t.problem.place), {"role": "assistant", "content": text}]
            lines.append(line_of({"id": t.id, "sample": t.sample, "source": t.problem.source, "messages": messages,
                                  "tokens": t.tokens, "correct": t.correct}))
    return b"".join(lines), shown, count


def line_of(row: dict) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def apply(problems: list[Problem], traces: list[Trace], log: Callable, cfg: Config) -> list[dict]:
    """Marks what the filters take, and counts. Ends the run where one of them leaves nothing."""
    def count() -> dict:
        return {"prompts": sum(not p.gone for p in problems), "traces": sum(not t.gone for t in traces),
                "rl_prompts": sum(not p.gone_rl for p in problems)}

    steps, now = [], count()
    for name in shared.filters:
        (kind, rule), before = FILTERS[name], now
        alive = [p for p in problems if not (p.gone_rl if kind == "rl" else p.gone)] if kind in ("prompt", "rl") else [
            t for t in traces if not t.gone]
        whys = {t: t.whys[name] for t in alive if name in t.whys} if kind == "response" else dict(rule(alive, cfg))
        if kind == "prompt":
            whys |= {t: whys[t.problem] for t in traces if not t.gone and t.problem in whys}
        for record, why in whys.items():
            if not getattr(record, "gone_rl", False):  # an earlier filter named it: it goes out of sft.jsonl too
                log(record, name, why)
            record.gone = record.gone or kind != "rl"
            if isinstance(record, Problem):
                record.gone_rl = True
        now = count()
        steps.append({"filter": name, "in": before, "out": now})
        for key, output in (("traces", "sft"), ("rl_prompts", "rl")):
            if output in shared.outputs and before[key] and not now[key]:
                why, times = Counter(whys.values()).most_common(1)[0]
                die(f"filters: {name} took the last {before[key]} of {steps[0]['in'][key]} rows of {output}.jsonl "
                    f"({times} times: {why}); change it or leave it out")
    return steps


def curate(cfg: Config) -> None:
    out, examples, counts = Path(cfg.output_dir), defaultdict(dict), Counter()
    partial = {name: out / f"{name}.partial" for name in (*OUTPUTS, "prompts.jsonl")}
    settings = {key: value for key, value in asdict(cfg).items() if key not in ("workers", "output_dir")}
    take(out)
    refuse_others(out, OUTPUTS, settings)
    with open(partial["removed.jsonl"], "wb") as removed, open(partial["prompts.jsonl"], "wb") as prompts:
        def log(record: Problem | Trace | None, name: str, why: str) -> None:
            counts[name] += 1
            where = {key: getattr(record, key, None) for key in ("id", "sample")}
            removed.write(line_of(where | {"filter": name, "why": why}))
            if len(examples[name]) < 3:  # of different prompts
                examples[name].setdefault(where["id"] or why, [record, f"{name}: {why}"])
            if record is None and counts[name] <= 5:
                tqdm.write(f"left out: {why}", file=sys.stderr)

        shared.prompts = os.open(partial["prompts.jsonl"], os.O_RDONLY)
        shared.grams = load_benchmarks(cfg) if "decontaminate" in shared.filters else {}
        problems, traces, sizes = load(cfg, prompts, log)
        sources = sorted({p.source for p in problems})
        if unknown := [source for source in quotas_of(cfg) if source not in ("*", *sources)]:
            die(f"quotas: no problem has the source {unknown[0]!r}; there are {', '.join(map(repr, sources[:20]))}")
        if counts["bad_row"]:
            print(f"left out: {counts['bad_row']} rows in all; removed.jsonl names them", file=sys.stderr)
        if not traces and "sft" in shared.outputs:
            die("generations: no row that can be used")
        steps = apply(problems, traces, log, cfg)
    shown = {some[0]: some for part in examples.values() for some in part.values()}
    shared.traces, shared.shown = traces, {at for at, t in enumerate(traces) if t in shown}
    here, before = itertools.tee(sizes[at] for at in itertools.count())
    tasks = zip(parts(cfg.generations, "generations"), itertools.accumulate(before, initial=0), here)
    with open(partial["sft.jsonl"], "wb") as file, tqdm(total=len(traces), desc="writing", delay=1, leave=False) as bar:
        for _, (lines, texts, count) in in_parallel(sft_lines, tasks, cfg.workers):
            file.write(lines), bar.update(count)
            for at, text in texts.items():
                shown[traces[at]].append(text)
    with open(partial["rl.jsonl"], "wb") as file:
        file.writelines(line_of(rl_row(p)) for p in problems if not p.gone_rl)
    for record in filter(None, shown):
        shown[record].insert(2, asked(prompt_at(getattr(record, "problem", record).place)))
    summary = {"settings": settings, "bad_rows": counts["bad_row"], "filters": steps, "removed": dict(counts)}
    curation_page.write_html(partial["curation.html"], summary, problems, traces, examples)
    partial["curation.json"].write_text(json.dumps(summary, indent=1))
    for name in OUTPUTS:
        partial[name].replace(out / name)
    partial["prompts.jsonl"].unlink()
    print("{}: {traces:,} traces in sft.jsonl, {rl_prompts:,} prompts in rl.jsonl".format(out, **steps[-1]["out"]))


def check_config(cfg: Config) -> Config:
    shared.cfg, shared.outputs = cfg, cfg.outputs.split(",")
    shared.filters = [name for name in cfg.filters.split(",") if name not in ("", "ground_truth")] + ["ground_truth"]
    if unknown := {*shared.outputs} - {"sft", "rl", ""}:
        die(f"outputs: unknown {min(unknown)!r}; known: sft, rl")
    if not cfg.generations and "sft" in shared.outputs:
        die("generations: give files of them, e.g. runs/teacher/generations.jsonl (or --outputs rl for prompts alone)")
    double = [name for name, count in Counter(name for name, _ in named(cfg.problems)).items() if count > 1]
    if double:  # so are the benchmarks of their traces
        die(f"problems: two sources are called {double[0]}; name one, NAME=FILE, as in eval.py --data, or curate each "
            "with its own generations")
    for _, source in named(cfg.problems):
        if on_hub(source) and source.count(":") < 2:  # eval.py --data and the other stages take different ones
            die(f"problems: {source} is no file; of a hub data set give the split, NAME:SUBSET:train or NAME::train")
    if any(Path(source).resolve() == Path(cfg.output_dir).resolve() for _, source in named(cfg.generations)):
        die(f"output_dir {cfg.output_dir}: its files would be read as generations; give another --output_dir")
    for knobs, filters in READ_BY.items():
        if not {*filters.split()} & {*shared.filters}:
            for knob in (knob for knob in knobs.split() if getattr(cfg, knob) != getattr(Config, knob)):
                die(f"{knob}: no filter reads it; add {' or '.join(filters.split())} to --filters, or leave {knob} out")
    for name in shared.filters:
        if name not in FILTERS:
            die(f"filters: unknown {name!r}; known: {', '.join(FILTERS)}")
        if "near" in name and importlib.util.find_spec("datasketch") is None:
            die(f"filters: {name} needs datasketch; pip install datasketch")
    if "decontaminate" in shared.filters and not cfg.benchmarks:
        die("benchmarks: decontaminate needs some, e.g. --benchmarks aime24 aime25; or leave it out of --filters")
    if "quotas" in shared.filters and not re.fullmatch(r"[^,]+=\d+(,[^,]+=\d+)*", cfg.quotas):
        die(f"quotas must be SOURCE=TRACES, *=TRACES for all others, several with commas; got {cfg.quotas!r}")
    shared.rules = {name: FILTERS[name][1] for name in shared.filters if FILTERS[name][0] == "response"}
    re.compile(cfg.ignore)
    return cfg


if __name__ == "__main__":
    try:
        curate(check_config(read_config(Config, sys.argv[1:], MOST_USED)))
    except OSError as error:
        die(f"{one_line(error)}; nothing is finished, the same command starts over")
    except re.error as error:
        die(f"ignore: {error.pattern!r} is no regular expression: {error}")
    except KeyboardInterrupt:
        die("interrupted; the same command starts over", 130)
