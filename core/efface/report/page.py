"""A demonstration as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import jinja2

from efface import wording
from efface.report.demonstration import Demonstration, Outcome, Skipped
from efface.report.figure import TABLE
from efface.report.picture import data_uri, is_reduced, whole
from efface.report.stacked import MOST_LOST, MOST_SHOWN, Stacked
from efface.report.table import rows
from efface.report.touched import EditGroup

OF_A_STACK = ("efficacy", "anchor", "generality", "specificity_drop", "locality_other", "fidelity_mae")


def page(demonstration: Demonstration) -> str:
    """The page: pictures, style and facts inlined, every text escaped, no script, nothing fetched."""
    return _templates().get_template("page.html").render(found=demonstration, rows=rows(demonstration), figures=TABLE)


def stack_page(found: Stacked) -> str:
    """The page of a demonstration of several erasures together, as self-contained as the other."""
    shown = [figure for figure in TABLE if figure.name in OF_A_STACK]
    return _templates().get_template("stack.html").render(found=found, figures=shown, goals=(MOST_SHOWN, MOST_LOST))


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
        "roughly": wording.roughly,
        "count": wording.count,
        "size": wording.size,
        "counted": wording.counted,
        "spans": wording.spans,
        "value": wording.value,
        "data_uri": data_uri,
        "whole": whole,
        "edit": _edit,
    }
    templates.tests |= {
        "reduced": is_reduced,
        "outcome": lambda result: isinstance(result, Outcome),
        "skipped": lambda result: isinstance(result, Skipped),
        "table": lambda found: isinstance(found, Mapping) and len(found) > 0,
    }
    return templates


def _edit(counted: tuple[EditGroup, int]) -> str:
    """`1 map at text: rank 3, 768 × 768`, `12 functions of the output at skip`."""
    group, number = counted
    if group.shape is None:
        what = "each step" if group.verb == "step" else f"the {group.verb} at {group.kind}"
        return f"{wording.counted(number, 'function')} of {what}"
    form = f"rank {group.rank}" if group.form == "low-rank" else "dense"
    high, wide = group.shape
    return f"{wording.counted(number, group.verb)} at {group.kind}: {form}, {high} \N{MULTIPLICATION SIGN} {wide}"
