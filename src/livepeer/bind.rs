//! Which orchestrator a request with payment headers belongs to.
//!
//! An auth token and a ticket are good at one orchestrator only, so a node must know whose
//! they are before it relays them. Nothing is verified here: only the issuer can.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::HeaderName;
use prost::Message;

use crate::id::SessionId;
use crate::livepeer::proto::Payment;
use crate::livepeer::proto::SegData;

/// The header that carries a [`SegData`], in base64.
pub const SEGMENT: HeaderName = HeaderName::from_static("livepeer-segment");
/// The header that carries a [`Payment`], in base64.
pub const PAYMENT: HeaderName = HeaderName::from_static("livepeer-payment");

/// What the payment headers of a request say of its destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// The session its auth token stands for.
    pub session: Option<SessionId>,
    /// The Ethereum address its tickets pay.
    pub recipient: Option<[u8; 20]>,
    /// Whether a `Livepeer-Payment` header with content came along.
    pub paid: bool,
}

/// Why payment headers cannot be read; such a request goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBinding {
    /// One of the headers stands there twice, so its reader is a matter of luck.
    #[error("a payment header is repeated; send it once")]
    Repeated,
    /// Longer than [`MAX_HEADER`] bytes.
    #[error("a payment header is longer than {MAX_HEADER} bytes")]
    TooLong,
    /// Not base64 with padding.
    #[error("a payment header is not base64")]
    Base64,
    /// Not the protobuf message it should be.
    #[error("a payment header does not hold its protobuf message")]
    Protobuf,
    /// A session id or recipient of an impossible form.
    #[error("a payment header names no valid session or recipient")]
    Identity,
}

/// Reads the binding of a request out of its headers.
pub fn read(headers: &HeaderMap) -> Result<Binding, BadBinding> {
    let segment = decode(headers, &SEGMENT)?;
    let payment = decode(headers, &PAYMENT)?;
    let segment = SegData::decode(&*segment).map_err(|_not_it| BadBinding::Protobuf)?;
    let paid = !payment.is_empty();
    let payment = Payment::decode(&*payment).map_err(|_not_it| BadBinding::Protobuf)?;

    let session = segment.auth_token.map(|it| it.session_id).filter(|it| !it.is_empty());
    let session = session.map(|it| it.parse()).transpose().map_err(|_bad| BadBinding::Identity)?;
    let recipient = payment.ticket_params.map(|it| it.recipient).filter(|it| !it.is_empty());
    let recipient = recipient.map(<[u8; 20]>::try_from).transpose();
    Ok(Binding { session, recipient: recipient.map_err(|_bad| BadBinding::Identity)?, paid })
}

/// The longest payment header, in bytes: 100 tickets take about 10 KB, and no server in use
/// accepts heads above 64 KB.
pub const MAX_HEADER: usize = 48 * 1024;

/// Returns the bytes of one header; a missing or empty header is an empty message, which is
/// what gateways send off-chain.
fn decode(headers: &HeaderMap, name: &HeaderName) -> Result<Vec<u8>, BadBinding> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(Vec::new()) };
    if values.next().is_some() {
        return Err(BadBinding::Repeated);
    }
    if value.len() > MAX_HEADER {
        return Err(BadBinding::TooLong);
    }
    STANDARD.decode(value.as_bytes()).map_err(|_bad| BadBinding::Base64)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::livepeer::proto::vectors::from_hex;
    use crate::livepeer::proto::vectors::vector;

    fn headers(pairs: &[(&HeaderName, &str)]) -> HeaderMap {
        let pair = |(name, text): &(&HeaderName, &str)| {
            let text = STANDARD.encode(from_hex(text));
            ((*name).clone(), HeaderValue::from_str(&text).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_request_without_payment_headers_is_bound_to_nobody() {
        assert_eq!(read(&HeaderMap::new()), Ok(Binding::default()));
        let empty = HeaderMap::from_iter([(PAYMENT, HeaderValue::from_static(""))]);
        assert_eq!(read(&empty), Ok(Binding::default()));
    }

    #[test]
    fn token_and_ticket_name_their_orchestrator() {
        let segment = vector!("segdata_offchain_sdk");
        let payment = vector!("payment_one_ticket");
        let found = read(&headers(&[(&SEGMENT, segment), (&PAYMENT, payment)])).unwrap();
        assert_eq!(found.session.unwrap().as_str(), "8fa2c1d0");
        assert_eq!((found.recipient, found.paid), (Some([0x22; 20]), true));
        let free = read(&headers(&[(&PAYMENT, vector!("payment_no_ticket"))])).unwrap();
        assert_eq!((free.session, free.recipient, free.paid), (None, None, true));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let raw = |text: &str| {
            read(&HeaderMap::from_iter([(SEGMENT, HeaderValue::from_str(text).unwrap())]))
        };
        assert_eq!(raw("%%"), Err(BadBinding::Base64));
        assert_eq!(raw("AAAA"), Err(BadBinding::Protobuf));
        assert_eq!(raw(&"A".repeat(MAX_HEADER + 1)), Err(BadBinding::TooLong));
        assert_ne!(raw(&"A".repeat(MAX_HEADER)), Err(BadBinding::TooLong));
        let mut twice = headers(&[(&SEGMENT, vector!("segdata_offchain_sdk"))]);
        twice.append(SEGMENT, HeaderValue::from_static(""));
        assert_eq!(read(&twice), Err(BadBinding::Repeated));
        let short = Payment {
            ticket_params: Some(crate::livepeer::proto::TicketParams {
                recipient: vec![1],
                ..Default::default()
            }),
            ..Default::default()
        };
        let text = STANDARD.encode(short.encode_to_vec());
        let headers = HeaderMap::from_iter([(PAYMENT, HeaderValue::from_str(&text).unwrap())]);
        assert_eq!(read(&headers), Err(BadBinding::Identity));
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_the_reader_panic(bytes: Vec<u8>, encoded: bool) {
            let text = if encoded { STANDARD.encode(&bytes).into_bytes() } else { bytes };
            if let Ok(value) = HeaderValue::from_bytes(&text) {
                drop(read(&HeaderMap::from_iter([(SEGMENT, value.clone()), (PAYMENT, value)])));
            }
        }
    }
}
