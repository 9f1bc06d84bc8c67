"""Finding the model costs no heavy import."""

import subprocess
import sys


def test_importing_the_package_imports_no_torch() -> None:
    program = "import sys, efface_picturebook; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
