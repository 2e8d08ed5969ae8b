"""The certificate of both APIs, which can be reloaded while connections go on."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import grpc

from server.errors import StartFailed

logger = logging.getLogger(__name__)


class Tls:
    """With `client_ca`, clients need a certificate signed by it (mutual TLS).

    Raises:
        StartFailed: a file cannot be read, or is invalid.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self.http, self._grpc = self._read()
        self._grpc_has = self._grpc

    def grpc_credentials(self) -> grpc.ServerCredentials:
        return grpc.dynamic_ssl_server_credentials(
            self._grpc,
            self._current_if_new,  # type: ignore[arg-type] # the stubs forget that it may be None
            require_client_authentication=self._client_ca is not None,
        )

    def reload(self) -> None:
        """Reads the files again; if that fails, the certificate stays, and the reason is logged."""
        try:
            self.http, self._grpc = self._read()
        except StartFailed as error:
            logger.error("the certificate was not reloaded: %s", error)
        else:
            logger.info("reloaded %s", self._certificate)

    def _current_if_new(self) -> grpc.ServerCertificateConfiguration | None:
        """gRPC calls this before each handshake; None: what it has is current."""
        if self._grpc is self._grpc_has:
            return None
        self._grpc_has = self._grpc
        return self._grpc

    def _read(self) -> tuple[ssl.SSLContext, grpc.ServerCertificateConfiguration]:
        try:
            configuration = self._configuration()
            # This shows that the files are valid, which gRPC would not report.
            return self._context(), configuration
        except ssl.SSLError as error:
            raise StartFailed(
                f"{self._certificate} and {self._key} are not a certificate and its key, or "
                f"{self._client_ca or 'the CA'} holds no certificate ({error.reason or error}): "
                "give PEM files, and a key without a password"
            ) from error
        except OSError as error:
            raise StartFailed(f"{error.filename} cannot be read ({error.strerror})") from error

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        # Without an answer ready, OpenSSL would ask for a password at the terminal.
        context.load_cert_chain(self._certificate, self._key, password="")
        if self._client_ca:
            context.load_verify_locations(self._client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        pair = (self._key.read_bytes(), self._certificate.read_bytes())
        root = self._client_ca.read_bytes() if self._client_ca else None
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=root)
