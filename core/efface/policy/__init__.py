"""The policy file: a base model with its erasures, pinned by their content as an application pins its dependencies."""

from efface.policy.applying import apply
from efface.policy.baking import bake
from efface.policy.checking import Mismatch, erasures_of, model_of
from efface.policy.pinning import pin
from efface.policy.policy import PinnedErasure, Policy

__all__ = ["Mismatch", "PinnedErasure", "Policy", "apply", "bake", "erasures_of", "model_of", "pin"]
