"""Trust in data and models: the ledger of what was done to them, the vault that keeps them, who may do what."""

from aisec_lab.trust.access import Access, Refusal, Rule
from aisec_lab.trust.contents import content_sha256
from aisec_lab.trust.ledger import ENTRIES, HEAD, PUBLIC_KEY, Ledger, read_head
from aisec_lab.trust.proof import check_consistency, check_inclusion, check_proof
from aisec_lab.trust.records import RECORDED, Change, Entry, Head
from aisec_lab.trust.signing_keys import read_signing_key, read_verifying_key
from aisec_lab.trust.vault import open_sealed, seal
from aisec_lab.trust.vault_passphrase import Passphrase
from aisec_lab.trust.vault_rsa import PrivateKey, PublicKey, generate_keys
from aisec_lab.trust.verification import Verdict, fault_of_proof, verify

__all__ = [
    "ENTRIES",
    "HEAD",
    "PUBLIC_KEY",
    "RECORDED",
    "Access",
    "Change",
    "Entry",
    "Head",
    "Ledger",
    "Passphrase",
    "PrivateKey",
    "PublicKey",
    "Refusal",
    "Rule",
    "Verdict",
    "check_consistency",
    "check_inclusion",
    "check_proof",
    "content_sha256",
    "fault_of_proof",
    "generate_keys",
    "open_sealed",
    "read_head",
    "read_signing_key",
    "read_verifying_key",
    "seal",
    "verify",
]
