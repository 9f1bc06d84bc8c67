"""What plugin authors test with."""

from efface.testing.pipelines import FAMILIES, Family, tiny_pipeline, tiny_tokenizer

__all__ = ["FAMILIES", "Family", "tiny_pipeline", "tiny_tokenizer"]
