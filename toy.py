"""The embedded default: a 0.8M-parameter Qwen3, its character tokenizer and toy problems, all made in seconds.

    toy:math   "3+8+5+9+2="  ->  <think>3+8=11,11+5=16,16+9=25,25+2=27</think>\\boxed{27}
    toy:code   "Read a, b. Print max plus 123."  ->  <think>...</think> and a Python program

`prepare` makes the model and warms it up by sft.py on traces of which about half are wrong, by mistakes of a few kinds
(a forgotten term, a forgotten carry; a wrong function, a forgotten constant). The model learns the right procedure and
the mistakes alike, so it answers about half of the problems and RL has something to sharpen. The knobs of difficulty
are `terms` and `digits` of the numbers; that of exploration is `right`, the share of right traces (with few of them RL
must find the right answers first). They are part of the name, as in train_file: toy:math-terms=7-digits=2-right=0.2.
"""

import fcntl
import json
import os
import random
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

CHAT_TEMPLATE = ("{% for m in messages %}{{ m['content'] + (eos_token if m['role'] == 'assistant' else '\n') }}"
                 "{% endfor %}")


def make_model(folder: str, seed: int = 0) -> str:
    """Writes an untrained 0.8M-parameter Qwen3 and a character tokenizer as a Hugging Face folder; returns it."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    words = ["<pad>", "<eos>", "<unk>", "<think>", "</think>", "\n", *map(chr, range(32, 127))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"<think>|</think>|<eos>|[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()  # characters join without spaces
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>",
                                   clean_up_tokenization_spaces=False, model_max_length=512)
    fast.chat_template = CHAT_TEMPLATE
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(Qwen3Config(
        vocab_size=len(words), hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=512, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=1, pad_token_id=0))
    model.generation_config.update(eos_token_id=1, pad_token_id=0, bos_token_id=None)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


# ----------------------------------------------------------------------------------------------------------------- math
def add(a: int, b: int, carry: bool = True) -> int:
    """a + b; without carries every digit is added on its own (7 + 5 = 2), the classic mistake."""
    if carry:
        return a + b
    total, place = 0, 1
    while a or b:
        total, a, b, place = total + (a % 10 + b % 10) % 10 * place, a // 10, b // 10, place * 10
    return total


def math_problem(rng: random.Random, terms: int, digits: int) -> tuple[str, list[int]]:
    numbers = [rng.randint(10 ** (digits - 1), 10**digits - 1) for _ in range(terms)]
    return "+".join(map(str, numbers)) + "=", numbers


def math_trace(numbers: list[int], rng: random.Random, right: bool) -> str:
    """A reasoning trace by partial sums; a wrong one forgets the carries of one sum or the last term."""
    carries = [i for i in range(1, len(numbers))
               if add(sum(numbers[:i]), numbers[i], carry=False) != sum(numbers[:i + 1])]
    at = rng.choice(carries) if carries and not right and rng.random() < 0.5 else None
    forget = not right and at is None
    total, steps = numbers[0], []
    for i, number in enumerate(numbers[1: len(numbers) - forget], 1):
        result = add(total, number, carry=i != at)
        steps.append(f"{total}+{number}={result}")
        total = result
    return f"<think>{','.join(steps)}</think>\\boxed{{{total}}}"


# ----------------------------------------------------------------------------------------------------------------- code
FUNCTIONS = {  # word -> (expression, what a careless programmer writes instead: right for some inputs)
    "max": ("max(a,b)", ["a", "min(a,b)", "b"]),
    "min": ("min(a,b)", ["a", "max(a,b)", "b"]),
    "sum": ("a+b", ["a-b", "abs(a+b)"]),
    "sub": ("a-b", ["b-a", "abs(a-b)"]),
    "gap": ("abs(a-b)", ["a-b", "b-a"]),
    "mul": ("a*b", ["a+b", "abs(a*b)"]),
}  # words of one length, constants of one length: a tiny model learns to copy from fixed places in seconds, not minutes


def code_problem(rng: random.Random, digits: int) -> tuple[str, tuple[str, int]]:
    word, constant = rng.choice(list(FUNCTIONS)), rng.randint(10 ** (digits - 1), 10**digits - 1)
    return f"Read a, b. Print {word} plus {constant}.", (word, constant)


def code_trace(task: tuple[str, int], rng: random.Random, right: bool) -> str:
    """A program in a fenced block; a wrong one uses another function or forgets the constant."""
    (expression, careless), (word, constant) = FUNCTIONS[task[0]], task
    wrong = [f"{constant}+{other}" for other in careless] + [expression]
    program = f"{constant}+{expression}" if right else rng.choice(wrong)
    return f"<think>{constant} {word}</think>```python\na,b=map(int,input().split())\nprint({program})\n```"


def code_tests(task: tuple[str, int], rng: random.Random, count: int = 8) -> str:
    """Ground truth in the published format: a JSON string with inputs and outputs (stdin, stdout)."""
    expression, constant = FUNCTIONS[task[0]][0], task[1]
    pairs = [(rng.randint(-50, 50), rng.randint(-50, 50)) for _ in range(count)]
    outputs = [str(eval(expression, {"a": a, "b": b, "max": max, "min": min, "abs": abs}) + constant) for a, b in pairs]
    return json.dumps({"inputs": [f"{a} {b}" for a, b in pairs], "outputs": outputs})


# ----------------------------------------------------------------------------------------------------------------- rows
DIFFICULTY = {"math": {"terms": 5, "digits": 1}, "code": {"digits": 3}}  # the default of every knob


def parse(kind: str) -> tuple[str, dict[str, int], float]:
    """"math-terms=7-right=0.2" -> ("math", {"terms": 7, "digits": 1}, 0.2). Raises ValueError, one line, for what is
    unknown."""
    name, *knobs = kind.split("-")
    if name not in DIFFICULTY:
        raise ValueError(f"toy:{kind} is unknown; there are {' and '.join(f'toy:{k}' for k in DIFFICULTY)}")
    difficulty, right = dict(DIFFICULTY[name]), 0.5
    for knob in knobs:
        key, _, value = knob.partition("=")
        try:
            if key == "right":
                right = float(value)
            elif key in difficulty and int(value) > 0:
                difficulty[key] = int(value)
            else:
                raise ValueError
        except ValueError:
            known = "=N, ".join(difficulty) + "=N and right=SHARE"
            raise ValueError(f"toy:{kind}: {knob!r} is no knob of toy:{name}; there are {known}") from None
    return name, difficulty, right


def problems(kind: str, n: int, seed: int, split: str) -> Iterator[tuple[str, object]]:
    """Up to n different problems (question, task) of a split. The split of a problem is decided by a hash of its text,
    so that no held-out problem is ever trained on, whatever the seed."""
    name, knobs, _ = parse(kind)
    make, rng, seen = {"math": math_problem, "code": code_problem}[name], random.Random(f"{name} {split} {seed}"), set()
    for _ in range(100 * n):
        text, task = make(rng, **knobs)
        if (zlib.crc32(text.encode()) % 5 == 0) == (split == "eval") and text not in seen:
            seen.add(text)
            yield text, task
            if len(seen) == n:
                return


def sft_rows(kind: str, n: int, seed: int = 0) -> list[dict]:
    """n rows {"messages"} of reasoning traces; problems repeat once all were used."""
    name, _, right = parse(kind)
    rng, trace = random.Random(f"traces {name} {seed}"), {"math": math_trace, "code": code_trace}[name]
    pool, rows = list(problems(kind, n, seed, "train")), []
    for i in range(n):
        text, task = pool[i % len(pool)]
        rows.append({"messages": [{"role": "user", "content": text},
                                  {"role": "assistant", "content": trace(task, rng, rng.random() < right)}]})
    return rows


def rl_rows(kind: str, n: int, seed: int = 0, split: str = "train") -> list[dict]:
    """Up to n rows in the published RL format; `split` is train or eval (held out)."""
    name = parse(kind)[0]
    rng = random.Random(f"tests {name} {split} {seed}")
    return [{"data_source": f"toy:{name}", "prompt": [{"role": "user", "content": text}],
             "reward_model": {"ground_truth": str(sum(task)) if name == "math" else code_tests(task, rng)}}
            for text, task in problems(kind, n, seed, split)]


WARM_UP = ["--epochs", "2", "--lr", "3e-3", "--min_lr", "3e-4", "--warmup_ratio", "0.05", "--global_batch", "64",
           "--max_tokens", "512", "--packing", "false"]  # a minute on two cores
SFT_FLAGS = {"math": WARM_UP, "code": [*WARM_UP, "--global_batch", "16", "--epochs", "3"]}
SFT_TRACES = {"math": 12288, "code": 4096}


def prepare(folder: str, kind: str) -> str:
    """The model warmed up by sft.py on toy traces: FOLDER/sft/final; made once, also when several processes ask at a
    time. Raises ValueError for an unknown kind, or if sft.py fails."""
    out, (name, _, right) = Path(folder), parse(kind)
    final = out / "sft" / "final"
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if final.exists():  # sft.py renames it into place, so it is whole
            return str(final)
        print(f"toy: making a 0.8M-parameter model and warming it up by sft.py on {SFT_TRACES[name]} traces of "
              f"toy:{kind} (about {right:.0%} of them right) in {out}", flush=True)
        shutil.rmtree(out / "sft", ignore_errors=True)  # a warm-up that was interrupted
        make_model(str(out / "init"))
        with (out / "traces.jsonl").open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in sft_rows(kind, SFT_TRACES[name]))
        # the stage itself, as a user would run it; without the launcher's variables it is one process with all threads
        launcher = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "MASTER_", "TORCHELASTIC_", "FSDP_", "ACCELERATE_")
        env = {k: v for k, v in os.environ.items() if not k.startswith(launcher)}
        if "ACCELERATE_MIXED_PRECISION" in os.environ:
            env.pop("OMP_NUM_THREADS", None)  # accelerate launch sets it to 1 on a CPU
        command = [sys.executable, str(Path(__file__).parent / "sft.py"), "--model", str(out / "init"),
                   "--train_file", str(out / "traces.jsonl"), "--output_dir", str(out / "sft"), *SFT_FLAGS[name]]
        if subprocess.run(command, env=env).returncode:
            raise ValueError(f"toy: the warm-up by sft.py failed (see above); its files are in {out / 'sft'}")
    return str(final)
