"""Random ids: all different, also in a process that began as a copy."""

import os
import re

from service.random_ids import DRAWN_AT_ONCE, random_id


def test_ids_are_hexadecimal_and_differ() -> None:
    """Over several draws."""
    ids = [random_id() for _ in range(3 * DRAWN_AT_ONCE)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)


def test_a_copy_of_the_process_draws_its_own() -> None:
    """What was drawn before the copy is given out once."""
    random_id()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, random_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 64).decode() not in {random_id() for _ in range(DRAWN_AT_ONCE)}
    os.close(reading)
    os.close(writing)
