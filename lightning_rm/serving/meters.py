"""The server's counters, in the text format of Prometheus. This file knows only numbers and names."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the buckets for answer times, in seconds."""

HELP = {
    "requests_total": ("counter", "Requests answered, by path and status."),
    "rewards_total": ("counter", "Rewards given."),
    "truncated_total": ("counter", "Items that were cut, as their requests had asked."),
    "batches_total": ("counter", "Batches scored."),
    "batch_sequences_total": ("counter", "Sequences scored in batches."),
    "batch_tokens_total": ("counter", "Tokens scored in batches, a shared prompt counted each time."),
    "waiting_sequences": ("gauge", "Sequences that are in no batch yet."),
    "request_seconds": ("histogram", "Seconds from a request's last byte to its answer."),
}


class Meters:
    """Counters that any thread may add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: defaultdict[tuple[str, str], float] = defaultdict(float)

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter, one for every set of labels."""
        with self._lock:
            self._counts[name, _labels(labels)] += amount

    def observe(self, seconds: float) -> None:
        """Record how long an answer took."""
        with self._lock:
            for bound in SECONDS:
                self._counts["request_seconds_bucket", _labels({"le": str(bound)})] += seconds <= bound
            self._counts["request_seconds_bucket", _labels({"le": "+Inf"})] += 1
            self._counts["request_seconds_sum", ""] += seconds
            self._counts["request_seconds_count", ""] += 1

    def text(self, **gauges: float) -> str:
        """Return all counters, and the gauges given, in Prometheus' text format."""
        with self._lock:
            counts = dict(self._counts) | {(name, ""): float(value) for name, value in gauges.items()}
        lines: list[str] = []
        for name, (kind, meaning) in HELP.items():
            lines += [f"# HELP lightning_rm_{name} {meaning}", f"# TYPE lightning_rm_{name} {kind}"]
            keys = {f"{name}{part}" for part in ("_bucket", "_sum", "_count")} if kind == "histogram" else {name}
            lines += [
                f"lightning_rm_{key}{labels} {_written(value)}"
                for (key, labels), value in counts.items()
                if key in keys
            ]
        return "\n".join(lines) + "\n"


def _written(value: float) -> str:
    """Write a number with all its digits: a counter of millions grows by ones."""
    return str(int(value)) if value.is_integer() else repr(value)


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}" if labels else ""
