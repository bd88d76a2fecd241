// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! TLS, by rustls.

use std::path::Path;
use std::sync::Arc;

use leyden_store::StoreError;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{ring, verify_tls12_signature, verify_tls13_signature, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::config::Address;

/// Verifies the server if the address asks for that.
pub(super) fn connector(address: &Address) -> Result<MakeRustlsConnect, StoreError> {
	let provider = Arc::new(ring::default_provider());
	let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
		.with_safe_default_protocol_versions()
		.map_err(|error| StoreError::Engine { doing: "setting up TLS", source: Arc::new(error) })?;
	let config = if address.verifies() {
		builder.with_root_certificates(roots(address.roots.as_deref())?).with_no_client_auth()
	} else {
		let verifier = Arc::new(Unverified(provider));
		builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
	};
	Ok(MakeRustlsConnect::new(config))
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, StoreError> {
	let mut roots = RootCertStore::empty();
	let Some(file) = file else {
		let found = rustls_native_certs::load_native_certs();
		roots.add_parsable_certificates(found.certs);
		if roots.is_empty() {
			return Err(StoreError::invalid(
				"the system has no certificate authorities; name some with sslrootcert",
			));
		}
		return Ok(roots);
	};
	let bad =
		|why: String| StoreError::invalid(format!("the certificates in {}: {why}", file.display()));
	let certificates =
		CertificateDer::pem_file_iter(file).map_err(|error| bad(error.to_string()))?;
	for certificate in certificates {
		let certificate = certificate.map_err(|error| bad(error.to_string()))?;
		roots.add(certificate).map_err(|error| bad(error.to_string()))?;
	}
	if roots.is_empty() {
		return Err(bad("there are none".to_owned()));
	}
	Ok(roots)
}

/// Takes any certificate, as libpq does with `sslmode=prefer`: whoever can change what is sent could
/// switch TLS off there as well.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
	fn verify_server_cert(
		&self, _: &CertificateDer<'_>, _: &[CertificateDer<'_>], _: &ServerName<'_>, _: &[u8],
		_: UnixTime,
	) -> Result<ServerCertVerified, rustls::Error> {
		Ok(ServerCertVerified::assertion())
	}

	fn verify_tls12_signature(
		&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct,
	) -> Result<HandshakeSignatureValid, rustls::Error> {
		verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
	}

	fn verify_tls13_signature(
		&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct,
	) -> Result<HandshakeSignatureValid, rustls::Error> {
		verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
	}

	fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
		self.0.signature_verification_algorithms.supported_schemes()
	}
}
