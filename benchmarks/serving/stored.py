"""Where Sojourn keeps a user's window, for contestants that read it without Sojourn."""

from service.config import Settings
from service.contract.features import Past
from service.store.history_codec import decode_history
from service.store.keys import history_key, partition_of

NUM_PARTITIONS = int(Settings.model_fields["num_partitions"].default)


def window_key(user_id: str) -> str:
    """Return the key of a user's packed window."""
    return history_key(partition_of(user_id, NUM_PARTITIONS), user_id)


def decode_window(packed: bytes | None) -> Past:
    """Return the events in a packed window, oldest first."""
    return decode_history(packed, None)
