"""The embedded default: a 0.8M-parameter Qwen3, its character tokenizer, and toy problems, all made in seconds, no downloads.

    toy:math   "3+8+5+9+2="  ->  <think>3+8=11,11+5=16,16+9=25,25+2=27</think>\\boxed{27}
    toy:code   "Read a and b. Print the larger of them plus 7."  ->  <think>...</think> and a Python program

`prepare` makes the model and warms it up by sft.py on traces of which about half are wrong, by mistakes of a few kinds (a
forgotten term, a forgotten carry; a wrong function, a forgotten constant). The model learns the right procedure and the
mistakes alike, so it answers about half of the problems and RL has something to sharpen. The knobs of difficulty are
`terms` and `digits` (math) and `right`, the share of right traces.
"""

import json
import os
import random
import subprocess
import sys
import zlib
from pathlib import Path

KINDS = ("math", "code")
CHAT_TEMPLATE = "{% for m in messages %}{{ m['content'] + (eos_token if m['role'] == 'assistant' else '\n') }}{% endfor %}"


def make_model(folder: str, seed: int = 0) -> str:
    """Writes an untrained 0.8M-parameter Qwen3 and a character tokenizer as a Hugging Face folder; returns the folder."""
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


# ------------------------------------------------------------------------------------------------------------------ math
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
    carries = [i for i in range(1, len(numbers)) if add(sum(numbers[:i]), numbers[i], carry=False) != sum(numbers[:i + 1])]
    at = rng.choice(carries) if carries and not right and rng.random() < 0.5 else None
    forget = not right and at is None
    total, steps = numbers[0], []
    for i, number in enumerate(numbers[1: len(numbers) - forget], 1):
        result = add(total, number, carry=i != at)
        steps.append(f"{total}+{number}={result}")
        total = result
    return f"<think>{','.join(steps)}</think>\\boxed{{{total}}}"


# ------------------------------------------------------------------------------------------------------------------ code
FUNCTIONS = {  # words -> (expression, what a careless programmer writes instead: right for some inputs)
    "the larger of them": ("max(a,b)", ["a", "min(a,b)", "b"]),
    "the smaller of them": ("min(a,b)", ["a", "max(a,b)", "b"]),
    "their sum": ("a+b", ["a-b", "abs(a+b)"]),
    "their difference": ("a-b", ["b-a", "abs(a-b)"]),
    "their distance": ("abs(a-b)", ["a-b", "b-a"]),
    "their product": ("a*b", ["a+b", "abs(a*b)"]),
}


def code_problem(rng: random.Random) -> tuple[str, tuple[str, int]]:
    words, constant = rng.choice(list(FUNCTIONS)), rng.randint(1, 199)
    return f"Read a and b. Print {words} plus {constant}.", (words, constant)


def code_trace(task: tuple[str, int], rng: random.Random, right: bool) -> str:
    """A program in a fenced block; a wrong one uses another function or forgets the constant."""
    (expression, careless), constant = FUNCTIONS[task[0]], task[1]
    expression = f"{expression}+{constant}"
    if not right:
        wrong = [f"{other}+{constant}" for other in careless] + [FUNCTIONS[task[0]][0]]
        expression = rng.choice(wrong)
    return f"<think>{expression}</think>```python\na,b=map(int,input().split())\nprint({expression})\n```"


def code_tests(task: tuple[str, int], rng: random.Random, count: int = 8) -> str:
    """Ground truth in the published format: a JSON string with inputs and outputs (stdin, stdout)."""
    expression, constant = FUNCTIONS[task[0]][0], task[1]
    pairs = [(rng.randint(-50, 50), rng.randint(-50, 50)) for _ in range(count)]
    outputs = [str(eval(expression, {"a": a, "b": b, "max": max, "min": min, "abs": abs}) + constant) for a, b in pairs]
    return json.dumps({"inputs": [f"{a} {b}" for a, b in pairs], "outputs": outputs})


# ------------------------------------------------------------------------------------------------------------------ rows
def problems(kind: str, n: int, seed: int, split: str, terms: int = 5, digits: int = 1):
    """n different problems (question, task) of a split. The split of a problem is decided by a hash of its text, so that no
    held-out problem is ever trained on, whatever the seed. Raises ValueError for an unknown kind."""
    if kind not in KINDS:
        raise ValueError(f"toy:{kind} is unknown; there are {' and '.join(f'toy:{k}' for k in KINDS)}")
    rng, seen, tries = random.Random(f"{kind} {split} {seed}"), set(), 0
    while len(seen) < n and tries < 100 * n:
        tries += 1
        text, task = math_problem(rng, terms, digits) if kind == "math" else code_problem(rng)
        if (zlib.crc32(text.encode()) % 5 == 0) == (split == "eval") and text not in seen:
            seen.add(text)
            yield text, task


def sft_rows(kind: str, n: int, seed: int = 0, right: float = 0.5, **difficulty) -> list[dict]:
    """n rows {"messages"} of reasoning traces, a share `right` of them right; problems repeat once all were used."""
    rng = random.Random(f"traces {kind} {seed}")
    pool = list(problems(kind, n, seed, "train", **difficulty))
    trace = math_trace if kind == "math" else code_trace
    rows = []
    for i in range(n):
        text, task = pool[i % len(pool)]
        rows.append({"messages": [{"role": "user", "content": text},
                                  {"role": "assistant", "content": trace(task, rng, rng.random() < right)}]})
    return rows


def rl_rows(kind: str, n: int, seed: int = 0, split: str = "train", **difficulty) -> list[dict]:
    """Up to n rows in the published RL format; `split` is train or eval (held out)."""
    rng = random.Random(f"tests {kind} {split} {seed}")
    return [{"data_source": f"toy:{kind}", "prompt": [{"role": "user", "content": text}],
             "reward_model": {"ground_truth": str(sum(task)) if kind == "math" else code_tests(task, rng)}}
            for text, task in problems(kind, n, seed, split, **difficulty)]


SFT_FLAGS = {  # a minute on two cores
    "math": ["--epochs", "2", "--lr", "3e-3", "--min_lr", "3e-4", "--global_batch", "64", "--warmup_ratio", "0.05"],
    "code": ["--epochs", "2", "--lr", "3e-3", "--min_lr", "3e-4", "--global_batch", "64", "--warmup_ratio", "0.05"],
}
SFT_TRACES = {"math": 12288, "code": 8192}


def prepare(folder: str, kind: str = "math", seed: int = 0, right: float = 0.5) -> str:
    """The model warmed up by sft.py on toy traces: FOLDER/sft/final; made once. Raises ValueError if sft.py fails."""
    out = Path(folder)
    if not (out / "sft" / "final" / "config.json").exists():
        print(f"toy: making a 0.8M-parameter model and warming it up by sft.py on {SFT_TRACES[kind]} traces of toy:{kind} "
              f"(about {right:.0%} of them right) in {out}", flush=True)
        out.mkdir(parents=True, exist_ok=True)
        make_model(str(out / "init"), seed)
        with (out / "traces.jsonl").open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in sft_rows(kind, SFT_TRACES[kind], seed, right))
        # the stage itself, as a user would run it; without the launcher's variables it is one process with all threads
        launcher = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_RANK", "MASTER_", "TORCHELASTIC_", "FSDP_", "ACCELERATE_")
        env = {k: v for k, v in os.environ.items() if not k.startswith(launcher)}
        if "ACCELERATE_MIXED_PRECISION" in os.environ:
            env.pop("OMP_NUM_THREADS", None)  # accelerate launch sets it to 1 on a CPU
        command = [sys.executable, str(Path(__file__).parent / "sft.py"), "--model", str(out / "init"), "--train_file",
                   str(out / "traces.jsonl"), "--output_dir", str(out / "sft"), "--max_tokens", "512", "--packing", "false",
                   *SFT_FLAGS[kind]]
        if subprocess.run(command, env=env).returncode:
            raise ValueError(f"toy: the warm-up by sft.py failed (its message is above); its files are in {out / 'sft'}")
    return str(out / "sft" / "final")
