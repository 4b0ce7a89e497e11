//! What a development orchestrator has seen, for tests that ask afterwards.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use http::HeaderMap;
use serde::Serialize;
use sha2::Digest;
use sha2::Sha256;

use crate::livepeer::bind;

/// Counts since the start.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Seen {
    /// Connections accepted.
    pub(crate) connections: AtomicU64,
    /// Requests of any kind, without those under `/dev`.
    pub(crate) requests: AtomicU64,
    /// Requests for `/discovery`.
    pub(crate) discovery: AtomicU64,
    /// Requests under `/apps`.
    pub(crate) apps: AtomicU64,
    /// Calls over gRPC.
    pub(crate) grpc: AtomicU64,
    /// Sessions reserved.
    pub(crate) reserved: AtomicU64,
    /// Sessions stopped by their client.
    pub(crate) stopped: AtomicU64,
    /// Requests turned away because a runner was full.
    pub(crate) full: AtomicU64,
    /// Faults played.
    pub(crate) faults: AtomicU64,
    /// Challenges answered with a 402.
    pub(crate) challenges: AtomicU64,
    /// Requests with payment headers, the last [`MAX_PAYMENTS`] of them.
    pub(crate) payments: Mutex<VecDeque<SeenPayment>>,
}

/// One request with payment headers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SeenPayment {
    /// Where it went.
    pub(crate) path: String,
    /// SHA-256 of the `Livepeer-Payment` header as it came, in hexadecimal.
    pub(crate) payment_sha256: String,
    /// The same of the `Livepeer-Segment` header.
    pub(crate) segment_sha256: String,
}

impl Seen {
    /// Counts one more.
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes the payment headers of a request, if it has any.
    pub(crate) fn note_payment(&self, path: &str, headers: &HeaderMap) {
        let hash = |name| {
            let value = headers.get(name).map(http::HeaderValue::as_bytes).unwrap_or_default();
            Sha256::digest(value).iter().map(|it| format!("{it:02x}")).collect()
        };
        if !headers.contains_key(bind::PAYMENT) && !headers.contains_key(bind::SEGMENT) {
            return;
        }
        let payment = SeenPayment {
            path: path.chars().take(MAX_PATH).collect(),
            payment_sha256: hash(bind::PAYMENT),
            segment_sha256: hash(bind::SEGMENT),
        };
        let mut payments = self.payments.lock().unwrap_or_else(PoisonError::into_inner);
        if payments.len() == MAX_PAYMENTS {
            payments.pop_front();
        }
        payments.push_back(payment);
    }
}

/// The most payments remembered.
pub(crate) const MAX_PAYMENTS: usize = 256;
/// How much of a path is remembered, in characters.
const MAX_PATH: usize = 256;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn payments_are_noted_byte_for_byte_and_the_oldest_goes_first() {
        let seen = Seen::default();
        seen.note_payment("/free", &HeaderMap::new());
        for i in 0..=MAX_PAYMENTS {
            let value = HeaderValue::from_str(&i.to_string()).unwrap();
            seen.note_payment("/paid", &HeaderMap::from_iter([(bind::PAYMENT, value)]));
        }
        let payments = seen.payments.lock().unwrap();
        assert_eq!(payments.len(), MAX_PAYMENTS);
        // SHA-256 of "1" and of nothing.
        assert!(payments[0].payment_sha256.starts_with("6b86b273ff34fce1"));
        assert!(payments[0].segment_sha256.starts_with("e3b0c44298fc1c14"));
    }
}
