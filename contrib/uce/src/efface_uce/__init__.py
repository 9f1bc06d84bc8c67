"""Unified Concept Editing (Gandikota et al., WACV 2024, arXiv 2308.14761) as an efface plugin."""

import efface


@efface.hookimpl
def efface_methods() -> list[type[efface.Method]]:
    from efface_uce.uce import UCE

    return [UCE]
