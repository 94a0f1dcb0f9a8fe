"""What is set of kafka-python's own settings, under [kafka], [kafka.consumer] and [kafka.producer]."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, SecretStr, model_validator

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Settings of the client that carry a guarantee, with what breaks when they are changed. They are set by the worker.
GUARANTEED: Final = {
    "acks": "an answer would count as published before it is replicated",
    "allow_auto_create_topics": "a misspelt topic would be created instead of refused",
    "auto_offset_reset": "requests sent before the first start would be skipped",
    "enable_auto_commit": "requests would be committed before they are answered",
    "enable_idempotence": "a lost acknowledgement would leave an answer twice",
    "group_id": "it is the setting `group`",
    "group_instance_id": "it is the setting `instance_id`",
    "isolation_level": "requests of aborted transactions would be answered",
    "key_deserializer": "an error in it would stop the client for good",
    "key_serializer": "keys are passed on as they are",
    "max_poll_records": "it is the setting `poll_records`",
    "partition_assignment_strategy": "work given up in a rebalance would be lost",
    "retries": "answers would be dropped while a broker is away",
    "transactional_id": "it follows from `group` and `instance_id`",
    "value_deserializer": "an error in it would stop the client for good",
    "value_serializer": "answers are bytes already",
    "bootstrap_servers": "it is the setting `bootstrap_servers`",
}

#: Names of the client's settings that hold a secret; a proxy's URL may have a password in it.
SECRET: Final = re.compile("password|secret|token|proxy")

#: `NAME_file` names a file with the value of NAME. None of the client's own settings ends so: they end in `cafile`.
FILE_SUFFIX: Final = "_file"


class KafkaSettings(BaseModel):
    """kafka-python's own settings, passed on as they are: for both clients, and for one of them.

    Secrets are pydantic's SecretStr, which shows no more than that there is one. Where a file is named that has the
    value (Docker's and Kubernetes' way with secrets), it is read here.
    """

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    consumer: dict[str, Any] = {}
    producer: dict[str, Any] = {}

    @property
    def common(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @model_validator(mode="before")
    @classmethod
    def _keep_secrets(cls, tables: Any) -> Any:
        if not isinstance(tables, dict):
            return tables
        return {
            name: _with_secrets(value) if name in cls.model_fields and isinstance(value, dict) else value
            for name, value in _with_secrets(tables).items()
        }

    @model_validator(mode="after")
    def _refuse_guaranteed(self) -> KafkaSettings:
        for name in (*self.common, *self.consumer, *self.producer):
            if name in GUARANTEED:
                raise ValueError(f"{name} cannot be set: {GUARANTEED[name]}")
        return self


def _with_secrets(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table of the client's settings with the named files read, and with what is secret wrapped."""
    kept: dict[str, Any] = {}
    for name, value in table.items():
        own_name = name.removesuffix(FILE_SUFFIX)
        if own_name != name:
            if own_name in table:
                raise ValueError(f"{own_name} and {name} are both given: give one of them")
            kept[own_name] = SecretStr(_read_secret(name, value))
        elif SECRET.search(name) and isinstance(value, str):
            kept[name] = SecretStr(value)
        elif SECRET.search(name) and isinstance(value, (int, float, list, dict)):
            raise ValueError(f"{name} is no text: put it in quotes")
        else:
            kept[name] = value
    return kept


def _read_secret(name: str, path: Any) -> str:
    try:
        content = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"{name}: {path} cannot be read: {error.strerror}") from None
    except (TypeError, ValueError):  # no path, or not UTF-8: what stands in the file is not told
        raise ValueError(f"{name}: {path} is no file with a text") from None
    if not content:
        raise ValueError(f"{name}: {path} is empty")
    return content
