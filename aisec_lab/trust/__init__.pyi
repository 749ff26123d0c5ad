from .access import Access, AccessRefusal, AccessRule
from .contents import content_sha256
from .ledger import ENTRIES, HEAD, PUBLIC_KEY, Ledger, read_head
from .proof import check_consistency, check_inclusion, check_proof
from .records import RECORDED, LedgerChange, LedgerEntry, LedgerHead
from .signing_keys import read_signing_key, read_verifying_key
from .vault import open_sealed, seal
from .vault_passphrase import Passphrase
from .vault_rsa import PrivateKey, PublicKey, generate_keys
from .verification import VerificationResult, find_proof_error, verify

__all__ = [
    "ENTRIES",
    "HEAD",
    "PUBLIC_KEY",
    "RECORDED",
    "Access",
    "AccessRefusal",
    "AccessRule",
    "Ledger",
    "LedgerChange",
    "LedgerEntry",
    "LedgerHead",
    "Passphrase",
    "PrivateKey",
    "PublicKey",
    "VerificationResult",
    "check_consistency",
    "check_inclusion",
    "check_proof",
    "content_sha256",
    "find_proof_error",
    "generate_keys",
    "open_sealed",
    "read_head",
    "read_signing_key",
    "read_verifying_key",
    "seal",
    "verify",
]
