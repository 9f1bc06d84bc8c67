"""A demonstration as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import jinja2

from efface.report import wording
from efface.report.demonstration import Demonstration, Outcome
from efface.report.picture import data_uri, is_reduced
from efface.report.touched import EditGroup


def page(demonstration: Demonstration) -> str:
    """The page: pictures, style and facts inlined, every text escaped, no script, nothing fetched."""
    return _templates().get_template("page.html").render(found=demonstration, highest=_highest(demonstration))


def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("efface.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "seconds": wording.seconds,
        "count": wording.count,
        "size": wording.size,
        "plural": wording.plural,
        "spans": wording.spans,
        "value": wording.value,
        "data_uri": data_uri,
        "edit": _edit,
    }
    templates.tests |= {
        "reduced": is_reduced,
        "outcome": lambda result: isinstance(result, Outcome),
        "table": lambda found: isinstance(found, Mapping) and len(found) > 0,
    }
    return templates


def _highest(demonstration: Demonstration) -> float:
    """The largest mean change on the page, which is the full length of a bar."""
    means: list[float] = [mean for outcome in demonstration.outcomes for mean in demonstration.mean_changes(outcome)]
    return max(means, default=0.0)


def _edit(counted: tuple[EditGroup, int]) -> str:
    """`1 map at text: rank 3, 768 × 768`, `12 functions of the output at skip`."""
    group, number = counted
    if group.shape is None:
        what = "each step" if group.verb == "step" else f"the {group.verb} at {group.kind}"
        return f"{wording.plural(number, 'function')} of {what}"
    form = f"rank {group.rank}" if group.form == "low-rank" else "dense"
    rows, columns = group.shape
    return f"{wording.plural(number, group.verb)} at {group.kind}: {form}, {rows} \N{MULTIPLICATION SIGN} {columns}"
