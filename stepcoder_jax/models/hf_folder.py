"""Which files a Hugging Face folder must have; said of the folder before they are read."""

from __future__ import annotations

import json
from pathlib import Path

from stepcoder_jax.models.hf_config import WeightsError

WEIGHTS = "model.safetensors"
_PICKLED = ("*.bin", "*.pt", "*.pth")
_CONVERT = (
    'python -c "from transformers import AutoModelForCausalLM as M; '
    "M.from_pretrained({0!r}, torch_dtype='auto')"
    '.save_pretrained({0!r}, safe_serialization=True)"'
)
_CONVERT_TOKENIZER = (
    'python -c "from transformers import AutoTokenizer as T; '
    'T.from_pretrained({0!r}).save_pretrained({0!r})"'
)


def find_weights(folder: Path) -> list[Path]:
    """The safetensors files of the folder's model, all of which exist.

    Raises WeightsError for a missing file, with the command that makes it of the pickled
    ones where there are such; those are never opened here, for a pickle can run anything.
    """
    index = folder / f"{WEIGHTS}.index.json"
    files = _indexed(index) if index.is_file() else [folder / WEIGHTS]
    missing = next((path for path in files if not path.is_file()), None)
    if missing is None:
        return files
    if (folder / "adapter_config.json").is_file():
        raise WeightsError(
            f"{folder}: holds adapters without their base; merge them into it first "
            "(PeftModel.merge_and_unload)"
        )
    pickled = [path.name for kind in _PICKLED for path in folder.glob(kind)]
    if pickled and not index.is_file():
        raise WeightsError(
            f"{folder}: expected {WEIGHTS}, got {min(pickled)}, which is not read; convert "
            f"it with {_CONVERT.format(str(folder))}"
        )
    raise WeightsError(f"{missing}: no such file; expected the model's safetensors")


def _indexed(index: Path) -> list[Path]:
    """The files that an index names."""
    try:
        names = set(json.loads(index.read_text())["weight_map"].values())
        return [index.parent / name for name in sorted(names)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{index}: not an index of safetensors files ({error!r})"
        ) from None


def require_tokenizer(name: str, folder: Path) -> None:
    """Refuse a folder without the file of a fast tokenizer; `name` is the field's."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        slow = (folder / "tokenizer.model").is_file()
        mend = (
            f"make one of its tokenizer.model with {_CONVERT_TOKENIZER.format(str(folder))}"
            if slow
            else "give a folder with the files of a Hugging Face fast tokenizer"
        )
        raise WeightsError(f"{name}: no tokenizer.json in {folder}; {mend}")
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise WeightsError(f"{name}: {path} is not JSON ({error})") from None
    if not isinstance(known, dict) or "model" not in known:
        raise WeightsError(f"{name}: {path} is no fast tokenizer (it has no field model)")
