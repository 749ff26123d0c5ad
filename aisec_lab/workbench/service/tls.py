"""TLS 1.3, and with an authority mutual TLS."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aisec_lab.workbench.service.settings import TLSSettings


@dataclass(frozen=True)
class TLSContext:
    """Makes the server's context; Uvicorn calls it in every worker, so it can be pickled.

    Uvicorn's own context accepts TLS 1.2. The suites of 1.3 are all sound, and OpenSSL lets nobody choose among them
    by `set_ciphers`: none is chosen here.

    Args:
        settings: with the certificate and, for mutual TLS, the authority of the clients.

    Raises:
        FileNotFoundError: at the call, a file that is not there.
        ValueError: at the call, a file that holds no certificate or key, or two that do not fit.
    """

    settings: TLSSettings

    def __call__(self, config: object = None, default: Callable[[], ssl.SSLContext] | None = None) -> ssl.SSLContext:
        """The context; the arguments are Uvicorn's and not used."""
        tls = self.settings
        for file in (tls.certificate, tls.key, *([tls.client_ca] if tls.client_ca else [])):
            if not Path(file).is_file():
                raise FileNotFoundError(f"no {file}: `aisec service certificate` makes one for trying")
        if Path(tls.key).stat().st_mode & 0o077:
            raise ValueError(f"{tls.key} may be read by others: `chmod 600 {tls.key}`")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            context.load_cert_chain(tls.certificate, tls.key, password=_no_password)
        except ssl.SSLError as error:
            raise ValueError(f"{tls.certificate} and {tls.key} are no certificate and its key: {error}") from error
        if tls.client_certificates:
            assert tls.client_ca is not None  # TLSSettings refuses that
            try:
                context.load_verify_locations(tls.client_ca)
            except ssl.SSLError as error:
                raise ValueError(f"{tls.client_ca} holds no CA certificate: {error}") from error
            if not context.get_ca_certs():  # a certificate that is no authority's would refuse every client
                raise ValueError(f"{tls.client_ca} holds no certificate of an authority (basicConstraints CA)")
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _no_password() -> str:
    raise ValueError("the private key of the certificate is encrypted: a service that starts alone cannot open it")
