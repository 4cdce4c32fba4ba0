"""`lab build`, `solution`, `new`: for those who write labs."""

from __future__ import annotations

from pathlib import Path

import click

from lab_utils.errors import BadInput
from lab_utils.labs.catalog import LabFiles, all_labs, find_lab, root


def _chosen(names: tuple[str, ...], everything: bool) -> list[LabFiles]:
    if names and everything:
        raise BadInput("both labs and --all were given", "Say one of them")
    return [find_lab(name, sources=True) for name in names] or all_labs(sources=True)


@click.command()
@click.argument("names", metavar="[LAB]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every lab that has a source; so it is without LAB, too.")
@click.option("--check", is_flag=True, help="Write nothing; show what differs, and end with 1 if anything does.")
@click.option("--force", is_flag=True, help="Overwrite a notebook that somebody has worked in.")
def build(names: tuple[str, ...], everything: bool, check: bool, force: bool) -> int:
    """Make labs/NN-topic/lab.ipynb from solutions/NN-topic/lab.md: solutions and hints taken out, byte for byte reproducible."""
    from lab_utils.labs.build import build as build_one
    from lab_utils.labs.build import differences

    labs = _chosen(names, everything)
    if not labs:
        click.echo("There is no lab in solutions/ yet. `lab new 08-services` begins one.")
    differ = 0
    for files in labs:
        if check:
            diff = differences(files)
            click.echo(diff, nl=False)
            differ += bool(diff)
            continue
        written = build_one(files, force=force)
        for path in written:
            click.echo(f"wrote {files.says(path)}")
        if not written:
            click.echo(f"{files.name} is up to date")
    if differ:
        click.echo(f"lab: {differ} of {len(labs)} labs differ from their source. Run `lab build`", err=True)
    return 1 if differ else 0


@click.command()
@click.argument("name", metavar="LAB")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The notebook to write.")
def solution(name: str, out: Path) -> None:
    """Write the instructor's notebook of a LAB: tasks solved, hints shown."""
    from lab_utils.labs.build import solution_text

    if out.suffix != ".ipynb":
        raise BadInput(f"{out} is not the name of a notebook", "It should end in .ipynb")
    if out.resolve().is_relative_to((root() / "labs").resolve()):
        raise BadInput(f"{out} lies among what learners open", "Write the solution somewhere else")
    text = solution_text(find_lab(name, sources=True))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{out} cannot be written ({error.strerror})") from None
    click.echo(f"wrote {out}")


@click.command()
@click.argument("name", metavar="NN-TOPIC")
def new(name: str) -> None:
    """Begin a lab: its source, checks, starting objects and four wrong answers, which pass the lab tests as they are."""
    from lab_utils.labs.scaffold import new_lab

    for path in new_lab(name):
        click.echo(f"wrote {path.relative_to(root()) if path.is_relative_to(root()) else path}")
    click.echo(f"Next: edit solutions/{name}/lab.md, run `lab build {name}`, then `pytest tests/labs -k {name}`")
