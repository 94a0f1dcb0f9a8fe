"""The tasks that write a text: for each its parameters, its request and its result.

Parameters are those of ``transformers.GenerationConfig`` that the pipelines of these names pass on. One that is absent
has the checkpoint's own value, and where there is none the pipeline's.
"""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from nlp_schemas.request import MAX_TEXT_CHARACTERS, Closed, OneOrSeveral, Request, ShortText, Text, as_list
from nlp_schemas.result import Answer, OkResult, Usage
from nlp_schemas.task import TaskName

#: Tokens of one generated text: some twenty pages, hours of a CPU with a large model.
MAX_NEW_TOKENS: Final = 8_192

#: Tokens of a prompt and what is generated, as long as the contexts of today's models.
MAX_CONTEXT: Final = 1_048_576

#: Beams, and texts for one request: each takes as much memory as one request.
MAX_BEAMS: Final = 16

#: Texts that end a generated one, and messages of a chat.
MAX_STOPS: Final = 16
MAX_MESSAGES: Final = 1_000

#: Seeds that every reader of JSON keeps exactly.
MAX_SEED: Final = 2**53 - 1


class GenerationParameters(Closed):
    """What all of these tasks have."""

    max_new_tokens: Annotated[
        int | None, Field(ge=1, le=MAX_NEW_TOKENS, description="Most tokens to generate; wins over max_length.")
    ] = None
    max_length: Annotated[
        int | None,
        Field(
            ge=2,
            le=MAX_CONTEXT,
            description="Most tokens of the output: of prompt and generated text together where a prompt is continued.",
        ),
    ] = None
    min_new_tokens: Annotated[
        int | None, Field(ge=0, le=MAX_NEW_TOKENS, description="Fewest tokens to generate; wins over min_length.")
    ] = None
    min_length: Annotated[int | None, Field(ge=0, le=MAX_CONTEXT, description="As max_length, the fewest.")] = None
    do_sample: Annotated[
        bool | None, Field(description="Whether tokens are drawn at random; num_beams above 1 excludes it.")
    ] = None
    temperature: Annotated[
        float | None, Field(ge=1e-6, le=100, description="Of the random draw: below 1 the likely become likelier.")
    ] = None
    top_k: Annotated[int | None, Field(ge=0, le=MAX_CONTEXT, description="Draw among so many; 0 among all.")] = None
    top_p: Annotated[float | None, Field(gt=0, le=1, description="Draw among the likeliest of this probability.")] = (
        None
    )
    min_p: Annotated[float | None, Field(ge=0, le=1, description="Least probability, as a share of the largest.")] = (
        None
    )
    typical_p: Annotated[
        float | None, Field(gt=0, le=1, description="Draw among typical tokens of this probability.")
    ] = None
    seed: Annotated[
        int | None,
        Field(ge=0, le=MAX_SEED, description="Of the random draw; null is one that is the record's own for ever."),
    ] = None
    repetition_penalty: Annotated[
        float | None, Field(ge=0.01, le=100, description="Above 1, what is there already becomes less likely.")
    ] = None
    no_repeat_ngram_size: Annotated[
        int | None, Field(ge=0, le=MAX_NEW_TOKENS, description="Runs of so many tokens appear once; 0 is off.")
    ] = None
    num_beams: Annotated[int | None, Field(ge=1, le=MAX_BEAMS, description="Beams; 1 is greedy, or a draw.")] = None
    length_penalty: Annotated[
        float | None, Field(ge=-100, le=100, description="Of beams: above 0 long ones are preferred.")
    ] = None
    early_stopping: Annotated[
        Literal[True, False, "never"] | None, Field(description='When beams stop: true, false or "never".')
    ] = None
    num_return_sequences: Annotated[
        int | None, Field(ge=1, le=MAX_BEAMS, description="Texts to give; several need beams or a draw.")
    ] = None
    stop: Annotated[
        OneOrSeveral | None,
        Field(description=f"The text ends after any of these; one, or a list of 1 to {MAX_STOPS}."),
    ] = None
    clean_up_tokenization_spaces: Annotated[
        bool | None, Field(description="Whether spaces before punctuation go; null is the pipeline's default.")
    ] = None

    @property
    def stops(self) -> list[str]:
        return [] if self.stop is None else as_list(self.stop)

    @field_validator("early_stopping", mode="before")
    @classmethod
    def _refuse_numbers(cls, value: Any) -> Any:
        # To Python 1 is True, and so it is to a Literal.
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            raise ValueError("Input should be true, false or 'never'")  # noqa: TRY004 - pydantic's way
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if len(self.stops) > MAX_STOPS:
            raise ValueError(f"stop has {len(self.stops)} texts: give from 1 to {MAX_STOPS}")
        for least, most in ("min_new_tokens", "max_new_tokens"), ("min_length", "max_length"):
            low, high = getattr(self, least), getattr(self, most)
            if low is not None and high is not None and low > high:
                raise ValueError(f"{least} is {low}, above {most}, which is {high}")
        if self.do_sample and self.num_beams is not None and self.num_beams > 1:
            raise ValueError("do_sample and num_beams above 1 exclude each other: leave one of them out")
        return self


FinishReason = Literal["stop", "length"]


class GeneratedUsage(Usage):
    """What the request cost."""

    output_tokens: int


class GenerationResult(OkResult):
    """What all of these tasks' answers have."""

    usage: GeneratedUsage
    finish_reasons: list[FinishReason]
    """Of each output: it came to its end, or to the limit of its length."""


class SummarizationParameters(GenerationParameters):
    """The call parameters of transformers 4's ``SummarizationPipeline``, the last there was."""

    truncation: Annotated[
        bool, Field(description="True cuts a text that is too long and the answer says so; false refuses it.")
    ] = True


class SummarizationRequest(Request):
    """A text to be made shorter."""

    task: Literal[TaskName.SUMMARIZATION] = TaskName.SUMMARIZATION
    inputs: Text
    parameters: SummarizationParameters = Field(default_factory=SummarizationParameters)


class Summary(Answer):
    """A summary."""

    summary_text: str


class SummarizationResult(GenerationResult):
    """The summary; as many as ``num_return_sequences``."""

    task: Literal[TaskName.SUMMARIZATION] = TaskName.SUMMARIZATION
    outputs: list[Summary]


class TranslationParameters(SummarizationParameters):
    """The call parameters of transformers 4's ``TranslationPipeline``, the last there was."""

    src_lang: Annotated[ShortText | None, Field(description="Of the text, as the checkpoint's tokenizer names it.")] = (
        None
    )
    tgt_lang: Annotated[ShortText | None, Field(description="To translate into, named likewise.")] = None


class TranslationRequest(Request):
    """A text to be translated."""

    task: Literal[TaskName.TRANSLATION] = TaskName.TRANSLATION
    inputs: Text
    parameters: TranslationParameters = Field(default_factory=TranslationParameters)


class Translation(Answer):
    """A translation."""

    translation_text: str


class TranslationResult(GenerationResult):
    """The translation; as many as ``num_return_sequences``."""

    task: Literal[TaskName.TRANSLATION] = TaskName.TRANSLATION
    outputs: list[Translation]


class ChatMessage(Closed):
    """What one side of a chat said."""

    role: ShortText
    content: Text


_PROMPT: Final = "one text"
_CHAT: Final = "a chat"


def _prompt_or_chat(inputs: Any) -> str:
    return _CHAT if isinstance(inputs, list) else _PROMPT


PromptOrChat = Annotated[
    Annotated[Text, Tag(_PROMPT)]
    | Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES), Tag(_CHAT)],
    Discriminator(_prompt_or_chat),
]


class TextGenerationParameters(GenerationParameters):
    """The call parameters of ``transformers.TextGenerationPipeline``."""

    return_full_text: Annotated[bool, Field(description="Whether the prompt stands before what is generated.")] = True
    handle_long_generation: Annotated[
        Literal["hole"] | None,
        Field(description="hole: of a prompt too long only the end is read, with room for max_new_tokens."),
    ] = None
    continue_final_message: Annotated[
        bool | None,
        Field(description="Whether a chat's last message is gone on with; null: if it is the assistant's."),
    ] = None


class TextGenerationRequest(Request):
    """A text, or a chat, to go on with."""

    task: Literal[TaskName.TEXT_GENERATION] = TaskName.TEXT_GENERATION
    inputs: PromptOrChat
    parameters: TextGenerationParameters = Field(default_factory=TextGenerationParameters)

    @field_validator("inputs", mode="before")
    @classmethod
    def _refuse_lists(cls, inputs: Any) -> Any:
        if isinstance(inputs, list) and not all(isinstance(message, (dict, ChatMessage)) for message in inputs):
            raise ValueError("a list is a chat of {role, content}; send one record for each text")
        return inputs

    @model_validator(mode="after")
    def _check_chat(self) -> Self:
        if isinstance(self.inputs, list):
            characters = sum(len(message.content) for message in self.inputs)
            if characters > MAX_TEXT_CHARACTERS:
                raise ValueError(f"the messages have {characters} characters: at most {MAX_TEXT_CHARACTERS}")
        return self


class AnswerMessage(Answer):
    """What one side of a chat said."""

    role: str
    content: str


class GeneratedText(Answer):
    """Prompt and continuation, or the continuation alone; of a chat its messages and the assistant's."""

    generated_text: str | list[AnswerMessage]


class TextGenerationResult(GenerationResult):
    """The text; as many as ``num_return_sequences``."""

    task: Literal[TaskName.TEXT_GENERATION] = TaskName.TEXT_GENERATION
    outputs: list[GeneratedText]
