from service.store import keys


def test_all_keys_of_a_user_share_the_partitions_hash_tag() -> None:
    """A Cluster hashes only what is in the braces, so one script may touch all of them."""
    partition = keys.partition_of("anna", 16)
    names = [
        keys.history_key(partition, "anna"),
        keys.seen_key(partition, "anna"),
        keys.counter_key(partition, 20_467),
        keys.stream_key(partition),
        keys.stream_copy_key(partition, "token"),
        keys.rewrite_key(partition),
        keys.tombstone_key(partition, "anna"),
    ]
    assert {name[: name.index("}") + 1] for name in names} == {f"{{p{partition}}}"}
    assert len(set(names)) == 7


def test_the_name_of_a_tombstone_does_not_say_whose_it_is() -> None:
    """It outlives the user's data, and names are read by whoever may list keys."""
    name = keys.tombstone_key(3, "anna")
    assert name.startswith("{p3}:t1:")
    assert "anna" not in name
    assert name != keys.tombstone_key(3, "ben")


def test_braces_in_a_user_id_do_not_move_the_user() -> None:
    """The first pair of braces decides, and it is ours."""
    name = keys.history_key(3, "{p9}:x")
    assert name[name.index("{") + 1 : name.index("}")] == "p3"


def test_the_partition_of_a_user_never_changes() -> None:
    """A changed hash would lose every history; CRC-32 of "123456789" is 0xCBF43926."""
    assert keys.partition_of("123456789", 1 << 32) == 0xCBF43926
    assert keys.partition_of("123456789", 16) == 0x6
    assert {keys.partition_of(f"user-{n}", 4) for n in range(100)} == {0, 1, 2, 3}
