"""efface: erase concepts from text-to-image diffusion models, by plugins.

This is all that plugin authors and applications import.
"""

from typing import TYPE_CHECKING

from efface_hooks.lazy import lazily

if TYPE_CHECKING:
    from efface.checkpoint import Checkpoint as Checkpoint
    from efface.checkpoint import optimizer_tensors as optimizer_tensors
    from efface.checkpoint import restore_optimizer as restore_optimizer
    from efface.composing import compose as compose
    from efface.concept import Concept as Concept
    from efface.concept import Request as Request
    from efface.concept_list import read_concepts as read_concepts
    from efface.editor import Editor as Editor
    from efface.erasing import erase as erase
    from efface.erasure import Erasure as Erasure
    from efface.errors import BadArtifact as BadArtifact
    from efface.errors import BadConcept as BadConcept
    from efface.errors import BadSetting as BadSetting
    from efface.errors import CannotSave as CannotSave
    from efface.errors import EffaceError as EffaceError
    from efface.errors import PluginError as PluginError
    from efface.errors import PolicyError as PolicyError
    from efface.errors import UnknownMethod as UnknownMethod
    from efface.errors import UnknownModel as UnknownModel
    from efface.errors import UnknownPlugin as UnknownPlugin
    from efface.errors import UnknownSuite as UnknownSuite
    from efface.errors import WrongBase as WrongBase
    from efface.hookspecs import hookimpl as hookimpl
    from efface.loading import load as load
    from efface.method import Composable as Composable
    from efface.method import Covers as Covers
    from efface.method import Fit as Fit
    from efface.method import Fitted as Fitted
    from efface.method import Mergeable as Mergeable
    from efface.method import Method as Method
    from efface.method import Run as Run
    from efface.model import Encoded as Encoded
    from efface.model import Model as Model
    from efface.named import NamedModel as NamedModel
    from efface.policy import Policy as Policy
    from efface.policy import apply as apply
    from efface.registry import Registry as Registry
    from efface.settings import Setting as Setting
    from efface.settings import describe as describe
    from efface.settings import setting as setting
    from efface.suite import Scene as Scene
    from efface.suite import Suite as Suite
    from efface.suite import SuiteConcept as SuiteConcept
    from efface_hooks.call import Call as Call
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
    from efface_hooks.point import points as points

__getattr__, __all__ = lazily(
    __name__,
    {
        "efface.checkpoint": "Checkpoint optimizer_tensors restore_optimizer",
        "efface.composing": "compose",
        "efface.concept": "Concept Request",
        "efface.concept_list": "read_concepts",
        "efface.editor": "Editor",
        "efface.erasing": "erase",
        "efface.erasure": "Erasure",
        "efface.errors": "BadArtifact BadConcept BadSetting CannotSave EffaceError PluginError PolicyError "
        "UnknownMethod UnknownModel UnknownPlugin UnknownSuite WrongBase",
        "efface.hookspecs": "hookimpl",
        "efface.loading": "load",
        "efface.method": "Composable Covers Fit Fitted Mergeable Method Run",
        "efface.model": "Encoded Model",
        "efface.named": "NamedModel",
        "efface.policy": "Policy apply",
        "efface.registry": "Registry",
        "efface.settings": "Setting describe setting",
        "efface.suite": "Scene Suite SuiteConcept",
        "efface_hooks.call": "Call",
        "efface_hooks.delta": "Dense LowRank",
        "efface_hooks.errors": "AlreadyEdited BadEdit BypassedError EditLost HookError NotInThisPass UnknownPoint "
        "UnsupportedPipeline",
        "efface_hooks.patch": "Patch",
        "efface_hooks.point": "HookPoint points",
    },
)
