"""An Apache Kafka that asks who is there: TLS, SCRAM users and ACLs, with certificates made by openssl."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, Final

from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    KafkaAdminClient,
    ResourcePattern,
    ResourceType,
)

from apache_kafka import ApacheKafka

if TYPE_CHECKING:
    from pathlib import Path

OPENSSL: Final = shutil.which("openssl")

#: The one mechanism of the two SCRAMs that the broker offers.
MECHANISM: Final = "SCRAM-SHA-256"

#: Made anew for each run: nothing that could be taken for a secret is in the repository.
PASSWORDS: Final = {"admin": secrets.token_hex(8), "worker": secrets.token_hex(8)}

#: Java takes the last of two lines with one name: these stand behind those of the node without security.
SECURITY: Final = """
listeners=SASL_SSL://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL
inter.broker.listener.name=SASL_SSL
sasl.enabled.mechanisms={mechanism}
sasl.mechanism.inter.broker.protocol={mechanism}
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config={login} required username="admin" password="{password}";
ssl.keystore.type=PEM
ssl.keystore.location={folder}/server.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
# ANONYMOUS is who speaks on the controller's listener, which has no security.
super.users=User:admin;User:ANONYMOUS
"""

LOGIN: Final = "org.apache.kafka.common.security.scram.ScramLoginModule"


class SecureKafka(ApacheKafka):
    """A node that speaks SASL over TLS alone; its user `admin` may do everything, `worker` what was allowed.

    Args:
        certificates: An empty folder.
    """

    def __init__(self, certificates: Path) -> None:
        super().__init__()
        self._certificates = certificates
        make_certificates(certificates)

    @property
    def client(self) -> dict[str, Any]:
        return super().client | self.credentials("admin")

    def credentials(self, user: str) -> dict[str, Any]:
        """What a client of this user has to set, beside the address."""
        return {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": MECHANISM,
            "sasl_plain_username": user,
            "sasl_plain_password": PASSWORDS[user],
            "ssl_cafile": str(self._certificates / "ca.pem"),
        }

    def allow(self, resource: ResourceType, name: str, operation: ACLOperation) -> None:
        """Allow the user `worker` this one operation."""
        pattern = ResourcePattern(resource, name)
        acl = ACL("User:worker", "*", operation, ACLPermissionType.ALLOW, pattern)
        with contextlib.closing(KafkaAdminClient(**self.client)) as admin:
            assert admin.create_acls([acl])["failed"] == []

    def _server_properties(self) -> str:
        return super()._server_properties() + SECURITY.format(
            port=self._port,
            controller=self._controller_port,
            mechanism=MECHANISM,
            login=LOGIN,
            password=PASSWORDS["admin"],
            folder=self._certificates,
        )

    def _format_options(self) -> list[str]:
        users = [f"{MECHANISM}=[name={name},password={password}]" for name, password in PASSWORDS.items()]
        return [option for user in users for option in ("--add-scram", user)]


def make_certificates(folder: Path) -> None:
    """Write ca.pem, server.pem (key and certificate for localhost), and other-ca.pem, which signed nothing."""
    _authority(folder, "ca")
    _authority(folder, "other-ca")
    names = folder / "names"
    names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n", encoding="ascii")
    request = ("req", "-new", "-subj", "/CN=localhost", "-out", folder / "server.csr")
    _openssl(*request, *_new_key(folder / "server.key"))
    signed = ("x509", "-req", "-in", folder / "server.csr", "-extfile", names, "-out", folder / "server.crt")
    _openssl(*signed, "-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-CAcreateserial", "-days", "2")
    parts = [(folder / name).read_text(encoding="ascii") for name in ("server.key", "server.crt")]
    (folder / "server.pem").write_text("".join(parts), encoding="ascii")


def _authority(folder: Path, name: str) -> None:
    options = ("-subj", f"/CN={name}", "-days", "2", "-out", folder / f"{name}.pem")
    _openssl("req", "-x509", *options, *_new_key(folder / f"{name}.key"))


def _new_key(path: Path) -> tuple[str | Path, ...]:
    # Elliptic: made in no time. openssl writes it as PKCS #8, which is what Kafka reads.
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", path)


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run([OPENSSL or "openssl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
