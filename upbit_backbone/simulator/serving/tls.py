"""Certificates of the simulator's own authority, made anew at every start."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path


def server_context(certificate: str, folder: Path) -> tuple[ssl.SSLContext, Path]:
    """The server's TLS settings and the file with the authority that clients have to trust.

    `certificate` is `good`, `expired`, `wrong-host` or `self-signed` (the file then names another authority).
    """
    import trustme

    authority = trustme.CA()
    issuer = trustme.CA() if certificate == "self-signed" else authority
    names = ("wrong.example",) if certificate == "wrong-host" else ("localhost", "127.0.0.1", "::1")
    expiry = datetime.now(UTC) - timedelta(days=1) if certificate == "expired" else None
    issued = issuer.issue_cert(*names, not_after=expiry)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    issued.configure_cert(context)
    ca_file = folder / "simulator-ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    return context, ca_file
