"""Erasures as files of other programs."""

from efface.export.lora import FORMATS, Lora, lora

__all__ = ["FORMATS", "Lora", "lora"]
