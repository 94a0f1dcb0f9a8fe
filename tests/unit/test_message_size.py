"""The quick look at a message's size never lets pass what the exact one would not."""

from hypothesis import given
from hypothesis import strategies as st

from nlp_worker.poll import Message
from nlp_worker.publisher import _size, _size_at_most

BYTES = st.binary(max_size=300)


@given(st.none() | BYTES, st.none() | BYTES, st.lists(st.tuples(st.text(max_size=50), BYTES), max_size=40))
def test_the_quick_look_is_never_below(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
) -> None:
    """With any key, value and headers."""
    message = Message("topic", key, value, headers)
    assert _size_at_most(message) >= _size(message)
