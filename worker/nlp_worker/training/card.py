"""The model card of a checkpoint that was trained: what from, how, and what it reached, with its learning curve."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from huggingface_hub import EvalResult, ModelCardData
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from nlp_worker.training.history import History
    from nlp_worker.training.settings import TrainingSettings

CARD: Final = "README.md"
CURVE: Final = "learning-curve.png"
RECORD: Final = "training.json"

#: What both loops have.
OPTIMIZER: Final = "AdamW; the rate rises, then falls to 0, both linearly; gradients are clipped at a norm of 1"

#: Packages whose versions change what is learned.
PACKAGES: Final = ("nlp-worker", "torch", "transformers", "accelerate", "tokenizers")

#: Inches, and dots per inch: a screen's width in a browser.
CURVE_SIZE: Final = (9.0, 3.5)
CURVE_DPI: Final = 120


def write_card(folder: Path, settings: TrainingSettings, origin: Mapping[str, Any], history: History) -> None:
    """Write README.md, learning-curve.png and training.json beside a checkpoint's weights.

    Args:
        folder: Of the checkpoint.
        settings: Of the training.
        origin: The revision, the base's, the labels, the device, and of the data where the rows come from, how many
            there are, and their fingerprints.
        history: Of its epochs.
    """
    data = origin["data"]
    made = {
        "base": shown(settings.base),
        **origin,
        "optimizer": OPTIMIZER,
        "data": {**data, "data": shown(data["data"]), "validation": shown(data["validation"])},
        "settings": _settings(settings),
        "metric": history.primary,
        "best_epoch": history.best.number,
        "epochs": [epoch._asdict() for epoch in history.epochs],
        "losses": history.losses,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    (folder / RECORD).write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _curve(history).savefig(folder / CURVE, dpi=CURVE_DPI)
    (folder / CARD).write_text(_card(settings, made, history), encoding="utf-8")


def shown(name: str) -> str:
    """Return a folder's or a file's own name: where it lay is nobody's business."""
    source, bracket, split = name.partition(" (")
    return Path(source).name + bracket + split if Path(source).expanduser().exists() else name


def _settings(settings: TrainingSettings) -> dict[str, Any]:
    values = settings.model_dump(mode="json", exclude={"task", "base", "data", "validation"})
    return {name: value for name, value in values.items() if value not in (None, [], {})}


def _card(settings: TrainingSettings, made: Mapping[str, Any], history: History) -> str:
    best, data = history.best, made["data"]
    front = ModelCardData(
        # Where it is a checkpoint of the hub; a folder's name means nothing there.
        base_model=None if made["base"] != settings.base else settings.base.partition("@")[0],
        library_name="transformers",
        pipeline_tag=settings.task,
        tags=["nlp-worker"],
        metrics=list(best.scores),
        model_name=made["base"].partition("@")[0].rpartition("/")[2] + "-" + settings.task,
        eval_results=[
            EvalResult(
                task_type=settings.task, dataset_type="labelled-rows", dataset_name=data["data"],
                metric_type=name, metric_value=round(score, 6),
            )
            for name, score in best.scores.items()
        ],
    )  # fmt: skip
    scores = list(best.scores)
    epochs = [
        [
            f"{epoch.number}{' (kept)' if epoch is best else ''}",
            epoch.step,
            f"{epoch.loss:.4f}",
            f"{epoch.validation_loss:.4f}",
            *(f"{epoch.scores[name]:.4f}" for name in scores),
        ]
        for epoch in history.epochs
    ]
    facts = [
        ["rows trained on", f"{data['training_rows']:,}"],
        ["rows validated on", f"{data['validation_rows']:,}"],
        ["from", data["data"]],
        ["validation", data["validation"]],
        ["left out", data["left_out"] or "none"],
        ["gave way to later rows of the same id", f"{data['replaced']:,}"],
        ["labels", ", ".join(made["labels"]) or "none"],
        ["fingerprint of training", data["training_fingerprint"]],
        ["fingerprint of validation", data["validation_fingerprint"]],
    ]
    origin = f"trained by nlp-worker from `{made['base']}` (`{made['base_revision']}`)"
    serve = f"Serve it with `nlp-worker run --model {settings.task}=FOLDER`; answers name this revision."
    measured = f"By the answers that a worker gives to the rows validated on. The epoch with the best {history.primary}"
    values = [[name, f"`{json.dumps(value)}`"] for name, value in made["settings"].items()]
    parts = [
        f"---\n{front.to_yaml()}\n---",
        f"# {made['base']}, trained for {settings.task}",
        f"Revision `{made['revision']}`, {origin}. {serve}",
        "## Results",
        f"{measured} is kept.",
        _table(["epoch", "step", "training loss", "validation loss", *scores], epochs),
        f"![Learning curve]({CURVE})",
        "## Data",
        _table(["", ""], facts),
        "## Settings",
        _table(["setting", "value"], [*values, ["optimizer", made["optimizer"]], ["device", made["device"]]]),
        "## Versions",
        _table(["package", "version"], made["versions"].items()),
    ]
    return "\n\n".join(parts) + "\n"


def _table(headings: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _curve(history: History) -> Figure:
    """Draw the losses by step, and the score by epoch."""
    figure = Figure(figsize=CURVE_SIZE, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(*zip(*history.losses, strict=True), label="training", linewidth=1)
    steps = [epoch.step for epoch in history.epochs]
    left.plot(steps, [epoch.validation_loss for epoch in history.epochs], marker="o", label="validation")
    left.set(xlabel="step", ylabel="loss")
    left.legend()
    numbers = [epoch.number for epoch in history.epochs]
    right.plot(numbers, [epoch.scores[history.primary] for epoch in history.epochs], marker="o")
    right.axvline(history.best.number, linestyle=":", color="grey", label="kept")
    right.set(xlabel="epoch", ylabel=history.primary)
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.legend()
    return figure
