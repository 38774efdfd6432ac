"""`mtls`: who a certificate says that a client is, and certificates that change under a running server."""

from __future__ import annotations

import logging
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from signalwarden.demo_stage import Authority, Credential
from signalwarden.errors import KeysError
from signalwarden.mtls import MAX_FILE_BYTES, Certificates, Files, Peers
from signalwarden.peers import PeerRefused

WHO = "spiffe://prod.example/ns/mdm/sa/publisher"


def usage(*, signature: bool = True, authority: bool = False) -> x509.KeyUsage:
    no = dict.fromkeys(
        (
            *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"),
            *("encipher_only", "decipher_only"),
        ),
        False,
    )
    return x509.KeyUsage(digital_signature=signature, key_cert_sign=authority, **no)


def leaf(*extensions: x509.ExtensionType, until: timedelta = timedelta(hours=1)) -> dict[str, list[bytes]]:
    """What grpc tells of a connection whose client has such a certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, WHO)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - timedelta(days=2)).not_valid_after(now + until)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    return {"transport_security_type": [b"ssl"], "x509_pem_cert": [pem]}


def names(*uris: str, dns: tuple[str, ...] = ()) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns)])


def test_a_publisher_is_the_one_uri_of_its_certificate() -> None:
    peer = Peers().of_context(leaf(names(WHO, dns=("mdm.example",)), usage()))
    assert (peer.id, peer.trust_domain) == (WHO, "prod.example")
    with pytest.raises(PeerRefused, match="has run out"):
        Peers().of_context(leaf(names(WHO), usage(), until=timedelta(seconds=-1)))


@pytest.mark.parametrize(
    ("extensions", "why"),
    [
        ([usage()], "one URI name, found 0"),
        ([names(dns=("mdm.example",)), usage()], "one URI name, found 0"),
        ([names(WHO, "spiffe://prod.example/other"), usage()], "one URI name, found 2"),
        ([names(WHO, WHO), usage()], "one URI name, found 2"),
        ([names("https://prod.example/mdm"), usage()], "not the SPIFFE ID of a workload"),
        ([names("spiffe://prod.example"), usage()], "not the SPIFFE ID of a workload"),
        ([names("spiffe://Prod.Example/mdm"), usage()], "not the SPIFFE ID of a workload"),
        ([names("spiffe://prod.example/a/../b"), usage()], "not the SPIFFE ID of a workload"),
        ([names("spiffe://prod.example/a?b"), usage()], "not the SPIFFE ID of a workload"),
        ([names(WHO)], "not for signatures"),
        ([names(WHO), x509.BasicConstraints(ca=True, path_length=None)], "that of an authority"),
        ([names(WHO), usage(authority=True)], "may sign certificates"),
        ([names(WHO), usage(signature=False)], "not for signatures"),
    ],
)
def test_a_certificate_that_names_no_workload_is_refused(
    extensions: list[x509.ExtensionType], why: str
) -> None:
    with pytest.raises(PeerRefused, match=why):
        Peers().of_context(leaf(*extensions))


@pytest.mark.parametrize("context", [{}, {"x509_pem_cert": []}, {"x509_pem_cert": [b"-----BEGIN X-----"]}])
def test_no_certificate_is_nobody(context: dict[str, list[bytes]]) -> None:
    with pytest.raises(PeerRefused):
        Peers().of_context(context)


# ---- files ------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    authority = Authority(tmp_path / "ca", "prod.example")
    put(authority.issue(WHO), tmp_path)
    shutil.copy(authority.bundle, tmp_path / "ca.pem")
    return tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem"


def put(credential: Credential, folder: Path) -> None:
    shutil.copy(credential.certificate, folder / "cert.pem")
    shutil.copy(credential.key, folder / "key.pem")


def test_files_that_do_not_belong_together_are_one_sentence(
    files: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    cert, key, ca = files
    Certificates(Files(*files))
    with pytest.raises(KeysError, match=f"^`{tmp_path}/gone` can't be read: no such file or directory$"):
        Certificates(Files(cert, key, tmp_path / "gone"))
    with pytest.raises(KeysError, match="is a directory"):
        Certificates(Files(tmp_path / "ca", key, ca))
    with pytest.raises(KeysError, match=r"`.*key\.pem` is not a certificate in PEM"):
        Certificates(Files(key, key, ca))
    with pytest.raises(KeysError, match=r"`.*cert\.pem` is not a private key in PEM"):
        Certificates(Files(cert, cert, ca))
    with pytest.raises(KeysError, match=r"`.*key\.pem` is not a list of certificates in PEM"):
        Certificates(Files(cert, key, key))
    other = Authority(tmp_path / "other", "prod.example").issue(WHO)
    with pytest.raises(KeysError, match="is not that of the certificate"):
        Certificates(Files(cert, other.key, ca))
    cert.write_bytes(b" " * (MAX_FILE_BYTES + 1))
    with pytest.raises(KeysError, match="has more than"):
        Certificates(Files(*files))


def test_a_bad_rotation_changes_nothing_and_is_said_once(
    files: tuple[Path, Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    certificates = Certificates(Files(*files))
    assert certificates._fetch() is None
    other = Authority(tmp_path / "other", "prod.example").issue(WHO)
    shutil.copy(other.certificate, files[0])  # its key follows later
    assert certificates._fetch() is None
    assert certificates._fetch() is None
    files[2].rename(tmp_path / "away")
    assert certificates._fetch() is None
    assert certificates._fetch() is None
    (tmp_path / "away").rename(files[2])
    shutil.copy(other.key, files[1])
    assert certificates._fetch() is not None
    assert certificates._fetch() is None
    said = [record.levelname for record in caplog.records]
    assert said == ["ERROR", "ERROR", "INFO"]
    assert "PRIVATE" not in caplog.text
