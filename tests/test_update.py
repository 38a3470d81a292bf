"""One optimizer update: the chunked head against full logits, and a gradient that does not depend on how the batch is cut."""

import dataclasses
import math
import random
import re
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from accelerate import Accelerator
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config, Qwen3ForCausalLM
from transformers.modeling_flash_attention_utils import prepare_fa_kwargs_from_position_ids
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import plan
from klear import ranks
import rl_gppo
from policy import HeadLogprobs, Policy, load_policy, plan_microbatches
from klear.layout import FAMILIES, distinct, products, worth_sharing
from rewards import Reward
from rl_gppo import Config, Prompt, Sample, collate, token_logprobs
from klear.ranks import Run
from runs import read_config


def tiny_model(tied: bool = True, seed: int = 0) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(Qwen3Config(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        max_position_embeddings=256, tie_word_embeddings=tied, attn_implementation="sdpa"))


def make_samples(n_groups: int = 5, per_group: int = 4, seed: int = 0) -> list[Sample]:
    rng = random.Random(seed)
    samples = []
    for group in range(n_groups):
        prompt = Prompt([rng.randrange(3, 97) for _ in range(rng.randint(2, 12))], "", "math_verify", "1")
        for _ in range(per_group):
            response = [rng.randrange(3, 97) for _ in range(rng.randint(1, 40))]
            samples.append(Sample(prompt, group, response, [-rng.random() * 5 for _ in response], False,
                                  Reward(1.0, rng.random() < 0.5, "correct"), rng.gauss(0, 1)))
    return samples


def make_run(cfg: Config, model=None, packed: bool = False) -> Run:
    accelerator = Accelerator(cpu=True)
    policy = Policy(model or tiny_model())
    optimizer = accelerator.prepare(torch.optim.AdamW(policy.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay))
    return Run(dataclasses.replace(cfg, attention="flex_attention") if packed else cfg, accelerator, policy, optimizer, None, [1], 0)


def logprobs_of(model, batch: dict, cfg: Config, with_entropy: bool):
    return token_logprobs(batch, SimpleNamespace(policy=Policy(model), cfg=cfg), with_entropy)


# ------------------------------------------------------------------------------------------------------------------ head
@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("head", ["trained", "frozen", "frozen, no entropy"])
def test_head_equals_full_logits(chunk, temperature, head):
    """Value, entropy and both gradients against torch.distributions on full logits in float64."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(50, 16, requires_grad=True), torch.randn(97, 16, requires_grad=True)
    targets, upstream = torch.randint(97, (50,)), torch.randn(50)
    weight.requires_grad_(head == "trained")
    logprobs, entropy = HeadLogprobs.apply(hidden, weight, targets, temperature, chunk, head != "frozen, no entropy")
    (logprobs * upstream).sum().backward()
    h, w = hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    full = torch.distributions.Categorical(logits=h @ w.T / temperature)
    (full.log_prob(targets) * upstream).sum().backward()
    torch.testing.assert_close(logprobs.double(), full.log_prob(targets).detach(), rtol=1e-5, atol=1e-5)
    if head != "frozen, no entropy":
        torch.testing.assert_close(entropy.double(), full.entropy().detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(hidden.grad.double(), h.grad, rtol=1e-4, atol=1e-5)
    if head == "trained":
        torch.testing.assert_close(weight.grad.double(), w.grad, rtol=1e-4, atol=1e-5)
    assert not entropy.requires_grad


@pytest.mark.parametrize("entropy", [True, False])
def test_a_sure_model_has_a_gradient_still(entropy):
    """Where p of the target is 1 - 1e-6, W[target] - p·W is a difference of like vectors: exact to fp32's 1e-7 of p."""
    hidden, weight = torch.eye(1, 8).mul(14.0).requires_grad_(), torch.eye(3, 8)
    logprobs, _ = HeadLogprobs.apply(hidden, weight, torch.tensor([0]), 1.0, 4, entropy)
    logprobs.sum().backward()
    h = hidden.detach().double().requires_grad_()
    (h @ weight.double().T).log_softmax(-1)[0, 0].backward()
    torch.testing.assert_close(hidden.grad.double(), h.grad, rtol=0.1, atol=0)


def test_head_in_bf16_is_as_good_as_its_input():
    """bf16 hidden states and head: logits in fp32 are exact products, so the error is far below bf16's own 2^-8."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(40, 64).bfloat16().requires_grad_(), torch.randn(300, 64).bfloat16().requires_grad_()
    targets = torch.randint(300, (40,))
    logprobs, _ = HeadLogprobs.apply(hidden, weight, targets, 1.0, 16, False)
    exact = (hidden.double() @ weight.double().T).log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
    assert logprobs.dtype == torch.float32 and (logprobs - exact).abs().max() < 1e-4
    logprobs.sum().backward()
    assert hidden.grad.dtype == torch.bfloat16 and weight.grad.dtype == torch.bfloat16


def test_head_under_bf16_autocast_on_a_cpu():
    """oneDNN may round the factors to bf16, never the sums: where they are bf16 already, logprobs are as exact as in
    fp32, and the gradient, of whose product p is rounded, is to 2^-8. Others' products keep their precision."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(64, 96).bfloat16().float().requires_grad_(), torch.randn(700, 96).bfloat16().float()
    targets, upstream = torch.randint(700, (64,)), torch.randn(64)
    before = torch.backends.mkldnn.matmul.fp32_precision
    with torch.autocast("cpu", torch.bfloat16):
        logprobs, _ = HeadLogprobs.apply(hidden, weight, targets, 1.0, 24, False)
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    (logprobs * upstream).sum().backward()
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    h = hidden.detach().double().requires_grad_()
    exact = (h @ weight.double().T).log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
    (exact * upstream).sum().backward()
    assert logprobs.dtype == torch.float32 and (logprobs - exact).abs().max() < 1e-4
    assert (hidden.grad - h.grad).norm() < 2**-8 * h.grad.norm()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("layout", ["padded", "packed", "shared"])
def test_policy_logprobs_are_the_models(tied, layout):
    """Each response alone through the Hugging Face model with its own head; padding, packing, a shared prompt must not be seen."""
    cfg, model, samples = Config(temperature=0.7), tiny_model(tied), make_samples()
    samples[4].prompt.ids[:] = samples[4].prompt.ids[:1]  # a prompt of one token leaves nothing to share
    batch = collate(samples, layout == "packed", "cpu", 0, layout == "shared")
    assert ("prefix" in batch) == (layout == "shared") and len(batch.get("prefix", [0] * 5)) == 5
    logprobs, entropy = logprobs_of(model, batch, cfg, True)
    for row, sample in enumerate(samples):
        ids, n = torch.tensor([sample.prompt.ids + sample.response]), len(sample.response)
        full = torch.distributions.Categorical(logits=model(ids).logits[0, -n - 1:-1] / 0.7)
        torch.testing.assert_close(logprobs[row, :n], full.log_prob(torch.tensor(sample.response)), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(entropy[row, :n], full.entropy(), rtol=1e-5, atol=1e-5)
        assert torch.all(logprobs[row, n:] == 0)


def test_a_head_that_scales_its_logits_is_refused(tmp_path, capsys):
    """HeadLogprobs takes h·Wᵀ; Cohere multiplies that by logit_scale."""
    sizes = dict(vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)
    for scale in (0.0625, 1.0):
        model = transformers.CohereForCausalLM(transformers.CohereConfig(**sizes, logit_scale=scale))
        model.save_pretrained(tmp_path / str(scale))
    with pytest.raises(SystemExit):
        load_policy(Config(), str(tmp_path / "0.0625"))
    assert "its head is not a plain matrix" in capsys.readouterr().err
    batch = collate(make_samples(1, 2), False, "cpu", 0)
    model = load_policy(Config(), str(tmp_path / "1.0"))
    logits = model(batch["input_ids"]).logits.flatten(0, 1)[batch["index"]]
    expected = logits.log_softmax(-1).gather(-1, batch["targets"][:, None])[:, 0]
    assert torch.allclose(Policy(model)(batch, 16)[0], expected, atol=1e-5)


def test_settings_of_the_launcher_do_not_change_the_sums(monkeypatch):
    """accelerate launch --gradient_accumulation_steps 4 would divide every gradient by 4."""
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    accelerator = ranks.make_accelerator(Config())
    weight = torch.ones(1, requires_grad=True)
    accelerator.backward(weight.sum())
    assert accelerator.gradient_accumulation_steps == 1 and weight.grad.item() == 1


@pytest.mark.parametrize("made, words", [
    (dict(mixed_precision="fp16", distributed_type="NO", is_fsdp2=False), ["fp16", "bf16"]),
    (dict(mixed_precision="bf16", distributed_type="FSDP", is_fsdp2=False), ["fsdp_version: 2"]),
    (dict(mixed_precision="bf16", distributed_type="DEEPSPEED", is_fsdp2=False), ["DeepSpeed"])])
def test_what_the_updates_cannot_do_is_refused(made, words, monkeypatch, capsys):
    """With fp16 a gradient that overflows would leave the loss scaler as it is, and the next one would raise."""
    monkeypatch.setattr(ranks, "Accelerator", lambda **_: SimpleNamespace(**made))
    with pytest.raises(SystemExit):
        ranks.make_accelerator(Config())
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(word in error for word in words), error


def test_a_shared_prompt_has_the_gradient_of_all_its_copies():
    """Float64, every parameter: a prompt computed once for its four responses, and once for each of them."""
    samples, weight, grads = make_samples(), torch.randn(20, 40, dtype=torch.float64), []
    for shared in (False, True):
        model = tiny_model().double()
        logprobs, _ = logprobs_of(model, collate(samples, False, "cpu", 0, shared), Config(), False)
        (logprobs * weight[:, :logprobs.shape[1]]).sum().backward()
        grads.append([p.grad for p in model.parameters()])
    for one, each in zip(*grads):
        assert (one - each).norm() <= 1e-6 * each.norm()  # (the head is in fp32)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_families_that_share_prompts(family, recompute):
    """Gradients of padded rows, each through transformers' own mask, in float64 (torch's grouped products know fp32), also where layers
    are recomputed in backward."""
    samples, grads = make_samples(), []
    for shared in (False, True):
        torch.manual_seed(0)
        config = transformers.CONFIG_MAPPING[family](
            vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            head_dim=8, sliding_window=None, pad_token_id=0, attn_implementation="sdpa")
        model = AutoModelForCausalLM.from_config(config).to(torch.float32 if "moe" in family else torch.float64).train()
        if recompute and shared:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        policy = Policy(model)
        assert model.config._attn_implementation == "apart"
        if not shared:
            model.set_attn_implementation("sdpa")
        batch = collate(samples, False, "cpu", 0, shared)
        token_logprobs(batch, SimpleNamespace(policy=policy, cfg=Config()), False)[0].sum().backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    for one, each in zip(*grads, strict=True):
        assert (one - each).norm() <= 1e-5 * each.norm()  # (the head is in fp32)


@pytest.mark.parametrize(("length", "context", "masked"), [(1, 40, True), (1, 1, False), (30, 30, False), (30, 42, True)])
def test_products_are_attention(length, context, masked):
    """Values and gradients against torch's kernel in float64, with two heads to a key."""
    torch.manual_seed(0)
    sizes = [(3, 4, length, 8), (3, 2, context, 8), (3, 2, context, 8)]
    inputs = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes]
    mask, weight = torch.rand(3, 1, length, context) < 0.6, torch.randn(3, length, 4, 8, dtype=torch.float64)
    mask[..., 0] = True  # (what sees nothing at all is tried by the hf rollout of prompts of unequal length)
    options = dict(attn_mask=mask) if masked else dict(is_causal=length > 1)
    exact = torch.nn.functional.scaled_dot_product_attention(*inputs, **options, scale=0.3, enable_gqa=True).transpose(1, 2)
    ours = products(*inputs, mask if masked else None, 0.3)
    torch.testing.assert_close(ours, exact)
    for one, other in zip(torch.autograd.grad((ours * weight).sum(), inputs), torch.autograd.grad((exact * weight).sum(), inputs)):
        torch.testing.assert_close(one, other)


def test_a_prompt_is_shared_where_that_saves_an_eighth():
    """4 responses of 14 tokens: a prompt of 3 saves 6 of 68 tokens, one of 4 9 of 72 (its last token is in each row). Not with another
    attention than sdpa, windows, or a family of which nothing is known."""
    group = lambda n: [Sample(Prompt([5] * n, "", "", ""), 0, [7] * 14, [0.0] * 14, False) for _ in range(4)]
    lm = Policy(tiny_model()).lm
    assert worth_sharing(group(4), lm) and not worth_sharing(group(3), lm)
    assert not worth_sharing([], lm) and not worth_sharing(group(1) * 9, lm)  # a rank's empty micro-batch; nothing but last tokens
    for change in (dict(_attn_implementation="eager"), dict(layer_types=["full_attention", "sliding_attention"]),
                   dict(layer_types=None, sliding_window=8), dict(model_type="stablelm")):  # Mistral's window; hands nothing on
        other = tiny_model()
        for key, value in change.items():
            setattr(other.config, key, value)
        assert not worth_sharing(group(4), Policy(other).lm)


def test_distinct_rows():
    ids, real, which = distinct([[5, 6], [7], [5, 6], []], 0, "cpu")
    assert ids.tolist() == [[5, 6], [7, 0], [0, 0]] and real.tolist() == [[1, 1], [1, 0], [0, 0]] and which.tolist() == [0, 1, 0, 2]
    assert distinct([[5, 6], [7]], 0, "cpu", left=True)[0].tolist() == [[5, 6], [0, 7]]


def test_packed_row_in_flash_attention():
    """The boundaries that transformers hands to flash attention's kernel come from position_ids alone. Its kernel runs on no
    CPU, so each segment between them goes through sdpa here: log-probabilities and gradients are those of padded rows."""
    samples, calls = make_samples(), []

    def varlen(module, query, key, value, attention_mask, scaling, position_ids=None, **_):
        (ends, _), _ = prepare_fa_kwargs_from_position_ids(position_ids)
        calls.append((attention_mask, ends.tolist()))
        parts = [torch.nn.functional.scaled_dot_product_attention(query[:, :, a:b], key[:, :, a:b], value[:, :, a:b], is_causal=True,
                                                                  scale=scaling, enable_gqa=True) for a, b in pairwise(ends.tolist())]
        return torch.cat(parts, 2).transpose(1, 2), None

    ALL_ATTENTION_FUNCTIONS.register("varlen_for_test", varlen)
    results = {}
    for packed in (False, True):
        model = tiny_model()
        if packed:
            model.set_attn_implementation("varlen_for_test")
        logprobs, _ = logprobs_of(model, collate(samples, packed, "cpu", 0), Config(), False)
        logprobs.square().sum().backward()
        results[packed] = [logprobs.detach(), *(p.grad for p in model.parameters())]
    lengths = [len(s.prompt.ids) + len(s.response) - 1 for s in samples]  # (the last token predicts nothing)
    assert calls == [(None, [sum(lengths[:k]) for k in range(len(lengths) + 1)])] * 2  # two layers, no mask
    for padded, row in zip(results[False], results[True]):
        assert (row - padded).norm() <= 1e-5 * padded.norm()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_packed_row_in_flex_attention():
    """The real flex attention, whose CPU version has no backward."""
    samples, model = make_samples(), tiny_model()
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # its operators one by one: needs no C++ compiler
        padded, _ = logprobs_of(model, collate(samples, False, "cpu", 0), Config(), False)
        model.set_attn_implementation("flex_attention")
        row, _ = logprobs_of(model, collate(samples, True, "cpu", 0), Config(), False)
    torch.testing.assert_close(row, padded, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------- cutting up
def whole_update(cfg: Config, samples: list[Sample], packed: bool = False) -> tuple[dict, dict[str, torch.Tensor]]:
    """Two updates of one rollout (the second one off-policy), from the same initial weights: metrics and final weights."""
    run = make_run(cfg, packed=packed)
    metrics = rl_gppo.update_policy(samples, 1, run)
    return metrics, {k: v.clone() for k, v in run.policy.state_dict().items()}


@pytest.mark.parametrize("loss", ["gppo", "clip_higher_erc", "gspo", "cispo"])
def test_update_does_not_depend_on_the_cut(loss):
    """Any token budget (one micro-batch to one sample each), packed or padded: same metrics and weights to 1e-5."""
    cfg, samples = Config(loss=loss, lr=1e-3, minibatch_prompts=3, warmup_steps=0), make_samples()
    reference, weights = whole_update(cfg, samples)
    assert reference["updates"] == 2 and reference["approx_kl"] > 0  # the second update is off-policy
    for budget, packed in [(1, False), (60, False), (137, False), (60, True), (10**6, True)]:
        metrics, cut = whole_update(dataclasses.replace(cfg, token_budget=budget), samples, packed)
        for key in ("loss", "pg_loss", "sft_loss", "grad_norm", "entropy", "approx_kl"):
            assert metrics[key] == pytest.approx(reference[key], rel=1e-4 if key == "approx_kl" else 1e-5, abs=1e-6), (key, budget)
        assert metrics["clip_frac_high"] == reference["clip_frac_high"]
        for name, weight in weights.items():
            # Adam's first step is ±lr whatever the gradient's size, so a near-zero gradient may flip: compare in units of lr
            assert (cut[name] - weight).abs().mean() < 1e-5 * cfg.lr / 1e-3 and (cut[name] - weight).abs().max() < 2.1 * cfg.lr


def gradient_of(samples: list[Sample], cfg: Config, cuts: list[list[int]]) -> dict[str, torch.Tensor]:
    """Gradient of one mini-batch from the given micro-batches, through micro_loss itself."""
    run = make_run(cfg)
    tokens = sum(len(s.response) for s in samples)
    positive = sum(len(s.response) for s in samples if s.reward.correct)
    for cut in cuts:
        batch = collate([samples[i] for i in cut], False, "cpu", 0)
        batch |= {"old_logprobs": batch["rollout_logprobs"].clone(), "old_entropy": batch["loss_mask"]}  # far from the policy: every region is met
        rl_gppo.micro_loss(batch, tokens, positive, run)[0].backward()
    return {name: p.grad.clone() for name, p in run.policy.named_parameters()}


@pytest.mark.parametrize("loss", ["ppo", "clip_higher", "gppo", "gppo_high", "cispo", "gspo", "reinforce"])
def test_gradient_does_not_depend_on_split_or_order(loss):
    cfg, samples = Config(loss=loss), make_samples()
    everything = list(range(len(samples)))
    reference = gradient_of(samples, cfg, [everything])
    shuffled = random.Random(3).sample(everything, len(everything))
    for cuts in ([[i] for i in everything], [everything[:3], everything[3:]], [shuffled], [shuffled[:7], [], shuffled[7:]]):
        for name, grad in gradient_of(samples, cfg, cuts).items():
            assert (grad - reference[name]).norm() <= 1e-5 * reference[name].norm(), (name, cuts)


def test_first_update_has_ratio_one():
    """Old logprobs come from the same shapes, so the first of the updates is on-policy to the last bit."""
    run = make_run(Config(minibatch_prompts=100))
    metrics = rl_gppo.update_policy(make_samples(), 1, run)
    assert metrics["updates"] == 1 and metrics["approx_kl"] == 0.0 and metrics["clip_frac_high"] == metrics["clip_frac_low"] == 0.0


def test_dropout_is_no_ratio():
    """GPT-2's default 0.1 moved log-probabilities between two forwards of one policy."""
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=2, n_positions=256))
    metrics = rl_gppo.update_policy(make_samples(), 1, make_run(Config(loss="gppo", lr=0.0, minibatch_prompts=2), model))
    assert metrics["updates"] == 3 and metrics["approx_kl"] < 1e-12


def test_lm_loss_is_the_mean_over_correct_tokens():
    """Eq. 13 by hand, and α = 0 takes it out of the gradient."""
    samples, run = make_samples(), make_run(Config(minibatch_prompts=100, lr=0.0))
    metrics = rl_gppo.update_policy(samples, 1, run)
    total, count = 0.0, 0
    for s in samples:
        if s.reward.correct:
            logits = run.policy.lm(torch.tensor([s.prompt.ids + s.response])).logits[0, -len(s.response) - 1:-1]
            total -= logits.log_softmax(-1).gather(-1, torch.tensor(s.response)[:, None]).sum().item()
            count += len(s.response)
    assert metrics["sft_loss"] == pytest.approx(total / count, rel=1e-5)
    assert metrics["loss"] == pytest.approx(metrics["pg_loss"] + 0.1 * metrics["sft_loss"])


def test_non_finite_update_is_skipped_and_counted():
    run, samples = make_run(Config(minibatch_prompts=2)), make_samples(4)
    samples[0].advantage = math.inf
    before = {k: v.clone() for k, v in run.policy.state_dict().items()}
    metrics = rl_gppo.update_policy([s for s in samples if s.group in (0,)], 1, run)
    assert metrics["updates_skipped"] == 1 and all(torch.equal(v, before[k]) for k, v in run.policy.state_dict().items())
    metrics = rl_gppo.update_policy(samples, 1, run)
    assert metrics["updates"] == 2 and metrics["updates_skipped"] == 1
    assert not all(torch.equal(v, before[k]) for k, v in run.policy.state_dict().items())


def test_rollout_correction_caps_the_weight():
    """Weight min(π_old/π_engine, C) on each token: C below every ratio scales the policy gradient by C exactly."""
    samples = make_samples()
    for s in samples:
        s.logprobs = [-30.0] * len(s.response)  # the engine's policy is far below the trainer's: every weight is capped
    plain = rl_gppo.update_policy(samples, 1, make_run(Config(minibatch_prompts=100, sft_coef=0.0)))
    capped = rl_gppo.update_policy(samples, 1, make_run(Config(minibatch_prompts=100, sft_coef=0.0, rollout_correction_cap=0.5)))
    assert capped["pg_loss"] == pytest.approx(0.5 * plain["pg_loss"], rel=1e-5)
    assert capped["grad_norm"] == pytest.approx(0.5 * plain["grad_norm"], rel=1e-5)


@pytest.mark.parametrize("shift, weight", [(math.log(2), 0.5), (-math.log(1.5), 1.5), (-math.log(3), 2.0)])  # the last is capped
def test_rollout_correction_is_the_ratio(shift, weight):
    """An engine that gave each token e^shift times the trainer's probability: weight e^-shift, at most C = 2."""
    run, samples = make_run(Config(minibatch_prompts=100, sft_coef=0.0)), make_samples()
    for s in samples:
        with torch.no_grad():
            logprobs, _ = token_logprobs(collate([s], False, "cpu", 0), run, True)
        s.logprobs = (logprobs[0, :len(s.response)] + shift).tolist()
    plain = rl_gppo.update_policy(samples, 1, run)
    corrected = rl_gppo.update_policy(samples, 1, make_run(Config(minibatch_prompts=100, sft_coef=0.0, rollout_correction_cap=2.0)))
    assert corrected["pg_loss"] == pytest.approx(weight * plain["pg_loss"], rel=1e-4)
    assert corrected["grad_norm"] == pytest.approx(weight * plain["grad_norm"], rel=1e-4)


def test_grad_clip_of_zero_is_off():
    """As 0 is for every other bound: the update of a bound that is never reached, not one without a gradient."""
    cfg, samples = Config(lr=1e-3, minibatch_prompts=3, warmup_steps=0), make_samples()
    (off, weights), (wide, same), (tight, other) = (whole_update(dataclasses.replace(cfg, grad_clip=clip), samples) for clip in (0.0, 1e9, 1e-9))
    assert off == wide and off["grad_norm"] > 0 and off["updates_skipped"] == 0
    assert all(torch.equal(same[name], weight) for name, weight in weights.items())
    assert any(not torch.equal(other[name], weight) for name, weight in weights.items())  # the bound can act


# ---------------------------------------------------------------------------------------------------------------- plans
@pytest.mark.parametrize("packed", [False, True])
def test_microbatch_plan(packed):
    rng = random.Random(0)
    for trial in range(200):
        lengths = [rng.randint(1, 300) for _ in range(rng.randint(0, 40))]
        ranks, budget = rng.randint(1, 9), rng.choice([1, 100, 300, 1000, 10**9])
        plan = plan_microbatches(lengths, ranks, budget, packed)
        assert len(plan) == ranks and len({len(micros) for micros in plan}) == 1  # every rank calls the collectives equally often
        assert sorted(i for micros in plan for micro in micros for i in micro) == list(range(len(lengths)))
        for micro in (m for micros in plan for m in micros if m):
            cost = sum(lengths[i] for i in micro) if packed else max(lengths[i] for i in micro) * len(micro)
            assert len(micro) == 1 or cost <= budget


SHAPES = {  # published parameter counts
    596_049_920: Qwen3Config(vocab_size=151_936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
                             num_key_value_heads=8, head_dim=128, tie_word_embeddings=True),
    8_190_735_360: Qwen3Config(vocab_size=151_936, hidden_size=4096, intermediate_size=12_288, num_hidden_layers=36, num_attention_heads=32,
                               num_key_value_heads=8, head_dim=128, tie_word_embeddings=False),
    134_515_008: LlamaConfig(vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                             num_key_value_heads=3, tie_word_embeddings=True),
}


@pytest.mark.parametrize("parameters", SHAPES)
def test_plan_counts_what_the_model_has(parameters, tmp_path):
    """Each line that follows from shapes, on one GPU, against the tensors of the model itself (on the meta device)."""
    config = SHAPES[parameters]
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in model.parameters()) == parameters
    cfg = plan.Config(model=str(tmp_path), gpus=1, gpu_gb=400, logit_chunk=1000)
    text = plan.plan(cfg)

    def planned(name: str) -> float:
        return float(re.search(rf"  {re.escape(name)} +([\d.]+)", text).group(1))

    head, layer = model.get_output_embeddings().weight, sum(p.numel() for p in model.base_model.layers[0].parameters())
    ends = {id(w): w.numel() for w in (head, model.get_input_embeddings().weight)}
    expected = {"weights, fp32": 4 * parameters, "Adam states, fp32": 8 * parameters, "training state that stays": 12 * parameters,
                "vLLM weights, bf16": 2 * parameters, "gathered layers, embedding, head": 4 * (sum(ends.values()) + 2 * layer),
                "head, 1000 tokens at a time": 6 * 1000 * config.vocab_size + 4 * head.numel()}
    for name, size in expected.items():
        assert planned(name) == pytest.approx(size / 1e9, abs=0.0051), name
    keys_values = sum(2 * p.shape[0] for name, p in model.named_parameters() if name.endswith("k_proj.weight"))  # of a token, all layers
    cached = int(re.search(r"KV cache: ([\d,]+) tokens", text).group(1).replace(",", ""))
    assert cached == pytest.approx((0.6 * 400e9 - 2 * parameters - 2e9) / (2 * keys_values), rel=1e-4)


def test_plan_of_a_family_with_names_of_its_own(tmp_path):
    transformers.GPT2Config().save_pretrained(tmp_path)
    assert "0.12B parameters" in plan.plan(plan.Config(model=str(tmp_path), gpus=1))


def test_plan_of_the_published_run(tmp_path):
    """Shapes that plan.py knows without the hub are those of the model; the recipe fits on 8 GPUs of 80 GB and not on one."""
    SHAPES[8_190_735_360].save_pretrained(tmp_path)
    recipe = ["--config", str(Path(__file__).parent.parent / "recipes" / "klear_math_8b.yaml")]
    texts = {(model, gpus): plan.plan(read_config(plan.Config, [*recipe, "--model", model, "--gpus", gpus], ""))
             for model in (str(tmp_path), "Qwen/Qwen3-8B-Base") for gpus in ("8", "1")}
    for gpus, misfits in (("8", 0), ("1", 2)):
        known, real = texts["Qwen/Qwen3-8B-Base", gpus], texts[str(tmp_path), gpus]
        assert known.replace("Qwen/Qwen3-8B-Base", str(tmp_path)) == real and "8.19B parameters" in real
        assert real.count("DOES NOT FIT") == misfits and real.count("  fits") == 2 - misfits


def test_ranks_get_even_loads():
    rng = random.Random(1)
    lengths = [int(math.exp(rng.gauss(6, 1))) for _ in range(400)]
    plan = plan_microbatches(lengths, 8, 4096, True)
    loads = [sum(lengths[i] for micro in micros for i in micro) for micros in plan]
    assert max(loads) < 1.02 * min(loads)


# ------------------------------------------------------------------------------------------------------------ advantages
def group_of(*scores, status="wrong"):
    return [Reward(float(s), s == 1, "correct" if s == 1 else status) for s in scores]


def judged(*groups):
    prompt = Prompt([1], "", "", "")
    return [Sample(prompt, g, [1], [0.0], False, r) for g, group in enumerate(groups) for r in group]


def test_advantages_are_equation_4():
    samples = judged(group_of(1, -1, -1, -1), group_of(1, 1), group_of(0.25, 0.5, 0.5, 0.5))
    kept, counts = rl_gppo.compute_advantages(samples, Config())
    assert [round(s.advantage, 4) for s in kept[:4]] == [1.7320, -0.5773, -0.5773, -0.5773]
    assert {s.group for s in kept} == {0, 2}  # equal rewards: dropped; a code group with partial scores stays
    assert counts == {"groups_kept": 2, "groups_all_correct": 1, "groups_all_wrong": 1, "reward_failures": 0}
    kept, _ = rl_gppo.compute_advantages(samples, Config(adv_std="none"))
    assert [s.advantage for s in kept[:4]] == [1.5, -0.5, -0.5, -0.5]
    kept, _ = rl_gppo.compute_advantages(samples, Config(zero_advantage_filter=False))
    assert len(kept) == len(samples)


def test_overlong_filter_leaves_truncated_responses_out_of_the_update():
    """They count in the mean and std of their group, as its other rewards do."""
    samples = judged(group_of(1, -1, -1, -1))
    samples[1].truncated = True
    kept, counts = rl_gppo.compute_advantages(samples, Config(overlong_filter=True))
    assert [id(s) for s in kept] == [id(samples[k]) for k in (0, 2, 3)] and counts["groups_kept"] == 1
    assert [round(s.advantage, 3) for s in kept] == [1.732, -0.577, -0.577]
    assert len(rl_gppo.compute_advantages(samples, Config())[0]) == 4


@pytest.mark.parametrize("status", ["verifier_error", "verifier_timeout", "sandbox_error"])
def test_failed_verifier_takes_no_part(status):
    """A verifier that failed says nothing about the response: it is no -1 in the group's mean."""
    samples = judged(group_of(1, -1) + [Reward(-1.0, False, status)])
    kept, counts = rl_gppo.compute_advantages(samples, Config())
    assert len(kept) == 2 and counts["reward_failures"] == 1
    assert [round(s.advantage, 3) for s in kept] == [1.0, -1.0]


def test_data_order_is_epochs_without_repeats():
    rows = [r for at in range(0, 60, 7) for r in rl_gppo.next_rows(at, 7, 20, 3)]
    for epoch in range(3):
        assert sorted(rows[20 * epoch:20 * epoch + 20]) == list(range(20))
    assert rows[:20] != rows[20:40] and rl_gppo.next_rows(0, 60, 20, 4) != rows[:60]


def test_prompts_are_spread_evenly():
    prompts = [SimpleNamespace(ids=[0] * n) for n in random.Random(0).sample(range(1, 500), 100)]
    dealt = rl_gppo.spread(prompts, 3)
    assert sorted(i for d in dealt for i in d) == list(range(100)) and {len(d) for d in dealt} == {33, 34}
    loads = [sum(len(prompts[i].ids) for i in d) for d in dealt]
    assert max(loads) < 1.05 * min(loads)
