"""Packed batches: the rows of a batch end to end, without padding, where a model gives the same answers so.

Attention sees a row's own tokens alone, through a function that is registered with transformers. Whether a model hands
it what it needs, and has nothing else in it that looks over a row's borders, is not known from its name: each
checkpoint is tried when it is loaded, and one that fails is padded.
"""

from __future__ import annotations

import inspect
import itertools
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import structlog
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from nlp_worker.poll import Row
from nlp_worker.tasks.transfer import to_device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = structlog.get_logger()

#: What transformers calls the attention of packed rows.
ATTENTION: Final = "packed_sdpa"

#: Tokens of the rows that a checkpoint is tried with: as short as can be, of one length, and one that is longer than
#: the window (65 tokens) that ModernBERT's attention sees.
LENGTHS: Final = (9, 1, 2, 9, 9, 80)

#: Most difference of packed outputs from single ones, as a part of the largest output. Float noise is below the first
#: in float32 and the second in half precision, which rounds to 1/256; tokens of other rows make 0.1 to 1.
FLOAT32_BOUND: Final = 5e-5
HALF_BOUND: Final = 0.05

#: In half precision noise grows with each layer: what packing makes may be this often what padding makes, up to a
#: difference that is none of noise.
OF_PADDING: Final = 2.0
MOST_NOISE: Final = 0.4

#: What the tasks read of a model's output: for each token, or where a head reads the first token for each row.
READ: Final = ("logits", "start_logits", "end_logits", "last_hidden_state")


def pack(rows: Sequence[Row], padding: int, device: torch.device) -> dict[str, Any]:
    """Lay the rows' features end to end.

    Args:
        rows: Of one batch, all with the same features; those of one length should stand together.
        padding: The id that positions do not count, and behind which they begin: RoBERTa's and its like; else -1.
        device: Where the tensors go.

    Returns:
        Features and ``position_ids``, int64, shape [1, tokens of all rows]; ``cu_seq_lens_q``, where each row begins
        and the last one ends, int32, shape [rows + 1]; ``max_length_q``, the longest row's tokens.
    """
    lengths = np.array([row.length for row in rows])
    borders = np.concatenate([[0], lengths.cumsum()])
    arrays = {name: np.concatenate([row.features[name] for row in rows], dtype=np.int64) for name in rows[0].features}
    counted = arrays["input_ids"] != padding
    count = counted.cumsum()
    before = np.concatenate([[0], count])[borders[:-1]]
    arrays["position_ids"] = (count - before.repeat(lengths)) * counted + padding
    return {
        **{name: to_device(array[np.newaxis], device) for name, array in arrays.items()},
        "cu_seq_lens_q": to_device(borders.astype(np.int32), device),
        "max_length_q": int(lengths.max()),
    }


def by_row(values: torch.Tensor, rows: Sequence[Row]) -> Sequence[torch.Tensor]:
    """Return what is each row's of a value for each token, shape [tokens, ...] each.

    Args:
        values: Shape [rows, longest, ...], or packed [1, tokens of all rows, ...].
        rows: Of the batch. Their lengths are known without asking the device, which would be waited for.
    """
    lengths = [row.length for row in rows]
    if len(values) == 1:
        return torch.split(values[0], lengths)
    return [of_row[:length] for of_row, length in zip(values, lengths, strict=True)]


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of each row to itself, as transformers calls it: a model that does not pass the borders on fails here.

    Args:
        module: The layer.
        query: Shape [1, heads, tokens of all rows, size]; so are key and value.
        key: What is looked at.
        value: What is taken of it.
        _attention_mask: None, for there is no padding.
        cu_seq_lens_q: As ``pack`` has it.
        max_length_q: As ``pack`` has it.
        sliding_window: A token sees those that are nearer than this.
        options: Of ``sdpa_attention_forward``.

    Returns:
        Shape [1, tokens of all rows, heads, size].

    Raises:
        ValueError: the trial could not tell whether the window is right.
    """
    if sliding_window is not None and sliding_window >= max(LENGTHS):
        raise ValueError(f"no row that packing is tried with is longer than a window of {sliding_window}")
    query, key, value = (each[0].transpose(0, 1) for each in (query, key, value))
    if query.is_cuda:
        from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 - newer than the oldest torch that is served

        window = (-1, -1) if sliding_window is None else (sliding_window - 1, sliding_window - 1)
        borders, most = cu_seq_lens_q, max_length_q
        scale = options.get("scaling")
        seen: Any = varlen_attn(query, key, value, borders, borders, most, most, scale=scale, window_size=window)
        return seen.unsqueeze(0), None
    runs = [(length, len(list(same))) for length, same in itertools.groupby(cu_seq_lens_q.diff().tolist())]
    sizes = [length * rows for length, rows in runs]
    outputs = []
    for (length, rows), *parts in zip(runs, *(torch.split(each, sizes) for each in (query, key, value)), strict=True):
        of_rows = [part.unflatten(0, (rows, length)).transpose(1, 2) for part in parts]
        mask = _window(length, sliding_window)
        output, _ = sdpa_attention_forward(module, *of_rows, mask, **options)
        outputs.append(output.flatten(0, 1))
    return torch.cat(outputs).unsqueeze(0), None


def _window(length: int, sliding_window: int | None) -> torch.Tensor | None:
    """Return which tokens of a row see which, shape [length, length]; None where all see all."""
    if sliding_window is None or length <= sliding_window:
        return None
    places = torch.arange(length)
    return (places[:, None] - places).abs() < sliding_window


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, lambda *_, **__: None)


def trial_rows(features: Sequence[str], vocabulary: int, padding: int, longest: int) -> list[Row]:
    """Return rows of LENGTHS to try a checkpoint with, the same ones each time.

    Args:
        features: What a row has.
        vocabulary: Ids are below it.
        padding: The padding's id, which a text may have that says so: RoBERTa's positions do not count it.
        longest: Most tokens of a row.
    """
    draws, rows = np.random.default_rng(0), []
    for length in (min(length, longest) for length in LENGTHS):
        ids, places = draws.integers(vocabulary, size=length), np.arange(length)
        ids[1::5] = padding
        columns = {"input_ids": ids, "token_type_ids": (places >= length // 2).astype(int)}
        rows.append(Row({name: columns[name].tolist() for name in features}))
    return rows


def try_packing(
    model: Any,
    forward: Callable[[dict[str, Any]], Any],
    alone: Sequence[dict[str, Any]],
    padded: dict[str, Any],
    packed: dict[str, Any],
    *,
    reads_first: bool,
) -> bool:
    """Make a model ready for packed rows, if its outputs are then what they are for each row alone.

    Args:
        model: Left as it was where they are not.
        forward: What runs it.
        alone: Some rows, each as a batch.
        padded: The same rows as one batch, padded on the right.
        packed: The same rows end to end.
        reads_first: Whether its head reads the first token of a row; else it has an output for each token.
    """
    attention = model.config._attn_implementation  # noqa: SLF001 - transformers has no public name for it
    hook = None
    try:
        dim = 0 if reads_first else 1
        singles = [forward(inputs) for inputs in alone]
        bound = FLOAT32_BOUND
        if model.dtype != torch.float32:
            noise = _difference(_unpadded(forward(padded), alone, dim), singles, dim)
            bound = min(max(OF_PADDING * noise, HALF_BOUND), MOST_NOISE)
        hook = _stack(model).register_forward_hook(_keep_first, with_kwargs=True) if reads_first else None
        model.set_attn_implementation(ATTENTION)
        difference = _difference(forward(packed), singles, dim)
        # Not a number is not below it.
        packs = difference <= bound
        log.debug("packing_tried", difference=difference, bound=bound, packs=packs)
    except Exception as error:  # noqa: BLE001 - whatever it is that the model cannot do, padding is there for it
        log.debug("packing_tried", error=f"{type(error).__name__}: {error}", packs=False)
        packs = False
    if not packs:
        if hook is not None:
            hook.remove()
        model.set_attn_implementation(attention)
    return packs


def may_pack(model: Any) -> bool:
    """Whether it is worth trying: an encoder, on the CPU, or in half precision on a GPU, which has a kernel for it."""
    # Where the base model takes no positions its head passes them on as an option that nobody reads.
    if "position_ids" not in inspect.signature(model.base_model.forward).parameters:
        return False
    if model.config.is_encoder_decoder or any(getattr(module, "is_causal", False) for module in model.modules()):
        return False
    return bool(model.device.type == "cpu" or (model.device.type == "cuda" and model.dtype != torch.float32))


def _stack(model: Any) -> Any:
    """Return what all layers are in, and no head: what comes behind it reads the first token."""
    base = model.base_model
    return getattr(base, "encoder", None) or getattr(base, "transformer", None) or base


def _keep_first(_module: Any, _arguments: Any, inputs: dict[str, Any], output: Any) -> Any:
    """Leave of the packed rows their first tokens, as a batch of rows of one token: shape [rows, 1, hidden]."""
    starts = inputs["cu_seq_lens_q"][:-1].long()
    output.last_hidden_state = output.last_hidden_state[0, starts].unsqueeze(1)
    return output


def _unpadded(padded: Any, alone: Sequence[dict[str, Any]], dim: int) -> dict[str, torch.Tensor]:
    """Return the outputs of a padded batch as those of its rows alone follow one another: on that dimension."""
    outputs = {name: padded[name] for name in READ if name in padded}
    if dim == 0:
        return outputs
    lengths = [inputs["input_ids"].shape[1] for inputs in alone]
    of_rows = {name: [row[:length] for row, length in zip(outputs[name], lengths, strict=True)] for name in outputs}
    return {name: torch.cat(rows).unsqueeze(0) for name, rows in of_rows.items()}


def _difference(outputs: Any, singles: Sequence[Any], dim: int) -> float:
    """Return the largest difference of a batch's outputs from those of its rows alone, as a part of the largest.

    Raises:
        ValueError: they differ in shape, or none is known.
    """
    differences = []
    for name in (name for name in READ if name in outputs):
        ours, expected = outputs[name].float(), torch.cat([single[name] for single in singles], dim).float()
        if ours.shape != expected.shape:
            raise ValueError(f"{name}: shape {tuple(ours.shape)}, alone {tuple(expected.shape)}")
        differences.append((ours - expected).abs().max() / expected.abs().max())
    if not differences:
        raise ValueError(f"none of {', '.join(READ)}")
    return float(torch.stack(differences).max())
