"""Where answers and offsets go together: kafka-python's transactional producer, and a new one whenever it failed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import structlog
from kafka import errors as kafka_errors

from nlp_worker.bulk import send_all
from nlp_worker.connection import kafka_offsets
from nlp_worker.errors import BrokerError, FencedError, TopicError
from nlp_worker.poll import Committed, TransactionFailed
from nlp_worker.publisher import Publisher, refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nlp_worker.clock import Clock
    from nlp_worker.poll import Commit, Membership, Message, Partition
    from nlp_worker.settings import Settings

log = structlog.get_logger()

#: Milliseconds after which the broker aborts a transaction whose producer died: so long the partitions' next owner,
#: and every reader with read_committed, waits. A poll's answers are published in tens of them.
TRANSACTION_TIMEOUT_MS: Final = 15_000

#: Seconds for one blocking call or acknowledgement: above the transaction's own time, after which waiting is in vain.
CALL_DEADLINE: Final = 20.0

#: What a producer has for exactly once, beside kafka_clients.PRODUCER_SETTINGS.
OWN_SETTINGS: Final[Mapping[str, Any]] = {
    "transaction_timeout_ms": TRANSACTION_TIMEOUT_MS,
    "max_block_ms": int(CALL_DEADLINE * 1000),
    # A broker that is frozen, or whose answer was lost, is asked again within the transaction's time.
    "request_timeout_ms": 10_000,
    "delivery_timeout_ms": TRANSACTION_TIMEOUT_MS,
    # The broker refuses a transaction while it still writes the markers of the one before; with the client's own
    # 100 ms each transaction takes 128 to 215 ms.
    "retry_backoff_ms": 10,
}

#: The group moved on while the poll was computed: nothing was committed, and it is settled again after the next poll.
_MOVED_ON: Final = (
    kafka_errors.CommitFailedError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.RebalanceInProgressError,
)


class TransactionalPublisher(Publisher):
    """Sends messages and offsets in transactions.

    A producer whose transaction failed is never used again: kafka-python keeps the offsets of an aborted transaction
    and commits them with the next one, and after other failures it hangs, or fails for good. Its successor has the
    same transactional id, so the broker ends what the old one left open, and fences it.

    Args:
        settings: For the client.
        read_limits: Returns the `max.message.bytes` of each topic we write to.
        transactional_id: The same after a restart where it is known, so that what was left open ends at once.
        clock: For deadlines.

    Raises:
        BrokerError: the broker cannot be reached.
        SettingsError: a setting under [kafka] or [kafka.producer] cannot be used.
        TopicError: the transactional id may not be used.
    """

    def __init__(
        self,
        settings: Settings,
        read_limits: Callable[[], Mapping[str, int]],
        transactional_id: str,
        clock: Clock = time,
    ) -> None:
        super().__init__(settings, read_limits, clock, **OWN_SETTINGS, transactional_id=transactional_id)
        self._failed = False

    def _open(self) -> Any:
        client = super()._open()
        try:
            # Ends, or waits for the end of, whatever the last producer of this id left open.
            client.init_transactions()
        except kafka_errors.TransactionalIdAuthorizationFailedError:
            name = self._arguments["transactional_id"]
            problem = f"WRITE on the transactional id {name} is not allowed"
            raise TopicError(f"{problem}: allow it (the embedded broker has no transactions)") from None
        except kafka_errors.KafkaError as error:
            client._sender.force_close()  # noqa: SLF001 - as in close()
            raise BrokerError(f"the broker does not begin transactions: {type(error).__name__}: {error}") from None
        return client

    def transact(
        self, messages: Sequence[Message], offsets: Mapping[Partition, Commit], member: Membership, seconds: float
    ) -> Committed:
        """Publish and commit in one transaction: DONE, or LATER where the group has moved on and nothing was committed.

        Raises:
            LimitChanged: a topic refused a message as too large; `fits` knows its new limit.
            TransactionFailed: it may have been committed or not; `recover` ends it.
            FencedError: another instance has this one's instance id.
            TopicError: a topic or the transactional id may not be used.
        """
        if not self.recover():
            raise TransactionFailed("the broker is away")
        self._failed = True
        try:
            self._transact(messages, offsets, member, self._clock.monotonic() + min(seconds, CALL_DEADLINE))
        except kafka_errors.FencedInstanceIdError:
            raise FencedError from None
        except _MOVED_ON as error:
            log.warning("commit_later", reason=type(error).__name__)
            return Committed.LATER
        except kafka_errors.KafkaError as error:
            refuse(error)
            self._learn_limits(error, messages)
            raise TransactionFailed(f"{type(error).__name__}: {error}") from None
        self._failed = False
        return Committed.DONE

    def _transact(
        self, messages: Sequence[Message], offsets: Mapping[Partition, Commit], member: Membership, deadline: float
    ) -> None:
        # Of the client's own calls for these two the one has no time-out, and neither returns when the connection to
        # the coordinator is lost while they wait.
        transaction = self._client._transaction_manager  # noqa: SLF001
        self._client.begin_transaction()
        acknowledgements = send_all(self._client, messages)
        self._wait(transaction.send_offsets_to_transaction(kafka_offsets(offsets), member), deadline)
        for acknowledgement in acknowledgements:
            acknowledgement.get(timeout=max(deadline - self._clock.monotonic(), 0))
        self._wait(transaction.begin_commit(), deadline)

    def _wait(self, result: Any, deadline: float) -> None:
        self._client._sender.wakeup()  # noqa: SLF001
        if not result.wait(timeout_ms=max(deadline - self._clock.monotonic(), 0) * 1000):
            raise kafka_errors.KafkaTimeoutError(f"the transaction did not go on within {CALL_DEADLINE:.0f} s")

    def recover(self) -> bool:
        """End a transaction that failed, by a new producer; whether the broker could be reached."""
        if self._failed:
            self._failed = not self._replace()
        return not self._failed
