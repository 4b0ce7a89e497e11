//! The money side: auth tokens this orchestrator issues and knows again, and its challenge.
//!
//! Tickets are not checked for value; what is checked is that token and tickets are its own,
//! so that a test can prove that no payment strays.

use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
use http::HeaderMap;
use prost::Message;
use sha2::Sha256;

use crate::livepeer::bind;
use crate::livepeer::proto::AuthToken;
use crate::livepeer::proto::Capabilities;
use crate::livepeer::proto::OrchestratorInfo;
use crate::livepeer::proto::PriceInfo;
use crate::livepeer::proto::SegData;
use crate::livepeer::proto::TicketParams;
use crate::livepeer::runner::Challenge;

/// What is asked for: `1200` or `1200:seconds` for each second, `1200:fixed` for the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asking {
    /// Wei per unit, at least 1.
    pub wei: u32,
    /// Whether it is for the whole session and not for each second.
    pub fixed: bool,
}

/// Why a text is not an [`Asking`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a price is a number of wei, at least 1, such as 1200:seconds or 1200:fixed")]
pub struct BadAsking;

impl FromStr for Asking {
    type Err = BadAsking;

    fn from_str(text: &str) -> Result<Self, BadAsking> {
        let (wei, fixed) = match text.split_once(':') {
            None | Some((_, "seconds")) => (text.trim_end_matches(":seconds"), false),
            Some((wei, "fixed")) => (wei, true),
            Some(_) => return Err(BadAsking),
        };
        let wei = wei.parse().ok().filter(|it| *it > 0).ok_or(BadAsking)?;
        Ok(Self { wei, fixed })
    }
}

impl Asking {
    /// Returns the name of the unit in a discovery list.
    pub fn unit(&self) -> &'static str {
        if self.fixed { "fixed" } else { "seconds" }
    }
}

/// Issues and recognises auth tokens.
pub(crate) struct Issuer {
    /// Key of the tokens.
    pub(crate) secret: [u8; 32],
    /// Where tickets must go.
    pub(crate) recipient: [u8; 20],
    /// The service URI.
    pub(crate) service: String,
    /// The price, if work is not free.
    pub(crate) asking: Option<Asking>,
}

/// Why a paid request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unpaid {
    /// No payment came along: a challenge is due.
    #[error("payment required")]
    Missing,
    /// The headers cannot be read.
    #[error("invalid payment: {0}")]
    Unreadable(#[from] bind::BadBinding),
    /// The tickets pay somebody else.
    #[error("invalid ticket recipient")]
    Recipient,
    /// No token, or one that this orchestrator did not issue.
    #[error("invalid auth token")]
    Token,
    /// A token past its end.
    #[error("expired auth token")]
    Expired,
}

impl Issuer {
    /// Issues a token for a session; `wall` is the time since the Unix epoch.
    pub(crate) fn token(&self, session: &str, wall: Duration) -> AuthToken {
        let expiration = (wall + TOKEN_LIFE).as_secs() as i64;
        let token = self.mac(session, expiration).finalize().into_bytes().to_vec();
        AuthToken { token, session_id: session.to_owned(), expiration }
    }

    /// Checks that a token is one of ours and still good.
    pub(crate) fn verify(&self, token: &AuthToken, wall: Duration) -> Result<(), Unpaid> {
        let mac = self.mac(&token.session_id, token.expiration);
        mac.verify_slice(&token.token).map_err(|_mismatch| Unpaid::Token)?;
        if token.expiration < wall.as_secs() as i64 {
            return Err(Unpaid::Expired);
        }
        Ok(())
    }

    /// Returns what `GetOrchestrator` answers.
    pub(crate) fn about(&self, session: &str, wall: Duration) -> OrchestratorInfo {
        let mut about = OrchestratorInfo {
            transcoder: self.service.clone(),
            address: vec![0; 20],
            // Bit 12: understands auth tokens.
            capabilities: Some(Capabilities {
                bitstring: vec![1 << 12],
                version: "0.9.1".to_owned(),
                ..Default::default()
            }),
            auth_token: Some(self.token(session, wall)),
            ..Default::default()
        };
        if let Some(asking) = self.asking {
            about.address = self.recipient.to_vec();
            about.price_info = Some(PriceInfo {
                price_per_unit: i64::from(asking.wei),
                pixels_per_unit: 1,
                ..Default::default()
            });
            about.ticket_params = Some(TicketParams {
                recipient: self.recipient.to_vec(),
                face_value: 1_000_000_000_000_000_u64.to_be_bytes()[1..].to_vec(),
                win_prob: vec![0xff; 32],
                recipient_rand_hash: vec![7; 32],
                seed: vec![1],
                ..Default::default()
            });
        }
        about
    }

    /// Returns the body of a 402 for a session of `runner`.
    pub(crate) fn challenge(&self, runner: &str, session: &str, wall: Duration) -> Challenge {
        Challenge {
            payment_params: STANDARD.encode(self.about(session, wall).encode_to_vec()),
            orchestrator: self.service.clone(),
            manifest_id: session.to_owned(),
            payment_url: format!("{}/apps/{runner}/session/{session}/payment", self.service),
        }
    }

    /// Returns the session that the payment headers of a request pay for.
    pub(crate) fn paid(&self, headers: &HeaderMap, wall: Duration) -> Result<String, Unpaid> {
        let binding = bind::read(headers)?;
        if !binding.paid {
            return Err(Unpaid::Missing);
        }
        if binding.recipient.is_some_and(|it| it != self.recipient) {
            return Err(Unpaid::Recipient);
        }
        let segment = headers.get(bind::SEGMENT).map(|it| it.as_bytes()).unwrap_or_default();
        let segment = STANDARD.decode(segment).ok().and_then(|it| SegData::decode(&*it).ok());
        let token = segment.and_then(|it| it.auth_token).ok_or(Unpaid::Token)?;
        self.verify(&token, wall)?;
        Ok(token.session_id)
    }

    /// HMAC-SHA-256 over session id and expiration (big-endian, without leading zeros), as
    /// go-livepeer makes it.
    fn mac(&self, session: &str, expiration: i64) -> Hmac<Sha256> {
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.secret);
        let mac = mac.expect("HMAC takes keys of any length");
        let expiration = expiration.to_be_bytes();
        let start = expiration.iter().position(|it| *it != 0).unwrap_or(expiration.len());
        mac.chain_update(session).chain_update(&expiration[start..])
    }
}

/// How long a token is good (go-livepeer: 30 minutes).
const TOKEN_LIFE: Duration = Duration::from_secs(30 * 60);

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::livepeer::proto::Payment;
    use crate::livepeer::proto::vectors::from_hex;
    use crate::livepeer::proto::vectors::vector;

    const WALL: Duration = Duration::from_secs(1_800_000_000);

    fn issuer(secret: u8) -> Issuer {
        Issuer {
            secret: [secret; 32],
            recipient: [secret; 20],
            service: "https://127.0.0.1:1".to_owned(),
            asking: Some(Asking { wei: 1200, fixed: false }),
        }
    }

    /// The headers a signer makes of a challenge of `issuer`.
    fn headers(issuer: &Issuer) -> HeaderMap {
        let params = STANDARD.decode(issuer.challenge("echo", "s1", WALL).payment_params).unwrap();
        let about = OrchestratorInfo::decode(&*params).unwrap();
        let segment = SegData { auth_token: about.auth_token, ..Default::default() };
        let payment = Payment { ticket_params: about.ticket_params, ..Default::default() };
        let value = |bytes: Vec<u8>| HeaderValue::from_str(&STANDARD.encode(bytes)).unwrap();
        HeaderMap::from_iter([
            (bind::SEGMENT, value(segment.encode_to_vec())),
            (bind::PAYMENT, value(payment.encode_to_vec())),
        ])
    }

    #[test]
    fn a_token_is_the_one_go_livepeer_would_make() {
        let mut issuer = issuer(0);
        issuer.secret = std::array::from_fn(|i| i as u8);
        let token = AuthToken::decode(&*from_hex(vector!("auth_token"))).unwrap();
        assert_eq!(issuer.verify(&token, WALL), Ok(()));
        assert_eq!(issuer.verify(&token, WALL * 2), Err(Unpaid::Expired));
    }

    #[test]
    fn a_payment_is_good_where_its_challenge_came_from_and_nowhere_else() {
        let (here, there) = (issuer(1), issuer(2));
        assert_eq!(here.paid(&headers(&here), WALL), Ok("s1".to_owned()));
        assert_eq!(there.paid(&headers(&here), WALL), Err(Unpaid::Recipient));
        let mut mixed = headers(&here);
        mixed.insert(bind::SEGMENT, headers(&there)[bind::SEGMENT].clone());
        assert_eq!(here.paid(&mixed, WALL), Err(Unpaid::Token));
        mixed.remove(bind::SEGMENT);
        assert_eq!(here.paid(&mixed, WALL), Err(Unpaid::Token));
        assert_eq!(here.paid(&HeaderMap::new(), WALL), Err(Unpaid::Missing));
        assert_eq!(here.paid(&headers(&here), WALL + TOKEN_LIFE * 2), Err(Unpaid::Expired));
    }

    #[test]
    fn a_price_names_its_unit() {
        let seconds = Asking { wei: 1200, fixed: false };
        assert_eq!(("1200".parse(), "1200:seconds".parse()), (Ok(seconds), Ok(seconds)));
        assert_eq!("7:fixed".parse(), Ok(Asking { wei: 7, fixed: true }));
        for bad in ["", "0", "-1", "1.5", "7:days", ":fixed"] {
            assert_eq!(bad.parse::<Asking>(), Err(BadAsking), "{bad:?}");
        }
    }
}
