"""Build the book on a live cluster.

    python -m lab_utils.book build       execute what changed, build, check every link
    python -m lab_utils.book record      keep the outputs of the last run in the repository, for readers without a cluster
    python -m lab_utils.book nbval       run the chapters again, and compare the outputs that are marked as stable

Chapters are executed by Jupyter Book, one after the other, with its own cache; `lab_utils.book_pages` is what it adds.
A build without a cluster says so on each page. `build` starts a cluster by itself where it can, and removes only that one.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import click

from lab_utils.book_pages import OFFLINE, cluster_answers, executes, known_run, live_cache, recorded_dir
from lab_utils.cli import finish
from lab_utils.errors import BadInput, CommandFailed, Unhealthy
from lab_utils.paths import repo_dir
from lab_utils.receipt import receipt
from lab_utils.run import run

__all__ = ["build_book", "chapters", "nbval", "receipt", "record"]

OWN_CLUSTER = "book"


def chapters(root: Path) -> list[Path]:
    """The pages that run, in reading order: those of the table of contents that are notebooks."""
    import yaml
    from myst_nb.core.read import is_myst_markdown_notebook

    toc = yaml.safe_load((root / "_toc.yml").read_text())
    files = [toc["root"], *(item["file"] for part in toc["parts"] for item in part["chapters"])]
    paths = [root / f"{name}.md" for name in files]
    return [path for path in paths if path.exists() and is_myst_markdown_notebook(path.read_text())]


class Aloud:
    """Progress as plain lines: a book is mostly built by machines, whose logs people read later."""

    def step(self, what: str) -> nullcontext[None]:
        click.echo(f"book: {what}")
        return nullcontext()

    def note(self, what: str) -> None:
        pass

    def now(self, what: str) -> None:
        pass


@contextmanager
def a_cluster(offline: bool) -> Iterator[str]:
    """A cluster to execute on: the running one, or one of our own that is gone afterwards. Says in a word what it found."""
    from lab_utils.cluster import connect
    from lab_utils.providers import ClusterSpec, provider

    before = dict(os.environ)
    try:
        if offline:
            os.environ[OFFLINE] = "1"
            yield "no cluster, as asked: outputs come from earlier runs"
        elif cluster_answers():
            os.environ["LAB_CLUSTER"] = connect().name  # another one may be started meanwhile
            yield "the running cluster"
        else:
            embedded = provider("embedded")
            able = embedded.usability()
            if not able.usable:
                os.environ[OFFLINE] = "1"
                yield f"no cluster ({able.why}): outputs come from earlier runs"
                return
            os.environ["LAB_CLUSTER"] = OWN_CLUSTER
            try:
                embedded.up(ClusterSpec(OWN_CLUSTER), Aloud())
                yield f"a cluster of its own, named {OWN_CLUSTER!r}"
            finally:
                embedded.down(OWN_CLUSTER, Aloud())
    finally:
        os.environ.clear()
        os.environ.update(before)


def build_book(root: Path, *, fresh: bool = False, offline: bool = False) -> Path:
    """Build into `_build/html` of the book's root; raise `Unhealthy` for any warning, failed cell or link that leads nowhere."""
    from jupyter_book.cli.main import build

    if fresh:
        shutil.rmtree(live_cache(), ignore_errors=True)
    out = root / "_build" / "html"
    with a_cluster(offline) as which:
        click.echo(f"book: on {which}")
        if OFFLINE not in os.environ:
            fetch_needs(root)
        # --all: what a page says about its outputs depends on the cluster, which Sphinx does not watch. Cells come from the cache.
        words = [str(root), "-W", "-n", "--keep-going", "--all"]
        try:
            build.main(words, prog_name="jupyter-book", standalone_mode=False)
        except (SystemExit, RuntimeError, click.ClickException) as error:
            raise Unhealthy(
                "the book has warnings or a cell that failed: see above", "Logs of failed cells: _build/html/reports/"
            ) from error
    from lab_utils.book_links import problems

    if found := problems(out):
        raise Unhealthy("the built book has broken links:\n  " + "\n  ".join(found))
    return out


def fetch_needs(root: Path) -> None:
    """What chapters that may run give their cluster, as their labs do. A cell has a time limit, which a first build of an image exceeds."""
    from lab_utils.addons import fetch
    from lab_utils.labs.catalog import all_labs

    pages = {path.stem for path in chapters(root) if executes(path.stem) or known_run(root, path.stem, path.read_text()) is None}
    for lab in all_labs():
        if lab.name in pages:
            needs = lab.spec.needs
            fetch(Aloud(), metrics=needs.metrics, storage=needs.storage, ingress=needs.ingress, images=needs.images)


def record(root: Path) -> list[Path]:
    """Keep the newest run of each chapter's code in `book/_recorded`. Prose is not kept: it could only grow old."""
    import nbformat

    written = []
    for path in chapters(root):
        run = known_run(root, path.stem, path.read_text())
        if run is None:
            raise BadInput(f"{path.name} was not run with the code that it has now", "Run `make book` first")
        target = recorded_dir(root) / f"{path.stem}.ipynb"
        target.parent.mkdir(exist_ok=True)
        nbformat.write(run, target)  # type: ignore[no-untyped-call]
        written.append(target)
    return written


def nbval(root: Path, names: Sequence[str] = ()) -> None:
    """Run recorded chapters (without names, all) under `pytest --nbval-lax`: cells tagged nbval-check-output must say the same again."""
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(recorded_dir(root).glob("*.ipynb")):
            if not names or path.stem in names:
                shutil.copy(path, folder)
        if not list(Path(folder).iterdir()):
            raise BadInput("no chapter is recorded", "Run `make book`, then `python -m lab_utils.book record`")
        options = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=240", "-p", "no:cacheprovider", "-q", "--timeout=900"]
        try:
            said = run([sys.executable, "-m", "pytest", "-c", "/dev/null", f"--rootdir={folder}", *options, folder], cwd=folder)
        except CommandFailed as error:
            raise Unhealthy(f"a chapter does not say again what it said:\n{error.stdout}") from None
        click.echo(said.stdout)


SOURCE = click.option(
    "--source",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=repo_dir,
    help="The folder with _config.yml and _toc.yml.",
)


@click.group()
def main() -> None:
    """Build, record and recheck the book."""


@main.command("build")
@click.option("--fresh", is_flag=True, help="Forget earlier runs: execute every chapter that would be executed on a new machine.")
@click.option("--offline", is_flag=True, help="Use no cluster: outputs come from earlier runs, and each page says so.")
@SOURCE
def build_command(fresh: bool, offline: bool, source: Path) -> None:
    """Execute what changed and write the book to _build/html."""
    start = time.monotonic()
    out = build_book(source, fresh=fresh, offline=offline)
    click.echo(f"book: {out / 'index.html'} ({time.monotonic() - start:.0f} s)")


@main.command("record")
@SOURCE
def record_command(source: Path) -> None:
    """Keep the outputs of the last run in book/_recorded."""
    for path in record(source):
        click.echo(f"book: {path.relative_to(source)} ({path.stat().st_size // 1024} kB)")


@main.command("nbval")
@click.argument("names", nargs=-1)
@SOURCE
def nbval_command(names: tuple[str, ...], source: Path) -> None:
    """Run the chapters again and compare stable outputs."""
    nbval(source, names)


if __name__ == "__main__":
    finish(main, "python -m lab_utils.book")
