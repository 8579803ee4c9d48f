"""What a service counts of itself, read from its /metrics."""

import urllib.request

from prometheus_client.parser import text_string_to_metric_families

ENCODED_WINDOWS = "sojourn_encoded_windows_total"


def encoded_windows(port: int) -> dict[str, float]:
    """Return how many windows the encoder was asked about, and for how many it was not."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return encoded_windows_in(text)


def encoded_windows_in(text: str) -> dict[str, float]:
    """Return the same of the text of an exposition.

    >>> encoded_windows_in('sojourn_encoded_windows_total{source="kept"} 3.0')
    {'kept': 3.0}
    """
    return {
        sample.labels["source"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == ENCODED_WINDOWS
    }
