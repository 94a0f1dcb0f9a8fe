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
    ACLResourcePatternType,
    KafkaAdminClient,
    ResourcePattern,
    ResourceType,
)

from apache_kafka import ApacheKafka, free_ports

if TYPE_CHECKING:
    from pathlib import Path

OPENSSL: Final = shutil.which("openssl")

#: What the broker offers of SASL.
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

#: Made anew for each run: nothing that could be taken for a secret is in the repository.
PASSWORDS: Final = {"admin": secrets.token_hex(8), "worker": secrets.token_hex(8)}

#: Of the key of the user `worker`.
KEY_PASSWORD: Final = secrets.token_hex(8)

#: Java takes the last of two lines with one name: these stand behind those of the node without security.
SECURITY: Final = """
listeners=SASL_SSL://127.0.0.1:{port},SSL://127.0.0.1:{mutual},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL
inter.broker.listener.name=SASL_SSL
sasl.enabled.mechanisms={mechanisms}
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-256
listener.name.sasl_ssl.plain.sasl.jaas.config={classes}.plain.PlainLoginModule required {users};
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config={classes}.scram.ScramLoginModule required {login};
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={classes}.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location={folder}/server.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
listener.name.ssl.ssl.client.auth=required
# Of a certificate of CN=worker, so that its owner is the user who has the password, with that user's rights.
ssl.principal.mapping.rules=RULE:^CN=(.*)$/$1/
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
# ANONYMOUS is who speaks on the controller's listener, which has no security.
super.users=User:admin;User:ANONYMOUS
"""

CLASSES: Final = "org.apache.kafka.common.security"


class SecureKafka(ApacheKafka):
    """A node that speaks SASL over TLS on one port and mutual TLS on another.

    Its user `admin` may do everything, `worker` what was allowed.

    Args:
        certificates: An empty folder.
    """

    def __init__(self, certificates: Path) -> None:
        super().__init__()
        (self._mutual_port,) = free_ports(1)
        self._certificates = certificates
        make_certificates(certificates)

    @property
    def client(self) -> dict[str, Any]:
        return super().client | self.credentials("admin")

    @property
    def mutual_bootstrap_servers(self) -> str:
        """Where a certificate is what a client shows."""
        return f"127.0.0.1:{self._mutual_port}"

    def credentials(self, user: str, mechanism: str = "SCRAM-SHA-256") -> dict[str, Any]:
        """What a client of this user has to set, beside the address."""
        return {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": mechanism,
            "sasl_plain_username": user,
            "sasl_plain_password": PASSWORDS[user],
            "ssl_cafile": str(self._certificates / "ca.pem"),
        }

    def certificate(self) -> dict[str, Any]:
        """What a client of the user `worker` has to set on the other port: its key is encrypted."""
        return {
            "security_protocol": "SSL",
            "ssl_cafile": str(self._certificates / "ca.pem"),
            "ssl_certfile": str(self._certificates / "worker.crt"),
            "ssl_keyfile": str(self._certificates / "worker.key"),
            "ssl_password": KEY_PASSWORD,
        }

    def allow(
        self,
        resource: ResourceType,
        name: str,
        operation: ACLOperation,
        pattern: ACLResourcePatternType = ACLResourcePatternType.LITERAL,
    ) -> None:
        """Allow the user `worker` this one operation.

        A worker with transactions needs WRITE on its transactional ids, which begin with its group's name:
        ``allow(ResourceType.TRANSACTIONAL_ID, f"{group}/", ACLOperation.WRITE, ACLResourcePatternType.PREFIXED)``.
        """
        acl = ACL("User:worker", "*", operation, ACLPermissionType.ALLOW, ResourcePattern(resource, name, pattern))
        with contextlib.closing(KafkaAdminClient(**self.client)) as admin:
            assert admin.create_acls([acl])["failed"] == []

    def _server_properties(self) -> str:
        users = [f'user_{name}="{password}"' for name, password in PASSWORDS.items()]
        return super()._server_properties() + SECURITY.format(
            port=self._port,
            mutual=self._mutual_port,
            controller=self._controller_port,
            mechanisms=",".join(MECHANISMS),
            classes=CLASSES,
            users=" ".join(users),
            login=f'username="admin" password="{PASSWORDS["admin"]}"',
            folder=self._certificates,
        )

    def _format_options(self) -> list[str]:
        users = [
            f"{mechanism}=[name={name},password={password}]"
            for mechanism in MECHANISMS[1:]
            for name, password in PASSWORDS.items()
        ]
        return [option for user in users for option in ("--add-scram", user)]


def make_certificates(folder: Path) -> None:
    """Write ca.pem, other-ca.pem, which signed nothing, server.pem (key and certificate), worker.crt and worker.key."""
    _authority(folder, "ca")
    _authority(folder, "other-ca")
    _signed(folder, "server", "localhost", "-nodes")
    _signed(folder, "worker", "worker", "-passout", f"pass:{KEY_PASSWORD}")
    parts = [(folder / name).read_text(encoding="ascii") for name in ("server.key", "server.crt")]
    (folder / "server.pem").write_text("".join(parts), encoding="ascii")


def _authority(folder: Path, name: str) -> None:
    options = ("-nodes", "-subj", f"/CN={name}", "-days", "2", "-out", folder / f"{name}.pem")
    _openssl("req", "-x509", *options, *_new_key(folder / f"{name}.key"))


def _signed(folder: Path, name: str, owner: str, *key_options: str) -> None:
    """Write a key, and a certificate of it for an owner, who may be on this machine alone."""
    names = folder / "names"
    names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n", encoding="ascii")
    request = ("req", "-new", "-subj", f"/CN={owner}", "-out", folder / f"{name}.csr")
    _openssl(*request, *key_options, *_new_key(folder / f"{name}.key"))
    signed = ("x509", "-req", "-in", folder / f"{name}.csr", "-extfile", names, "-out", folder / f"{name}.crt")
    _openssl(*signed, "-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-CAcreateserial", "-days", "2")


def _new_key(path: Path) -> tuple[str | Path, ...]:
    # Elliptic: made in no time. openssl writes it as PKCS #8, which is what Kafka reads.
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", path)


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run([OPENSSL or "openssl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
