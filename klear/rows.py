"""Rows as people have them, alike for every stage: JSONL, Parquet, hub data sets; the messages and the ground truth in
them.

    {"messages": [{"role", "content"}]}      content may be text or parts [{"type": "text", "text"}]
    {"prompt"} as text or messages, with "completion" or "response" for SFT (TRL's names)
    {"conversations": [{"from", "value"}]}   ShareGPT
    {"problem" | "question"}                 and "answer" (GSM8K's solution ends in "#### 42")
    ground truth: "reward_model": {"ground_truth"}, "ground_truth", "answer", "meta": {"answer"}
    LiveCodeBench's own, with its packed tests; BENCHMARKS are the names that eval.py measures on
"""

import base64
import datetime
import difflib
import io
import json
import math
import pickle
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import jinja2

from runs import die, one_line

BOM = b"\xef\xbb\xbf"
SHAREGPT = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant"}
ROLES = "system developer user assistant tool function ipython observation".split()


def sound(rows: Iterator[tuple[str, dict | ValueError]]) -> Iterator[tuple[str, dict]]:
    """The rows of read_source, where a line that is no JSON object ends the run."""
    for where, row in rows:
        yield where, row if isinstance(row, dict) else die(f"{where}: {row}")


def read_rows(spec: str, knob: str, split: str = "train",
              toy_rows: Callable[[str], list[dict]] | None = None) -> Iterator[tuple[str, dict]]:
    """Yields (SOURCE:LINE, row) of every source named in `spec`, with commas: JSONL or Parquet files, folders of them,
    hub data sets NAME[:SUBSET[:SPLIT]], toy:KIND from `toy_rows`. What cannot be read ends the run, and so does a
    source without rows."""
    sources = [source.strip() for source in spec.split(",") if source.strip()]
    for source in sources or die(f"{knob} is empty; give files or hub data sets"):
        number = 0
        try:
            rows = ((f"{source}:{i}", row) for i, row in enumerate(toy_rows(source[4:]), 1)) \
                if source.startswith("toy:") and toy_rows else sound(read_source(source, knob, split))
            for row in rows:
                yield row
                number += 1
        except ValueError as error:  # an unknown toy
            die(f"{knob}: {error}")
        if not number:
            die(f"{knob}: {source} has no row")


def stamps_of(spec: str) -> list[tuple[str, int, int]]:
    """(path, bytes, time of the last change) of the local files among those that read_rows would read."""
    paths = [Path(source.strip()) for source in spec.split(",")]
    files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path]) if file.is_file()]
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def read_source(source: str, knob: str, split: str = "train",
                wants: str = "") -> Iterator[tuple[str, dict | ValueError]]:
    """(SOURCE:LINE, row) of a file, a folder or a hub data set. A line that is no JSON object comes as a ValueError
    that says why; what cannot be read at all ends the run, and `wants` says what to give instead."""
    path, wants = Path(source), wants or "give a JSONL or Parquet file, or the name of a hub data set"
    try:
        if path.is_dir():
            files = sorted(p for p in path.iterdir() if p.suffix in (".jsonl", ".parquet"))
            if not files:
                die(f"{knob}: no .jsonl or .parquet file in {path}")
            for file in files:
                yield from read_source(str(file), knob, split)
        elif source.endswith(".parquet"):
            import pyarrow.parquet  # comes with datasets

            rows = (row for batch in pyarrow.parquet.ParquetFile(path).iter_batches(1024) for row in batch.to_pylist())
            yield from ((f"{source}:{number}", row) for number, row in enumerate(rows, 1))
        elif path.is_file():
            with path.open("rb") as lines:  # lines end at \n alone: text readers would also cut at U+2028 inside a text
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield f"{source}:{number}", parse_row(line if number > 1 else line.removeprefix(BOM))
        elif source.endswith((".jsonl", ".json")) or source[:1] in "./":
            die(f"{knob}: {source} does not exist; {wants}")
        else:
            import datasets  # only here: its import takes a second

            name, subset, chosen = (source + "::").split(":", 2)  # a split may hold colons: train[:128]
            rows = datasets.load_dataset(name, subset or None, split=chosen.rstrip(":") or split)
            yield from ((f"{source}:{number}", row) for number, row in enumerate(rows, 1))
    except (GeneratorExit, SystemExit):
        raise
    except Exception as error:  # pyarrow and the hub's client raise a dozen types; every one means: no rows from here
        die(f"{knob}: {source}: {one_line(error)}; {wants}")


def parse_row(line: bytes) -> dict | ValueError:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return ValueError(f"not UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8")
    except json.JSONDecodeError as error:
        return ValueError(f"not JSON ({error.msg} at column {error.colno}); expected one object a line")
    except (RecursionError, ValueError) as error:  # also a number of more than 4,300 digits
        why = "nested too deeply" if isinstance(error, RecursionError) else one_line(error)
        return ValueError(f"not JSON ({why}); expected one object a line")
    return row if isinstance(row, dict) else ValueError("not an object; expected one JSON object a line")


def messages_of(row: dict) -> list[dict]:
    """The conversation of a row of any format above, as [{"role", "content": text}]. Raises ValueError."""
    places = ("messages", "conversations", "prompt", "problem", "question")
    found = next((row[key] for key in places if row.get(key)), None)
    if found is None:
        raise ValueError('no prompt; expected "messages", "prompt", "conversations", "problem" or "question"')
    messages = as_messages(found, "user")
    if "messages" not in row and (answer := row.get("completion") or row.get("response")):
        messages = messages + as_messages(answer, "assistant")
    return messages


def as_messages(value, role: str) -> list[dict]:
    messages, value = [], [{"role": role, "content": value}] if isinstance(value, str) else value
    for message in value if isinstance(value, list) else [None]:
        message = message if isinstance(message, dict) else {}
        speaker, content = message.get("role", message.get("from")), message.get("content", message.get("value"))
        if isinstance(content, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content):
            content = "".join(part["text"] for part in content)
        if not isinstance(speaker, str) or not isinstance(content, str):
            raise ValueError('a message is {"role", "content"} (or {"from", "value"}), in text')
        if (speaker := SHAREGPT.get(speaker.lower(), speaker.lower())) not in ROLES:  # templates drop unknown ones
            raise ValueError(f"the role {speaker!r} of a message is none of {', '.join(ROLES)}")
        if any("\ud800" <= character <= "\udfff" for character in content):
            raise ValueError("a message with a lone surrogate, half a character, which no tokenizer takes")
        messages.append({"role": speaker, "content": content})
    return messages


def prompt_of(row: dict) -> list[dict]:
    """The messages of a row without the answer at their end. Raises ValueError."""
    messages = messages_of({key: value for key, value in row.items() if key not in ("completion", "response")})
    while messages and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    if not any(message["role"] == "user" for message in messages):
        raise ValueError("no user message")
    return messages


def asked(messages: list[dict]) -> str:
    """What the user says in them, as one text."""
    return "\n".join(message["content"] for message in messages if message["role"] == "user")


def truth_of(row: dict):
    """The ground truth of a math or RL row, wherever its format keeps it. Raises ValueError."""
    meta = row.get("meta") if isinstance(row.get("meta"), dict) else {}
    model = row.get("reward_model") if isinstance(row.get("reward_model"), dict) else {}
    places = ((model, "ground_truth"), (row, "ground_truth"), (row, "answer"), (meta, "answer"), (meta, "solution"))
    truth = next((place[key] for place, key in places if place.get(key) not in (None, "")), None)
    if truth is None:
        raise ValueError('no ground truth; expected "answer", "ground_truth", "meta": {"answer"} or '
                         '"reward_model": {"ground_truth"}')
    if isinstance(truth, bool) or isinstance(truth, float) and not math.isfinite(truth):
        raise ValueError(f"the ground truth {truth} is no answer")
    if isinstance(truth, str) and "####" in truth and truth.lstrip()[:1] != "{":  # GSM8K's solution, #### and number
        truth = truth.rsplit("####", 1)[1].strip()
        truth = truth.replace(",", "") if re.fullmatch(r"-?\$?\d{1,3}(,\d{3})+(\.\d+)?", truth) else truth
    return str(truth) if isinstance(truth, (int, float)) else truth


def responses_of(row: dict) -> list[str]:
    """The responses in a row of generations: "response", "responses" or "completion" (a text or a list of texts), or
    the assistant's message at the end of a conversation. Raises ValueError."""
    found = next((row[key] for key in ("response", "responses", "completion") if row.get(key) is not None), None)
    if found is None and "status" in row:
        raise ValueError("a verdict without its response: the evaluation was interrupted; run its command again")
    if found is None and (row.get("messages") or row.get("conversations")):
        last = messages_of(row)[-1]
        found = last["content"] if last["role"] == "assistant" else None
    if isinstance(found, list) and found and all(isinstance(message, dict) for message in found):
        found = as_messages(found, "assistant")[-1]["content"]
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list) or not found or not all(isinstance(text, str) for text in found):
        raise ValueError('no response; expected "response" (a text or a list of texts), or "messages" that end with '
                         "the assistant's")
    return found


def row_id(row: dict) -> str | None:
    """The name that a row gives its problem, wherever its format keeps it; None: the row is called by its number."""
    meta = row.get("meta") if isinstance(row.get("meta"), dict) else {}
    keys = ("id", "unique_id", "question_id", "task_id", "problem_idx")
    return next((str(x) for x in (*map(row.get, keys), meta.get("unique_id")) if x is not None), None)


def ask(messages: list[dict], system_prompt: str, prompt_suffix: str) -> list[dict]:
    """The messages with `system_prompt` before them and `prompt_suffix` as the last line of the last one: training and
    evaluation ask alike."""
    if prompt_suffix:
        messages = [*messages[:-1], {**messages[-1], "content": f"{messages[-1]['content']}\n{prompt_suffix}"}]
    return [{"role": "system", "content": system_prompt}, *messages] if system_prompt else messages


def render(messages: list[dict], tokenizer, **options) -> str:
    """The text that the model is asked, generation prompt included. Raises ValueError where a chat template refuses."""
    if not tokenizer.chat_template:
        return "".join(message["content"] + "\n" for message in messages)  # as sft.py trains
    try:
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **options)
    except (jinja2.TemplateError, TypeError) as error:
        raise ValueError(f"the chat template refuses the messages ({one_line(error)})") from None


def without_think(data_source: str) -> str:
    """The data_source with the same verifier that asks for no think tags (`ask_think: false`)."""
    return str(data_source).replace("math_longcot_math_verify", "math_verify").replace("coder1_longcot", "coder1")


# ----------------------------------------------------------------------------------------------------------- benchmarks
# name -> hub data set NAME:SUBSET:SPLIT. LiveCodeBench: files of the hub repository, and the window of contests
# [from, to).
BENCHMARKS = {
    "aime24": dict(hub="HuggingFaceH4/aime_2024::train"),
    "aime25": dict(hub="math-ai/aime25::test"),
    "hmmt25": dict(hub="MathArena/hmmt_feb_2025::train"),
    "math500": dict(hub="HuggingFaceH4/MATH-500::test"),
    "gsm8k": dict(hub="openai/gsm8k:main:test"),
    "livecodebench_v5": dict(hub="livecodebench/code_generation_lite", files=("test3", "test4", "test5", "test6"),
                             window=("2024-08-01", "2025-02-01")),
    "livecodebench_v6": dict(hub="livecodebench/code_generation_lite", files=("test5", "test6"),
                             window=("2025-02-01", "2025-05-01")),
}


def on_hub(source: str) -> bool:
    """Whether it is no file, nor called like one, but like a hub data set."""
    return (source.count("/") == 1 and not source.endswith((".jsonl", ".json", ".parquet")) and source[0] not in "./"
            and not Path(source).exists())


def read_benchmark(entry: str, knob: str) -> tuple[str, Iterator[tuple[str, dict]]]:
    """(name, rows as read_rows gives them) of a name in BENCHMARKS, a file or folder, a hub data set, or NAME=PATH: a
    local copy that counts as that benchmark. Rows outside the window of contests are left out."""
    name, _, path = entry.partition("=") if "=" in entry and not Path(entry).exists() else ("", "", entry)
    if path and Path(path).exists():
        name, rows = name or Path(path).stem, read_source(path, knob)
    elif path in BENCHMARKS and not name:
        name, rows = path, read_hub(path, knob)
    elif on_hub(path):
        name, rows = name or path.split("/")[1].split(":")[0], read_source(path, knob, "test")
    else:
        near = difflib.get_close_matches(path, BENCHMARKS, 1, 0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        die(f"{knob}: {path!r} is no file and no benchmark{hint}; known: {', '.join(BENCHMARKS)}, "
            "toy:math, toy:code, a JSONL or Parquet file, a folder, NAME=PATH")
    rows, window = sound(rows), BENCHMARKS.get(name, {}).get("window")
    return name, in_window(rows, f"{knob}: {entry}", *window) if window else rows


def benchmark_texts(entries: str, knob: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """(name, [(id, what the problem asks)]) of comma-separated entries as read_benchmark takes them."""
    for entry in filter(None, map(str.strip, entries.split(","))):
        (name, rows), problems = read_benchmark(entry, knob), []
        for where, row in rows:
            try:
                text = row.get("question_content") or asked(prompt_of(row))
                problems.append((row_id(row) or str(len(problems)), text))
            except ValueError as error:
                die(f"{where}: {error}")
        if not problems:
            die(f"{knob}: {entry} has no row")
        yield name, problems


def read_hub(name: str, knob: str) -> Iterator[tuple[str, dict | ValueError]]:
    """Rows of a benchmark on the hub; LiveCodeBench's loading script no longer runs, so its JSONL files are read."""
    spec, wants = BENCHMARKS[name], f"give a local file instead, --{knob} {name}=FILE: "
    if "files" not in spec:
        wants += 'JSONL with {"problem", "answer"} or {"messages", "answer"} a line'
        return (yield from read_source(spec["hub"], knob, wants=wants))
    for file in spec["files"]:
        try:
            from huggingface_hub import hf_hub_download

            path = hf_hub_download(spec["hub"], f"{file}.jsonl", repo_type="dataset")
        except Exception as error:  # the client raises a dozen types; every one means: this name gave no rows
            die(f"{knob}: {spec['hub']}: {one_line(error)}; {wants}LiveCodeBench's test*.jsonl "
                '("question_content", "public_test_cases", "private_test_cases")')
        yield from read_source(path, knob)


def in_window(rows, source: str, first: str, end: str) -> Iterator[tuple[str, dict]]:
    found = False
    for where, row in rows:
        try:
            day = datetime.datetime.fromisoformat(row["contest_date"]).date().isoformat()
        except (KeyError, TypeError, ValueError):
            die(f"{where}: no ISO contest_date, by which rows are chosen")
        if first <= day < end:
            found = True
            yield where, row
    if not found:
        die(f"{source} has no rows of contests from {first} to {end}")


class TextUnpickler(pickle.Unpickler):
    """Pickle without classes or functions: what is left can build text, numbers and containers, and run nothing."""

    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"refused to load {module}.{name}")


def livecodebench_tests(row: dict) -> dict:
    """{"inputs", "outputs"} and "fn_name" for functional problems: public and private tests of a LiveCodeBench row.

    private_test_cases is JSON, or base64(zlib(pickle(JSON string))). Raises ValueError for anything else."""
    tests = []
    for key in ("public_test_cases", "private_test_cases"):
        packed = row.get(key) or "[]"
        try:
            part = json.loads(packed)
        except json.JSONDecodeError:
            try:
                text = TextUnpickler(io.BytesIO(zlib.decompress(base64.b64decode(packed, validate=True)))).load()
                part = json.loads(text)
            # a hostile or damaged pickle raises nearly anything: all of them mean that the row is unusable
            except Exception as error:
                raise ValueError(f"{key} is neither JSON nor base64 of zlib of pickled JSON ({error})") from None
        if not isinstance(part, list) or not all(isinstance(t, dict) and {"input", "output", "testtype"} <= set(t)
                                                 for t in part):
            raise ValueError(f'{key} is no list of {{"input", "output", "testtype"}}')
        tests += part
    if not tests:
        raise ValueError("no test cases")
    truth = {"inputs": [str(t["input"]) for t in tests], "outputs": [str(t["output"]) for t in tests]}
    if any(t["testtype"] == "functional" for t in tests):
        try:
            metadata = json.loads(row.get("metadata") or "{}")
        except json.JSONDecodeError as error:
            raise ValueError(f"metadata is not JSON ({error})") from None
        truth["fn_name"] = metadata.get("func_name") if isinstance(metadata, dict) else None
        if not truth["fn_name"]:
            raise ValueError("functional tests but no func_name in metadata")
    return truth
