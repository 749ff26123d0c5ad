"""A small package of the shape of ours, planted in a folder, and what Python really imports of it."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import lazy_loader
import nbformat

from aisec_lab.workbench.reach import Reach
from aisec_lab.workbench.sources import Sources
from aisec_lab.workbench.stages import Declared

LAZY = (
    '"""A room."""\n\nimport lazy_loader\n\n'
    "__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)\n"
)
FILES = {
    "aisec_lab/__init__.py": '"""The package."""\n',
    "aisec_lab/files.py": "import json\n\n\ndef write(): ...\n",
    "aisec_lab/hub.py": "from aisec_lab import attacks\n",
    "aisec_lab/attacks/__init__.py": LAZY,
    "aisec_lab/attacks/__init__.pyi": (
        "from .evasion.gradient import FGSM as FGSM\nfrom .evasion.gradient import PGD as PGD\n"
        "from .evasion.nes import NES as NES\nfrom .oracle import Oracle as Oracle\n\n"
        '__all__ = ["FGSM", "NES", "Oracle", "PGD"]\n'
    ),
    "aisec_lab/attacks/oracle.py": "class Oracle: ...\n\n\nclass FGSM: ...\n",
    "aisec_lab/attacks/evasion/__init__.py": '"""Evasion."""\n',
    "aisec_lab/attacks/evasion/balls.py": "class Linf:\n    class Inner: ...\n",
    "aisec_lab/attacks/evasion/gradient.py": (
        '"""Gradients."""\n\nfrom typing import TYPE_CHECKING\n\nfrom aisec_lab.attacks.evasion.balls import Linf\n\n'
        "if TYPE_CHECKING:\n    from aisec_lab.models import Fit\n\n\n"
        "def helper(model: 'Fit'):\n    return 1  # a comment\n\n\n"
        "class PGD(Linf):\n    '''Projected.'''\n\n    steps = 1\n\n\n"
        "class FGSM(PGD): ...\n"
    ),
    "aisec_lab/attacks/evasion/nes.py": (
        "class NES:\n    def __init__(self):\n        from ...models import Fit\n\n        self.fit = Fit\n"
    ),
    "aisec_lab/models/__init__.py": LAZY,
    "aisec_lab/models/__init__.pyi": 'from .fit import Fit as Fit, plain as plain\n\n__all__ = ["Fit", "plain"]\n',
    "aisec_lab/models/fit.py": "from aisec_lab.files import write\n\nclass Fit: ...\n\n\ndef plain(): ...\n",
    "aisec_lab/models/words.py": (
        "from pathlib import Path\n\nWORDS = Path(__file__).with_name('words.txt').read_text()\n"
    ),
    "aisec_lab/models/words.txt": "one two\n",
}


def plant(root: Path, files: Mapping[str, str] = FILES) -> Path:
    """Write files below a folder, which is returned."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def edit(root: Path, name: str, old: str, new: str) -> None:
    """Replace a text that a file holds once."""
    text = (root / name).read_text()
    assert text.count(old) == 1
    (root / name).write_text(text.replace(old, new))


def reached(root: Path, code: str) -> set[str]:
    """The modules that code may run, by the static analysis."""
    sources = Sources(root)
    return set(Reach(sources).of(sources.read("notebook.ipynb", code.encode(), None).uses, "notebook.ipynb").modules)


def imported(root: Path, code: str) -> set[str]:
    """The modules of the package that Python has imported once it has run code."""
    paths = [str(root), str(Path(lazy_loader.__file__).parents[1])]
    asked = "import json, sys\nprint(json.dumps([name for name in sys.modules if name.split('.')[0] == 'aisec_lab']))"
    script = f"import sys\nsys.path[:0] = {paths}\n{code}\n{asked}\n"
    done = subprocess.run([sys.executable, "-IS", "-c", script], capture_output=True, text=True, check=False)
    assert not done.returncode, f"{code}\n{done.stderr}"
    return set(json.loads(done.stdout.splitlines()[-1]))


def write_notebook(path: Path, *cells: str, kernel: str = "aisec-lab") -> None:
    """A notebook with a title, a cell of parameters and the given code."""
    first = nbformat.v4.new_code_cell('attack = "pgd"\nout = "scratch"', metadata={"tags": ["parameters"]})
    code = [nbformat.v4.new_code_cell(cell) for cell in cells]
    metadata = {"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    cells_of_it = [nbformat.v4.new_markdown_cell("# A title"), first, *code]
    nbformat.write(nbformat.v4.new_notebook(cells=cells_of_it, metadata=metadata), path)


def stage(study: str, name: str, cmd: str, *parameters: str) -> Declared:
    """A stage that `dvc.yaml` might declare."""
    return Declared(study, name, cmd, parameters, {}, (), ())
