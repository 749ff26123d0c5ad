from .access import Access, Refusal, Rule
from .contents import content_sha256
from .ledger import ENTRIES, HEAD, PUBLIC_KEY, Ledger, read_head
from .proof import check_consistency, check_inclusion, check_proof
from .records import RECORDED, Change, Entry, Head
from .signing_keys import read_signing_key, read_verifying_key
from .vault import open_sealed, seal
from .vault_passphrase import Passphrase
from .vault_rsa import PrivateKey, PublicKey, generate_keys
from .verification import Verdict, fault_of_proof, verify

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
