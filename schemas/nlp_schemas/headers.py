"""Headers of requests that are read, and headers that answers have; all others are the producers' own.

Names and meanings are those of Spring for Apache Kafka (request and reply), of W3C Trace Context, and of CloudEvents
1.0 in Kafka's binary mode.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from nlp_schemas.request import MAX_ID_CHARACTERS

#: Bytes of a partition's number, big-endian, as Spring's ``ReplyingKafkaTemplate`` writes it.
PARTITION_BYTES: Final = 4

#: Characters of a topic's name, as Kafka allows them.
MAX_TOPIC_CHARACTERS: Final = 249

#: How the content type of a CloudEvent in another mode begins: its attributes stand in the value.
STRUCTURED_MODE: Final = "application/cloudevents"


def _partition(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    if len(value) != PARTITION_BYTES:
        raise ValueError(f"it has {len(value)} bytes: write the number in {PARTITION_BYTES} bytes, big-endian")
    return int.from_bytes(value, signed=True)


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


_Bytes = WithJsonSchema({"type": "string", "format": "binary"})
_Attribute = Annotated[str, Field(min_length=1)]


class Headers(BaseModel):
    """Headers of a record, by their names; a name that is there several times has the last value, as in Kafka."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    @classmethod
    def of(cls, headers: Iterable[tuple[str, bytes | None]]) -> Self:
        """Read a record's headers.

        Raises:
            pydantic.ValidationError: one of them says what it cannot.
        """
        return cls.model_validate(dict(headers))


class Traced(Headers):
    """What an answer has of its request."""

    correlation_id: Annotated[
        bytes | None, _Bytes, Field(alias="kafka_correlationId", description="Any bytes; the answer has the same.")
    ] = None
    traceparent: Annotated[
        bytes | None, _Bytes, Field(description="W3C Trace Context; the answer's is of the same trace.")
    ] = None
    tracestate: Annotated[bytes | None, _Bytes, Field(description="W3C Trace Context; the answer has the same.")] = None


class RequestHeaders(Traced):
    """Headers of a request; none is needed."""

    reply_topic: Annotated[
        str | None,
        Field(
            alias="kafka_replyTopic",
            min_length=1,
            max_length=MAX_TOPIC_CHARACTERS,
            description="Where the answer goes instead of the results topic; the worker's `reply_topic` allows it.",
        ),
    ] = None
    reply_partition: Annotated[
        int | None,
        BeforeValidator(_partition),
        _Bytes,
        Field(alias="kafka_replyPartition", ge=0, description="Of the reply topic: 4 bytes, big-endian."),
    ] = None
    content_type: Annotated[str | None, Field(alias="content-type", description="`application/json`, if any.")] = None
    ce_specversion: Annotated[
        Literal["1.0"] | None, BeforeValidator(_text), Field(description="Makes it a CloudEvent, and its answer too.")
    ] = None
    ce_id: Annotated[
        _Attribute | None,
        Field(max_length=MAX_ID_CHARACTERS, description="Of a CloudEvent; the request's `id`, where it has none."),
    ] = None
    ce_source: Annotated[_Attribute | None, Field(description="Of a CloudEvent.")] = None
    ce_type: Annotated[_Attribute | None, Field(description="Of a CloudEvent; any.")] = None

    @model_validator(mode="after")
    def _check_event(self) -> Self:
        if self.content_type is not None and self.content_type.startswith(STRUCTURED_MODE):
            problem = f"content-type {self.content_type}: a CloudEvent is read in binary mode only"
            raise ValueError(f"{problem}: send its attributes as headers (ce_id, ...) and its data as the value")
        attributes = {"ce_id": self.ce_id, "ce_source": self.ce_source, "ce_type": self.ce_type}
        missing = [name for name, value in attributes.items() if value is None]
        if self.is_event and missing:
            raise ValueError(f"a CloudEvent has {' and '.join(missing)} too: add that, or leave out ce_specversion")
        return self

    @property
    def is_event(self) -> bool:
        """Whether the request is a CloudEvent."""
        return self.ce_specversion is not None


class AnswerHeaders(Traced):
    """Headers of an answer."""

    content_type: Annotated[Literal["application/json"], Field(alias="content-type")] = "application/json"
    schema_version: Annotated[Literal["1"], Field(alias="nlp-schema", description="Of the contract.")] = "1"
    ce_specversion: Annotated[Literal["1.0"] | None, Field(description="Where the request was a CloudEvent.")] = None
    ce_id: Annotated[
        str | None,
        Field(description="`<topic>-<partition>-<offset>` of the request, so repeated answers have the same."),
    ] = None
    ce_source: Annotated[str | None, Field(description="`/<prefix>/<task>`.")] = None
    ce_type: Annotated[str | None, Field(description="`nlp.<task>.ok` or `nlp.<task>.error`.")] = None
    ce_subject: Annotated[str | None, Field(description="The request's id.")] = None

    def to_headers(self) -> list[tuple[str, bytes]]:
        """Return them as a record has them."""
        own = self.model_dump(by_alias=True, exclude_none=True)
        return [(name, value if isinstance(value, bytes) else value.encode()) for name, value in own.items()]
