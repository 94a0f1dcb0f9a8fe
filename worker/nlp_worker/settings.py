"""One frozen Settings object: the only reader of the environment and of the configuration file.

Each setting has one name in three places: the option ``--drain-seconds``, the environment's
``NLP_WORKER_DRAIN_SECONDS`` and ``drain_seconds`` in the TOML file. The first of these that is given counts.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from nlp_schemas import DEFAULT_PREFIX
from nlp_schemas.generation import MAX_NEW_TOKENS
from nlp_schemas.task import BUILT_IN, no_task, task_name
from nlp_worker.errors import SettingsError
from nlp_worker.kafka_settings import KafkaSettings

ENVIRONMENT_PREFIX: Final = "NLP_WORKER_"

#: What follows it in the names that Kubernetes sets in every pod for a service `nlp-worker`.
OF_A_SERVICE: Final = re.compile(r"SERVICE_HOST|(SERVICE_)?PORT(_.*)?")


class ModelSpec(NamedTuple):
    """``[NAME:]TASK=CHECKPOINT[@REVISION]``, taken apart."""

    name: str
    task: str
    checkpoint: str
    """A folder, or a hub id."""
    revision: str | None

    @classmethod
    def parse(cls, text: str) -> ModelSpec:
        """Take a ``--model`` apart.

        Raises:
            ValueError: it is not of the form, or names no task that is served.
        """
        served, equals, checkpoint = text.partition("=")
        if not (equals and served and checkpoint):
            raise ValueError(f"{text!r} is not of the form [NAME:]TASK=CHECKPOINT[@REVISION]")
        name, _, task = served.rpartition(":")
        revision = None
        # A folder may have an @ in its name, a hub id may not.
        if not _is_folder(checkpoint):
            checkpoint, _, revision = checkpoint.partition("@")
        path_name = Path(checkpoint).name or Path(checkpoint).resolve().name
        return cls(name or path_name, task_name(task), checkpoint, revision or None)


def _is_folder(checkpoint: str) -> bool:
    # The hub's ids have one slash at most.
    return checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") > 1 or Path(checkpoint).is_dir()


class Settings(BaseSettings):
    """Everything that can be set; the description of each is its help."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        nested_model_default_partial_update=True,
    )

    bootstrap_servers: Annotated[
        str, Field(min_length=1, description="Kafka brokers, host:port, separated by commas.")
    ] = "localhost:9092"
    model: Annotated[
        tuple[str, ...],
        NoDecode,
        Field(
            description="A checkpoint to serve: [NAME:]TASK=CHECKPOINT[@REVISION], a folder or a hub id. May repeat."
        ),
    ] = ()
    group: Annotated[str, Field(min_length=1, description="The consumer group that shares the requests.")] = (
        "nlp-worker"
    )
    delivery: Annotated[Literal["at-least-once", "exactly-once"], Field(description="What is promised of answers.")] = (
        "at-least-once"
    )
    device: Annotated[
        str,
        Field(
            pattern=r"^(auto|cpu|cuda(:\d+)?)$",
            description="auto, cpu, cuda or cuda:N; auto takes a GPU if there is one.",
        ),
    ] = "auto"
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Field(
            description="Of the weights and the computation; auto is bfloat16 on a GPU that has it, and of a bfloat16 "
            "checkpoint on a CPU that has it; else float32, on which equal answers rest."
        ),
    ] = "auto"
    instance_id: Annotated[
        str | None, Field(min_length=1, description="Makes a static member of the group: a restart is no rebalance.")
    ] = None
    topic_prefix: Annotated[
        str, Field(pattern=r"^[a-zA-Z0-9._-]{1,150}$", description="What the topics' names start with.")
    ] = DEFAULT_PREFIX
    plugin: Annotated[tuple[str, ...], NoDecode, Field(description="A Python file that adds a task. May repeat.")] = ()
    reply_topic: Annotated[
        tuple[str, ...],
        NoDecode,
        Field(description="A topic that a request may want its answer in (kafka_replyTopic). May repeat."),
    ] = ()
    drain_seconds: Annotated[
        float, Field(ge=0, le=3600, description="How long a stopping worker may finish what it has begun.")
    ] = 20.0
    poll_records: Annotated[
        int, Field(ge=1, le=100_000, description="Most records that are answered and committed together.")
    ] = 1024
    poll_seconds: Annotated[
        float, Field(gt=0, le=240, description="Most device seconds of what is answered and committed together.")
    ] = 5.0
    batch_tokens: Annotated[
        int | None,
        Field(
            ge=1,
            le=10_000_000,
            description="Most tokens of one batch, with padding and what may be generated; by default what each "
            "checkpoint gains by on the device, 2048 to 16384.",
        ),
    ] = None
    max_new_tokens: Annotated[
        int,
        Field(ge=1, le=MAX_NEW_TOKENS, description="Most tokens generated for a text; a request for more is refused."),
    ] = 2048
    packing: Annotated[
        Literal["auto", "off"],
        Field(
            description="auto: rows of a batch lie end to end, without padding, where the model gives equal answers."
        ),
    ] = "auto"
    max_age_seconds: Annotated[
        float | None,
        Field(gt=0, description="A request that is older is answered deadline_exceeded, as with its own timeout_ms."),
    ] = None
    failures_in_a_row: Annotated[
        int,
        Field(ge=0, description="So many inference_failed or out_of_memory in a row end the worker; 0 is never."),
    ] = 100
    stuck_seconds: Annotated[
        float, Field(ge=1, description="A worker in which nothing moves for so long although there is work ends.")
    ] = 300.0
    http_port: Annotated[
        int | None,
        Field(ge=1, le=65_535, description="Where /metrics, /livez and /readyz are served; if not set nowhere."),
    ] = None
    traces: Annotated[
        Literal["off", "otlp"],
        Field(
            description="otlp: spans of requests and batches go to a collector; where, OpenTelemetry's own environment "
            "says (OTEL_EXPORTER_OTLP_ENDPOINT)."
        ),
    ] = "off"
    threads: Annotated[
        int | None,
        Field(
            ge=1,
            le=1024,
            description="CPU threads of the model; if not set 1 beside a GPU, else what affinity and CPU quota allow.",
        ),
    ] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="Request texts appear at debug alone.")
    ] = "info"
    log_format: Annotated[
        Literal["auto", "json", "console"], Field(description="auto is console on a terminal, else json.")
    ] = "auto"
    kafka: KafkaSettings = KafkaSettings()

    @field_validator("model", "plugin", "reply_topic", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return json.loads(value) if value.startswith("[") else [part for part in value.split(",") if part]

    @model_validator(mode="after")
    def _check_models(self) -> Settings:
        names = [(spec.task, spec.name) for spec in self.models]
        for task, name in names:
            if task not in BUILT_IN and not self.plugin:
                raise ValueError(f"model: {no_task(task)}")
            if names.count((task, name)) > 1:
                raise ValueError(f"model: {name!r} is served twice for {task}: name one with NAME:{task}=CHECKPOINT")
        return self

    @property
    def models(self) -> list[ModelSpec]:
        return [ModelSpec.parse(text) for text in self.model]


def load_settings(options: dict[str, Any], config: Path | None = None) -> Settings:
    """Read the settings: options first, then the environment, then the TOML file.

    Raises:
        SettingsError: one of them cannot be used; the message says which, why, and where it can be set.
    """
    file = _read_file(config) if config is not None else {}

    class _WithFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            del dotenv_settings, file_secret_settings  # a worker reads no file that it was not told of
            return init_settings, env_settings, InitSettingsSource(settings_cls, file)

    try:
        return _WithFile(**options)
    except ValidationError as error:
        raise SettingsError("; ".join(_describe(problem) for problem in error.errors(include_url=False))) from None
    except ValueError as error:  # an environment variable that is no JSON where one is needed
        raise SettingsError(str(error)) from None


def unknown_environment() -> list[str]:
    """Return the environment's names that look like settings and are none.

    Not an error: other programs may have such names too. Those that Kubernetes sets for a service are left out.
    """
    names = [name.removeprefix(ENVIRONMENT_PREFIX) for name in os.environ if name.startswith(ENVIRONMENT_PREFIX)]
    known = {*Settings.model_fields, "config"}
    unknown = [name for name in names if name.lower().split("__")[0] not in known and not OF_A_SERVICE.fullmatch(name)]
    return sorted(ENVIRONMENT_PREFIX + name for name in unknown)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"the configuration file {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the configuration file {path} is not TOML: {error}") from None


def _describe(problem: Any) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    location = [str(part) for part in problem["loc"]]
    if not location:
        return str(message)
    if location == ["kafka"]:  # the message begins with the name
        return f"kafka: {message}"
    if problem["type"] == "extra_forbidden":
        return f"{'.'.join(location)} is no setting; see `nlp-worker run --help`"
    option = "--" + location[0].replace("_", "-")
    environment = ENVIRONMENT_PREFIX + "__".join(location).upper()
    return f"{'.'.join(location)}: {message} (option {option}, environment {environment}, or the configuration file)"
