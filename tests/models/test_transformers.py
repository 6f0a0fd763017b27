"""Exported folders in both major versions of transformers that people have.

The newest one is this environment's. The older is installed for the test into a folder of
its own, which a process of its own finds before ours; PyTorch is shared.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from stepcoder_jax.config import ModelConfig, SamplingConfig
from stepcoder_jax.models import policy, weights
from stepcoder_jax.runs.disk import model_folder, sources

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 8,
    "max_positions": 64,
    "tie_embeddings": False,
}
LINEAR = {"rope_scaling": "linear", "rope_factor": 4.0}
LLAMA3 = {"rope_scaling": "llama3", "rope_factor": 8.0, "rope_context": 16}
YARN = {
    "rope_scaling": "yarn",
    "rope_factor": 4.0,
    "rope_context": 16,
    "rope_fast": 32.0,
    "rope_amplitude": 1.2,
}
MODELS = {
    "llama": {},
    "llama-linear": LINEAR,
    "llama-llama3": LLAMA3,
    "llama-yarn": YARN,
    "mistral": {"family": "mistral", "sliding_window": 8},
    "qwen2": {"family": "qwen2"},
    "qwen2-yarn": {"family": "qwen2", **YARN},
    "qwen3": {"family": "qwen3"},
    "starcoder2": {"family": "starcoder2", "sliding_window": 8},
    "starcoder2-linear": {"family": "starcoder2", **LINEAR},
}
TOKENS = (np.arange(48) * 7 % 60 + 4)[None]
# Prints, per folder: logits of TOKENS, and what `generate` takes for its settings.
READ = """
import json, pathlib, sys, torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
tokens = torch.tensor(json.loads(sys.argv[2]))
found = {"version": transformers.__version__}
for folder in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    model = AutoModelForCausalLM.from_pretrained(folder).float()
    with torch.no_grad():
        logits = model(tokens).logits
    said = model.generation_config
    names = ("do_sample", "temperature", "top_p", "top_k", "min_p", "eos_token_id")
    found[folder.name] = {
        "logits": logits.tolist(),
        "config_eos": model.config.eos_token_id,
        "tokens": AutoTokenizer.from_pretrained(folder)("def f(x):\\n")["input_ids"],
        **{name: getattr(said, name) for name in names},
    }
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folders of all MODELS, and the logits that they must give."""
    root, logits = tmp_path_factory.mktemp("models"), {}
    tokenizer = sources.load_tokenizer(ModelConfig(tokenizer="builtin"))
    for name, fields in MODELS.items():
        config = ModelConfig(**SHAPE | {"vocab_size": 512} | fields)
        params = policy.init_params(config, jax.random.key(0))
        # sharper, so that positions matter
        params = jax.tree.map(lambda x: 3 * x if x.ndim > 1 else x, params)
        logits[name] = np.asarray(policy.all_logits(config, params, TOKENS))
        weights.save_checkpoint(root / name, config, params, "float32")
        drawn = SamplingConfig(temperature=0.7, top_p=0.9, top_k=7, min_p=0.05)
        eos = (tokenizer.eos_token_id, 5)
        model_folder.write_beside(root / name, drawn, eos, tokenizer)
    plain, scaled = logits["llama"], (logits[f"llama-{x}"] for x in ("linear", "yarn"))
    assert all(np.abs(plain - other).max() > 0.01 for other in scaled)
    return root, logits, tokenizer


def check(written, folder: Path | None, major: str) -> None:
    root, logits, tokenizer = written
    path = {"PYTHONPATH": str(folder)} if folder else {}
    done = subprocess.run(
        [sys.executable, "-c", READ, str(root), json.dumps(TOKENS.tolist())],
        env=os.environ | path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("version").startswith(f"{major}.")
    assert found.keys() == logits.keys()
    eos = [tokenizer.eos_token_id, 5]
    for name, said in found.items():
        np.testing.assert_allclose(said["logits"], logits[name], atol=1e-3, err_msg=name)
        assert said["config_eos"] == said["eos_token_id"] == eos, name
        drawn = [said[x] for x in ("do_sample", "temperature", "top_p", "top_k", "min_p")]
        assert drawn == [True, 0.7, 0.9, 7, 0.05], name
        assert said["tokens"] == tokenizer("def f(x):\n")["input_ids"]


def test_the_newest_transformers(written):
    pytest.importorskip("torch", reason="torch, the oracle, is not installed")
    check(written, None, "5")


@pytest.mark.slow  # installs 240 MB
def test_transformers_4(written, tmp_path):
    pytest.importorskip("torch", reason="torch, the oracle, is not installed")
    command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(tmp_path)]
    done = subprocess.run(
        [*command, "transformers<5"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:]
        pytest.skip(f"transformers 4 cannot be installed: {said}")
    check(written, tmp_path, "4")
