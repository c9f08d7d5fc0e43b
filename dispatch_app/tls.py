"""TLS as a client of RabbitMQ's, for AMQP and for its management API."""

from __future__ import annotations

import ssl

from .settings import Tls

MALFORMED = "issue it or its CA anew: no CA file or name makes this one good"
# Results of a verification (OpenSSL, x509_vfy.h) that another CA file or name does not mend: the certificate or its CA
# is not valid now (9 and 10), may not be used so (24 to 26, 79 and 80), or has too weak a key or digest (66 to 68).
_TIME, _FORM = {9, 10}, {24, 25, 26, 66, 67, 68, 79, 80}


def context(tls: Tls) -> ssl.SSLContext:
    """Return a context that verifies the broker's certificate. Raises OSError for files that can't be used."""
    made = ssl.create_default_context(cafile=tls.ca)
    # Python 3.13 sets this flag, which refuses what RFC 5280 asks of those who issue certificates, not of those who
    # verify them: a CA whose basic constraints are not marked critical, as easy-rsa and tls-gen write it. The chain,
    # the time and the name are verified as before, and so all hosts of a fleet come to the same result.
    made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if tls.cert:
        made.load_cert_chain(tls.cert, tls.key)
    return made


def remedy(error: ssl.SSLCertVerificationError) -> str | None:
    """Return what mends the certificate; None where this host's settings can be at fault."""
    code = getattr(error, "verify_code", 0)
    if code in _TIME:
        return "see that this host's clock is right, or issue the certificate anew"
    if code in _FORM:
        return MALFORMED
    return None
