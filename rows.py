"""Rows as people have them, alike for every stage: JSONL, Parquet, hub data sets; the messages and the ground truth in
them.

    {"messages": [{"role", "content"}]}      content may be text or parts [{"type": "text", "text"}]
    {"prompt"} as text or messages, with "completion" or "response" for SFT (TRL's names)
    {"conversations": [{"from", "value"}]}   ShareGPT
    {"problem" | "question"}                 and "answer" (GSM8K's solution ends in "#### 42")
    ground truth: "reward_model": {"ground_truth"}, "ground_truth", "answer", "meta": {"answer"}
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import jinja2

from runs import die, one_line

BOM = b"\xef\xbb\xbf"
SHAREGPT = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant"}


def read_rows(spec: str, knob: str, split: str = "train",
              toy_rows: Callable[[str], list[dict]] | None = None) -> Iterator[tuple[str, dict | ValueError]]:
    """Yields (SOURCE:LINE, row) of every source named in `spec`, with commas: JSONL or Parquet files, folders of them,
    hub data sets NAME[:SUBSET[:SPLIT]], toy:KIND from `toy_rows`. A line that is no JSON object comes as a ValueError
    that says why; a source that cannot be read at all ends the run, and so does one without rows."""
    for source in filter(None, map(str.strip, spec.split(","))):
        number = 0
        try:
            rows = ((f"{source}:{i}", row) for i, row in enumerate(toy_rows(source[4:]), 1)) \
                if source.startswith("toy:") and toy_rows else read_source(source, knob, split)
            for row in rows:
                yield row
                number += 1
        except ValueError as error:  # an unknown toy
            die(f"{knob}: {error}")
        if not number:
            die(f"{knob}: {source} has no row")


def read_source(source: str, knob: str, split: str) -> Iterator[tuple[str, dict | ValueError]]:
    path, wants = Path(source), "give a JSONL or Parquet file, or the name of a hub data set"
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

            name, subset, chosen = (source + "::").split(":")[:3]
            rows = datasets.load_dataset(name, subset or None, split=chosen or split)
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
    except RecursionError:
        return ValueError("not JSON (nested too deeply); expected one object a line")
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
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    messages = []
    for message in value if isinstance(value, list) else [None]:
        if not isinstance(message, dict):
            raise ValueError('a message is {"role", "content"} (or {"from", "value"}), in text')
        speaker, content = message.get("role", message.get("from")), message.get("content", message.get("value"))
        if isinstance(content, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content):
            content = "".join(part["text"] for part in content)
        if not isinstance(speaker, str) or not isinstance(content, str):
            raise ValueError('a message is {"role", "content"} (or {"from", "value"}), in text')
        messages.append({"role": SHAREGPT.get(speaker, speaker), "content": content})
    return messages


def prompt_of(row: dict) -> list[dict]:
    """The messages of a row without the answer at their end. Raises ValueError."""
    messages = messages_of({key: value for key, value in row.items() if key not in ("completion", "response")})
    while messages and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    if not messages:
        raise ValueError("no user message")
    return messages


def truth_of(row: dict):
    """The ground truth of a math or RL row, wherever its format keeps it. Raises ValueError."""
    meta = row.get("meta") if isinstance(row.get("meta"), dict) else {}
    model = row.get("reward_model") if isinstance(row.get("reward_model"), dict) else {}
    places = ((model, "ground_truth"), (row, "ground_truth"), (row, "answer"), (meta, "answer"), (meta, "solution"))
    truth = next((place[key] for place, key in places if place.get(key) not in (None, "")), None)
    if truth is None:
        raise ValueError('no ground truth; expected "answer", "ground_truth", "meta": {"answer"} or '
                         '"reward_model": {"ground_truth"}')
    if isinstance(truth, str) and "####" in truth:  # GSM8K: the solution, then #### and the number
        truth = truth.rsplit("####", 1)[1].strip().replace(",", "")
    return str(truth) if isinstance(truth, (int, float)) else truth


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
    return data_source.replace("math_longcot_math_verify", "math_verify").replace("coder1_longcot", "coder1")
