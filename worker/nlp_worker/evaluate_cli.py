"""`nlp-worker evaluate`: how right a checkpoint's answers are, and whether they are worse than another's."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from nlp_worker import logging as worker_logging
from nlp_worker.command_options import connected, interruptible, parameters_of, setting, settings_of
from nlp_worker.errors import SettingsError
from nlp_worker.train_cli import column_option, imported, labels_option, skip_bad_option, trained_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nlp_worker.training.bootstrap import Comparison
    from nlp_worker.training.evaluation import Report

#: How the command ends where the candidate does not meet what is required of it.
FAILED: Final = 1

EXIT_CODES: Final = (
    "Exit codes: 0 evaluated, and the candidate is what is required of it · 1 it is not · 2 usage, settings, or rows "
    "that cannot be used · 3 broker unreachable · 4 topic missing or not allowed · 5 a checkpoint cannot be loaded · "
    "6 device lost"
)

#: The settings of a worker that change what it answers, or how fast.
_SERVED: Final = ("device", "dtype", "packing", "batch_tokens", "threads")


class _Share(click.FloatRange):
    """Between 0 and 1, and a number: a range alone lets NaN pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        share: float = super().convert(value, param, ctx)
        if math.isnan(share):
            self.fail("it is no number", param, ctx)
        return share


SHARE: Final = _Share(0, 1, min_open=True, max_open=True)


def _served_options(command: Callable[..., None]) -> Callable[..., None]:
    for name in reversed(_SERVED):
        command = setting(name)(command)
    return command


@click.command(epilog=EXIT_CODES)
@trained_task
@click.argument("candidate", metavar="CHECKPOINT")
@click.option("--data", required=True, metavar="SOURCE", help="Labelled rows, as of `nlp-worker train`.")
@click.option("--baseline", metavar="CHECKPOINT", help="What is served now: the candidate is compared with it.")
@click.option("--require", type=click.Choice(["not-worse", "better"]), default="not-worse", show_default=True,
              help="Of the candidate beside the baseline: else the command ends with code 1.")  # fmt: skip
@click.option("--confidence", type=SHARE, default=0.95, show_default=True,
              help="Of the difference's interval: worse or better lies whole below or above 0.")  # fmt: skip
@click.option("--held-out", type=SHARE,
              help="Only the rows that `nlp-worker train --held-out` held out; else all.")  # fmt: skip
@click.option("--split", default="validation", show_default=True, help="Of a data set of the hub.")
@click.option("--metric", help="What decides.  [default: the task's first]")
@skip_bad_option
@column_option
@labels_option
@click.option("--parameter", "-p", "parameters", multiple=True, metavar="NAME=VALUE", callback=parameters_of,
              help="Of the requests that producers will send. May repeat.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False),
              help="A file for a line of JSON for each row: what was expected, and what was answered.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
@_served_options
@connected
def evaluate(
    *, config: Path | None, task: str, candidate: str, data: str, baseline: str | None, require: str,
    confidence: float, held_out: float | None, split: str, metric: str | None, skip_bad: bool,
    columns: dict[str, str], labels: tuple[str, ...], parameters: dict[str, Any], output: Path | None,
    as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Measure a checkpoint on labelled rows, by the answers that a worker would give, and compare it with another.

    Both are loaded and asked as a worker does it. The same rows are drawn again and again for both (a paired bootstrap)
    to tell a difference from chance. Example, for a pipeline:

        nlp-worker evaluate text-classification ./better --baseline ./base --data test.jsonl && ./deploy
    """
    checkpoints = {"candidate": candidate, "baseline": baseline}
    models = tuple(f"{name}:{task}={folder}" for name, folder in checkpoints.items() if folder)
    with interruptible(), settings_of({**options, "model": models}, config) as settings:
        worker_logging.configure(level="warning", log_format=settings.log_format)
        imported()
        from nlp_worker.training import evaluation, labelled_set  # noqa: PLC0415 - with the others
        from nlp_worker.training.problems import DataError, refuse, row_count  # noqa: PLC0415 - with the others

        if output is not None and not os.access(output.absolute().parent, os.W_OK):
            raise SettingsError(f"--output {output} cannot be written to")
        known = evaluation.known_labels(settings)
        if len({frozenset(labels) for labels in known.values()}) > 1:
            click.echo(
                "nlp-worker: candidate and baseline give different labels; those that one lacks it has wrong", err=True
            )
        found = labelled_set.read(settings, data, task, columns=columns, labels=labels, split=split)
        if found is None:
            raise DataError(f"--data {data}: it has no split named {split}: name one with --split")
        examples = [one for one in found.examples if held_out is None or labelled_set.is_held_out(one, held_out)]
        names = sorted({name for of_one in known.values() for name in of_one})
        unknown = labelled_set.unknown_labels(examples, names) if known else []
        refuse([*found.problems, *unknown], lambda line: click.echo(line, err=True), skip_bad=skip_bad)
        examples = labelled_set.without(examples, unknown)
        if not examples:
            raise DataError(f"--data {data}: no row is left to evaluate on")
        metrics = evaluation.metrics_for(task, known, examples, metric)
        if not as_json:
            click.echo(f"{found.source}: {row_count(len(examples))}")
        if held_out is None and (share := evaluation.trained_on(Path(candidate), found.source)):
            told = f"{candidate} was trained on rows of {data}: --held-out {share:g} leaves those out"
            click.echo(f"nlp-worker: {told}", err=True)
        with _progress(len(examples)) as show:
            report = evaluation.evaluate(settings, examples, parameters, metrics, show)
        if output is not None:
            _write(output, report)
    difference = None if baseline is None else report.compare(confidence)
    if as_json:
        click.echo(json.dumps(_summary(report, difference)))
    else:
        _print(report, difference, confidence)
    if difference is not None:
        met = difference.is_better if require == "better" else not difference.is_worse
        sys.exit(0 if met else FAILED)


def _write(output: Path, report: Report) -> None:
    try:
        output.write_text("".join(json.dumps(row) + "\n" for row in report.rows()), encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"--output {output} cannot be written to: {error.strerror}") from None


@contextlib.contextmanager
def _progress(rows: int) -> Iterator[Callable[[str, int], None]]:
    """Show on a terminal how many rows each checkpoint has answered."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        shown = bar.add_task("", total=rows)
        yield lambda name, done: bar.update(shown, completed=done, description=name)


def _summary(report: Report, difference: Comparison | None) -> dict[str, Any]:
    checkpoints = {
        one.name: {"checkpoint": one.checkpoint, "revision": one.revision, "scores": one.scores, "errors": one.errors}
        for one in report.evaluated
    }
    compared = None if difference is None else {**difference._asdict(), "verdict": _verdict(difference)}
    return {"rows": len(report.examples), "metric": report.metrics.primary, **checkpoints, "comparison": compared}


def _verdict(difference: Comparison) -> str:
    return "worse" if difference.is_worse else "better" if difference.is_better else "no different"


def _print(report: Report, difference: Comparison | None, confidence: float) -> None:
    names = list(report.evaluated[0].scores)
    click.echo(f"{'':<10}" + "".join(f"{name:>12}" for name in names) + "  checkpoint")
    for one in report.evaluated:
        scores = "".join(f"{one.scores[name]:>12.4f}" for name in names)
        click.echo(f"{one.name:<10}{scores}  {one.checkpoint} ({one.revision})")
    for one in report.evaluated:
        for code, count in one.errors.items():
            click.echo(f"{one.name}: {count:,} answered with an error, which counts as wrong: {code}")
    if difference is not None:
        ends = f"{difference.low:+.4f} to {difference.high:+.4f}"
        told = f"{report.metrics.primary} {difference.difference:+.4f}, {100 * confidence:g}% interval {ends}"
        click.echo(f"{told}: the candidate is {_verdict(difference)}")
