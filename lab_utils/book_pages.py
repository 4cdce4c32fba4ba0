"""A Sphinx extension: what this book adds to each page before Jupyter Book reads it.

    a chapter   its receipt, as a last cell that runs with the others: outputs and receipt are one, in the cache too.
                Without a cluster, a word at the top about where the outputs came from, or that there are none.
    a lab       how to open it; nothing of a lab is executed here, and its solutions are not in it.

Executed chapters are kept by jupyter-cache under the cache folder, keyed by their code and nothing else, so that
mending a sentence runs nothing again. `book/_recorded/NN-topic.ipynb` holds the outputs of one run for readers without
a cluster; it is used only while it belongs to the very code on the page.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab_utils.errors import LabError
from lab_utils.paths import cache_dir

if TYPE_CHECKING:
    from sphinx.application import Sphinx

OFFLINE = "LAB_BOOK_OFFLINE"  # set: look for no cluster, execute nothing
EXECUTE = "LAB_BOOK_EXECUTE"  # names of chapters: others are executed only if there is no recording of their very code
RECEIPT = "\n\n```{code-cell} ipython3\n:tags: [remove-input]\nfrom lab_utils.receipt import receipt\n\nreceipt()\n```\n"


class Outputs(Enum):
    """Where the outputs of a page come from."""

    LIVE = "live"  # executed on a cluster, in this build or in an earlier one with the same code
    KEPT = "kept"  # an earlier run of the same code
    MISSING = "missing"  # no cluster, and no run of this code is known


def recorded_dir(root: Path) -> Path:
    return root / "book" / "_recorded"


def executed_cache() -> Path:
    return cache_dir() / "book" / "executed"


def offline_cache() -> Path:
    """Apart from the other, or a build on a cluster would take a recording for its own run."""
    return cache_dir() / "book" / "offline"


def recorded_cache() -> Path:
    """Of builds that execute a part and take the rest from recordings."""
    return cache_dir() / "book" / "recorded"


def live_cache() -> Path:
    """Where a build on a cluster finds runs of the same code, and puts its own."""
    return recorded_cache() if EXECUTE in os.environ else executed_cache()


def executes(docname: str) -> bool:
    """Whether a build on a cluster executes this chapter in any case."""
    chosen = os.environ.get(EXECUTE)
    return chosen is None or Path(docname).name in chosen.split(",")


def cluster_answers() -> bool:
    from lab_utils.cluster import connect

    if os.environ.get(OFFLINE):
        return False
    try:
        return connect().kubectl("get", "--raw", "/readyz", check=False, timeout=10).ok
    except LabError:
        return False


def with_receipt(text: str) -> str:
    return text.rstrip() + RECEIPT


def after_title(text: str, insert: str) -> str:
    """Put a block below the first heading, or at the end if there is none."""
    head = re.search(r"^# .+\n", text, re.M)
    place = head.end() if head else len(text)
    return f"{text[:place]}\n{insert}\n{text[place:]}"


BANNER = {
    Outputs.LIVE: "",
    Outputs.KEPT: (
        ":::{admonition} Outputs from an earlier run\n:class: note outputs-kept\n"
        "The outputs on this page were not made while this copy of the book was built, but earlier, by exactly this code: "
        "the receipt at its end says when and where.\n:::\n"
    ),
    Outputs.MISSING: (
        ":::{admonition} The outputs are missing\n:class: warning outputs-missing\n"
        "This copy of the book was built without a cluster, and no run of this page's code was kept. You see the commands only. "
        "`lab up`, then `make book`, fills them in.\n:::\n"
    ),
}


def chapter(text: str, outputs: Outputs) -> str:
    text = after_title(text, BANNER[outputs])
    if outputs is Outputs.MISSING:  # myst-nb reads its settings for one page from the front matter
        return text.replace("---\n", "---\nmystnb:\n  execution_mode: 'off'\n", 1)
    return with_receipt(text)


def keep(root: Path, docname: str, text: str, place: Path) -> Outputs:
    """Find a run of this code, and lay it into the cache that the build looks into."""
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn

    run = known_run(root, docname, text)
    if run is None:
        return Outputs.MISSING
    get_cache(place).cache_notebook_bundle(CacheBundleIn(run, docname, data={}), check_validity=False, overwrite=True)
    return Outputs.KEPT


def known_run(root: Path, docname: str, text: str) -> Any:
    """The newest run of the code that the page has now, or None."""
    from jupyter_cache import get_cache
    from myst_nb.core.read import read_myst_markdown_notebook

    notebook = read_myst_markdown_notebook(with_receipt(text))
    wanted = get_cache(executed_cache()).create_hashed_notebook(notebook)[1]
    return next((run for known, run in _runs(root, docname, notebook) if known == wanted), None)


def _runs(root: Path, docname: str, notebook: Any) -> Any:
    """Runs that may fit, the newest first: (hash, notebook with outputs)."""
    import nbformat
    from jupyter_cache import get_cache

    for place in (executed_cache(), recorded_cache()):
        cache = get_cache(place)
        with suppress(KeyError):
            record = cache.match_cache_notebook(notebook)
            yield record.hashkey, cache.get_cache_bundle(record.pk).nb
    recorded = recorded_dir(root) / f"{Path(docname).name}.ipynb"
    if recorded.exists():
        nb = nbformat.read(recorded, as_version=4)  # type: ignore[no-untyped-call]
        yield get_cache(executed_cache()).create_hashed_notebook(nb)[1], nb


def lab_page(text: str, name: str) -> str:
    """The lab's notebook, with a cell below its title that says how to work on it."""
    import nbformat

    number = name.split("-")[0]
    how = f"""\
:::{{admonition}} How to work on this lab
:class: tip lab-how
These are the tasks. They are done in JupyterLab, on a cluster of your own:

```console
$ lab up            # a cluster, if there is none yet
$ lab start {number}      # JupyterLab, open on this lab
```

In a JupyterLab that runs already, open `{name}/lab.ipynb`. Or take the notebook alone: {{download}}`lab.ipynb <lab.ipynb>`.
:::
"""
    notebook = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    title = next((i for i, cell in enumerate(notebook.cells) if cell.cell_type == "markdown"), 0)
    source = notebook.cells[title].source + "\n"
    notebook.cells[title].source = after_title(source, how)
    notebook.metadata.setdefault("language_info", {})["pygments_lexer"] = "ipython3"  # or `!kubectl` is no valid code
    return str(nbformat.writes(notebook))  # type: ignore[no-untyped-call]


def choose_cache(app: Sphinx, config: Any) -> None:
    app.lab_live = cluster_answers()  # type: ignore[attr-defined]
    app.lab_cache = live_cache() if app.lab_live else offline_cache()  # type: ignore[attr-defined]
    config.nb_execution_cache_path = str(app.lab_cache)  # type: ignore[attr-defined]


def read_page(app: Sphinx, docname: str, source: list[str]) -> None:
    from myst_nb.core.read import is_myst_markdown_notebook

    if docname.startswith("labs/"):
        source[0] = lab_page(source[0], Path(docname).parent.name)
    elif is_myst_markdown_notebook(source[0]):
        live, cache = app.lab_live, app.lab_cache  # type: ignore[attr-defined]
        outputs = Outputs.LIVE if live and executes(docname) else keep(Path(app.srcdir), docname, source[0], cache)
        if live and outputs is Outputs.MISSING:
            outputs = Outputs.LIVE
        source[0] = chapter(source[0], outputs)


def lexer() -> type[Any]:
    """Colours for the cells of labs and chapters: IPython's own lexer knows its own cell magics only."""
    from ipython_pygments_lexers import IPython3Lexer
    from pygments.lexer import bygroups, inherit, using
    from pygments.lexers import BashLexer, Python3Lexer
    from pygments.token import Operator, Text

    class LabLexer(IPython3Lexer):  # type: ignore[misc]
        tokens = {  # noqa: RUF012 (pygments reads it from the class)
            "root": [
                (r"(?s)(%%part)([^\n]*\n)(.*)", bygroups(Operator, Text, using(Python3Lexer))),
                (r"(?s)(%%on)([^\n]*\n)(.*)", bygroups(Operator, Text, using(BashLexer))),
                inherit,
            ]
        }

    return LabLexer


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_lexer("ipython3", lexer())
    app.connect("config-inited", choose_cache)
    app.connect("source-read", read_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
