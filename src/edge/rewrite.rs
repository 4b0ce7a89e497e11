//! URLs in an orchestrator's answers, turned into this mesh's own.
//!
//! Only the URLs change: everything else of a body, tokens and payment parameters above all,
//! passes byte for byte.

use crate::id::{OrchestratorId, SessionId};
use crate::livepeer::runner::{Challenge, ReserveAnswer, parse_answer};
use crate::ticket::{Key, Ticket};
use crate::uri::ServiceUri;

/// What makes a rewritten URL.
#[derive(Clone, Debug)]
pub struct Rewriter<'a> {
    /// The key of the mesh.
    pub key: &'a Key,
    /// How the client reached this node.
    pub base: String,
    /// The orchestrator whose answer it is.
    pub orchestrator: OrchestratorId,
    /// Where it answers.
    pub uri: &'a ServiceUri,
    /// When the URL ends, in seconds since the Unix epoch.
    pub expires: u64,
}

/// A rewritten answer to a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// The body for the client.
    pub body: String,
    /// The session.
    pub session: SessionId,
    /// Path of its control URL at the orchestrator.
    pub control: String,
}

/// A rewritten payment challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenged {
    /// The body for the client.
    pub body: String,
    /// What the payment will name.
    pub manifest: SessionId,
}

/// Why an answer is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// Not the JSON of a reservation or a challenge.
    #[error("it answered with something that is not {0}")]
    NotThat(&'static str),
    /// An id or URL of an impossible form, or a URL at another origin.
    #[error("it answered with a {0} that cannot be passed on")]
    Unusable(&'static str),
}

impl Rewriter<'_> {
    /// Rewrites the answer to a reservation.
    pub fn reserved(&self, body: &[u8]) -> Result<Reserved, BadAnswer> {
        let kind = BadAnswer::NotThat("a reserved session");
        let answer: ReserveAnswer = parse_answer(body).ok_or(kind)?;
        let text = std::str::from_utf8(body).map_err(|_not_text| kind)?;
        let session: SessionId =
            answer.session_id.parse().map_err(|_bad| BadAnswer::Unusable("session id"))?;
        let control =
            self.path_of(&answer.control_url).ok_or(BadAnswer::Unusable("control URL"))?;
        let body = self.swap(text, &answer.app_url, &session, "app URL")?;
        let body = self.swap(&body, &answer.control_url, &session, "control URL")?;
        Ok(Reserved { body, session, control })
    }

    /// Rewrites a payment challenge.
    pub fn challenged(&self, body: &[u8]) -> Result<Challenged, BadAnswer> {
        let kind = BadAnswer::NotThat("a payment challenge");
        let challenge: Challenge = parse_answer(body).ok_or(kind)?;
        let text = std::str::from_utf8(body).map_err(|_not_text| kind)?;
        let manifest: SessionId =
            challenge.manifest_id.parse().map_err(|_bad| BadAnswer::Unusable("manifest id"))?;
        let body = self.swap(text, &challenge.payment_url, &manifest, "payment URL")?;
        Ok(Challenged { body, manifest })
    }

    fn swap(
        &self,
        text: &str,
        url: &str,
        session: &SessionId,
        what: &'static str,
    ) -> Result<String, BadAnswer> {
        let unusable = BadAnswer::Unusable(what);
        let path = self.path_of(url).ok_or(unusable)?;
        let ticket = Ticket {
            orchestrator: self.orchestrator,
            session: session.clone(),
            path,
            expires: self.expires,
        };
        let sealed = self.key.seal(&ticket).ok_or(unusable)?;
        let ours = format!("{}/run/{sealed}", self.base);
        // As the text writes it: JSON may escape slashes.
        for written in [json(url), json(url).replace('/', "\\/")] {
            if text.contains(&written) {
                return Ok(text.replace(&written, &json(&ours)));
            }
        }
        Err(unusable)
    }

    /// Returns the path of `url` when it lies at the orchestrator's origin.
    fn path_of(&self, url: &str) -> Option<String> {
        let (scheme, rest) = url.split_once("://")?;
        let at = rest.find('/')?;
        let origin: ServiceUri = format!("{scheme}://{}", &rest[..at]).parse().ok()?;
        let path = &rest[at..];
        let same =
            origin.authority() == self.uri.authority() && origin.is_tls() == self.uri.is_tls();
        let plain = path.bytes().all(|it| it.is_ascii_graphic()) && !path.contains(['?', '#']);
        (same && plain).then(|| path.trim_end_matches('/').to_owned())
    }
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RESERVED: &str = include_str!("../../tests/data/livepeer/runner_reserve_response.json");
    const CHALLENGE: &str = include_str!("../../tests/data/livepeer/runner_402_challenge.json");

    fn check<T>(test: impl FnOnce(&Rewriter<'_>) -> T) -> T {
        let uri: ServiceUri = "https://127.0.0.1:8935".parse().unwrap();
        let key = Key::new([3; 32]);
        test(&Rewriter {
            key: &key,
            base: "http://node:1".to_owned(),
            orchestrator: OrchestratorId::of(&uri),
            uri: &uri,
            expires: 100,
        })
    }

    #[test]
    fn a_reservation_leads_back_here_and_nowhere_else() {
        let found = check(|it| it.reserved(RESERVED.as_bytes())).unwrap();
        assert!(!found.body.contains("8935"));
        let answer: ReserveAnswer = parse_answer(found.body.as_bytes()).unwrap();
        let sealed = answer.app_url.strip_prefix("http://node:1/run/").unwrap();
        let ticket = Key::new([3; 32]).open(sealed, 0).unwrap();
        assert_eq!(ticket.path, "/apps/echo/session/session_abcdefgh/app");
        assert_eq!(ticket.session.as_str(), "session_abcdefgh");
        assert_eq!(found.control, "/apps/echo/session/session_abcdefgh");
    }

    #[test]
    fn of_a_challenge_only_the_payment_url_changes() {
        let found = check(|it| it.challenged(CHALLENGE.as_bytes())).unwrap();
        let before: Challenge = parse_answer(CHALLENGE.as_bytes()).unwrap();
        let after: Challenge = parse_answer(found.body.as_bytes()).unwrap();
        assert_eq!(after.payment_params, before.payment_params);
        assert_eq!(after.manifest_id, before.manifest_id);
        assert!(after.payment_url.starts_with("http://node:1/run/"));
        let back = found.body.replace(&after.payment_url, &before.payment_url);
        assert_eq!(back, CHALLENGE, "every other byte is as it was");
    }

    #[test]
    fn an_answer_that_leads_elsewhere_is_not_passed_on() {
        let foreign = RESERVED.replace("127.0.0.1:8935", "169.254.169.254:80");
        let found = check(|it| it.reserved(foreign.as_bytes()));
        assert_eq!(found, Err(BadAnswer::Unusable("control URL")));
        let garbage = check(|it| it.reserved(b"<html>")).unwrap_err();
        assert_eq!(garbage, BadAnswer::NotThat("a reserved session"));
    }

    proptest! {
        #[test]
        fn any_body_is_rewritten_or_refused(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let refused = check(|it| it.reserved(&body).is_err() && it.challenged(&body).is_err());
            prop_assert!(refused);
        }
    }
}
