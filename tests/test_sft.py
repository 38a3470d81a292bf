"""sft.py: what is learnt (spans, packing, chunked head), that the cut of a batch does not matter, resume, two ranks, mistakes."""

import copy
import json
import math
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from safetensors.torch import load_file
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from klear import folders
import forked
from klear import ranks
from klear import rows
import runs
import sft
import toy
from policy import HeadLogprobs, Policy, finish_generation_config, plan_microbatches
from klear.ranks import Run

ROOT = Path(__file__).parent.parent
ENV = {**{k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}, "OMP_NUM_THREADS": "1"}
CHATML = ("{% for m in messages %}{{ '[' + m['role'] + ']\n' + m['content'] + '<eos>\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '[assistant]\n' }}{% endif %}")
FORGETS = (  # like Qwen3: thinking of earlier turns disappears
    "{% for m in messages %}{% set c = m['content'] if loop.last else m['content'].split('</think>')[-1] %}"
    "{{ '[' + m['role'] + ']\n' + c + '<eos>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '[assistant]\n' }}{% endif %}")
DEEPSEEK = (  # like DeepSeek-R1: the thinking of every turn disappears, the generation prompt opens the next
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[U]' + m['content'] }}{% else %}"
    "{{ '[A]' + m['content'].split('</think>')[-1] + '<eos>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[A]<think>\n' }}{% endif %}")
NO_END = "{% for m in messages %}{{ m['role'] + ':' + m['content'] }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
MARKED = ("{% for m in messages %}{{ '[' + m['role'] + ']' }}{% if m['role'] == 'assistant' %}"
          "{% generation %}{{ m['content'] + '<eos>' }}{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}{% endfor %}")
TWO_TURNS = [{"role": "user", "content": "1+1="}, {"role": "assistant", "content": "<think>a</think>2"},
             {"role": "user", "content": "2+2="}, {"role": "assistant", "content": "<think>b</think>4"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model") / "toy"
    return toy.make_model(str(folder))


@pytest.fixture(scope="module")
def tokenizer(model):
    return AutoTokenizer.from_pretrained(model)


def write(path: Path, rows) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def learnt_texts(tokenizer, messages: list[dict]) -> list[tuple[str, str]]:
    """(whole text, learnt text) of every example of a conversation."""
    items = sft.encode_row({"messages": messages}, tokenizer)
    examples = [item if isinstance(item, sft.Example) else sft.encode([item], tokenizer)[0] for item in items]
    return [(tokenizer.decode(e.ids.tolist()), tokenizer.decode(e.ids[e.target].tolist())) for e in examples]


# ------------------------------------------------------------------------------------------------------- what is learnt
@pytest.mark.parametrize("template, expected", [
    (None, [("1+1=\n<think>a</think>2<eos>2+2=\n<think>b</think>4<eos>", "<think>a</think>2<eos><think>b</think>4<eos>")]),
    (toy.CHAT_TEMPLATE, [("1+1=\n<think>a</think>2<eos>2+2=\n<think>b</think>4<eos>", "<think>a</think>2<eos><think>b</think>4<eos>")]),
    (CHATML, [("[user]\n1+1=<eos>\n[assistant]\n<think>a</think>2<eos>\n[user]\n2+2=<eos>\n[assistant]\n<think>b</think>4<eos>\n",
               "<think>a</think>2<eos><think>b</think>4<eos>")]),
    (FORGETS, [("[user]\n1+1=<eos>\n[assistant]\n2<eos>\n[user]\n2+2=<eos>\n[assistant]\n<think>b</think>4<eos>\n", "<think>b</think>4<eos>"),
               ("[user]\n1+1=<eos>\n[assistant]\n<think>a</think>2<eos>", "<think>a</think>2<eos>")]),
    (DEEPSEEK, [("[U]1+1=[A]<think>\na</think>2<eos>", "a</think>2<eos>"),
                ("[U]1+1=[A]2<eos>[U]2+2=[A]<think>\nb</think>4<eos>", "b</think>4<eos>")]),
    (NO_END, [("user:1+1=assistant:<think>a</think>2user:2+2=assistant:<think>b</think>4<eos>", "<think>b</think>4<eos>"),
              ("user:1+1=assistant:<think>a</think>2<eos>", "<think>a</think>2<eos>")]),
    (MARKED, [("[user]1+1=[assistant]<think>a</think>2<eos>[user]2+2=[assistant]<think>b</think>4<eos>",
               "<think>a</think>2<eos><think>b</think>4<eos>")]),
], ids=["none", "toy", "chatml", "forgets", "deepseek", "no_end", "marked"])
def test_assistant_tokens_of_any_template(tokenizer, template, expected):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = template
    assert learnt_texts(tokenizer, TWO_TURNS) == expected


def test_byte_level_tokenizer_learns_white_space_and_split_characters():
    """Offsets of a byte-level tokenizer with trim_offsets leave white space out, and a character may be several tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    backend.train_from_iterator(["print a b  def  \n    return x \n\n"] * 3, trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<eos>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<eos>")
    tokenizer.chat_template = CHATML
    response = "  def f(x):\n\n    return x  \n\t😀 é \u2028 end  "
    text, learnt = learnt_texts(tokenizer, [{"role": "user", "content": "hi 😀 "}, {"role": "assistant", "content": response}])[0]
    assert learnt == response + "<eos>" and text == f"[user]\nhi 😀 <eos>\n[assistant]\n{response}<eos>\n"


def test_row_formats(tokenizer):
    gsm8k = {"question": "q", "answer": "6*7=<<6*7=42>>42\n#### 42"}
    assert sft.to_messages(gsm8k)[1]["content"] == "<think>\n6*7=42\n</think>\n\n\\boxed{42}"
    assert sft.to_messages(gsm8k, gsm8k_think=False)[1]["content"] == gsm8k["answer"]
    assert sft.to_messages({"question": "q", "answer": "no mark"})[1]["content"] == "no mark"
    assert sft.to_messages({"prompt": "p", "response": "r"}) == [{"role": "user", "content": "p"}, {"role": "assistant", "content": "r"}]
    assert sft.to_messages({"messages": TWO_TURNS}) == TWO_TURNS
    for bad in ({}, {"messages": []}, {"messages": TWO_TURNS[:1]}, {"messages": TWO_TURNS[1:]}, {"prompt": "p"},
                {"prompt": 1, "response": "r"}, {"messages": [{"role": "user", "content": None}, *TWO_TURNS[1:]]}):
        with pytest.raises(ValueError, match="messages|a message is"):
            sft.to_messages(bad)


# ------------------------------------------------------------------------------------------- head, packing, exact means
@pytest.mark.parametrize("n, chunk", [(0, 4), (1, 4), (7, 3), (8, 4), (9, 100)])
def test_chunked_cross_entropy_equals_full_logits(n, chunk):
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(n, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True), torch.randint(50, (n,))
    full = torch.nn.functional.cross_entropy(hidden @ weight.t(), targets, reduction="sum")
    expected = torch.autograd.grad(full * 0.37, (hidden, weight))
    ours = -HeadLogprobs.apply(hidden, weight, targets, 1.0, chunk, False)[0].sum()
    for got, want in zip(torch.autograd.grad(ours * 0.37, (hidden, weight)), expected):
        assert torch.allclose(got, want, rtol=1e-5, atol=1e-6)
    assert torch.allclose(ours, full, rtol=1e-6)
    with torch.no_grad():  # evaluation makes no gradient
        assert torch.equal(-HeadLogprobs.apply(hidden, weight, targets, 1.0, chunk, False)[0].sum(), ours.detach())


def test_cross_entropy_in_bf16_keeps_fp32_logits():
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(64, 32).bfloat16(), torch.randn(500, 32).bfloat16(), torch.randint(500, (64,))
    exact = torch.nn.functional.cross_entropy(hidden.double() @ weight.double().t(), targets, reduction="sum").item()
    hidden.requires_grad_(), weight.requires_grad_()
    loss = -HeadLogprobs.apply(hidden, weight, targets, 1.0, 10, False)[0].sum()
    loss.backward()
    assert loss.dtype == torch.float32 and abs(loss.item() / exact - 1) < 1e-5
    assert hidden.grad.dtype == weight.grad.dtype == torch.bfloat16


def tiny_run(tied=True, packing=True, token_budget=64, **knobs) -> Run:
    torch.manual_seed(0)
    lm = Qwen3ForCausalLM(Qwen3Config(
        vocab_size=40, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=16, max_position_embeddings=256, tie_word_embeddings=tied, attn_implementation="sdpa"))
    for p in lm.parameters():  # the initial 0.02 would hide most mistakes
        p.data.add_(torch.randn_like(p) * 0.2)
    cfg = sft.Config(**{"packing": packing, "token_budget": token_budget, "grad_clip": 1e9, **knobs})
    policy, accelerator = Policy(lm), Accelerator(cpu=True)
    optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)
    return Run(cfg, accelerator, policy, accelerator.prepare_optimizer(optimizer), None, [1], 0)


def random_examples(lengths: list[int], seed: int = 0) -> list[sft.Example]:
    rng = np.random.default_rng(seed)
    made = []
    for n in lengths:
        target = rng.random(n) < 0.6
        target[0], target[-1] = False, True
        made.append(sft.Example(rng.integers(0, 40, n).astype(np.uint32), target))
    return made


def reference_update(examples: list[sft.Example], tied: bool) -> tuple[float, dict]:
    """Loss and weights after one SGD step of lr 1 by the plain definition: each example alone, full logits, one mean over all."""
    lm = tiny_run(tied).policy.lm
    total, tokens = torch.zeros(()), 0
    for e in examples:
        ids = torch.from_numpy(e.ids.astype(np.int64))
        logits = lm(ids[None]).logits[0, :-1]
        nll = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
        total, tokens = total + nll[torch.from_numpy(e.target[1:])].sum(), tokens + int(e.target[1:].sum())
    (total / tokens).backward()
    return (total / tokens).item(), {name: p.detach() - p.grad for name, p in lm.named_parameters()}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("token_budget, grad_clip", [(16, 1e9), (64, 0.0), (4096, 1e9)])  # 0: no clipping
def test_update_is_the_plain_token_mean_however_it_is_cut(tied, packing, token_budget, grad_clip):
    """Packing, padding and micro-batches change neither loss nor gradient; so attention does not cross examples either."""
    examples = random_examples([9, 3, 30, 12, 2, 17, 8, 25, 5, 14])
    loss, weights = reference_update(examples, tied)
    run = tiny_run(tied, packing, token_budget, grad_clip=grad_clip)
    metrics = sft.update_on(examples, 1.0, run)
    assert metrics["loss"] == pytest.approx(loss, rel=1e-5)
    for name, p in run.policy.lm.named_parameters():
        assert torch.allclose(p, weights[name], rtol=1e-4, atol=2e-6), name


def test_packed_examples_do_not_see_each_other():
    run = tiny_run()
    first, second, other = random_examples([11, 13, 11])
    hidden = lambda batch: run.policy.lm.base_model(input_ids=batch["input_ids"], position_ids=batch["position_ids"],
                                                     use_cache=False).last_hidden_state[0, 11:]
    with torch.no_grad():
        pair, changed = sft.collate([first, second], True, "cpu", 0), sft.collate([other, second], True, "cpu", 0)
        assert pair["input_ids"].shape == (1, 24) and torch.equal(hidden(pair), hidden(changed))
        alone = run.policy.lm.base_model(torch.from_numpy(second.ids.astype(np.int64))[None]).last_hidden_state[0]
        assert torch.allclose(hidden(pair), alone, atol=1e-5)
        for batch in (pair, changed):  # the check can fail: with positions that run on, the leak is there
            batch["position_ids"] = torch.arange(24)[None]
        assert not torch.allclose(hidden(pair), hidden(changed), atol=1e-3)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_microbatches_hold_every_example_once_within_the_budget(packed, ranks):
    rng = np.random.default_rng(1)
    for total in (1, 3, 40):
        lengths = np.clip(rng.lognormal(4, 1, total), 1, 500).astype(int).tolist()
        plan = plan_microbatches(lengths, ranks, 512, packed)
        assert sorted(i for micros in plan for micro in micros for i in micro) == list(range(total))
        assert len({len(micros) for micros in plan}) == 1
        for micro in (micro for micros in plan for micro in micros if micro):
            size = sum(lengths[i] for i in micro) if packed else max(lengths[i] for i in micro) * len(micro)
            assert size <= 512
    assert len(plan_microbatches([400, 300, 250, 200], 1, 600, True)[0]) == 2  # 400+200, 300+250: gaps are filled
    assert len(plan_microbatches([9], 1, 4, packed)[0]) == 1  # longer than the budget: alone


def test_learning_rate():
    cfg = sft.Config(lr=8e-5, min_lr=4e-5, warmup_ratio=0.1)
    rates = [sft.learning_rate(i, 100, cfg) for i in range(1, 101)]
    assert rates[0] == pytest.approx(8e-6) and rates[9] == pytest.approx(8e-5) and rates[54] == pytest.approx(6e-5, rel=1e-6)
    assert rates[-1] == pytest.approx(4e-5) and rates[9:] == sorted(rates[9:], reverse=True)
    assert sft.learning_rate(1, 1, cfg) == 8e-5


def test_a_gradient_that_is_not_finite_is_skipped():
    run = tiny_run()
    run.policy.lm.model.norm.weight.data[0] = math.inf
    before = copy.deepcopy(run.policy.lm.model.layers.state_dict())
    metrics = sft.update_on(random_examples([8]), 1.0, run)
    assert metrics["skipped"] == 1
    assert all(torch.equal(before[k], v) for k, v in run.policy.lm.model.layers.state_dict().items())


@pytest.mark.slow
def test_ten_useless_gradients_in_a_row_end_the_run(capsys, tmp_path, model):
    """They ended in exit code 0 and a final/ that nothing had trained."""
    from safetensors.torch import save_file

    shutil.copytree(model, tmp_path / "nan")
    weights = load_file(tmp_path / "nan" / "model.safetensors")
    save_file(weights | {"model.norm.weight": weights["model.norm.weight"] * math.nan}, tmp_path / "nan" / "model.safetensors", {"format": "pt"})
    write(tmp_path / "rows.jsonl", [{"prompt": "1+1=", "response": "2"}] * 40)
    said = message_of(capsys, "--model", tmp_path / "nan", "--train_file", tmp_path / "rows.jsonl", "--output_dir", tmp_path / "out",
                      "--global_batch", 2, "--epochs", 1, "--packing", "false", code=1)
    assert "update 10: ten gradients in a row were not finite" in said and not (tmp_path / "out" / "final").exists()


@pytest.mark.slow
def test_fewer_rows_than_a_run_has_learnt_are_told(capsys, tmp_path, model):
    """It went on for ever: the number of its update never equalled the last one's."""
    def flags(count: int) -> list:
        write(tmp_path / "rows.jsonl", [{"prompt": "1+1=", "response": "2"}] * count)
        return ["--model", model, "--train_file", tmp_path / "rows.jsonl", "--output_dir", tmp_path / "out", "--global_batch", 1, "--epochs", 1,
                "--packing", "false"]

    sft.main([str(flag) for flag in flags(3)])
    assert "at update 3, these rows and epochs make 2" in message_of(capsys, *flags(2))


def test_tokens_are_made_anew_where_a_file_of_a_folder_changes(tmp_path, tokenizer):
    cfg = SimpleNamespace(gsm8k_think=True, seed=0, output_dir=str(tmp_path / "out"))
    (tmp_path / "rows").mkdir()
    for count in (3, 7):
        write(tmp_path / "rows" / "a.jsonl", [{"prompt": "1+1=", "response": "2"}] * count)
        assert len(sft.load_examples(str(tmp_path / "rows"), "train_file", tokenizer, 99, cfg)) == count


def test_tokens_are_made_anew_where_the_code_changes(tmp_path, tokenizer, monkeypatch):
    """Also that of as_messages: whoever edits how it reads a row would have trained on the tokens of the old way."""
    cfg, read = SimpleNamespace(gsm8k_think=True, seed=0, output_dir=str(tmp_path / "out")), sft.inspect.getsource
    path = write(tmp_path / "rows.jsonl", [{"prompt": "1+1=", "response": "2"}])
    for edited in (None, rows.messages_of, rows.as_messages, sft.tokenize, sft.render):
        monkeypatch.setattr(sft.inspect, "getsource", lambda part: read(part) + "#" * (part is edited))
        sft.load_examples(path, "train_file", tokenizer, 99, cfg)
    assert len(list((tmp_path / "tokens").iterdir())) == 5


@pytest.mark.slow
def test_two_runs_that_tokenize_the_same_rows_get_all_of_them(tmp_path, tokenizer, monkeypatch):
    """The second deleted the folder that the first was filling, and the first took what the second had by then."""
    cfg = SimpleNamespace(gsm8k_think=True, seed=0, output_dir=str(tmp_path / "out"))
    path, read = write(tmp_path / "rows.jsonl", [{"prompt": "1+1=", "response": "2"}] * 9), rows.read_rows

    def another_begins(spec, knob, **more):
        for number, row in enumerate(read(spec, knob, **more)):
            if number == 5:
                monkeypatch.setattr(sft, "read_rows", read)
                forked.call(load_all, path, tokenizer, cfg)
            yield row

    monkeypatch.setattr(sft, "read_rows", another_begins)
    assert len(sft.load_examples(path, "train_file", tokenizer, 99, cfg)) == 9
    assert [p.suffix for p in (tmp_path / "tokens").iterdir()] == [""]


def load_all(path: str, tokenizer, cfg) -> None:
    assert len(sft.load_examples(path, "train_file", tokenizer, 99, cfg)) == 9


@pytest.mark.slow
def test_one_run_at_a_time_in_a_folder(tmp_path):
    """The second one deleted the checkpoint that the first was writing, and both wrote one log."""
    assert folders.hold(tmp_path) is True and folders.hold(tmp_path) is True  # this process may ask again
    forked.call(refused, str(tmp_path))


def refused(folder: str) -> None:
    folders.HELD.clear()  # (a forked process has its own, but not from the forkserver)
    assert folders.hold(Path(folder)) is False
    with pytest.raises(SystemExit):
        folders.take(Path(folder))


def test_nan_is_no_json(tmp_path):
    """Python would write and read it, other readers of a log stop there."""
    runs.append_jsonl(tmp_path / "metrics.jsonl", [{"grad_norm": math.nan, "loss": math.inf, "lr": 1.0}])
    assert json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail) == {"grad_norm": None, "loss": None, "lr": 1.0}


def test_an_epoch_is_every_example_once_in_an_order_of_its_own():
    orders = [sft.epoch_order(20, epoch, seed) for seed in (3, 4) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert len(set(map(tuple, orders))) == 4 and orders[0] == sft.epoch_order(20, 0, 3) != list(range(20))


# ----------------------------------------------------------------------------------------------- the stage, as launched
ROWS = toy.sft_rows("math-terms=3", 48) + toy.sft_rows("math", 48, seed=1)  # two lengths
FLAGS = ["--epochs", "2", "--global_batch", "16", "--lr", "3e-3", "--min_lr", "3e-4", "--token_budget", "512", "--save_every", "3"]


def command(model: str, folder: Path, out: str, *flags: str) -> list[str]:
    return [str(ROOT / "sft.py"), "--model", model, "--train_file", str(folder / "train.jsonl"), "--eval_file", str(folder / "eval.jsonl"),
            "--output_dir", str(folder / out), *FLAGS, *flags]


def run_until(updates: int, sent: int, arguments: list[str], out: Path) -> tuple[int, str]:
    """Starts a run, sends it a signal once it has made that many updates, and waits for its end: (exit code, output)."""
    log = out.with_name(out.name + ".log")
    process = forked.start("sft", *arguments[1:], out=log)
    try:
        deadline = time.time() + 900  # only a hang takes that long
        while not ((out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_text().count("\n") >= updates):
            assert process.exitcode is None and time.time() < deadline, "the run ended before it could be stopped"
            time.sleep(0.005)
        os.kill(process.pid, sent)
        process.join(300)
    finally:
        process.kill()
    return process.exitcode, log.read_text()


def metrics_of(folder: Path) -> list[dict]:
    return [{k: v for k, v in json.loads(line).items() if k != "step_s"} for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory) -> Path:
    """A folder with data and one uninterrupted run: whole/."""
    folder = tmp_path_factory.mktemp("runs")
    write(folder / "train.jsonl", ROWS)
    write(folder / "eval.jsonl", toy.sft_rows("math", 8, seed=2))
    forked.run("sft", *command(model, folder, "whole")[1:], figures=True)
    return folder


@pytest.mark.slow
def test_a_run_writes_what_it_promises(whole, model):
    out = whole / "whole"
    assert {"config.yaml", "metrics.jsonl", "eval.jsonl", "curves.png", "checkpoint-9", "checkpoint-12", "final"} == {p.name for p in out.iterdir()}
    metrics, evals = metrics_of(out), [json.loads(line) for line in (out / "eval.jsonl").read_text().splitlines()]
    assert [m["step"] for m in metrics] == list(range(1, 13)) and [e["step"] for e in evals] == [0, 6, 12]
    assert metrics[-1]["loss"] < 0.8 * metrics[0]["loss"] and evals[-1]["loss"] < 0.8 * evals[0]["loss"]
    assert yaml.safe_load((out / "config.yaml").read_text())["global_batch"] == 16
    lm, tokenizer = AutoModelForCausalLM.from_pretrained(out / "final"), AutoTokenizer.from_pretrained(out / "final")
    assert lm.generation_config.eos_token_id == tokenizer.eos_token_id == 1 and tokenizer.chat_template == toy.CHAT_TEMPLATE
    text = tokenizer.apply_chat_template(toy.sft_rows("math", 8, seed=2)[0]["messages"], tokenize=False)
    assert text.endswith("<eos>") and "lm_head.weight" not in load_file(out / "final" / "model.safetensors")  # tied: stored once


@pytest.mark.slow
def test_evaluation_loss_is_the_mean_over_all_tokens(whole):
    lm, tokenizer = AutoModelForCausalLM.from_pretrained(whole / "whole" / "final"), AutoTokenizer.from_pretrained(whole / "whole" / "final")
    total, tokens = 0.0, 0
    for row in toy.sft_rows("math", 8, seed=2):
        e = sft.encode(sft.render(row["messages"], tokenizer), tokenizer)[0]
        ids = torch.from_numpy(e.ids.astype(np.int64))
        with torch.no_grad():
            nll = torch.nn.functional.cross_entropy(lm(ids[None]).logits[0, :-1], ids[1:], reduction="none")
        total, tokens = total + nll[torch.from_numpy(e.target[1:])].sum().item(), tokens + int(e.target[1:].sum())
    last = json.loads((whole / "whole" / "eval.jsonl").read_text().splitlines()[-1])
    assert last["loss"] == pytest.approx(total / tokens, rel=1e-5)


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(whole, model):
    """kill -9 once in the middle of an update and, by a half-written folder, in the middle of a checkpoint."""
    run_until(5, signal.SIGKILL, command(model, whole, "killed"), whole / "killed")
    steps = len(metrics_of(whole / "killed"))
    assert 5 <= steps < 12 and not (whole / "killed" / "final").exists()
    shutil.copytree(whole / "whole" / "checkpoint-9", whole / "killed" / "checkpoint-9.partial", dirs_exist_ok=True)
    (whole / "killed" / "checkpoint-9.partial" / "trainer" / "state.json").unlink()
    forked.run("sft", *command(model, whole, "killed")[1:])
    assert metrics_of(whole / "killed") == metrics_of(whole / "whole")
    a, b = (load_file(whole / name / "final" / "model.safetensors") for name in ("whole", "killed"))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert not list((whole / "killed").glob("*.partial"))


def on_a_small_disk(flags: list[str], disk: str, free: int, log: str, final: str) -> None:
    """In a forked process with mounts of its own: the run meets a full disk once, and goes on after room was made."""
    forked.own_mounts()
    forked.redirect(f"{log}.out", f"{log}.err")
    forked.no_figures()
    torch.set_num_threads(1)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", disk], check=True)
    update_on = sft.update_on

    def filling(*args):
        if os.path.exists(f"{disk}/run/checkpoint-3") and not os.path.exists(f"{disk}/filler"):
            with open(f"{disk}/filler", "wb") as file:
                room = os.statvfs(disk)
                os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - free)
        return update_on(*args)

    def fill():
        sft.update_on = filling
        sft.main(flags)

    assert forked.wait([forked.start_function(fill)]) == [2]
    print(*(p.name for p in runs.checkpoints(Path(disk, "run"))), *Path(disk, "run").glob("*.partial"))
    os.remove(f"{disk}/filler")
    assert forked.wait([forked.start_function(sft.main, flags)]) == [0]
    shutil.copytree(f"{disk}/run/final", final)


@pytest.mark.slow
@pytest.mark.needs("namespaces")
@pytest.mark.parametrize("free, message", [(0, "No space left"), (7 * 10**6, "the checkpoint before it is whole")])
def test_full_disk(whole, model, tmp_path, free, message):
    """While metrics or a checkpoint are written: one line, the checkpoint before stays, and with room again the run ends with the same bits."""
    (tmp_path / "disk").mkdir()
    flags = command(model, whole, "whole")[1:]
    flags[flags.index("--output_dir") + 1] = str(tmp_path / "disk" / "run")
    forked.call(on_a_small_disk, flags, str(tmp_path / "disk"), free, str(tmp_path / "log"), str(tmp_path / "final"))
    said, errors = ((tmp_path / f"log.{end}").read_text() for end in ("out", "err"))
    assert "Traceback" not in errors, errors[-3000:]
    (line,) = [line for line in errors.splitlines() if line.startswith("sft.py: ")]
    assert message in line and "\ncheckpoint-3\n" in said, (line, said)
    a, b = (load_file(path / "model.safetensors") for path in (tmp_path / "final", whole / "whole" / "final"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_line_cut_by_a_crash_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n{"step": 2, "meta": {}')
    assert runs.read_jsonl(tmp_path / "metrics.jsonl") == [{"step": 1}]


@pytest.mark.slow
def test_resume_into_a_folder_with_later_checkpoints_is_refused(capsys, whole, model):
    with pytest.raises(SystemExit):
        sft.main(command(model, whole, "whole", "--resume", str(whole / "whole" / "checkpoint-9"))[1:])
    assert "holds checkpoint-12 too" in capsys.readouterr().err


def with_a_signal(flags: list[str], count: int, place: str, number: int, log: str) -> None:
    """The stage in a forked process; a signal comes with the count-th micro-batch of an update or of an evaluation."""
    forked.redirect(log, log)
    forked.no_figures()
    torch.set_num_threads(1)
    left, negative_log_likelihood = [count], sft.negative_log_likelihood

    def counted(*args):
        if torch.is_grad_enabled() == (place == "update"):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), number)
            elif left[0] < 0:
                print("LATE")
        return negative_log_likelihood(*args)

    sft.negative_log_likelihood = counted
    sft.main(flags)


@pytest.mark.slow
def test_signals_stop_at_once_and_cost_no_bit(whole, model):
    """Stopped in the first evaluation, in the middle of an update and in an evaluation later on: nothing shows of it in the end."""
    out, flags = whole / "stopped", command(model, whole, "stopped")[1:]
    for place, count, name, after in [("evaluation", 1, "SIGTERM", 0), ("update", 10, "SIGINT", None), ("evaluation", 1, "SIGTERM", 6)]:
        log = whole / f"stopped_{place}_{after}.log"
        forked.call(with_a_signal, flags, count, place, getattr(signal, name), str(log))
        said = log.read_text()
        assert "Traceback" not in said and "LATE" not in said, said[-3000:]
        step = len(metrics_of(out)) if after is None else after
        start = out / f"checkpoint-{step}" if step else "the beginning"
        assert said.rstrip().endswith(f"\n{name}: stopped after update {step}; the same command goes on from {start}"), said[-3000:]
        assert 0 <= step <= 6 and (not step or runs.checkpoints(out)[-1] == start)
    forked.run("sft", *flags)
    for file in ("metrics.jsonl", "eval.jsonl"):
        without_times = [[{k: v for k, v in row.items() if k != "step_s"} for row in runs.read_jsonl(folder / file)] for folder in (out, whole / "whole")]
        assert without_times[0] == without_times[1], file
    a, b = (load_file(folder / "final" / "model.safetensors") for folder in (out, whole / "whole"))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.slow
def test_sigterm_to_all_processes(whole, model):
    code, output = run_until(2, signal.SIGTERM, command(model, whole, "stopped_all", "--save_every", "1000"), whole / "stopped_all")
    step = len(metrics_of(whole / "stopped_all"))
    line = f"SIGTERM: stopped after update {step}; the same command goes on from {whole / 'stopped_all' / f'checkpoint-{step}'}\n"
    assert line in output and code == 0 and "Traceback" not in output
    assert [p.name for p in runs.checkpoints(whole / "stopped_all")] == [f"checkpoint-{step}"] and step < 12


@pytest.mark.slow
def test_all_cores_compute_under_accelerate_launch(whole, model, monkeypatch):
    """On a CPU the launcher sets OMP_NUM_THREADS=1."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(os.cpu_count() + 1)
        sft.start(sft.parse(command(model, whole, "threads")[1:]))
        assert torch.get_num_threads() == os.cpu_count()
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(os.cpu_count()))  # a core for each rank
        sft.start(sft.parse(command(model, whole, "threads", "--resume", "never")[1:]))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.needs("time")
@pytest.mark.slow
def test_two_ranks_equal_one(whole, model):
    forked.run("sft", *command(model, whole, "two_ranks/run")[1:], ranks=2)  # no tokens beside it yet: rank 1 waits for rank 0's
    one, two = metrics_of(whole / "whole"), metrics_of(whole / "two_ranks" / "run")
    for a, b in zip(one, two, strict=True):
        assert a["learnt_tokens"] == b["learnt_tokens"] and a["loss"] == pytest.approx(b["loss"], rel=1e-5 * a["step"])
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4 * a["step"])
    assert one[0]["grad_norm"] == pytest.approx(two[0]["grad_norm"], rel=1e-5)


def sharded(rank: int, folder: str) -> None:
    """On each of two ranks: one update is the plain one, a checkpoint and two updates after it repeat bit for bit."""
    class NoTokenizer:
        def save_pretrained(self, folder):
            pass

    examples = random_examples([9, 3, 30, 12, 2])
    for tied in (True, False):
        out = Path(folder) / f"tied-{tied}"
        loss, weights = reference_update(examples, tied)
        run = tiny_run(tied, token_budget=32)
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
        for layer in run.policy.lm.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(run.policy, mesh=mesh)
        full = lambda: {name: p.full_tensor().detach().clone() for name, p in run.policy.lm.named_parameters()}
        run.tokenizer = NoTokenizer()
        run.optimizer = run.accelerator.prepare_optimizer(torch.optim.SGD(run.policy.parameters(), lr=1.0))
        metrics = sft.update_on(examples, 1.0, run)
        assert abs(metrics["loss"] / loss - 1) < 1e-5, (metrics, loss)
        for name, p in full().items():
            assert torch.allclose(p, weights[name], rtol=1e-4, atol=2e-6), name
        run.optimizer = run.accelerator.prepare_optimizer(torch.optim.AdamW(run.policy.parameters(), lr=0.0, fused=True))
        sft.update_on(examples[:1], 1e-3, run)  # one example, two ranks: one of them has nothing
        saved = full()
        out.mkdir(parents=True, exist_ok=True)
        ranks.save_checkpoint(out / "checkpoint-2", {"step": 2}, run)
        sft.update_on(examples, 1e-2, run)
        after = full()
        assert any(not torch.equal(saved[k], after[k]) for k in saved)
        assert ranks.load_checkpoint(out / "checkpoint-2", run) == ({"step": 2}, None)
        assert all(torch.equal(saved[k], v) for k, v in full().items())
        sft.update_on(examples, 1e-2, run)  # the optimizer's state came back too
        assert all(torch.equal(after[k], v) for k, v in full().items())
        loaded = Qwen3ForCausalLM.from_pretrained(out / "checkpoint-2")  # whole weights, beside the shards
        assert all(torch.equal(p, saved[k]) for k, p in loaded.named_parameters())


@pytest.mark.slow
def test_fsdp2_two_ranks_equal_one_and_resume(tmp_path):
    """fully_shard on two CPU ranks: head and loss are inside the root's forward, checkpoints hold shards and whole weights."""
    forked.spawn(sharded, str(tmp_path / "out"))


def test_base_model_learns_to_stop_at_the_end_of_a_turn(tmp_path, model):
    """Like Qwen3-8B-Base: generation_config knows <|endoftext|> alone, the chat template ends turns by another token."""
    lm = AutoModelForCausalLM.from_pretrained(model)
    lm.generation_config.eos_token_id = 0
    lm.generation_config.temperature = 0.6  # without do_sample, as in published models: save_pretrained refuses it
    finish_generation_config(lm, [1])
    lm.save_pretrained(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).generation_config.eos_token_id == [1, 0]


def greedy_by_vllm(model: str, out: str) -> None:
    os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CPU_KVCACHE_SPACE="1", VLLM_LOGGING_LEVEL="ERROR")
    from vllm import LLM, SamplingParams

    llm = LLM(model, dtype="float32", enforce_eager=True, max_model_len=128, max_num_seqs=4)
    made = llm.generate({"prompt_token_ids": [37, 11, 52, 11, 40]}, SamplingParams(temperature=0, max_tokens=12), use_tqdm=False)
    Path(out).write_text(json.dumps(list(made[0].outputs[0].token_ids)))


@pytest.mark.slow
@pytest.mark.needs("time", "vllm")
def test_vllm_loads_final(whole):
    forked.call(greedy_by_vllm, str(whole / "whole" / "final"), str(whole / "tokens.json"))
    lm = AutoModelForCausalLM.from_pretrained(whole / "whole" / "final")
    expected = lm.generate(torch.tensor([[37, 11, 52, 11, 40]]), do_sample=False, max_new_tokens=12)[0, 5:].tolist()
    assert json.loads((whole / "tokens.json").read_text()) == expected


# ------------------------------------------------------------------------------------------------------------- mistakes
def message_of(capsys, *flags, code: int = 2) -> str:
    with pytest.raises(SystemExit) as stop:
        sft.main([str(flag) for flag in flags])
    lines = capsys.readouterr().err.strip().splitlines()
    mine = [line for line in lines if line.startswith("sft.py: ")]
    assert stop.value.code == code and len(mine) == 1 and lines[-1] == mine[0], lines
    return mine[0]


@pytest.mark.parametrize("flags, expected", [
    (["--epoch", "3"], ["'epoch'", "'epochs'"]),
    (["--lr"], ["lr", "float", "''"]),
    (["lr", "1"], ["'lr'", "--key value"]),
    (["--lr", "1e-5", "1e-6"], ["lr takes one value", "1e-5 1e-6"]),
    (["--lr", "fast"], ["lr", "float", "'fast'"]),
    (["--epochs", "1.5"], ["epochs", "int"]),
    (["--packing", "2"], ["packing", "bool"]),
    (["--global_batch", "0"], ["global_batch", "at least 1"]),
    (["--lr", "1e-6"], ["min_lr", "lr"]),
    (["--warmup_ratio", "3"], ["warmup_ratio", "from 0 to 1"]),
    (["--config", "nowhere.yaml"], ["nowhere.yaml", "No such file"]),
])
def test_wrong_flags(capsys, flags, expected):
    message = message_of(capsys, *flags)
    assert all(part in message for part in expected), message


@pytest.mark.parametrize("rows, expected", [
    (["{bad"], [":1: not JSON"]),
    ([ROWS[0], "", {"text": "x"}], [":3: no prompt", '"messages"', '"question"']),
    ([ROWS[0], [1]], [":2: not an object", "one JSON object a line"]),
    ([{"messages": [{"role": "user", "content": "x"}]}], [":1: messages must hold an assistant's"]),
    ([], ["has no row"]),
    ([{"prompt": "1+1=", "response": "2" * 600}], ["1 of 1 examples exceed 512 tokens", ":1 has 606"]),
])
def test_wrong_rows_are_named(capsys, tmp_path, model, rows, expected):
    message = message_of(capsys, "--model", model, "--train_file", write(tmp_path / "t.jsonl", rows), "--output_dir", tmp_path / "out")
    assert all(part in message for part in expected), message


def test_wrong_files(capsys, tmp_path, model):
    good = ["--model", model, "--output_dir", tmp_path / "out"]
    assert "nowhere.jsonl does not exist" in message_of(capsys, *good, "--train_file", "nowhere.jsonl")
    assert "nowhere.parquet" in message_of(capsys, *good, "--train_file", tmp_path / "nowhere.parquet")
    assert "toy:x is unknown" in message_of(capsys, *good, "--train_file", "toy:x")
    (tmp_path / "latin.jsonl").write_bytes('{"prompt": "é", "response": "x"}\n'.encode("latin-1"))
    assert "latin.jsonl:1: not UTF-8" in message_of(capsys, *good, "--train_file", tmp_path / "latin.jsonl")
    (tmp_path / "empty").mkdir()
    assert "model: " in message_of(capsys, "--model", tmp_path / "empty", "--output_dir", tmp_path / "out2")
    shutil.copytree(model, tmp_path / "hollow")
    (tmp_path / "hollow" / "model.safetensors").unlink()
    assert "hollow" in message_of(capsys, "--model", tmp_path / "hollow", "--output_dir", tmp_path / "out2")
    (tmp_path / "a.yaml").write_text("learning_rate: 1e-6\n")
    assert "'learning_rate'" in message_of(capsys, "--config", tmp_path / "a.yaml")


@pytest.mark.slow
def test_output_folder_of_another_run(capsys, tmp_path, model, whole):
    flags = command(model, whole, "whole")[1:]
    assert "lr 0.003 there, 0.004 now" in message_of(capsys, *flags, "--lr", "4e-3")
    (tmp_path / "thesis.txt").write_text("mine")
    assert "is not empty" in message_of(capsys, "--model", model, "--output_dir", tmp_path)
    (tmp_path / "file").write_text("")
    assert "output_dir" in message_of(capsys, "--model", model, "--output_dir", tmp_path / "file")
    assert "no checkpoint of this trainer" in message_of(capsys, *flags, "--resume", tmp_path)


@pytest.mark.slow
def test_a_hub_name_may_carry_a_slice_of_a_split(tmp_path, monkeypatch):
    """`NAME:SUBSET:SPLIT[:128]`, as datasets writes it (docs: "Slice splits"), here cut by datasets itself."""
    import datasets

    write(tmp_path / "rows.jsonl", [{"question": f"{i}", "answer": "#### 1"} for i in range(9)])
    load, asked = datasets.load_dataset, []

    def hub(name, subset, split):
        asked.append((name, subset, split))
        return load("json", data_files={"train": str(tmp_path / "rows.jsonl")}, split=split, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", hub)
    numbers = lambda spec: [int(row["question"]) for _, row in rows.read_rows(spec, "train_file")]
    assert numbers("openai/gsm8k:main:train[:4],openai/gsm8k:main:train[7:],openai/gsm8k") == [0, 1, 2, 3, 7, 8, *range(9)]
    assert asked == [("openai/gsm8k", "main", "train[:4]"), ("openai/gsm8k", "main", "train[7:]"), ("openai/gsm8k", None, "train")]


def test_long_examples_are_left_out_and_counted_and_parquet_is_read(capsys, tmp_path, model, tokenizer):
    import datasets

    rows = [*[{"prompt": "1+1=", "response": "2"}] * 9, {"prompt": "1+1=", "response": "2" * 50}, {"prompt": "\u2028", "response": "x\u2028y"}]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet")
    write(tmp_path / "rows.jsonl", [json.dumps(row, ensure_ascii=False) for row in rows])
    cfg = SimpleNamespace(gsm8k_think=True, seed=0, output_dir=str(tmp_path / "out"))
    both = [sft.load_examples(str(tmp_path / name), "train_file", tokenizer, 20, cfg) for name in ("rows.parquet", "rows.jsonl")]
    for examples in both:
        assert len(examples) == 10 and [tokenizer.decode(e.ids[e.target].tolist()) for e in examples] == ["2<eos>"] * 9 + ["x<unk>y<eos>"]
        assert examples.meta["left_out"] == 1
    assert "1 of 11 examples exceed 20 tokens" in (out := capsys.readouterr().out) and ":10 has 56) and were left out" in out
    sft.load_examples(str(tmp_path / "rows.jsonl"), "train_file", tokenizer, 20, cfg)
    assert capsys.readouterr().out == "" and len(list((tmp_path / "tokens").iterdir())) == 2  # made once
    write(tmp_path / "rows.jsonl", rows[:1])
    assert len(sft.load_examples(str(tmp_path / "rows.jsonl"), "train_file", tokenizer, 20, cfg)) == 1  # and anew when the file changes
