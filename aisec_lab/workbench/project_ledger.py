"""The ledger of the project: where it lies, which of its entries are versions, and how a refusal gets into it."""

from pathlib import Path
from typing import TYPE_CHECKING

from aisec_lab.workbench.configuration import project_root

if TYPE_CHECKING:
    from aisec_lab.trust.access import AccessRefusal

FOLDER, SIGNING_KEY = Path("ledger"), Path(".aisec/keys/ledger.pem")  # from the project's root
VERSIONS = ("accept", "train", "rollback")  # actions whose entries a rollback may go back to


def record_refusal(refusal: "AccessRefusal") -> None:
    """Append a refusal to the project's ledger, if the project has one."""
    from aisec_lab.trust import Ledger, LedgerChange, read_signing_key  # cryptography and git: only a refusal pays
    from aisec_lab.workbench import provenance

    root = project_root()
    if (root / FOLDER).exists():
        why = f"{refusal.role} may not {refusal.action} it"
        change = LedgerChange(provenance.git_author(), "refuse", refusal.object, why, commit=provenance.commit())
        Ledger(root / FOLDER).append(change, read_signing_key(root / SIGNING_KEY))
