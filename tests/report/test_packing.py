"""What a browser gets: small, whole, and without a character that is markup."""

import base64
import gzip
import json
import re

import numpy as np
from benchmarks.report_speed import make_rollout

from stepcoder_jax.report import packing, page


def unpack(text):
    return json.loads(gzip.decompress(base64.b64decode(text)))


def packed(rows):
    packer = packing.Packer()
    for step, row in enumerate(rows):
        packer.add(0, step, row)
    index = packer.finish()
    return index, [row for chunk in packer.chunks for row in unpack(chunk)], packer


def test_columns_and_chunks_hold_all_rows():
    rng = np.random.default_rng(0)
    rows = [make_rollout(rng, i % 7, i) for i in range(packing.CHUNK + 3)]
    index, details, packer = packed(rows)
    assert packer.count == len(details) == len(rows) and len(packer.chunks) == 2
    assert index["order"] == ["introductory", "interview", "competition"]
    for i in (0, packing.CHUNK, len(rows) - 1):
        row, columns, detail = rows[i], index["columns"], details[i]
        assert index["problems"][columns["problem"][i]] == row["problem"]
        assert index["verdicts"][columns["verdict"][i]] == row["verdict"]
        assert columns["tokens"][i] == len(row["spans"])
        assert columns["masked"][i] == row["executed"].count(0)
        assert detail["executed"] == "".join(map(str, row["executed"]))
        assert detail["sizes"][-1] == -1 and detail["begin"] == row["spans"][0][0]
        ends = np.cumsum(detail["sizes"][:-1]) + detail["begin"]
        assert ends.tolist() == [span[1] for span in row["spans"][:-1]]
        np.testing.assert_allclose(
            np.array(detail["logprobs"]) / 100, row["logprobs"], atol=0.0051
        )
        np.testing.assert_allclose(
            np.array(detail["values"]) / 1000, row["values"], atol=0.00051
        )


def test_spans_with_gaps_are_kept():
    row = make_rollout(np.random.default_rng(0), 0, 0)
    row |= {name: [] for name in ("executed", "logprobs", "advantages", "values")}
    row["spans"] = [None, [4, 6], [6, 6], None, [9, 12], None]
    _, (detail,), _ = packed([row])
    assert detail["begin"] == 4 and detail["sizes"] == [-1, 2, 0, -1, 3, -1]
    assert detail["gaps"] == [[4, 3]]


def test_older_rows_are_filled_in():
    row = make_rollout(np.random.default_rng(0), 1, 0)
    for name in ("difficulty", "rewards", "shown", "logprobs", "values"):
        del row[name]
    index, (detail,), _ = packed([row])
    assert index["difficulties"] == ["interview"]  # of the problem's id
    assert detail["rewards"] == [[len(row["spans"]) - 1, row["reward"]]]
    assert detail["shown"] == [] and "logprobs" not in detail


def test_hostile_text_is_capped_and_cannot_leave_its_element():
    row = make_rollout(np.random.default_rng(0), 1, 0)
    text = "</script><script>x()</script><!-- data --> \ud800 \x00 \u202e"
    row |= {"head": text, "completion": "y" * 10**6, "message": text, "problem": text}
    row["shown"] = [{"test": 0, "Call": text, "deep": [[[]]]}, "no object"] + [{}] * 99
    row["turns"] = {"no": "list"}
    index, (detail,), packer = packed([row])
    assert detail["head"] == text.replace("\ud800", "\ufffd")
    assert len(detail["completion"]) == packing.MOST_TEXT and detail["turns"] == []
    assert len(detail["shown"]) < 20 and set(detail["shown"][0]) == {"test", "Call"}
    whole = "".join(page.render({"name": text}, index, packer.chunks))
    blocks = re.findall(r'<script type="text/plain" id="(\w+)">([^<]*)</script>', whole)
    assert [name for name, _ in blocks] == ["head", "index", "chunk0"]
    assert all(re.fullmatch(r"[A-Za-z0-9+/=]+", data) for _, data in blocks)
    assert whole.count("<script") == 4 and "x()" not in whole


def test_what_json_has_not_is_null():
    value = {"a": [float("nan"), 1.5, {"b": float("-inf")}], "NaN": "NaN"}
    assert unpack(packing.pack(value)) == {"a": [None, 1.5, {"b": None}], "NaN": "NaN"}


def test_the_page_loads_nothing():
    """Its policy lets its own script run, and nothing else."""
    whole = "".join(page.render({}, {}, []))
    policy = re.search(r'Security-Policy" content="([^"]*)"', whole)[1]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy and "script-src 'sha256-" in policy
    assert not re.search(r"(src|href)=|https?://(?!www\.w3\.org/2000/svg)|@import", whole)
    assert "innerHTML" not in whole and "<!-- " not in whole
    for word in ("insertAdjacentHTML", "outerHTML", "document.write", "eval("):
        assert word not in whole
