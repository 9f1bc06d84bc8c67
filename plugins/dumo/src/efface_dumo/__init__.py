"""DuMo (Han et al., AAAI 2025, arXiv 2501.01125): a side network modulates the skip connections."""

import efface


@efface.hookimpl
def efface_methods() -> list[type[efface.Method]]:
    from efface_dumo.dumo import DuMo

    return [DuMo]
