"""What plugin authors test with."""

from typing import TYPE_CHECKING

from efface_hooks.lazy import lazily

if TYPE_CHECKING:
    from efface.testing.full_size import full_pipeline as full_pipeline
    from efface.testing.full_size import full_unet as full_unet
    from efface.testing.method_tests import MethodTests as MethodTests
    from efface.testing.pipelines import FAMILIES as FAMILIES
    from efface.testing.pipelines import Family as Family
    from efface.testing.pipelines import tiny_pipeline as tiny_pipeline
    from efface.testing.pipelines import tiny_tokenizer as tiny_tokenizer

# Only MethodTests needs pytest, which is no dependency of efface.
__getattr__, __all__ = lazily(
    __name__,
    {
        "efface.testing.full_size": "full_pipeline full_unet",
        "efface.testing.method_tests": "MethodTests",
        "efface.testing.pipelines": "FAMILIES Family tiny_pipeline tiny_tokenizer",
    },
)
