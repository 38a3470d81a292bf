"""LoRA: a frozen model that stays what it was, adapters whose gradient is the chain rule's, and merged copies that every reader
of an ordinary folder can load."""

import hashlib
import itertools
import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

import forked
from klear import lora
from klear import ranks
import rl_gppo
import toy
from policy import Policy, load_policy
from rl_gppo import Config, collate, token_logprobs
from test_update import make_run as full_run
from test_update import make_samples, tiny_model

ADAPTED = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def with_adapters(lm, rank: int = 4, alpha: float = 6.0, random_b: bool = False, accelerator=None):
    """`lm` with adapters; B is zero, or random as after some updates."""
    lora.add_adapters(lm, Config(lora_rank=rank, lora_alpha=alpha), accelerator or ranks.Accelerator(cpu=True))
    if random_b:
        torch.manual_seed(1)
        for layer in lora.adapted(lm).values():
            torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.05)
    return lm


def biased_model() -> Qwen2ForCausalLM:
    """Qwen2: its q, k and v have a bias, which a merged copy must keep."""
    torch.manual_seed(0)
    return Qwen2ForCausalLM(Qwen2Config(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=256, tie_word_embeddings=False))


def digest(lm) -> str:
    """Of every frozen number, by name."""
    whole = hashlib.sha256()
    for name, weight in sorted(lm.state_dict().items()):
        if ".lora_" not in name:
            whole.update(name.replace(".base_layer", "").encode() + weight.contiguous().view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def lora_run(cfg: Config, lm) -> ranks.Run:
    run = full_run(cfg, lm)
    run.optimizer = run.accelerator.prepare(torch.optim.AdamW([p for p in lm.parameters() if p.requires_grad], lr=cfg.lr))
    return run


def test_adapters_lie_on_every_linear_layer_of_the_decoder_alone():
    lm = with_adapters(tiny_model(tied=False))
    assert {name.split(".")[-1] for name in lora.adapted(lm)} == ADAPTED
    assert len(lora.adapted(lm)) == 2 * len(ADAPTED)
    trained = {name: p for name, p in lm.named_parameters() if p.requires_grad}
    assert all(".lora_" in name and p.dtype == torch.float32 for name, p in trained.items())
    # r·(in + out) of each layer, by the widths of tiny_model
    widths = [(32, 32), (32, 16), (32, 16), (32, 32), (32, 64), (32, 64), (64, 32)]
    assert sum(p.numel() for p in trained.values()) == 2 * 4 * sum(a + b for a, b in widths)


@pytest.mark.parametrize("make", [tiny_model, lambda: tiny_model(tied=False), biased_model])
def test_before_the_first_update_the_policy_is_the_base_bit_for_bit(make):
    base, lm = make(), with_adapters(make())
    batch = collate(make_samples(), False, "cpu", 0)
    with torch.no_grad():
        mine, theirs = (Policy(m)(batch, 64, 1.0, True) for m in (lm, base))
    assert torch.equal(mine[0], theirs[0]) and torch.equal(mine[1], theirs[1])
    assert all(torch.equal(w, base.state_dict()[name]) for name, w in lora.plain_weights(lm))


@pytest.mark.parametrize("make", [tiny_model, lambda: tiny_model(tied=False), biased_model])
def test_merged_copies_are_w_plus_alpha_over_r_times_b_a(make):
    """By hand in float64, with the base's own names; and an ordinary model of these weights computes the same."""
    base, lm = make(), with_adapters(make(), random_b=True)
    before, merged = digest(lm), dict(lora.plain_weights(lm))
    assert list(merged) == list(base.state_dict())
    for name, weight in base.state_dict().items():
        layer = lora.adapted(lm).get(name.removesuffix(".weight"))
        expected = weight.double()
        if layer is not None:
            a, b = layer.lora_A["default"].weight.double(), layer.lora_B["default"].weight.double()
            expected = expected + 6.0 / 4 * (b @ a)
            assert (expected - weight).abs().max() > 1e-3
        torch.testing.assert_close(merged[name].double(), expected.detach(), rtol=1e-6, atol=1e-7)
    assert digest(lm) == before == digest(base)
    base.load_state_dict(merged)
    ids = torch.randint(97, (3, 20))
    with torch.no_grad():
        torch.testing.assert_close(lm(ids).logits, base(ids).logits, rtol=1e-4, atol=1e-5)


def test_a_merge_is_a_copy_and_does_not_drift_in_bf16():
    """A hundred streams of a bf16 base leave it as it was, and each gives the same numbers."""
    lm = with_adapters(tiny_model().bfloat16(), random_b=True)
    assert all(p.dtype == torch.float32 for p in lm.parameters() if p.requires_grad)
    before, first = digest(lm), dict(lora.plain_weights(lm))
    for _ in range(100):
        last = dict(lora.plain_weights(lm))
    assert digest(lm) == before and all(torch.equal(first[name], last[name]) for name in first)
    assert all(weight.dtype == torch.bfloat16 for weight in last.values())


def test_gradient_is_the_chain_rule_on_a_hand_merged_model():
    """dL/dA = α/r·Bᵀ·G and dL/dB = α/r·G·Aᵀ, with G the gradient of a full model of the merged weights, in float64."""
    base, lm = tiny_model(tied=False).double(), with_adapters(tiny_model(tied=False), random_b=True).double()
    with torch.no_grad():  # not by plain_weights, which sums in fp32
        for name, layer in lora.adapted(lm).items():
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            base.get_submodule(name).weight.copy_(layer.base_layer.weight + 6.0 / 4 * b @ a)
    ids = torch.randint(97, (4, 30))
    for m in (lm, base):
        torch.nn.functional.cross_entropy(m(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    for name, layer in lora.adapted(lm).items():
        a, b, g = layer.lora_A["default"].weight, layer.lora_B["default"].weight, base.get_submodule(name).weight.grad
        torch.testing.assert_close(a.grad, 6.0 / 4 * b.T @ g, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(b.grad, 6.0 / 4 * g @ a.T, rtol=1e-9, atol=1e-12)


def test_updates_train_the_adapters_and_leave_the_base():
    cfg = Config(lora_rank=4, lr=1e-2, warmup_steps=0, minibatch_prompts=2)
    lm = with_adapters(tiny_model())
    before, run = digest(lm), lora_run(cfg, lm)
    for step in (1, 2):
        metrics = rl_gppo.update_policy(make_samples(), step, run)
    assert metrics["updates"] == 3 and metrics["grad_norm"] > 0
    assert digest(lm) == before
    assert all(layer.lora_B["default"].weight.abs().max() > 1e-3 for layer in lora.adapted(lm).values())
    with lora.base_alone(lm), torch.no_grad():
        batch = collate(make_samples(), False, "cpu", 0)
        assert torch.equal(token_logprobs(batch, run, False)[0], token_logprobs(batch, full_run(cfg), False)[0])
    assert any(p.requires_grad for p in lm.parameters())  # switched on again


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory) -> str:
    return toy.make_model(str(tmp_path_factory.mktemp("lora") / "toy"))


@pytest.fixture(scope="module")
def trained(toy_folder, tmp_path_factory):
    """The output folder of an SFT with LoRA on 64 toy traces, four updates."""
    out = tmp_path_factory.mktemp("lora") / "sft"
    rows = "".join(json.dumps(row) + "\n" for row in itertools.islice(toy.sft_rows("math", 64, 0), 64))
    (out.parent / "rows.jsonl").write_text(rows)
    forked.run("sft", *sft_flags(toy_folder, out.parent), "--output_dir", out)
    return out


def sft_flags(model: str, folder) -> list[str]:
    return ["--model", model, "--train_file", str(folder / "rows.jsonl"),
            *"--lora_rank 4 --lr 1e-2 --min_lr 1e-2 --epochs 1 --global_batch 16 --packing false --save_every 2 --keep_checkpoints 9".split()]


@pytest.mark.slow
def test_final_is_an_ordinary_folder_and_adapter_is_pefts(toy_folder, trained):
    """transformers loads final/; PeftModel loads final/adapter on the base; both compute the same, and not the base's."""
    merged = AutoModelForCausalLM.from_pretrained(trained / "final")
    base = AutoModelForCausalLM.from_pretrained(toy_folder)
    ids = torch.randint(3, 30, (2, 16))
    with torch.no_grad():
        mine, before = merged(ids).logits, base(ids).logits
        theirs = PeftModel.from_pretrained(base, trained / "final" / "adapter")(ids).logits
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    assert (mine - before).abs().max() > 0.1
    assert json.loads((trained / "final" / "adapter" / "adapter_config.json").read_text())["r"] == 4


@pytest.mark.slow
def test_a_checkpoint_holds_adapter_and_optimizer_and_resumes_bit_for_bit(toy_folder, trained, tmp_path):
    """No weights of the base in it; a run that goes on from the middle ends in the same bytes."""
    checkpoint = trained / "checkpoint-2"
    assert not list(checkpoint.glob("*.safetensors")) and (checkpoint / "adapter" / "adapter_model.safetensors").exists()
    size = sum(f.stat().st_size for f in checkpoint.rglob("*") if f.is_file())
    assert size < (trained / "final" / "model.safetensors").stat().st_size / 2
    out = tmp_path / "again"
    forked.run("sft", *sft_flags(toy_folder, trained.parent), "--output_dir", out, "--resume", checkpoint)
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        assert (out / "final" / name).read_bytes() == (trained / "final" / name).read_bytes()


VERIFIERS = """from rewards import Reward, Verifier
score = lambda text, ground_truth, options: Reward(len(text) % 5 / 5, False, "wrong")
VERIFIERS = {"length": Verifier(score, lambda ground_truth: None, think=False)}
"""


@pytest.mark.slow
@pytest.mark.needs("time", "vllm")
def test_engine_and_trainer_agree(toy_folder, trained, tmp_path):
    """A real vLLM engine under merged copies: mean |Δ log π| < 1e-4 in fp32, before and after updates, and the next run
    on the same base; the base's file is what it was."""
    model = trained / "final"
    before = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    (tmp_path / "length.py").write_text(VERIFIERS)
    rows = [{"prompt": row["prompt"], "ground_truth": "1", "data_source": "length"} for row in toy.rl_rows("math", 40, 0, "train")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    forked.run("rl_gppo", "--model", model, "--train_file", tmp_path / "rows.jsonl", "--rewards", tmp_path / "length.py",
               "--eval_file", "", "--max_response_tokens", 24, "--lora_rank", 4, "--lr", 3e-3, "--warmup_steps", 0,
               "--prompts_per_step", 4, "--minibatch_prompts", 2, "--steps", 3, "--rollout", "vllm",
               "--output_dir", tmp_path / "vllm")
    rows = [json.loads(line) for line in (tmp_path / "vllm" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and all(row["rollout_logprob_diff"] < 1e-4 for row in rows)
    assert max(row["approx_kl"] for row in rows) > 1e-4  # the weights moved, or agreement would say nothing
    assert hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest() == before


def test_fsdp2_is_refused_in_one_line(capsys):
    class Fsdp:
        is_fsdp2 = True

    with pytest.raises(SystemExit):
        with_adapters(tiny_model(), accelerator=Fsdp())
    assert "lora_rank" in (line := capsys.readouterr().err) and line.count("\n") == 1 and "FSDP" in line


def test_policy_loads_as_without(toy_folder):
    """load_policy knows nothing of LoRA: adapters come when the ranks have met (ranks.make_run)."""
    lm = load_policy(Config(lora_rank=4), toy_folder)
    assert not lora.adapted(lm) and list(dict(lora.plain_weights(lm))) == list(lm.state_dict())
