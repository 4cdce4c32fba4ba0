"""Tapes: what was recorded is shown as it was, and only while it belongs to the commands on the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab_utils.errors import BadInput
from lab_utils.paths import repo_dir
from lab_utils.tape import Tape, fill, read_script, shorten

SCRIPT = """\
lab: 01-kubeadm
takes:
- {name: hello, machine: cp, run: "echo hello\\necho again"}
- {name: fails, machine: w1, run: "false"}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "book" / "_tapes"
    folder.mkdir(parents=True)
    (folder / "90-x.yaml").write_text(SCRIPT)
    takes = [
        {"name": "hello", "machine": "cp", "run": "echo hello\necho again", "said": "hello\nagain\n", "code": 0, "seconds": 0.0},
        {"name": "fails", "machine": "w1", "run": "false", "said": "", "code": 1, "seconds": 2.5},
    ]
    data = {"receipt": {"provider": "embedded <b>"}, "script": [[t["name"], t["machine"], t["run"]] for t in takes], "takes": takes}
    (folder / "90-x.json").write_text(json.dumps(data))
    return tmp_path


def test_a_take_is_shown_as_a_terminal_would_show_it(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tape = Tape.of("90-x", root)
    tape.play("hello")
    tape.play("fails")
    assert capsys.readouterr().out == (
        "root@cp:~# echo hello\n> echo again\nhello\nagain\n(at once: 0.0 s)\nroot@w1:~# false\n(took 2.5 s, and ended with code 1)\n"
    )


def test_a_tape_says_on_what_it_was_made(root: Path) -> None:
    assert "embedded &lt;b&gt;" in Tape.of("90-x", root)._repr_mimebundle_()["text/html"]
    assert "not executed while the page was built" in Tape.of("90-x", root)._repr_mimebundle_()["text/html"]


def test_a_tape_whose_commands_have_changed_since_is_refused(root: Path) -> None:
    script = root / "book" / "_tapes" / "90-x.yaml"
    script.write_text(script.read_text().replace("echo again", "echo once more"))
    with pytest.raises(BadInput, match="holds other commands"):
        Tape.of("90-x", root)


def test_what_is_not_there_is_said(root: Path) -> None:
    with pytest.raises(BadInput, match="nothing named 'never' on this tape"):
        Tape.of("90-x", root).take("never")
    with pytest.raises(BadInput, match="there is no tape"):
        Tape.of("91-y", root)


def test_names_that_were_kept_are_put_into_later_commands() -> None:
    assert (
        fill("join {{CP}}:6443 --token {{TOKEN}}, {a: {{CP}}}", {"CP": "10.0.0.1", "TOKEN": "t"})
        == "join 10.0.0.1:6443 --token t, {a: 10.0.0.1}"
    )
    with pytest.raises(BadInput, match="none before it has kept"):
        fill("{{HASH}}", {"CP": "10.0.0.1"})


def test_lines_that_are_left_out_leave_dots_behind() -> None:
    assert shorten(["a", "[certs] 1", "[certs] 2", "b"], r"^\[certs\]") == ["a", "…", "b"]


@pytest.mark.parametrize("path", sorted((repo_dir() / "book" / "_tapes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_tape_of_the_book_holds_the_commands_of_its_script(path: Path) -> None:
    assert read_script(path)[1]
    assert Tape.of(path.stem).receipt
