"""What the README says is so."""

import re
import shlex
from pathlib import Path

import click
import pytest

from lab.__main__ import cli as lab_cli
from transformer.__main__ import cli as transformer_cli

ROOT = Path(__file__).parents[1]
TEXTS = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "CONTRIBUTING.md", "docs/log.md")
}
COMMANDS = sorted({
    line.strip().split(" < ")[0]
    for text in TEXTS.values()
    for line in text.splitlines()
    if line.strip().startswith(("python -m transformer ", "python -m lab "))
})  # fmt: skip


def test_the_python_of_the_readme_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (block,) = re.findall(r"```python\n(.*?)```", TEXTS["README.md"], re.S)
    exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert re.search(r"[\u4e00-\u9fff]", printed[0])
    assert printed[1].startswith("torch.Size([3, 6, ")


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_has_the_options_that_are_shown(line):
    _python, _m, module, *arguments = shlex.split(line)
    command: click.Command = {"transformer": transformer_cli, "lab": lab_cli}[module]
    while isinstance(command, click.Group):
        command = command.commands[arguments.pop(0)]
    given, _, _ = command.make_parser(click.Context(command)).parse_args(arguments)
    required = {option.name for option in command.params if option.required}
    assert required <= given.keys()


@pytest.mark.parametrize("name", TEXTS)
def test_every_file_that_is_named_is_there(name):
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", TEXTS[name]):
        assert (ROOT / Path(name).parent / path).exists(), path
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^\s*make ([a-z]+)\b", TEXTS[name], re.M):
        assert re.search(rf"^{target}\b|checkpoint", makefile, re.M), target
