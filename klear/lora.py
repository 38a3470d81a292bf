"""LoRA (Hu et al., arXiv 2106.09685): W + (α/r)·B·A with W frozen, for sft.py and rl_gppo.py: lora_rank, lora_alpha.

PEFT makes the adapters, on all linear layers of the decoder and not on embeddings or head; here stands what training
needs around them. W is never changed in place: merging into bf16 and taking out again drifts, 1 % of mean |W| after one
cycle (huggingface/trl issue 6688). The engine and final/ get merged copies instead, a tensor at a time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from runs import die


def add_adapters(lm: nn.Module, cfg, accelerator) -> None:
    """Freezes the model and puts adapters on it: A random, B zero, both fp32; W in bf16 where a GPU computes in it."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        die("lora_rank: LoRA needs peft: pip install peft")
    if accelerator.is_fsdp2:
        die("lora_rank: LoRA keeps the frozen model whole on every GPU; launch without FSDP (recipes/*fsdp2*.yaml), or "
            "give --lora_rank 0")
    if accelerator.device.type == "cuda" and accelerator.mixed_precision == "bf16":
        for weight in lm.parameters():
            weight.data = weight.data.bfloat16()
    config = LoraConfig(r=cfg.lora_rank, lora_alpha=cfg.lora_alpha, lora_dropout=0.0, target_modules="all-linear",
                        base_model_name_or_path=cfg.model, task_type="CAUSAL_LM")
    lm.requires_grad_(False)
    inject_adapter_in_model(config, lm)
    for weight in lm.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def adapted(lm: nn.Module) -> dict[str, nn.Module]:
    """The layers with adapters, by name; none without LoRA."""
    return {name: layer for name, layer in lm.named_modules() if hasattr(layer, "lora_A")}


def plain_weights(lm: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """state_dict() of the model as if it had no adapters: W + (α/r)·B·A, summed in fp32 and rounded once, as copies.
    With FSDP2 all ranks gather one tensor at a time. (Not named_parameters: a tied head is missing there.)"""
    layers = adapted(lm)
    for name, weight in lm.state_dict().items():
        owner, found, rest = name.partition(".base_layer.")
        if found and rest == "weight":
            layer = layers[owner]
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight  # (r, in), (out, r)
            delta = layer.scaling["default"] * (b.detach() @ a.detach())
            weight = (weight.float() + delta).to(weight.dtype)
        elif ".lora_" in name:
            continue
        yield owner + "." + rest if found else name, weight.full_tensor() if hasattr(weight, "full_tensor") else weight


def save_adapter(lm: nn.Module, folder: Path) -> None:
    """The adapter alone in PEFT's format: PeftModel.from_pretrained(base, folder) loads it."""
    from peft import get_peft_model_state_dict

    folder.mkdir(parents=True)
    weights = get_peft_model_state_dict(lm)
    save_file({f"base_model.model.{name}": t.cpu().contiguous() for name, t in weights.items()},
              folder / "adapter_model.safetensors", {"format": "pt"})
    lm.peft_config["default"].save_pretrained(folder)


@contextmanager
def base_alone(lm: nn.Module):
    """The model without its adapters: the policy that training started from."""
    for layer in adapted(lm).values():
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in adapted(lm).values():
            layer.enable_adapters(True)
