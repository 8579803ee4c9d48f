"""The one encoder: padding, cutting, order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract.errors import ContractError
from service.contract.features import (
    REQUEST_INPUTS,
    WINDOW_INPUTS,
    RequestPoint,
    Window,
    encode_window,
    encode_windows,
)


def window_of(num_events: int) -> Window:
    """Events 1…n, a second apart, without values or places."""
    count = np.arange(1, num_events + 1, dtype=np.int64)
    missing = np.full(num_events, np.nan, np.float32)
    zeros = np.zeros(num_events, np.int64)
    return Window(count, zeros + 1, count * 1000, zeros, missing, missing, missing, missing)


def test_a_short_window_is_padded_on_the_left() -> None:
    """The newest event is always last, so that the model reads one position."""
    arrays = encode_window(window_of(2), RequestPoint(), 4)
    assert arrays["items"].tolist() == [0, 0, 1, 2]
    assert arrays["timestamps_ms"].tolist() == [0, 0, 1000, 2000]
    assert np.isnan(arrays["lats"]).all()


def test_a_long_window_keeps_its_newest_events() -> None:
    """Of five events a window of three keeps the third to the fifth."""
    assert encode_window(window_of(5), RequestPoint(), 3)["items"].tolist() == [3, 4, 5]


def test_an_empty_window_is_all_padding() -> None:
    """A user without events is a case, not an error."""
    arrays = encode_window(Window.empty(), RequestPoint(time_ms=7), 3)
    assert arrays["items"].tolist() == [0, 0, 0]
    assert int(arrays["request_time_ms"]) == 7


@given(st.lists(st.integers(0, 12), min_size=1, max_size=5), st.integers(1, 6))
def test_every_array_has_its_stated_dtype_and_shape(lengths: list[int], window_len: int) -> None:
    """The manifest promises dtypes; ONNX Runtime refuses others."""
    windows = [window_of(length) for length in lengths]
    arrays = encode_windows(windows, [RequestPoint()] * len(lengths), window_len)
    for name, dtype in WINDOW_INPUTS.items():
        assert arrays[name].dtype == dtype
        assert arrays[name].shape == (len(lengths), window_len)
    for name, dtype in REQUEST_INPUTS.items():
        assert arrays[name].dtype == dtype
        assert arrays[name].shape == (len(lengths),)


def test_events_out_of_time_order_are_refused() -> None:
    """The encoder never sorts: a caller that did not merge by time has a bug."""
    backwards = window_of(3).select(np.array([True, True, True]))
    backwards.timestamps_ms[:] = [3, 2, 1]
    with pytest.raises(ContractError, match="out of time order"):
        encode_window(backwards, RequestPoint(), 3)


def test_times_stay_exact_to_the_millisecond() -> None:
    """Float32 holds 24 bits; milliseconds since 1970 need 41."""
    window = window_of(1)
    window.timestamps_ms[0] = 1_700_000_000_001
    assert int(encode_window(window, RequestPoint(), 1)["timestamps_ms"][0]) == 1_700_000_000_001
