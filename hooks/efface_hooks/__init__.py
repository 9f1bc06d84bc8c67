"""Where a diffusion pipeline can be edited, and how an edit goes on and comes off.

Knows torch and the structure of diffusers' U-Nets and text encoders, and nothing of any erasure method.
"""

from typing import TYPE_CHECKING

from efface_hooks.lazy import lazily

if TYPE_CHECKING:
    from efface_hooks.call import Call as Call
    from efface_hooks.call import current as current
    from efface_hooks.delta import Delta as Delta
    from efface_hooks.delta import Dense as Dense
    from efface_hooks.delta import LowRank as LowRank
    from efface_hooks.errors import AlreadyEdited as AlreadyEdited
    from efface_hooks.errors import BadEdit as BadEdit
    from efface_hooks.errors import BypassedError as BypassedError
    from efface_hooks.errors import EditLost as EditLost
    from efface_hooks.errors import HookError as HookError
    from efface_hooks.errors import NotInThisPass as NotInThisPass
    from efface_hooks.errors import UnknownPoint as UnknownPoint
    from efface_hooks.errors import UnsupportedPipeline as UnsupportedPipeline
    from efface_hooks.patch import Patch as Patch
    from efface_hooks.point import HookPoint as HookPoint
    from efface_hooks.point import find as find
    from efface_hooks.point import points as points
    from efface_hooks.wiring import Wiring as Wiring

__getattr__, __all__ = lazily(
    __name__,
    {
        "efface_hooks.call": "Call current",
        "efface_hooks.delta": "Delta Dense LowRank",
        "efface_hooks.errors": "AlreadyEdited BadEdit BypassedError EditLost HookError NotInThisPass UnknownPoint "
        "UnsupportedPipeline",
        "efface_hooks.patch": "Patch",
        "efface_hooks.point": "HookPoint find points",
        "efface_hooks.wiring": "Wiring",
    },
)
