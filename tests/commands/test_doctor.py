"""`stepcoder doctor`: what it says of interpreters and of sandboxes with holes."""

import shutil
import sys

from stepcoder_jax.commands import doctor
from stepcoder_jax.execution import Pool
from stepcoder_jax.execution.sandbox import canaries
from tests.execution.kit import make_settings


def test_a_whole_sandbox_needs_no_mend():
    with Pool(make_settings(workers=1)) as pool:
        heading, lines = doctor.heading("", pool), doctor.details(pool)
    version = sys.version.split()[0]
    finest = "expression" if sys.version_info >= (3, 12) else "statement"
    assert heading == (
        f"level L3 of 3, Python {version}, coverage by {finest}: {sys.executable}"
    )
    words = {line[2:30].strip(): line[31:] for line in lines}
    assert words["landlock"].startswith("ABI ") and words["TCP"].startswith("held: ")
    assert not any("mend" in line for line in lines)


def test_every_hole_has_its_mend():
    with Pool(make_settings(workers=1, without=("seccomp",), min_level=0)) as pool:
        text = "\n".join([doctor.heading("other", pool), *doctor.details(pool)])
    assert text.startswith("level L1 of 3") and "switched off" in text
    assert text.count("mend: ") == 1 and "mend: allow seccomp filters" in text
    with Pool(make_settings(workers=1)) as pool:
        assert set(doctor._MENDS) == set(pool.canaries)
    assert canaries.level(dict.fromkeys(doctor._MENDS, "held: X")) == 3


def test_interpreters_on_path_are_tried(tmp_path, monkeypatch, capsys):
    (tmp_path / "python3.12").symlink_to(shutil.which("true"))
    (tmp_path / "python3.13").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "python3.13").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    names = ["", str(tmp_path / "python3.12"), str(tmp_path / "python3.13")]
    assert doctor.interpreters() == names
    assert doctor.doctor() == 0
    text = capsys.readouterr().out
    assert text.count("isolation  level L") == 2 and text.count("landlock") == 1
    assert "isolation  none: the judge's worker did not start" in text
    assert text.endswith(f": {names[2]}\n  as above\n")
