//! Certificates made on the spot: an authority that signs what a test asks for, as PEM files in a folder.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::symm::Cipher;
use openssl::x509::extension::BasicConstraints;
use openssl::x509::{X509, X509Builder, X509Name, X509NameRef};

/// An authority with its key.
pub struct Authority {
    certificate: X509,
    key: PKey<Private>,
}

/// A certificate and its key, as files.
#[derive(Debug, Clone)]
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    /// A new one that nobody knows.
    pub fn unknown() -> Self {
        let key = new_key();
        let name = name("Another authority");
        let mut builder = certificate(&name, &key, 1);
        builder.append_extension(BasicConstraints::new().critical().ca().build().expect("CA")).expect("CA");
        builder.set_issuer_name(&name).expect("its issuer is itself");
        builder.sign(&key, MessageDigest::sha256()).expect("signed");
        Self { certificate: builder.build(), key }
    }

    /// That of the services of `dev/services/run`: its certificate is `ca`, its key lies beside it.
    pub fn of_the_services(ca: &Path) -> Self {
        let read = |file: &Path| std::fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        Self {
            certificate: X509::from_pem(&read(ca)).expect("a certificate"),
            key: PKey::private_key_from_pem(&read(&ca.with_file_name("ca.key"))).expect("a key"),
        }
    }

    /// Writes its certificate.
    pub fn save(&self, folder: &Path) -> PathBuf {
        write(folder, "authority.pem", &self.certificate.to_pem().expect("PEM"))
    }

    /// A certificate for `cn`, good for a day.
    pub fn issue(&self, folder: &Path, cn: &str) -> Pair {
        self.issue_until(folder, cn, 1)
    }

    /// One whose time has been over since yesterday.
    pub fn issue_expired(&self, folder: &Path, cn: &str) -> Pair {
        self.issue_until(folder, cn, -1)
    }

    fn issue_until(&self, folder: &Path, cn: &str, days: i64) -> Pair {
        let key = new_key();
        let mut builder = certificate(&name(cn), &key, days);
        builder.set_issuer_name(self.certificate.subject_name()).expect("issuer");
        builder.sign(&self.key, MessageDigest::sha256()).expect("signed");
        let pem = builder.build().to_pem().expect("PEM");
        let id = uuid::Uuid::now_v7().simple();
        Pair {
            certificate: write(folder, &format!("{cn}-{id}.crt"), &pem),
            key: write(folder, &format!("{cn}-{id}.key"), &key.private_key_to_pem_pkcs8().expect("PEM")),
        }
    }
}

/// A new key with a passphrase.
pub fn locked_key(folder: &Path) -> PathBuf {
    let pem = new_key().private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"a word");
    write(folder, "locked.key", &pem.expect("PEM"))
}

fn new_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
    PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key")
}

fn name(cn: &str) -> X509Name {
    let mut name = X509Name::builder().expect("a name");
    name.append_entry_by_nid(Nid::COMMONNAME, cn).expect("a name");
    name.build()
}

/// A certificate without issuer and signature, from the day before yesterday until in so many days.
fn certificate(name: &X509NameRef, key: &PKey<Private>, days: i64) -> X509Builder {
    let day = 24 * 3600;
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let at =
        |days: i64| Asn1Time::from_unix(i64::try_from(now).expect("a time") + days * day).expect("a time");
    let mut serial = BigNum::new().expect("a number");
    serial.rand(127, MsbOption::MAYBE_ZERO, false).expect("a number");
    let mut builder = X509::builder().expect("a certificate");
    builder.set_version(2).expect("version");
    builder.set_serial_number(&serial.to_asn1_integer().expect("a number")).expect("serial");
    builder.set_subject_name(name).expect("subject");
    builder.set_not_before(&at(-2)).expect("begin");
    builder.set_not_after(&at(days)).expect("end");
    builder.set_pubkey(key).expect("key");
    builder
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let file = folder.join(name);
    std::fs::write(&file, bytes).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    file
}
