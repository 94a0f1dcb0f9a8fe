"""What a training is made with: all that a run that is gone on with must have in common with the one before."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainingSettings(BaseModel):
    """Everything that changes what is learned; the description of each is its option's help."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    base: str
    """A folder or a hub id, with @REVISION."""
    data: str
    validation: str | None = None
    held_out: Annotated[
        float, Field(gt=0, lt=1, description="Share of the rows that is validated on and not trained on.")
    ] = 0.1
    loop: Annotated[
        Literal["trainer", "accelerate"],
        Field(description="Who trains: transformers' Trainer, or an explicit loop with Accelerate. Both learn alike."),
    ] = "trainer"
    epochs: Annotated[int, Field(ge=1, description="How often each row is seen at most.")] = 3
    batch_rows: Annotated[int, Field(ge=1, description="Rows of a batch, in each process.")] = 16
    accumulate: Annotated[int, Field(ge=1, description="Batches whose gradients make one step.")] = 1
    learning_rate: Annotated[
        float,
        Field(gt=0, lt=1, description="The highest, after the warm-up; 5e-5 suits large models, small ones need more."),
    ] = 5e-5
    warm_up: Annotated[float, Field(ge=0, lt=1, description="Share of the steps in which the learning rate rises.")] = (
        0.1
    )
    weight_decay: Annotated[float, Field(ge=0, lt=1, description="Of all weights but biases and norms.")] = 0.01
    max_length: Annotated[
        int | None,
        Field(ge=8, description="Most tokens of a row in training; longer ones are cut. [default: the model's]"),
    ] = None
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Field(description="Of the computation; the weights are float32. auto is bfloat16 on a GPU that has it."),
    ] = "auto"
    device: Annotated[Literal["auto", "cpu", "cuda"], Field(description="auto takes a GPU if there is one.")] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**32, description="The same learns the same, up to float noise.")] = 42
    patience: Annotated[
        int, Field(ge=0, description="End after so many epochs in a row that are no better than the best; 0 is never.")
    ] = 0
    metric: Annotated[str | None, Field(description="What tells the better epoch. [default: the task's first]")] = None
    save_steps: Annotated[
        int, Field(ge=0, description="Steps after which the state is kept for --resume; 0 is at the end of each epoch.")
    ] = 0
    threads: Annotated[
        int | None,
        Field(ge=1, le=1024, description="CPU threads of the model. [default: what affinity and quota allow]"),
    ] = None
    labels: tuple[str, ...] = ()
    columns: dict[str, str] = {}
    parameters: dict[str, Any] = {}
    skip_bad: bool = False
