"""How the benchmark counts memory, and what it takes for a user's own."""

from benchmarks.serving.memory import family_of, smaps_totals

SMAPS = """\
7f0000000000-7f0000010000 r--s 00000000 fe:00 1234                       /b/my item_matrix.npy
Size:                 64 kB
Rss:                  40 kB
Pss:                  20 kB
Shared_Clean:         40 kB
Private_Clean:         0 kB
Private_Dirty:         0 kB
VmFlags: rd mr
7f0000020000-7f0000030000 rw-p 00000000 00:00 0
Rss:                   8 kB
Pss:                   8 kB
Shared_Clean:          0 kB
Private_Clean:         1 kB
Private_Dirty:         7 kB
"""


def test_a_process_has_the_sum_of_its_mappings() -> None:
    """The second mapping has no file."""
    totals = smaps_totals(SMAPS)
    assert totals["Rss"] == 40 + 8
    assert totals["Private_Clean"] + totals["Private_Dirty"] == 1 + 7


def test_a_file_has_its_own_mappings_alone() -> None:
    """Half of what two processes share is each one's."""
    totals = smaps_totals(SMAPS, "item_matrix.npy")
    assert (totals["Rss"], totals["Pss"], totals["Shared_Clean"]) == (40, 20, 40)


def test_keys_that_end_in_a_users_id_are_the_users() -> None:
    """Whatever family comes with a change of the layout, it is counted where it belongs."""
    users = {":anna", ":ben"}
    assert family_of("{p3}:h1:anna", users) == ("h1", True)
    assert family_of("{p3}:new7:ben", users) == ("new7", True)
    assert family_of("{p3}:c1:20450", users) == ("c1", False)
    assert family_of("{p3}:ev1", users) == ("ev1", False)
    assert family_of("sojourn:meta1", users) == ("sojourn:meta1", False)
