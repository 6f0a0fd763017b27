"""Parameters <-> a Hugging Face folder: config.json and safetensors, one file or shards.

Hugging Face keeps a linear layer as [out, in], Flax as [in, out]; layers are separate
tensors there and one stacked array here. Tensors are read by slices straight into the
shards of the devices, and written shard by shard: no host needs room for a whole model.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from stepcoder_jax.config import ModelConfig
from stepcoder_jax.models import hf_config, hf_folder, policy
from stepcoder_jax.models.hf_config import WeightsError

if TYPE_CHECKING:
    from contextlib import ExitStack

Params = Any
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
ON_DISK = ("F32", "BF16", "F16")
SHARD_BYTES = 5_000_000_000  # a file of the checkpoint, as is usual on the Hub

# module of a layer -> tensor prefix after "model.layers.N."
MODULES = {
    **{f"{x}_{kind}": f"self_attn.{x}_{kind}" for x in "qk" for kind in ("proj", "norm")},
    **{f"{x}_proj": f"self_attn.{x}_proj" for x in "vo"},
    **{f"{x}_proj": f"mlp.{x}_proj" for x in ("gate", "up", "down")},
    **{x: x for x in ("input_layernorm", "post_attention_layernorm")},
}
RENAMED = {"starcoder2": {"up_proj": "mlp.c_fc", "down_proj": "mlp.c_proj"}}


class Place(NamedTuple):
    """Where one array of the parameters is kept in a checkpoint."""

    name: str  # of the tensor, with {} for the layer where the array stacks all layers
    shape: tuple[int, ...]  # of the array
    flipped: bool  # stored as [out, in]

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        shape = self.shape[1:] if "{}" in self.name else self.shape
        return shape[::-1] if self.flipped else shape

    def names(self) -> list[str]:
        if "{}" not in self.name:
            return [self.name]
        return [self.name.format(i) for i in range(self.shape[0])]


def places(config: ModelConfig) -> Any:
    """A tree like the actor's parameters, with the `Place` of each."""
    renamed = RENAMED.get(config.family, {})

    def place(path: Any, leaf: jax.ShapeDtypeStruct) -> Place:
        *outer, module, kind = (key.key for key in path)
        prefix = "lm_head" if module == "lm_head" else f"model.{module}"
        if outer[-1:] == ["layers"]:
            prefix = f"model.layers.{{}}.{renamed.get(module, MODULES[module])}"
        end = "bias" if kind == "bias" else "weight"
        return Place(f"{prefix}.{end}", tuple(leaf.shape), flipped=kind == "kernel")

    key = jax.eval_shape(lambda: jax.random.key(0))
    tree = jax.eval_shape(functools.partial(policy.init_params, config), key)
    return jax.tree_util.tree_map_with_path(place, tree)


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the checkpoint, in Hugging Face's layout."""
    leaves = jax.tree.leaves(places(config), is_leaf=lambda x: isinstance(x, Place))
    return {name: place.tensor_shape for place in leaves for name in place.names()}


class Reader:
    """The tensors of a folder's safetensors files, open for reading by slices.

    Raises WeightsError for the first file that is missing or broken.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.files: dict[str, Any] = {}  # tensor -> its open file
        for path in hf_folder.find_weights(folder):
            try:
                file = stack.enter_context(safe_open(path, framework="numpy"))
                self.files |= dict.fromkeys(file.keys(), file)
            except SafetensorError as error:
                raise WeightsError(f"{path}: not a safetensors file ({error})") from None

    def check(self, config: ModelConfig) -> None:
        """Raise for the first tensor that does not fit, or is missing."""
        expected = tensor_shapes(config)
        for name, file in self.files.items():
            if name == "lm_head.weight" and config.tie_embeddings:
                continue  # some writers store the tied copy as well
            if name.endswith("rotary_emb.inv_freq"):
                continue  # a constant that old writers stored
            if name not in expected:
                raise WeightsError(f"{self.folder}: unexpected tensor {name!r}")
            tensor = file.get_slice(name)
            if tuple(tensor.get_shape()) != expected[name]:
                raise WeightsError(
                    f"{self.folder}: tensor {name!r} has shape "
                    f"{tuple(tensor.get_shape())}, config.json asks for {expected[name]}"
                )
            if tensor.get_dtype() not in ON_DISK:
                raise WeightsError(
                    f"{self.folder}: tensor {name!r} is stored as {tensor.get_dtype()}, "
                    f"expected one of {', '.join(ON_DISK)}"
                )
        missing = [name for name in expected if name not in self.files]
        if missing:
            raise WeightsError(f"{self.folder}: tensor {missing[0]!r} is missing")

    def read(self, place: Place, dtype: Any, index: tuple[slice, ...]) -> np.ndarray:
        """Part `index` of the array that `place` describes."""
        names = place.names()
        if "{}" in place.name:
            names, index = names[index[0]], index[1:]
        tensors = [self.files[name].get_slice(name) for name in names]
        if place.flipped:
            parts = [tensor[index[::-1]].T.astype(dtype) for tensor in tensors]
        else:
            parts = [tensor[index].astype(dtype) for tensor in tensors]
        return np.stack(parts) if "{}" in place.name else np.ascontiguousarray(parts[0])


def load_checkpoint(
    folder: str | Path, dtype: Any, shardings: Params | None = None
) -> tuple[dict[str, Any], Params]:
    """Read a Hugging Face folder: (ModelConfig fields, actor params of `dtype`).

    With `shardings`, a tree of NamedShardings like the params, every process reads only
    the slices of its own devices; without, the params are numpy arrays. Weights may be
    stored as float32, bfloat16 or float16. Raises WeightsError naming the first tensor
    that is missing, unexpected or misshapen.
    """
    shape = hf_config.read_shape(folder)
    config = ModelConfig(**shape)
    with contextlib.ExitStack() as stack:
        reader = Reader(Path(folder), stack)
        reader.check(config)
        tree = places(config)
        is_place = {"is_leaf": lambda x: isinstance(x, Place)}

        def read(place: Place) -> np.ndarray:
            return reader.read(place, dtype, (slice(None),) * len(place.shape))

        def read_shards(place: Place, sharding: jax.sharding.Sharding) -> jax.Array:
            part = functools.partial(reader.read, place, dtype)
            return jax.make_array_from_callback(place.shape, sharding, part)

        if shardings is None:
            return shape, jax.tree.map(read, tree, **is_place)
        return shape, jax.tree.map(read_shards, tree, shardings, **is_place)


def save_checkpoint(
    folder: str | Path,
    config: ModelConfig,
    params: Params,
    dtype: str,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write actor `params` as a Hugging Face folder that transformers can load.

    `dtype` is "float32" or "bfloat16". Only config.json and the safetensors are written; a
    tokenizer may live beside them. Files above `shard_bytes` become shards with an index.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, "model", tensors_of(config, params), DTYPES[dtype], shard_bytes)
    write_config(folder, config, dtype)


def write_config(folder: Path, config: ModelConfig, dtype: str) -> None:
    """Write config.json alone."""
    text = json.dumps(hf_config.to_hf(config, dtype), indent=2)
    (folder / "config.json").write_text(text + "\n")


def copy_checkpoint(source: str | Path, folder: str | Path, dtype: str) -> None:
    """Write the model in `source` to `folder` as `dtype`, one shard in memory at a time."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = ModelConfig(**hf_config.read_shape(source))
    with contextlib.ExitStack() as stack:
        reader = Reader(Path(source), stack)
        reader.check(config)
        tensors = {
            name: Tensor(shape, functools.partial(reader.files[name].get_tensor, name))
            for name, shape in sorted(tensor_shapes(config).items())
        }
        write_tensors(folder, "model", tensors, DTYPES[dtype], SHARD_BYTES)
    write_config(folder, config, dtype)


class Tensor(NamedTuple):
    """A tensor to write: its shape, and how to get it when its turn comes."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def tensors_of(config: ModelConfig, params: Params) -> dict[str, Tensor]:
    """The checkpoint's tensors of actor params, or of those of its parts that are there."""

    def read(leaf: Any, flipped: bool, layer: int | None) -> np.ndarray:
        array = np.asarray(leaf if layer is None else leaf[layer])
        return array.T if flipped else array

    found: dict[str, Tensor] = {}
    for part in params.keys() & {"trunk", "lm_head"}:
        kept = jax.tree.leaves(places(config)[part], is_leaf=lambda x: isinstance(x, Place))
        for leaf, place in zip(jax.tree.leaves(params[part]), kept, strict=True):
            stacked = "{}" in place.name
            for i, name in enumerate(place.names()):
                get = functools.partial(read, leaf, place.flipped, i if stacked else None)
                found[name] = Tensor(place.tensor_shape, get)
    return dict(sorted(found.items()))


def write_tensors(
    folder: Path,
    stem: str,
    tensors: dict[str, Tensor],
    dtype: np.dtype,
    shard_bytes: int,
) -> None:
    """Write `stem`.safetensors, or numbered shards and `stem`.safetensors.index.json."""
    shards = list(_shards(tensors, dtype.itemsize, shard_bytes))
    files: dict[str, str] = {}
    for i, names in enumerate(shards):
        file = f"{stem}.safetensors"
        if len(shards) > 1:
            file = f"{stem}-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        arrays = {
            name: np.ascontiguousarray(tensors[name].read().astype(dtype)) for name in names
        }
        _save(arrays, folder / file)
        files |= dict.fromkeys(names, file)
    if len(shards) > 1:
        size = sum(math.prod(tensor.shape) for tensor in tensors.values()) * dtype.itemsize
        index = {"metadata": {"total_size": size}, "weight_map": files}
        text = json.dumps(index, indent=2)
        (folder / f"{stem}.safetensors.index.json").write_text(text + "\n")


def _save(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Write one file, for those to read who may read its neighbours."""
    path.touch()
    mode = path.stat().st_mode
    save_file(arrays, path, metadata={"format": "pt"})
    path.chmod(mode)  # safetensors makes files that their owner alone may read


def _shards(
    tensors: dict[str, Tensor], itemsize: int, shard_bytes: int
) -> Iterator[list[str]]:
    names: list[str] = []
    filled = 0
    for name, tensor in tensors.items():
        size = math.prod(tensor.shape) * itemsize
        if names and filled + size > shard_bytes:
            yield names
            names, filled = [], 0
        names.append(name)
        filled += size
    yield names
