"""The commands. Each imports its module only when called; on a `DgpruneError` it prints a sentence and exits with 2."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Print the address, open nothing.")]


class _Sentences(TyperGroup):
    """A command group that prints a DgpruneError as a sentence on stderr, without a traceback."""

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
    no_browser: NoBrowser = False,
    reset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Restore this notebook as shipped; yours is kept as NAME.mine.")
    ] = None,
    student: Annotated[bool, typer.Option("--student", help="Notebooks without solutions and outputs.")] = False,
    teacher: Annotated[bool, typer.Option("--teacher", help="With notes for the speaker, and a guide.")] = False,
) -> None:
    """Open JupyterLab on the notebooks."""
    from .lab import serve
    from .notebook_versions import version_of

    version = version_of(student=student, teacher=teacher)
    raise typer.Exit(serve(workdir, port=port, browser=not no_browser, reset=reset, version=version))


@app.command()
def wheels(
    folder: Annotated[Path, typer.Argument(help="Folder for the wheels and the scripts that install from it.")],
    *,
    cpu: Annotated[
        str | None, typer.Option(metavar="INDEX", help="Take PyTorch's CPU builds, which are small, from this index.")
    ] = None,
) -> None:
    """Download all wheels for offline machines with this system and Python; install.sh and install.bat use them."""
    from .wheels import fetch_wheels

    fetched = fetch_wheels(folder, cpu=cpu)
    size = sum(wheel.stat().st_size for wheel in fetched) / 1e6
    typer.echo(f"{len(fetched)} wheels, {size:,.0f} MB, in {folder}. There: sh install.sh, or install.bat on Windows.")


@app.command()
def report(
    what: Annotated[
        str,
        typer.Argument(
            metavar="[STUDY]",
            help="A built-in study (digits, fashion, paper); a study of your own, my_study.py:make or module:study, a "
            "Study or a function that returns one; or a session that explorer.save or Download wrote.",
        ),
    ] = "digits",
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("report.html"),
    seconds: Annotated[
        float, typer.Option(min=0.0, help="Ratios get steps of 1 % while measuring a study takes no longer; else 5 %.")
    ] = 60.0,
) -> None:
    """Write a study or a saved session as one page that needs neither Jupyter nor a network."""
    from .report import write_report

    write_report(what, output, seconds=seconds)
    typer.echo(f"Wrote {output}. Open it in a browser.")


@app.command()
def docs(
    *,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the pages.")] = Path("dgprune-lab-docs"),
    no_browser: NoBrowser = False,
) -> None:
    """Write the API reference as searchable pages, and open it in the browser."""
    from .docs import write_docs

    page = write_docs(out)
    typer.echo(f"Wrote {page}.")
    if not no_browser:
        typer.launch(page.resolve().as_uri())


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
    result = examine()
    typer.echo(result.line if for_class else result.screen)
    raise typer.Exit(0 if result.ready else 1)


@app.command()
def experiment(
    name: Annotated[str | None, typer.Argument(help="Name of the study, as --list shows it.")] = None,
    *,
    list_: Annotated[bool, typer.Option("--list", help="What each study asks, and what it costs here.")] = False,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A Dask scheduler, tcp://host:8786, whose workers do the runs."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes of this machine; default: one per core.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: a GPU where there is one.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Bundled data, few seeds: to check that it runs.")] = False,
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of training seeds; default: the protocol's.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Results folder; default: experiments/NAME.")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Do failed runs again.")] = False,
) -> None:
    """Run a study, or resume it; its results are written run by run, and its claims are judged at the end."""
    if list_ or name is None:
        from .experiment import listing

        for line in listing(workers):
            typer.echo(line)
        return
    from .experiment import main

    raise typer.Exit(
        main(name, scheduler=scheduler, workers=workers, device=device, quick=quick, seeds=seeds, out=out, retry=retry)
    )


@app.command()
def bench(
    *,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the rows as JSON.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small cases, few repeats: to check that it runs.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: both, where there is a GPU.")] = None,
    part: Annotated[list[str] | None, typer.Option(help="Only this part, such as sweep; can be repeated.")] = None,
) -> None:
    """Time the toolkit against its peers on this machine."""
    from .bench import main

    main(json=json, quick=quick, device=device, parts=part or ())


@app.command()
def zoo(
    *,
    timm: Annotated[
        bool, typer.Option("--timm", help="timm's architectures, not the package's and torchvision's.")
    ] = False,
    names: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help='Try all that match, "resnet*"; can be repeated.')
    ] = None,
    size: Annotated[int | None, typer.Option(metavar="PX", help="Image size; default: the first that works.")] = None,
    jobs: Annotated[int, typer.Option(help="Architectures tried at the same time, each with one thread.")] = 1,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the rows as JSON; a stopped run resumes from them.")
    ] = None,
) -> None:
    """Try which architectures can be pruned, each in its own process, beside Torch-Pruning; print the table."""
    from .zoo import main

    main(timm=timm, names=names or (), size=size, jobs=jobs, out=out)


@app.command()
def notebooks(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Shipped notebooks, or paths of your own; default: all."),
    ] = None,
) -> None:
    """Run notebooks and store their outputs as pictures, to be read where no kernel runs; write what each run cost."""
    from .run_notebooks import run_notebooks

    run_notebooks(names or (), say=typer.echo)


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="Name of the recipe, for example digits.")],
    *,
    folder: Annotated[Path, typer.Option(help="Folder for the checkpoint.")] = Path("."),
) -> None:
    """Train a shipped network by its recipe, and save it with its card."""
    from .train import make

    _print_threads()
    typer.echo(f"Wrote {make(name, folder=folder)}.")


@app.command()
def recipe_search(
    demo: Annotated[str, typer.Argument(help="Name of the built-in study: digits or fashion.")] = "digits",
) -> None:
    """Repeat the choice of a demo's recipe, which never uses its target."""
    from .recipe_search import search

    _print_threads(search(demo))


@app.command()
def gradients_against_removal() -> None:
    """Compare each filter's risk variance with the measured effect of removing that filter alone, on the demo."""
    from .gradients_against_removal import report

    _print_threads(report())


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        typer.echo(version("dgprune-lab"))
    except PackageNotFoundError:
        typer.echo("not installed: run `pip install -e .` in the repository.")
        raise typer.Exit(1) from None


def _print_threads(lines: Iterable[str] = ()) -> None:
    """Print how many threads are used, then each line as soon as it is available."""
    from ..core import threads

    typer.echo(f"Using {threads().reason}")
    for line in lines:
        typer.echo(line)


if __name__ == "__main__":
    app()
