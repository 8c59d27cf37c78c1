"""The commands: `dgprune-lab lab`, `report`, `doctor`, `bench`, `train`, `select`, `version`.

Nothing heavy is imported before a command needs it, and a `DgpruneError` ends a command as one sentence, with code 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup


class _Sentences(TyperGroup):
    """A command group in which a DgpruneError is a sentence on stderr, not a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ValueError as error:
            from ..core import DgpruneError

            if not isinstance(error, DgpruneError):
                raise
            typer.echo(f"dgprune-lab: {error}", err=True)
            raise typer.Exit(2) from None


app = typer.Typer(
    cls=_Sentences,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="See what filter pruning does to a neural network when the data shift.",
)


@app.command()
def lab(
    *,
    workdir: Annotated[
        Path | None, typer.Option(help="Folder for the notebooks; default: dgprune-lab under the current folder.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port; default: the first free one from 8888.")] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address, open nothing.")] = False,
    reset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Put this notebook back as shipped; yours is kept as NAME.mine.")
    ] = None,
) -> None:
    """Open JupyterLab on the notebooks."""
    from . import lab as server

    raise typer.Exit(server.serve(workdir, port=port, browser=not no_browser, reset=reset))


@app.command()
def report(
    *, output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("report.html")
) -> None:
    """Write the first look as one page that needs neither Jupyter nor a network."""
    from .report import write_report

    write_report(output)
    typer.echo(f"wrote {output}: open it in a browser.")


@app.command()
def doctor(
    *,
    for_class: Annotated[bool, typer.Option("--class", help="One line to read out: ready, or what to do.")] = False,
    data: Annotated[bool, typer.Option("--data", help="Where each further data set is, or how to get it.")] = False,
) -> None:
    """Show versions, device, threads, memory, data and what is missing."""
    from .doctor import data_sets, examine

    if data:
        typer.echo(data_sets())
        return
    found = examine()
    typer.echo(found.line if for_class else found.screen)
    raise typer.Exit(0 if found.ready else 1)


@app.command()
def bench(
    *,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the rows as JSON.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small cases, few repeats: to see that it runs.")] = False,
) -> None:
    """Time the toolkit against its peers on this machine."""
    from .bench import main

    main(json=json, quick=quick)


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="Name of the recipe, for example digits.")],
    *,
    folder: Annotated[Path, typer.Option(help="Where the checkpoint goes.")] = Path("."),
) -> None:
    """Train a built-in network as the shipped one was, and save it with its card."""
    from ..core import threads
    from .train import make

    typer.echo(f"Using {threads().reason}")
    written = make(name, folder=folder)
    typer.echo(f"wrote {written}.")


@app.command()
def select() -> None:
    """Repeat the choice of the demo's recipe, which never looks at its target."""
    from ..core import threads
    from . import select as selection

    typer.echo(f"Using {threads().reason}")
    for line in selection.select():
        typer.echo(line)


@app.command()
def oracle() -> None:
    """Hold risk variance against really removing every filter of the demo, one network per filter."""
    from ..core import threads
    from ..diagnostics import gradients_against_removal
    from ..diagnostics.gradients_against_removal import in_words
    from ..study import demo

    typer.echo(f"Using {threads().reason}")
    for line in in_words(gradients_against_removal(demo())):
        typer.echo(line)


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        typer.echo(installed("dgprune-lab"))
    except PackageNotFoundError:
        typer.echo("not installed: run `pip install -e .` in the repository.")
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app()
