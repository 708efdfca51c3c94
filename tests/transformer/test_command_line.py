"""The command line, as a person in a shell meets it."""

import gzip
import hashlib
import io
import json
import math
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
from safetensors.numpy import load_file

from transformer.__main__ import cli
from transformer.command_line import run_command

ROOT = Path(__file__).parents[2]
CHECKPOINTS = ROOT / "assets" / "checkpoints"
RECIPE = ROOT / "assets" / "recipes" / "reverse.toml"
SMALL = [
    f"--set={setting}"
    for setting in (
        "data.task_train=300", "data.task_dev=20", "model.d_model=16", "model.num_heads=2", "model.d_ff=32",
        "training.steps=60", "training.batch_tokens=300", "training.evaluate_every=10", "training.warmup_steps=10",
    )
]  # fmt: skip


@pytest.fixture
def run(monkeypatch, capsysbinary):
    """Run a command in this process: ``run(*arguments, lines=b"")`` gives status, output and errors."""

    def command(*arguments, lines=b""):
        monkeypatch.setattr(sys, "argv", ["transformer", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
        status = 0
        try:
            run_command(cli)
        except SystemExit as end:
            status = end.code
        captured = capsysbinary.readouterr()
        return status, captured.out.decode(), captured.err.decode()

    return command


def refused(outcome, *words):
    """Whether a command ended with one sentence on stderr and exit status 2."""
    status, output, errors = outcome
    assert status == 2
    assert output == ""
    assert errors.count("\n") == 1
    assert "Traceback" not in errors
    for word in words:
        assert word in errors
    return True


def test_a_training_killed_in_the_middle_ends_with_the_same_weights(tmp_path):
    command = [sys.executable, "-m", "transformer", "train", str(RECIPE), *SMALL, "--threads=1"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run([*command, f"--output={whole}"], cwd=ROOT, check=True, capture_output=True)

    process = subprocess.Popen(
        [*command, f"--output={broken}"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (broken / "training_state.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (broken / "training_state.safetensors").exists()
    steps = [json.loads(line)["step"] for line in (broken / "metrics.jsonl").read_text().splitlines() if line]
    assert max(steps) < 60

    subprocess.run([*command, f"--output={broken}", "--resume"], cwd=ROOT, check=True, capture_output=True)
    expected, found = load_file(whole / "model.safetensors"), load_file(broken / "model.safetensors")
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[name], found[name]) for name in expected)


def test_train_says_what_is_wrong(run, tmp_path):
    assert refused(run("train", tmp_path / "none.toml", "--output", tmp_path / "x"), "none.toml")
    assert refused(run("train", RECIPE, "--output", tmp_path / "x", "--set", "model.d_model=7"), "d_model")
    assert refused(run("train", RECIPE, "--output", tmp_path / "x", "--set", "model.width=7"), "width")
    assert refused(run("train", RECIPE, "--output", tmp_path / "x", "--resume"), "resume")
    assert refused(run("train", ROOT / "assets/recipes/en-zh.toml", "--output", tmp_path / "x"), "data")
    assert not (tmp_path / "x" / "model.safetensors").exists()


def test_translate_answers_every_line_in_order(run):
    lines = b"3 1 4 1\n\n1 2 3 4 5 6 7 8\n9 8 7 6\n"
    status, output, _ = run("translate", "--checkpoint", CHECKPOINTS / "reverse", lines=lines)
    assert status == 0
    assert output == "1 4 1 3\n\n8 7 6 5 4 3 2 1\n6 7 8 9\n"


def test_translate_says_what_is_wrong(run, tmp_path):
    assert refused(run("translate", "--checkpoint", tmp_path), str(tmp_path))
    broken = tmp_path / "broken"
    shutil.copytree(CHECKPOINTS / "reverse", broken)
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:1000])
    assert refused(run("translate", "--checkpoint", broken, lines=b"1 2\n"), "model.safetensors")
    (broken / "config.json").write_text("{")
    assert refused(run("translate", "--checkpoint", broken, lines=b"1 2\n"), "config.json")
    long = b"1\n" + b"1 " * 500 + b"\n"
    assert refused(run("translate", "--checkpoint", CHECKPOINTS / "reverse", lines=long), "Line 2", "500")
    assert refused(
        run("translate", "--checkpoint", CHECKPOINTS / "reverse", lines=b"1\n\xff\n"), "Line 2", "UTF-8"
    )


@pytest.mark.parametrize(
    ("name", "source", "target"),
    [
        ("en-zh", "If it rains tomorrow, we will stay at home.", None),
        ("en-zh", "I love 北京 and 😀.", "我爱北京。"),
        ("en-zh", "她昨天买的那本书很有意思。", None),
        ("reverse", "3 1 4 1 5", None),  # rotary positions
        ("sort", "3 1 4 1 5", "1 1 3"),  # learned positions
        ("anaphora", "女王看见了厨师，因为他来晚了。", None),
    ],
)
def test_inspect_writes_arrays_that_obey_the_papers_equation(run, tmp_path, name, source, target):
    path = tmp_path / "arrays.npz"
    arguments = [] if target is None else ["--target", target]
    status, _, errors = run(
        "inspect", "--checkpoint", CHECKPOINTS / name, "--source", source, *arguments, "--output", path
    )
    assert (status, errors) == (0, "")
    arrays = np.load(path, allow_pickle=False)
    sources, targets = len(arrays["source_tokens"]), len(arrays["target_tokens"])
    assert arrays["source_tokens"][-1] == "<eos>"
    assert arrays["target_tokens"][0] == "<bos>"
    modules = [key.removesuffix(".scores") for key in arrays.files if key.endswith(".scores")]
    assert len(modules) == 3 * (3 if name == "en-zh" else 2)
    for module in modules:
        queries, keys, values = (arrays[f"{module}.{part}"] for part in ("queries", "keys", "values"))
        scores, weights, mask = (arrays[f"{module}.{part}"] for part in ("scores", "weights", "mask"))
        rows = sources if module.startswith("encoder") else targets
        columns = targets if module.startswith("decoder") and "self" in module else sources
        assert weights.shape[1:] == (rows, columns)
        np.testing.assert_allclose(
            scores, queries @ keys.swapaxes(-1, -2) / math.sqrt(queries.shape[-1]), atol=1e-5
        )
        allowed = np.broadcast_to(mask, scores.shape)
        shifted = np.where(allowed, scores, -np.inf).astype(np.float64)
        exponents = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
        np.testing.assert_allclose(weights, exponents / exponents.sum(-1, keepdims=True), atol=1e-5)
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
        assert (weights[~allowed] == 0).all()
        np.testing.assert_allclose(weights @ values, arrays[f"{module}.head_outputs"], atol=1e-5)
        if columns == targets == rows and "self" in module and module.startswith("decoder"):
            assert np.array_equal(allowed[0], np.tril(np.ones((rows, rows), bool)))


@pytest.mark.parametrize(("source", "word"), [("", "empty"), ("  ", "empty"), ("word " * 500, "tokens")])
def test_inspect_says_what_is_wrong(run, tmp_path, source, word):
    path = tmp_path / "arrays.npz"
    arguments = ("--checkpoint", CHECKPOINTS / "reverse", "--source", source, "--output", path)
    assert refused(run("inspect", *arguments), word)
    assert not path.exists()


def test_evaluate_counts_as_sacrebleu_does(run, tmp_path):
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("1 2 3 4 5\t5 4 3 2 1\n1 2 3 4 5\t5 4 3 1 2\n7 8 9 1 2\t2 1 9 9 9\n", encoding="utf-8")
    status, output, _ = run("evaluate", "--checkpoint", CHECKPOINTS / "reverse", "--pairs", pairs)
    assert status == 0
    assert output.count("\n") == 1
    found = json.loads(output)
    references = [["5 4 3 2 1", "2 1 9 9 9"], ["5 4 3 1 2", None]]
    bleu = sacrebleu.BLEU()
    assert found["bleu"] == pytest.approx(bleu.corpus_score(["5 4 3 2 1", "2 1 9 8 7"], references).score)
    assert found["bleu_signature"] == str(bleu.get_signature())
    assert found["chrf"] == pytest.approx(
        sacrebleu.CHRF().corpus_score(["5 4 3 2 1", "2 1 9 8 7"], references).score
    )
    assert found["sentences"] == 2
    assert found["seconds"] > 0
    assert refused(
        run("evaluate", "--checkpoint", CHECKPOINTS / "reverse", "--pairs", tmp_path / "no.tsv"), "no.tsv"
    )


def zipped(**members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in members.items():
            archive.writestr(name.replace("_", "."), text)
    return buffer.getvalue()


def test_fetch_splits_what_it_downloads_by_source(run, tmp_path, server):
    folder, address = server
    lines = [f"source {n % 40}\t译文{n}\tCC-BY 2.0 (France)" for n in range(100)]
    (folder / "cmn-eng.zip").write_bytes(zipped(cmn_txt="\n".join(lines), about_txt="who made it"))
    checksum = hashlib.sha256((folder / "cmn-eng.zip").read_bytes()).hexdigest()
    data = tmp_path / "data"
    arguments = (
        f"{address}/cmn-eng.zip",
        "--sha256",
        checksum,
        "--output",
        data,
        "--name",
        "tatoeba/cmn-eng",
    )
    assert run("fetch", *arguments, "--dev", 10)[0] == 0
    parts = {
        part: [line.split("\t") for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
        for part in ("train", "dev")
        for path in [data / "tatoeba" / f"cmn-eng.{part}.tsv.gz"]
    }
    assert sorted(map(tuple, parts["train"] + parts["dev"])) == sorted(
        tuple(line.split("\t")[:2]) for line in lines
    )
    held_out = {source for source, _ in parts["dev"]}
    assert len(held_out) == 10
    assert not held_out & {source for source, _ in parts["train"]}


def test_fetch_says_what_is_wrong(run, tmp_path, server):
    folder, address = server
    contents = {
        "other.zip": zipped(picture_png="x"),
        "damaged.zip": zipped(a_txt="a\tb")[:40],
        "one.tsv": b"a\tb\n",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)

    def fetch(name, *more, checksum=None, called="pairs"):
        checksum = checksum or hashlib.sha256(contents.get(name, b"")).hexdigest()
        data = tmp_path / "data"
        return run(
            "fetch", f"{address}/{name}", "--sha256", checksum, "--output", data, "--name", called, *more
        )

    assert refused(fetch("other.zip"), "other.zip", ".txt")
    assert refused(fetch("damaged.zip"))
    assert refused(fetch("one.tsv", checksum="0" * 64), "SHA-256")
    assert refused(fetch("missing.tsv"), "missing.tsv")
    assert refused(fetch("one.tsv", called="../pairs"), "../pairs")
    assert refused(fetch("one.tsv", "--dev", 5), "5 sources")
    assert not list((tmp_path / "data").glob("pairs*"))
