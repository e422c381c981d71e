"""Every kind of anomaly is planted and found, and the untouched run is clean."""

from __future__ import annotations

from harness import selfcheck


def test_every_anomaly_is_found_as_its_own_kind():
    """Found as often as planted, never accused of anything else, and every kind had its place."""
    tally = selfcheck.prove([7])

    assert {} == {kind: one for kind, one in tally.items() if not one.planted or one.missed or one.accused}
