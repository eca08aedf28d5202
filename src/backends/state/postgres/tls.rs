//! TLS to the database: the PEM files of the settings in, a connector out. What is wrong with a file is said with the
//! key that names it and its path.

use std::cell::Cell;
use std::fmt::Display;
use std::path::Path;

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslConnector, SslConnectorBuilder, SslMethod};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use postgres_openssl::MakeTlsConnector;

use super::PgTls;
use super::last_words::Tls;
use super::open::config;
use crate::backends::fault::PortFault;

/// Checks the server's certificate by what `tls` says, and shows ours where it names one.
///
/// # Errors
/// Class `Config`: a file that cannot be read or is no such thing.
pub(super) fn connector(tls: &PgTls) -> Result<Tls, PortFault> {
    let builder = SslConnector::builder(SslMethod::tls_client());
    let mut builder = builder.map_err(|error| config(format!("TLS: {error}")))?;
    if let Some(ca) = &tls.ca {
        trust(&mut builder, ca)?;
    }
    if let Some((certificate, key)) = &tls.identity {
        identify(&mut builder, certificate, key)?;
    }
    Ok(Tls(MakeTlsConnector::new(builder.build())))
}

/// Trusts these authorities and no other: those of the system no longer count.
fn trust(builder: &mut SslConnectorBuilder, ca: &Path) -> Result<(), PortFault> {
    let found = certificates("tls_ca", ca)?;
    let store = X509StoreBuilder::new().and_then(|mut store| {
        found.into_iter().try_for_each(|certificate| store.add_cert(certificate))?;
        Ok(store.build())
    });
    builder.set_cert_store(store.map_err(|error| bad("tls_ca", ca, error))?);
    Ok(())
}

/// Shows the first certificate of the file with the others as its chain.
fn identify(builder: &mut SslConnectorBuilder, certificate: &Path, key: &Path) -> Result<(), PortFault> {
    let mut chain = certificates("tls_cert", certificate)?.into_iter();
    let own = chain.next().ok_or_else(|| bad("tls_cert", certificate, "it is empty"))?;
    let private = private_key(key)?;
    if !own.public_key().is_ok_and(|public| public.public_eq(&private)) {
        let whose = format!("it is not the key of the certificate in tls_cert {}", certificate.display());
        return Err(bad("tls_key", key, whose));
    }
    let set = builder.set_certificate(&own).and_then(|()| builder.set_private_key(&private));
    set.map_err(|error| bad("tls_cert", certificate, error))?;
    let rest = chain.try_for_each(|above| builder.add_extra_chain_cert(above));
    rest.map_err(|error| bad("tls_cert", certificate, error))
}

/// The certificates of a PEM file, at least one.
fn certificates(setting: &str, file: &Path) -> Result<Vec<X509>, PortFault> {
    let found = X509::stack_from_pem(&read(setting, file)?).unwrap_or_default();
    if found.is_empty() {
        return Err(bad(setting, file, "there is no certificate in it that can be read (PEM)"));
    }
    Ok(found)
}

fn private_key(file: &Path) -> Result<PKey<Private>, PortFault> {
    let locked = Cell::new(false);
    // Without a word of ours OpenSSL would ask for the passphrase at the terminal.
    let found = PKey::private_key_from_pem_callback(&read("tls_key", file)?, |_| {
        locked.set(true);
        Err(ErrorStack::get())
    });
    found.map_err(|_| match locked.get() {
        true => bad("tls_key", file, "the key in it has a passphrase, it has to be one without"),
        false => bad("tls_key", file, "there is no private key in it that can be read (PEM)"),
    })
}

fn read(setting: &str, file: &Path) -> Result<Vec<u8>, PortFault> {
    std::fs::read(file).map_err(|error| bad(setting, file, error))
}

fn bad(setting: &str, file: &Path, why: impl Display) -> PortFault {
    config(format!("store.state.{setting} {}: {why}", file.display()))
}
