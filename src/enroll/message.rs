//! What passes between a node and the enrolment service: JSON over HTTP/1.1 over TLS 1.3.

use serde::{Deserialize, Serialize};

/// `POST /v1/enroll`, by whoever holds a token.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Enroll {
    /// The join token: a secret.
    pub token: String,
    /// A certificate request, PEM.
    pub request: String,
}

/// `POST /v1/renew`, by a node under its present certificate.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Renew {
    /// A certificate request, PEM.
    pub request: String,
}

/// The answer to both.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Named {
    /// The node's certificate, PEM.
    pub certificate: String,
    /// The operator's public key, PEM.
    pub operator: String,
    /// How the mesh stands.
    pub standing: Standing,
}

/// How the mesh stands: also the answer to `GET /v1/standing`, for nodes; with the ETag of an
/// earlier answer in `If-None-Match` it comes when it is another, or 304 in half a minute.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Standing {
    /// The mesh's trust domain.
    pub trust_domain: String,
    /// The certificates of its CAs, PEM; first that of the CA that signs.
    pub ca: String,
    /// What is revoked, an X.509 CRL in PEM.
    pub revoked: String,
}

/// The most bytes of a request: a certificate request and a token.
pub(super) const MAX_ASKED: usize = 8 * 1024;

/// The most bytes of an answer: the longest revocation list and some certificates.
pub(super) const MAX_ANSWER: usize = 1024 * 1024 + 64 * 1024;
