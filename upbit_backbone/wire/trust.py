"""Trust: whose certificates are accepted, by REST and the stream alike, and what helps where one is not.

As `requests` trusts: whom the environment names, else the system's authorities, else certifi's. Nothing takes
verification away.
"""

from __future__ import annotations

import os
import re
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from .._lazy import unloadable
from ..errors import InvalidRequestError, one_line

T = TypeVar("T")

# What `requests` reads: authorities that are trusted instead of the system's. OpenSSL itself reads SSL_CERT_FILE and
# SSL_CERT_DIR, which stand for the system's.
BUNDLE_VARIABLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
# How OpenSSL finds an authority in a folder, at the moment it needs one.
_HASHED_NAME: Final = re.compile(r"[0-9a-f]{8}\.\d+")
# Windows fetches the authority of a host when a browser first goes there; OpenSSL does not make it.
_IS_FILLED_LATE: Final = sys.platform == "win32"

_CLOCK: Final = "see whether this machine's clock is right"
_ANOTHER: Final = "something else answers in this host's place"
# Short, because what is told of an outage is cut at 200 characters.
_UNKNOWN: Final = "behind an office's proxy or virus scanner, name its authority: ca_file=… or REQUESTS_CA_BUNDLE"
# By OpenSSL's number of the error (X509_V_ERR_…): not yet valid, expired, another host's, another address's.
_REMEDIES: Final = {9: _CLOCK, 10: _CLOCK, 62: _ANOTHER, 64: _ANOTHER}


def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """The only TLS settings there are: verified certificates and names, TLS 1.2 or newer.

    `ca_file` adds authorities (a company's own); nothing can take verification away. Raises InvalidRequestError that
    names the setting or the variable whose file cannot be loaded.
    """
    return _trusting(ca_file)[0]


def trusted_source(ca_file: str | None = None) -> str:
    """Whose authorities `tls_context(ca_file)` trusts, in words for people."""
    return _trusting(ca_file)[1]


def remedy(theirs: ssl.SSLCertVerificationError) -> str:
    """What helps where a certificate was not accepted, in words for people."""
    return _REMEDIES.get(theirs.verify_code, _UNKNOWN)


def _trusting(ca_file: str | None) -> tuple[ssl.SSLContext, str]:
    context, source = _of_environment() or _of_system()
    # Upbit requires 1.2 and recommends 1.3 (docs: rest-api-guide).
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        _loading("ca_file", ca_file, context.load_verify_locations)
        source += f" and ca_file={ca_file}"
    return context, source


def _of_environment() -> tuple[ssl.SSLContext, str] | None:
    named = [(name, path) for name in BUNDLE_VARIABLES if (path := os.environ.get(name))]
    if not named:
        return None
    # Named as well, it is meant as well; `requests` would pass over it.
    if Path(own := os.environ.get("SSL_CERT_FILE", "")).is_file():
        named.append(("SSL_CERT_FILE", own))
    (first, path), *others = named
    # Given a bundle to begin with, the system's authorities are left out.
    context = _loading(first, path, ssl.create_default_context)
    for name, path in others:
        _loading(name, path, context.load_verify_locations)
    return context, ", ".join(f"{name}={path}" for name, path in named)


def _of_system() -> tuple[ssl.SSLContext, str]:
    context = ssl.create_default_context()
    is_empty = not _has_authorities(context)
    if not (is_empty or _IS_FILLED_LATE):
        return context, "the system's"
    if (bundle := _certifi()) is None:
        return context, "nobody's: this system has none, and certifi is missing" if is_empty else "the system's"
    _loading("certifi", bundle, context.load_verify_locations)
    return context, f"certifi's ({bundle})" if is_empty else f"the system's and certifi's ({bundle})"


def _has_authorities(context: ssl.SSLContext) -> bool:
    """Whether the system knows any: in its file, which is loaded by now, or in its folder, which is read as needed."""
    if context.cert_store_stats()["x509"]:
        return True
    folder = ssl.get_default_verify_paths().capath
    try:
        return folder is not None and any(map(_HASHED_NAME.fullmatch, os.listdir(folder)))
    except OSError:  # unreadable for us is unreadable for OpenSSL
        return False


def _certifi() -> str | None:
    """The file of the authorities that come with `requests`; None where it is missing, as in a frozen program."""
    try:
        import certifi
    except ImportError:
        return None
    except OSError as theirs:
        raise unloadable("certifi", theirs) from theirs
    bundle = certifi.where()
    return bundle if Path(bundle).is_file() else None


def _loading(name: str, path: str, load: Callable[..., T]) -> T:
    """What `load` gives, told of the file or folder at `path`; InvalidRequestError that names the setting."""
    is_folder = Path(path).is_dir()
    try:
        return load(capath=path) if is_folder else load(cafile=path)
    except OSError as theirs:  # ssl.SSLError too
        problem = one_line(theirs.strerror or theirs)
        raise InvalidRequestError(
            f"{name}={path!r} cannot be loaded: {problem}; expected the path of a PEM file of authorities"
        ) from theirs
