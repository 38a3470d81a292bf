"""toy.py: the tiny model is an ordinary Hugging Face folder, its traces are about half right, held-out problems stay held out."""

import json
import re

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import runs
import toy


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return toy.make_model(str(tmp_path_factory.mktemp("model")))


def test_model_is_small_tied_and_the_same_every_time(model, tmp_path):
    lm = AutoModelForCausalLM.from_pretrained(model)
    assert 0.7e6 < sum(p.numel() for p in lm.parameters()) < 0.9e6
    assert lm.get_output_embeddings().weight is lm.get_input_embeddings().weight
    again = AutoModelForCausalLM.from_pretrained(toy.make_model(str(tmp_path), seed=0))
    assert all((a == b).all() for a, b in zip(lm.parameters(), again.parameters()))
    other = AutoModelForCausalLM.from_pretrained(toy.make_model(str(tmp_path), seed=1))
    assert any((a != b).any() for a, b in zip(lm.parameters(), other.parameters()))


def test_tokenizer_spells_all_text_and_keeps_think_tags_whole(model):
    tokenizer, lm = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    assert tokenizer.is_fast and tokenizer.pad_token_id == lm.generation_config.pad_token_id == 0
    assert tokenizer.eos_token_id == lm.generation_config.eos_token_id == 1
    assert len(tokenizer) == lm.config.vocab_size
    text = "<think>a  b\n\n ~</think>```python\nprint(1)\n```\\boxed{1}<eos>"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text and len(ids) == len(text) - 6 - 7 - 4  # three words are one token each
    assert tokenizer.unk_token_id not in ids and tokenizer("é", add_special_tokens=False)["input_ids"] == [tokenizer.unk_token_id]
    for kind in toy.DIFFICULTY:
        for row in toy.sft_rows(kind, 50):
            whole = tokenizer.apply_chat_template(row["messages"], tokenize=False)
            prompt = tokenizer.apply_chat_template(row["messages"][:1], add_generation_prompt=True, tokenize=False)
            assert whole == prompt + row["messages"][1]["content"] + "<eos>"
            assert tokenizer.unk_token_id not in tokenizer(whole)["input_ids"]


def answer(row: dict) -> float:
    """Share of the tests of a trace's program that pass, or whether its sum is right."""
    question, response = (m["content"] for m in row["messages"])
    if question.endswith("="):
        return float(re.search(r"\\boxed\{(\d+)\}$", response)[1] == str(eval(question[:-1])))
    expression = re.search(r"print\((.*)\)\n```$", response)[1]
    task = next((words, int(re.search(r"plus (\d+)", question)[1])) for words in toy.FUNCTIONS if words in question)
    tests = json.loads(toy.code_tests(task, toy.random.Random(0), 40))
    results = [str(eval(expression, dict(zip("ab", map(int, i.split()))))) == o for i, o in zip(tests["inputs"], tests["outputs"])]
    return sum(results) / len(results)


@pytest.mark.slow
@pytest.mark.parametrize("kind", toy.DIFFICULTY)
@pytest.mark.parametrize("right", [0.0, 0.5, 1.0])
def test_share_of_right_traces(kind, right):
    scores = [answer(row) for row in toy.sft_rows(f"{kind}-right={right}", 600)]
    assert abs(sum(score == 1 for score in scores) / 600 - right) < 0.07
    if kind == "code" and right < 1:  # wrong programs pass some of the tests
        wrong = [score for score in scores if score < 1]
        assert sum(score > 0 for score in wrong) > 0.4 * len(wrong)


def test_wrong_sums_have_two_kinds_of_mistakes():
    rows = [row for row in toy.sft_rows("math-right=0", 400) if answer(row) == 0]
    short = sum(row["messages"][1]["content"].count("=") == 3 for row in rows)
    assert len(rows) > 390 and 0.3 < short / len(rows) < 0.7
    assert toy.add(17, 5) == 22 and toy.add(17, 5, carry=False) == 12 and toy.add(99, 1, carry=False) == 90


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["math", "code", "math-terms=3-digits=2"])
def test_held_out_problems_are_never_trained_on(kind):
    held_out = {row["prompt"][0]["content"] for row in toy.rl_rows(kind, 500, split="eval")}
    assert len(held_out) == 500
    for seed in range(3):
        rows = toy.rl_rows(kind, 2000, seed)
        assert len({row["prompt"][0]["content"] for row in rows}) == len(rows) == 2000
        trained = {row["prompt"][0]["content"] for row in rows} | {r["messages"][0]["content"] for r in toy.sft_rows(kind, 2000, seed)}
        assert not held_out & trained
    assert toy.rl_rows(kind, 20, 1) == toy.rl_rows(kind, 20, 1) != toy.rl_rows(kind, 20, 2)


def test_rl_rows_are_in_the_published_format():
    math, code = toy.rl_rows("math", 1)[0], toy.rl_rows("code", 1)[0]
    assert math["data_source"] == "toy:math" and math["reward_model"]["ground_truth"] == str(eval(math["prompt"][0]["content"][:-1]))
    tests = json.loads(code["reward_model"]["ground_truth"])
    assert code["data_source"] == "toy:code" and len(tests["inputs"]) == len(tests["outputs"]) == 8
    program = re.search(r"```python\n(.*)\n```", toy.code_trace(("sum", 199), toy.random.Random(0), True), re.DOTALL)[1]
    assert program == "a,b=map(int,input().split())\nprint(199+a+b)" and len(program) <= 60


def test_knobs_in_the_name():
    assert toy.parse("math-terms=7-right=0.2") == ("math", {"terms": 7, "digits": 1}, 0.2)
    question = toy.rl_rows("math-terms=7-digits=2", 1)[0]["prompt"][0]["content"]
    assert re.fullmatch(r"(\d\d\+){6}\d\d=", question)
    assert sum(answer(row) for row in toy.sft_rows("math-right=0.1", 400)) < 80
    for wrong in ("chess", "math-steps=3", "code-terms=3", "math-terms=0", "math-right=half"):
        with pytest.raises(ValueError, match="toy:"):
            toy.parse(wrong)


@pytest.mark.needs("time")
@pytest.mark.slow
def test_prepare_warms_up_once(tmp_path, monkeypatch, model):
    """A short warm-up through sft.py as a process of its own, under a launcher's environment; the second call does nothing."""
    monkeypatch.setitem(toy.SFT_TRACES, "math", 256)
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "warm" / "sft").mkdir(parents=True)
    (tmp_path / "warm" / "sft" / "left.txt").write_text("by an interrupted warm-up")
    final = toy.prepare(str(tmp_path / "warm"), "math")
    assert final == str(tmp_path / "warm" / "sft" / "final") and AutoModelForCausalLM.from_pretrained(final)
    losses = [row["loss"] for row in runs.read_jsonl(tmp_path / "warm" / "sft" / "metrics.jsonl")]
    assert len(losses) == 8 and losses[-1] < losses[0]
    monkeypatch.setattr(toy.subprocess, "run", lambda *_, **__: pytest.fail("made again"))
    assert toy.prepare(str(tmp_path / "warm"), "math") == final


@pytest.mark.slow
def test_prepare_reports_a_failed_warm_up(tmp_path, monkeypatch):
    monkeypatch.setitem(toy.SFT_TRACES, "math", 8)
    monkeypatch.setitem(toy.SFT_FLAGS, "math", ["--epochs", "0"])
    with pytest.raises(ValueError, match="warm-up by sft.py failed"):
        toy.prepare(str(tmp_path / "warm"), "math")
    with pytest.raises(ValueError, match="toy:chess is unknown"):
        toy.prepare(str(tmp_path / "chess"), "chess")
