"""The book: what is added to its pages, where its outputs come from, and what makes a build fail."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from pygments.token import Name, Operator

from lab_utils.book import chapters, nbval
from lab_utils.book_links import problems
from lab_utils.book_pages import Outputs, after_title, chapter, lab_page, lexer, recorded_dir, with_receipt
from lab_utils.cluster import Cluster
from lab_utils.paths import repo_dir
from lab_utils.receipt import cni_of
from lab_utils.run import Result, run

HEAD = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3 (ipykernel)
  language: python
  name: python3
---
"""
PAGE = HEAD + "\n# A page\n\nText.\n\n```{code-cell} ipython3\nprint(6 * 7)\n```\n"


# ── what is added to a page ─────────────────────────────────────────────────


def test_a_live_chapter_ends_with_its_receipt_and_says_nothing_else() -> None:
    assert chapter(PAGE, Outputs.LIVE).startswith(HEAD)
    assert chapter(PAGE, Outputs.LIVE) == with_receipt(PAGE).replace("# A page\n", "# A page\n\n\n")


def test_a_chapter_without_outputs_says_so_under_its_title_and_is_not_executed() -> None:
    text = chapter(PAGE, Outputs.MISSING)
    assert "execution_mode: 'off'" in text.split("# A page")[0]
    assert text.index("# A page") < text.index("outputs are missing") < text.index("Text.")
    assert "receipt()" not in text


def test_a_comment_in_a_cell_is_not_taken_for_the_title() -> None:
    text = "# The title\n\n```python\n# not a title\n```\n"
    assert after_title(text, "HERE").index("HERE") < text.index("# not")


def test_a_lab_page_says_how_to_open_the_lab_and_keeps_its_tasks() -> None:
    cells = [nbformat.v4.new_markdown_cell("# A lab\n\nDo it."), nbformat.v4.new_code_cell("lab.check('one')")]  # type: ignore[no-untyped-call]
    text = nbformat.writes(nbformat.v4.new_notebook(cells=cells))  # type: ignore[no-untyped-call]
    page = nbformat.reads(lab_page(text, "07-cni"), as_version=4)  # type: ignore[no-untyped-call]
    assert "lab start 07" in page.cells[0].source
    assert "{download}`lab.ipynb <lab.ipynb>`" in page.cells[0].source
    assert page.cells[0].source.endswith("Do it.\n")
    assert page.cells[1].source == "lab.check('one')"


# ── receipts ────────────────────────────────────────────────────────────────


def daemonset(image: str) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": [{"image": image}]}}}}


def test_a_part_of_a_program_has_the_colours_of_python() -> None:
    tokens = list(lexer()().get_tokens("%%part a.py first\ndef f():\n    return 1\n"))
    assert tokens[0] == (Operator, "%%part")
    assert (Name.Function, "f") in tokens


def test_the_network_addon_is_known_by_its_image() -> None:
    proxy = daemonset("registry.k8s.io/kube-proxy:v1.36.3")
    assert cni_of([proxy, daemonset("ghcr.io/flannel-io/flannel:v0.27.4")]) == "flannel v0.27.4"
    assert cni_of([proxy]) == "unknown"


# ── links ───────────────────────────────────────────────────────────────────


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<h1 id="top">A</h1><a href="b.html#here">b</a><a href="b.html#gone">b</a><a href="c.html">c</a>')
    (tmp_path / "b.html").write_text('<p id="here"></p><a href="#here"></a><a href="https://kubernetes.io">out</a><img src="x.png">')
    assert problems(tmp_path) == [
        "a.html: links to b.html#gone, a place that the page does not have",
        "a.html: links to c.html, which is not there",
        "b.html: loads x.png, which is not there",
    ]


def test_a_page_that_would_load_something_from_the_network_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<script src="https://cdn.example/x.js"></script><link rel="stylesheet" href="//cdn.example/x.css"><img src="data:,">'
    )
    assert len(problems(tmp_path)) == 2


# ── whole builds, of a book with one chapter ────────────────────────────────


@pytest.fixture
def small_book(tmp_path: Path) -> Path:
    config = yaml.safe_load((repo_dir() / "_config.yml").read_text())
    (tmp_path / "_config.yml").write_text(yaml.safe_dump(config))
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/intro\nparts:\n- caption: One\n  chapters:\n  - file: book/one\n")
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "_static").symlink_to(repo_dir() / "book" / "_static")
    (tmp_path / "book" / "intro.md").write_text("# A book\n\n[The page](one.md)\n")
    (tmp_path / "book" / "one.md").write_text(PAGE)
    return tmp_path


def build(book: Path, *options: str, cluster: Cluster | None = None, **more: str) -> Result:
    env = {"LAB_CACHE": str(book / "cache"), "NO_COLOR": "1"} | ({"LAB_CLUSTER": cluster.name} if cluster else {}) | more
    return run([sys.executable, "-m", "lab_utils.book", "build", "--source", book, *options], env=env, check=False, timeout=300)


def page(book: Path) -> str:
    return (book / "_build" / "html" / "book" / "one.html").read_text()


def record_by_hand(book: Path, code: str, says: str) -> None:
    """A recording of this code and the receipt's, as `record` would have written it."""
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    said = nbformat.v4.new_output("stream", name="stdout", text=says)  # type: ignore[no-untyped-call]
    cells = [
        nbformat.v4.new_code_cell(code, outputs=[said]),  # type: ignore[no-untyped-call]
        nbformat.v4.new_code_cell("from lab_utils.receipt import receipt\n\nreceipt()", metadata={"tags": ["remove-input"]}),  # type: ignore[no-untyped-call]
    ]
    recorded_dir(book).mkdir()
    nb = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})  # type: ignore[no-untyped-call]
    nbformat.write(nb, recorded_dir(book) / "one.ipynb")  # type: ignore[no-untyped-call]


def test_without_a_cluster_and_a_recording_the_page_says_that_outputs_are_missing(small_book: Path) -> None:
    done = build(small_book, "--offline")
    assert done.code == 0, done.stdout + done.stderr
    assert "The outputs are missing" in page(small_book)
    assert ">42" not in page(small_book)


def test_without_a_cluster_recorded_outputs_are_shown_and_named_as_such(small_book: Path) -> None:
    record_by_hand(small_book, "print(6 * 7)", "forty-two as recorded\n")
    done = build(small_book, "--offline")
    assert done.code == 0, done.stdout + done.stderr
    assert "forty-two as recorded" in page(small_book)
    assert "Outputs from an earlier run" in page(small_book)


def test_a_recording_of_other_code_is_not_shown(small_book: Path) -> None:
    record_by_hand(small_book, "print(6 * 9)", "fifty-four as recorded\n")
    assert build(small_book, "--offline").code == 0
    assert "fifty-four" not in page(small_book)
    assert "The outputs are missing" in page(small_book)


def test_a_reference_to_no_page_fails_the_build(small_book: Path) -> None:
    (small_book / "book" / "one.md").write_text(PAGE + "\n[nowhere](no-such-page.md)\n")
    done = build(small_book, "--offline")
    assert done.code == 1
    assert "no-such-page" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_plain_html_link_to_no_page_fails_the_build(small_book: Path) -> None:
    (small_book / "book" / "one.md").write_text(PAGE + '\n<a href="no-such-page.html">nowhere</a>\n')
    done = build(small_book, "--offline")
    assert done.code == 1
    assert "links to no-such-page.html, which is not there" in done.stderr


@pytest.mark.cluster
def test_on_a_cluster_a_chapter_is_executed_once_and_carries_its_receipt(small_book: Path, cluster: Cluster) -> None:
    first = build(small_book, cluster=cluster)
    assert first.code == 0, first.stdout + first.stderr
    assert "Executed notebook" in first.stdout
    assert ">42" in page(small_book) and 'class="receipt"' in page(small_book)
    (small_book / "book" / "one.md").write_text(PAGE.replace("Text.", "Another sentence."))
    second = build(small_book, cluster=cluster)
    assert second.code == 0, second.stdout + second.stderr
    assert "Executed notebook" not in second.stdout and "Using cached notebook" in second.stdout
    assert "Another sentence." in page(small_book) and ">42" in page(small_book)


@pytest.mark.cluster
def test_a_chapter_that_need_not_be_executed_is_shown_as_it_was_recorded(small_book: Path, cluster: Cluster) -> None:
    record_by_hand(small_book, "print(6 * 7)", "forty-two as recorded\n")
    done = build(small_book, cluster=cluster, LAB_BOOK_EXECUTE="intro")
    assert done.code == 0, done.stdout + done.stderr
    assert "forty-two as recorded" in page(small_book) and "Outputs from an earlier run" in page(small_book)
    (small_book / "book" / "one.md").write_text(PAGE.replace("6 * 7", "6 * 8"))
    done = build(small_book, cluster=cluster, LAB_BOOK_EXECUTE="intro")
    assert "Executed notebook" in done.stdout, "its code is not the recorded one"
    assert ">48" in page(small_book) and "Outputs from an earlier run" not in page(small_book)
    for options in ([], ["--fresh"]):
        done = build(small_book, *options, cluster=cluster, LAB_BOOK_EXECUTE="intro,one")
        assert ">48" in page(small_book)
        assert ("Executed notebook" in done.stdout) == bool(options), "it had been executed already"


@pytest.mark.cluster
def test_a_cell_that_fails_fails_the_build(small_book: Path, cluster: Cluster) -> None:
    (small_book / "book" / "one.md").write_text(PAGE.replace("6 * 7", "6 / 0"))
    done = build(small_book, cluster=cluster)
    assert done.code == 1
    assert "ZeroDivisionError" in done.stdout + done.stderr + "".join(p.read_text() for p in small_book.rglob("*.err.log"))


# ── this book ───────────────────────────────────────────────────────────────


def test_every_page_of_the_table_of_contents_exists() -> None:
    toc = yaml.safe_load((repo_dir() / "_toc.yml").read_text())
    files = [toc["root"]]
    for part in toc["parts"]:
        for item in part["chapters"]:
            files += [item["file"], *(section["file"] for section in item.get("sections", []))]
    missing = [name for name in files if not ((repo_dir() / f"{name}.md").exists() or (repo_dir() / f"{name}.ipynb").exists())]
    assert missing == []


def test_a_chapter_that_exists_is_not_on_the_roadmap() -> None:
    roadmap = (repo_dir() / "book" / "roadmap.md").read_text()
    written = [path.stem.split("-")[0] for path in chapters(repo_dir()) if path.stem[:2].isdigit()]
    assert [number for number in written if f"- {number} ·" in roadmap] == []


def test_recordings_belong_to_the_code_that_the_chapters_have_now() -> None:
    for path in chapters(repo_dir()):
        recorded = recorded_dir(repo_dir()) / f"{path.stem}.ipynb"
        if not recorded.exists():
            continue
        kept = [cell["source"] for cell in json.loads(recorded.read_text())["cells"]]
        code = ["".join(source).strip() for source in kept]
        assert all(piece in path.read_text() for piece in code[:-1]), f"{path.name} changed: run `make book`, then record it again"


@pytest.mark.beside  # so that both lines of `make test` take about as long
@pytest.mark.cluster
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["03-pods", "08-services"])
def test_a_chapter_says_again_what_it_said(name: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_CLUSTER", cluster.name)
    nbval(repo_dir(), [name])
