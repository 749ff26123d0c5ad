"""Time-based one-time passwords (RFC 6238) that work once: the second factor of people."""

import time
from dataclasses import dataclass

import pyotp

from aisec_lab.workbench.service.credentials import Credential
from aisec_lab.workbench.service.database import Database

STEP = 30  # seconds that a code lasts
DRIFT = 1  # steps by which a clock may be wrong (RFC 6238, section 6)
FAILURES, PAUSE = 5, 300.0  # wrong codes in so many seconds; with three valid ones of a million, guessing is hopeless
ACCEPT = """
INSERT INTO totp VALUES (?, ?, 0, 0) ON CONFLICT (person)
DO UPDATE SET step = excluded.step, failures = 0 WHERE excluded.step > step
"""
FAIL = """
INSERT INTO totp VALUES (?, -1, 1, ?) ON CONFLICT (person)
DO UPDATE SET failures = CASE WHEN since < ? THEN 1 ELSE failures + 1 END,
              since = CASE WHEN since < ? THEN excluded.since ELSE since END
"""


@dataclass(frozen=True)
class SecondFactor:
    """Checks codes, and remembers the last step that each person used (RFC 6238, section 5.2), for all workers.

    Args:
        database: that the workers share.
    """

    database: Database

    def check(self, person: Credential, code: str, *, now: float | None = None) -> str | None:
        """Accept a code once.

        Args:
            person: who gives it.
            code: six digits.
            now: seconds since 1970; None for the clock.

        Returns:
            None where the code is accepted; else why it is not, in some words.
        """
        if person.totp is None:
            return "has no second factor"
        now = time.time() if now is None else now
        step, generator = int(now // STEP), pyotp.TOTP(person.totp, interval=STEP)
        valid = [
            at
            for at in range(step - DRIFT, step + DRIFT + 1)
            if pyotp.utils.strings_equal(code, generator.at(at * STEP))
        ]
        with self.database.transaction() as connection:
            known = connection.execute("SELECT failures, since FROM totp WHERE person = ?", (person.id,)).fetchone()
            if known and known[0] >= FAILURES and known[1] > now - PAUSE:
                return f"gave {FAILURES} wrong codes and has to wait"
            if valid and connection.execute(ACCEPT, (person.id, valid[-1])).rowcount:
                return None
            connection.execute(FAIL, (person.id, now, now - PAUSE, now - PAUSE))
        return "gave a code that was used before" if valid else "gave a wrong code"
