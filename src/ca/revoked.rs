//! Certificates that are of use no longer: a list signed by the CA (an X.509 CRL).

use std::collections::BTreeSet;

use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;
use x509_parser::prelude::X509Certificate;
use x509_parser::revocation_list::CertificateRevocationList;

use super::Serial;

/// The serial numbers a CA has revoked. They are random, so that one list is for all CAs of
/// the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    number: u64,
    next_update: i64,
    serials: BTreeSet<Serial>,
}

/// Why a list is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadList {
    /// It is longer than [`MAX_LIST`].
    #[error("a revocation list has at most {MAX_LIST} bytes")]
    TooLong,
    /// It is no CRL in PEM with a number.
    #[error("the revocation list is no PEM X509 CRL with a number")]
    Unreadable,
    /// No CA of the mesh signed it.
    #[error("the revocation list is not signed by a CA of this mesh")]
    Signature,
}

impl Revoked {
    /// Reads a list in PEM that one of the CAs `authorities`, certificates in DER, signed.
    pub fn read<C: AsRef<[u8]>>(pem: &str, authorities: &[C]) -> Result<Self, BadList> {
        if pem.len() > MAX_LIST {
            return Err(BadList::TooLong);
        }
        let (_rest, pem) = parse_x509_pem(pem.as_bytes()).map_err(|_pem| BadList::Unreadable)?;
        let parsed = CertificateRevocationList::from_der(&pem.contents);
        let (rest, list) = parsed.map_err(|_der| BadList::Unreadable)?;
        if pem.label != "X509 CRL" || !rest.is_empty() {
            return Err(BadList::Unreadable);
        }
        let signed_by = |authority: &C| {
            X509Certificate::from_der(authority.as_ref())
                .is_ok_and(|(_rest, it)| list.verify_signature(it.public_key()).is_ok())
        };
        if !authorities.iter().any(signed_by) {
            return Err(BadList::Signature);
        }
        let number = list.crl_number().and_then(|it| match it.to_u64_digits()[..] {
            [] => Some(0),
            [number] => Some(number),
            _ => None,
        });
        let serials: Result<_, _> =
            list.iter_revoked_certificates().map(|it| Serial::new(it.raw_serial())).collect();
        Ok(Self {
            number: number.ok_or(BadList::Unreadable)?,
            next_update: list.next_update().map_or(i64::MAX, |it| it.timestamp()),
            serials: serials.map_err(|_long| BadList::Unreadable)?,
        })
    }

    /// Tells whether the certificate of this number is revoked.
    pub fn contains(&self, serial: &Serial) -> bool {
        self.serials.contains(serial)
    }

    /// Returns how many certificates are revoked.
    pub fn len(&self) -> usize {
        self.serials.len()
    }

    /// Tells whether none is.
    pub fn is_empty(&self) -> bool {
        self.serials.is_empty()
    }

    /// Returns the list's number; a list replaces those of lesser numbers.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns by when the CA promised another list, in seconds since 1970.
    pub fn next_update(&self) -> i64 {
        self.next_update
    }
}

/// The longest list, in bytes: [`super::ledger::MAX_REVOKED`] certificates in base64.
pub const MAX_LIST: usize = 1024 * 1024;
