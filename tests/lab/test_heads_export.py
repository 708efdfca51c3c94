"""What is taken away holds the same numbers, and asks nothing of any network."""

import csv
import io
import json
import re

import numpy as np
import pytest

from lab.figures.heads import Selection, heads_payload
from lab.figures.heads_export import CSV_COLUMNS, guard_cell, to_csv, to_html
from tests.lab.heads_sample import sample_maps

NASTY = ["=1+1", "</script>", "a,b", 'say "hi"', "new\nline", "-2", "@x", "＝1", "书", "&amp;"]


def test_csv_reads_back_as_the_weights():
    maps = sample_maps(NASTY, ["她", "=SUM(A1)", "b"], layers=2, heads=2)
    block = to_csv(maps)
    assert block.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(block.decode("utf-8-sig"), newline="")))
    assert tuple(rows[0]) == CSV_COLUMNS
    at = 0
    for attention in maps:
        part = rows[at : at + attention.weights.size]
        at += attention.weights.size
        weights = np.array([row["weight"] for row in part], np.float32).reshape(attention.weights.shape)
        assert (weights == attention.weights).all()
        masked = np.array([row["masked"] == "1" for row in part]).reshape(attention.weights.shape)
        assert (masked == ~attention.mask).all()
        for place, row in zip(np.ndindex(attention.weights.shape), part, strict=True):
            layer, head, query, key = place
            assert (row["map"], int(row["layer"]), int(row["head"])) == (attention.key, layer + 1, head + 1)
            assert (int(row["query_position"]), int(row["key_position"])) == (query + 1, key + 1)
            assert row["query_token"] == guard_cell(attention.query_tokens[query])
            assert row["key_token"] == guard_cell(attention.key_tokens[key])
            told = attention.predicted_tokens
            assert row["predicted_token"] == (guard_cell(told[query]) if told else "")
    assert at == len(rows)


@pytest.mark.parametrize("token", ["=1", "+1", "-1", "@a", "\tx", "\rx", "\nx", "＝1"])
def test_no_cell_starts_a_formula(token):
    assert guard_cell(token) == "'" + token
    assert guard_cell("a" + token) == "a" + token


def test_html_is_one_file_that_no_token_can_break():
    maps = sample_maps([*NASTY, "<!--", "<script>", "\u2028"], ["她"])
    payload = heads_payload(
        maps, selection=Selection(), view="tokens", scale="unit", strings={"language": "zh"}, causal=None
    )
    text = to_html(payload, "<b>title</b> & more")
    assert not re.search(r"\bhttps?:|\bwss?:|\bsrc=|<link|@import|url\((?!#)", text)
    assert "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'" in text
    assert "<title>&lt;b&gt;title&lt;/b&gt; &amp; more</title>" in text
    assert '<html lang="zh">' in text
    assert text.count("</script>") == text.count("<script") == 2
    block = text.split('id="payload">')[1].split("</script>")[0]
    data = json.loads(block)
    assert data["maps"][0]["key_tokens"] == [*NASTY, "<!--", "<script>", "\u2028"]
