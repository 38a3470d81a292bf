"""The losses against the table of gradient factors (Eq. 10, 12, 16, 18), which is written down here a second time."""

import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import rl_gppo
from rl_gppo import LOSSES

CFG = SimpleNamespace(clip_low=0.2, clip_high=0.28, beta1=1.0, beta2=1.0, dual_clip=10.0, erc_low=0.95, erc_high=1.05)
TOKEN_RATIO = ["ppo", "clip_higher", "gppo", "gppo_high", "cispo", "reinforce", "clip_higher_erc", "gppo_erc"]
IN_ERC = dict(entropy=torch.ones(1, 1), old_entropy=torch.ones(1, 1))


def cfg_with(**changes):
    return SimpleNamespace(**{**vars(CFG), **changes})


def factor(name: str, r: float, a: float, cfg) -> float:
    """F of dJ/dθ = F·A·∇log π, straight from the table of the design."""
    low, high = 1 - cfg.clip_low, 1 + (cfg.clip_low if name == "ppo" else cfg.clip_high)
    if name == "reinforce":
        return 1.0
    if name == "cispo":
        return low if r < low else high if r > high else r
    base = name.removesuffix("_erc")
    if a < 0 and cfg.dual_clip and r > cfg.dual_clip:
        return 0.0
    if a > 0 and r > high:
        return {"ppo": 0.0, "clip_higher": 0.0, "gppo": cfg.beta2 * high, "gppo_high": cfg.beta2 * high}[base]
    if a < 0 and r < low:
        return {"ppo": 0.0, "clip_higher": 0.0, "gppo": cfg.beta1 * low, "gppo_high": 0.0}[base]
    return r


def call(name, logprobs, old, advantages, mask, cfg, **entropies):
    wanted = entropies or {k: torch.ones(1, 1) for k in ("entropy", "old_entropy")}
    return LOSSES[name](logprobs, old, advantages, mask, cfg, **(wanted if name.endswith("_erc") else {}))


def gradient(name, log_ratio, advantage, cfg, dtype=torch.float64, **kwargs):
    """(loss, clipped, dJ/dlogπ / A) of one token whose log-ratio is exactly `log_ratio`."""
    logprobs = torch.tensor([[log_ratio]], dtype=dtype, requires_grad=True)
    loss, clipped = call(name, logprobs, torch.zeros(1, 1, dtype=dtype), torch.full((1, 1), advantage, dtype=dtype),
                         torch.ones(1, 1, dtype=torch.bool), cfg, **kwargs)
    loss.sum().backward()
    return loss.item(), bool(clipped), -logprobs.grad.item() / advantage


EDGE = 1e-9
RATIOS = [0.01, 0.5, 0.8 - EDGE, 0.8 + EDGE, 0.9, 1.0, 1.1, 1.2 - EDGE, 1.2 + EDGE, 1.25, 1.28 - EDGE, 1.28 + EDGE, 2.0, 9.9, 10.1, 50.0]


@pytest.mark.parametrize("name", TOKEN_RATIO)
@pytest.mark.parametrize("betas", [(1.0, 1.0), (0.5, 1.0), (0.25, 0.75), (0.0, 2.0)])
@pytest.mark.parametrize("dual_clip", [10.0, 0.0, None])
def test_gradient_is_the_tables(name, betas, dual_clip):
    cfg = cfg_with(beta1=betas[0], beta2=betas[1], dual_clip=dual_clip)
    for advantage in (1.0, -1.0, 0.7, -2.3):
        for r in RATIOS:
            _, clipped, measured = gradient(name, math.log(r), advantage, cfg)
            assert measured == pytest.approx(factor(name, r, advantage, cfg), abs=1e-10, rel=1e-10), (name, r, advantage)
            high = 1 + (cfg.clip_low if name == "ppo" else cfg.clip_high)
            assert clipped == ((advantage > 0 and r > high) or (advantage < 0 and r < 1 - cfg.clip_low))


def test_value_of_gppo_is_clip_highers():
    """The forward value of Eq. 11 is that of Clip-Higher for every ratio and sign (β = 1)."""
    for advantage in (1.0, -1.0, 3.0):
        for r in RATIOS:
            a, b = gradient("gppo", math.log(r), advantage, CFG)[0], gradient("clip_higher", math.log(r), advantage, CFG)[0]
            assert a == pytest.approx(b, abs=1e-12)


def test_value_of_clip_higher_is_the_papers_min():
    """Eq. 5 written out, dual clip included, by plain Python."""
    for advantage in (1.0, -1.0):
        for r in RATIOS:
            objective = min(r * advantage, min(max(r, 0.8), 1.28) * advantage)
            if advantage < 0:
                objective = max(objective, 10.0 * advantage)
            assert -gradient("clip_higher", math.log(r), advantage, CFG)[0] == pytest.approx(objective, abs=1e-10)


def test_literal_equation_11_agrees_where_it_is_finite():
    """min(r·A, clip(r, (1-εl)/sg(r)·r, (1+εh)/sg(r)·r)·A) typed as printed, with autograd."""
    torch.manual_seed(0)
    logprobs, old = -3 * torch.rand(4, 50, dtype=torch.float64), -3 * torch.rand(4, 50, dtype=torch.float64)
    advantages = torch.randn(4, 50, dtype=torch.float64)
    x, y = logprobs.clone().requires_grad_(), logprobs.clone().requires_grad_()
    r = (x - old).exp()
    low, high = 0.8 / r.detach() * r, 1.28 / r.detach() * r
    literal = torch.min(r * advantages, torch.max(torch.min(r, high), low) * advantages)
    literal.sum().backward()
    loss, _ = LOSSES["gppo"](y, old, advantages, torch.ones(4, 50, dtype=torch.bool), cfg_with(dual_clip=0.0))
    loss.sum().backward()
    torch.testing.assert_close(-loss, literal, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(-y.grad, x.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", LOSSES)
def test_at_ratio_one_all_share_one_gradient(name):
    """REINFORCE's gradient A·∇log π: no loss changes the on-policy update."""
    torch.manual_seed(1)
    old = -torch.rand(3, 7, dtype=torch.float64)
    advantages = torch.randn(3, 1, dtype=torch.float64).expand(3, 7)
    logprobs = old.clone().requires_grad_()
    loss, clipped = call(name, logprobs, old, advantages, torch.ones(3, 7, dtype=torch.bool), CFG)
    loss.sum().backward()
    torch.testing.assert_close(-logprobs.grad, advantages.clone(), rtol=1e-12, atol=1e-12)
    assert not clipped.any()


@pytest.mark.parametrize("name", ["ppo", "clip_higher", "gppo", "gppo_high", "cispo", "clip_higher_erc", "gppo_erc"])
def test_infinite_band_is_the_unclipped_objective(name):
    """Eq. 9: factor r everywhere."""
    cfg = cfg_with(clip_low=1e9, clip_high=1e9, dual_clip=0.0)
    for advantage in (1.0, -1.0):
        for r in (1e-3, 0.3, 1.0, 4.0, 300.0):
            loss, clipped, measured = gradient(name, math.log(r), advantage, cfg)
            assert measured == pytest.approx(r, rel=1e-12) and not clipped
            if name != "cispo":  # its value is log π times a weight
                assert loss == pytest.approx(-r * advantage, rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_log_ratios_stay_finite(name, dtype):
    for log_ratio in (200.0, -200.0, 80.0, -80.0):
        for advantage in (1.0, -1.0):
            for dual_clip in (10.0, 0.0):
                loss, _, measured = gradient(name, log_ratio, advantage, cfg_with(dual_clip=dual_clip), dtype)
                assert math.isfinite(loss) and math.isfinite(measured)
    assert gradient("gppo", 200.0, 1.0, CFG)[2] == pytest.approx(1.28)
    assert gradient("gppo", -200.0, -1.0, CFG)[2] == pytest.approx(0.8)


@pytest.mark.parametrize("name", LOSSES)
def test_padding_never_leaks(name):
    """Garbage and NaN behind the mask change no value and get no gradient."""
    torch.manual_seed(2)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]], dtype=torch.bool)
    old, new = -torch.rand(3, 5), -torch.rand(3, 5)
    advantages = torch.tensor([[1.0], [-1.0], [0.5]]).expand(3, 5)
    entropies = dict(entropy=torch.rand(3, 5), old_entropy=torch.rand(3, 5))
    results = []
    for junk in (0.0, 77.0, -200.0, math.nan, math.inf):
        x, o = new.masked_fill(~mask, junk).requires_grad_(), old.masked_fill(~mask, -junk)
        loss, clipped = call(name, x, o, advantages, mask, CFG, **entropies)
        loss.sum().backward()
        results.append((loss.detach(), clipped, x.grad))
        assert torch.all(x.grad[~mask] == 0) and torch.all(loss[~mask] == 0) and not clipped[~mask].any()
    for loss, clipped, grad in results[1:]:
        assert torch.equal(loss, results[0][0]) and torch.equal(clipped, results[0][1]) and torch.equal(grad, results[0][2])


def test_gspo_is_one_ratio_a_response():
    """Token gradients of a response are s·A with s = exp(mean log-ratio), zero when s is clipped (arXiv 2507.18071)."""
    old = torch.zeros(3, 4, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0]], dtype=torch.bool)
    logprobs = torch.tensor([[0.3, -0.2, 0.2, 9.0], [0.9, 0.1, 0.3, 0.3], [-0.1, -0.9, 5.0, 5.0]], dtype=torch.float64, requires_grad=True)
    advantages = torch.tensor([[1.0], [1.0], [-1.0]], dtype=torch.float64).expand(3, 4)
    loss, clipped = LOSSES["gspo"](logprobs, old, advantages, mask, CFG)
    loss.sum().backward()
    s = [math.exp(0.1), math.exp(0.4), math.exp(-0.5)]  # the second is above 1.28, the third below 0.8
    expected = torch.zeros(3, 4, dtype=torch.float64)
    expected[0, :3] = -s[0]
    torch.testing.assert_close(logprobs.grad, expected)
    assert clipped.sum(-1).tolist() == [0, 4, 2]
    torch.testing.assert_close(loss[1], torch.full((4,), -1.28, dtype=torch.float64))


@pytest.mark.parametrize("name", ["clip_higher_erc", "gppo_erc"])
def test_erc_masks_by_entropy_ratio(name):
    """Outside (0.95, 1.05) no value and no gradient; inside, the loss it is made of (arXiv 2512.05591)."""
    for old, new, kept in [(1.0, 1.0, True), (1.0, 1.049, True), (1.0, 0.951, True), (1.0, 1.051, False), (1.0, 0.949, False),
                           (0.0, 0.0, True), (0.0, 0.5, False)]:
        entropies = dict(entropy=torch.full((1, 1), new, dtype=torch.float64), old_entropy=torch.full((1, 1), old, dtype=torch.float64))
        loss, _, measured = gradient(name, math.log(1.5), 1.0, CFG, **entropies)
        base = gradient(name.removesuffix("_erc"), math.log(1.5), 1.0, CFG)
        assert (loss, measured) == ((pytest.approx(base[0]), pytest.approx(base[2])) if kept else (0.0, 0.0))


def test_the_readmes_new_loss_works(monkeypatch):
    """The ten lines that the README shows, run as they stand there."""
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", readme, re.S) if "LOSSES[" in block)
    monkeypatch.setattr(rl_gppo, "LOSSES", dict(LOSSES))
    exec(code, vars(rl_gppo))
    monkeypatch.setitem(LOSSES, "fading", rl_gppo.LOSSES["fading"])
    assert gradient("fading", math.log(2.56), 1.0, CFG)[2] == pytest.approx(0.64)
    assert gradient("fading", math.log(0.3), -1.0, CFG)[2] == pytest.approx(0.3)
