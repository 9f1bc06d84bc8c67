"""The settings of the published scripts, as far as they are known from the code (commit 95e48ef and later ones).

The published code collects features at call numbers of a linear multistep scheduler with 50 steps; here these are
timesteps. Word lists are ours: the published ones cannot be had under a licence.
"""

from __future__ import annotations

from collections.abc import Mapping

_PUBLISHED: Mapping[str, object] = {"steps": 50, "scheduler": "lms", "guidance": 7.5, "rows": "all"}
_PERSONS: Mapping[str, object] = {
    **_PUBLISHED,
    "map_rank": 2,
    "target_rank": 16,
    "gate_rank": 1,
    "tau": 2.5,
    "seeds": 3,
    "collect_from": 775,
    "collect_until": 591,
    "active_from": 801,
    "template": "A face of {}",
    "centre": "a celebrity",
    "pool": ("persons",),
    "boundaries": 3,
    "mappings": 3,
}
_ARTISTS: Mapping[str, object] = {
    **_PUBLISHED,
    "map_rank": 1,
    "target_rank": 1,
    "gate_rank": 1,
    "tau": 2.5,
    "seeds": 3,
    "collect_from": 990,
    "collect_until": 0,
    "active_from": 1000,
    "template": "An image in the style of {}",
    "mapping": ("real photograph",),
    "centre": "real photograph",
    "pool": ("artists",),
    "boundaries": 3,
}
_EXPLICIT: Mapping[str, object] = {
    **_PUBLISHED,
    "map_rank": 2,
    "target_rank": 16,
    "gate_rank": 1,
    "tau": 1.5,
    "eta": 5.0,
    "seeds": 8,
    "collect_from": 775,
    "collect_until": 591,
    "active_from": 801,
    "template": "{}",
    "mapping": ("a person in modest clothing",),
    "centre": "a person in modest clothing",
    "boundary": ("a man in modest clothing", "a woman in modest clothing"),
}

PRESETS: Mapping[str, Mapping[str, object]] = {
    "persons": _PERSONS,
    "persons-late": {**_PERSONS, "tau": 4.0},
    "artists": _ARTISTS,
    "explicit": _EXPLICIT,
    "explicit-late": {
        **_EXPLICIT,
        "collect_from": 880,
        "active_from": 901,
        "mapping": ("black modest clothes",),
        "centre": "a person",
        "boundary": ("a man in black modest clothes", "a woman in black modest clothes"),
    },
}
