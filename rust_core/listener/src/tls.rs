//! Mutual TLS of the door: what it shows, and whom it lets through a handshake. Who may ask is another question, which
//! is put at each call.

use crate::limits::HANDSHAKE;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use std::{io, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// HTTP/2, and nothing else (RFC 9113, section 3.2).
const ALPN: &[u8] = b"h2";

/// From PEM: our chain, its key, and the authorities that a client's chain must lead to. Fails with a sentence in which
/// nothing of the key is.
pub fn config(chain: &[u8], key: &[u8], authorities: &[u8]) -> Result<Arc<ServerConfig>, String> {
    let chain = certificates(chain).map_err(|why| format!("our certificate: {why}"))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| "our key: expected one in PEM".to_owned())?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(authorities).map_err(|why| format!("the authorities: {why}"))?);
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| format!("the authorities: {error}"))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| format!("our certificate and its key: {error}"))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Each connection is a handshake of its own, with the certificates of its hour.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let read = read.map_err(|_| "expected certificates in PEM".to_owned())?;
    if read.is_empty() { Err("expected a certificate in PEM".to_owned()) } else { Ok(read) }
}

/// A handshake, in its time.
pub(crate) async fn shaken(io: TcpStream, config: Arc<ServerConfig>) -> io::Result<TlsStream<TcpStream>> {
    let shaking = tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(config).accept(io));
    let stream = shaking.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    // RFC 9113, section 3.2: over TLS, HTTP/2 is what both have agreed on.
    if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        return Err(io::Error::other("a client that does not speak HTTP/2"));
    }
    Ok(stream)
}

/// The certificates that its client showed.
pub(crate) fn chain(stream: &TlsStream<TcpStream>) -> Vec<Vec<u8>> {
    let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
    shown.iter().map(|certificate| certificate.to_vec()).collect()
}
