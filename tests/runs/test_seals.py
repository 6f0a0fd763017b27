"""A sealed folder: any file that is torn, flipped, gone or new is named."""

import pytest

from stepcoder_jax.runs.disk import seals

DAMAGES = {
    "torn": ("a/one", lambda path: path.write_bytes(path.read_bytes()[:-1]), "is not what"),
    "empty": ("two", lambda path: path.write_bytes(b""), "is not what"),
    "flipped": (
        "two",
        lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1])),
        "is not what",
    ),
    "gone": ("a/one", lambda path: path.unlink(), "is missing"),
    "new": ("a/three", lambda path: path.write_bytes(b"x"), "is not one of its files"),
    "seal": (seals.SEAL, lambda path: path.write_text("{"), "cannot be read"),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "two").write_bytes(b"\x00")
    seals.seal(tmp_path)
    return tmp_path


def test_a_folder_as_it_was_sealed(folder):
    assert seals.is_sealed(folder) and seals.find_damage(folder) == ""


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named(folder, name):
    file, damage, words = DAMAGES[name]
    damage(folder / file)
    assert seals.find_damage(folder).startswith(f"{file} {words}")
