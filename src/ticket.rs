//! Rewritten URLs: what a client is given in place of an orchestrator's own URL.
//!
//! A ticket names the orchestrator by its id, the session, a path and an expiry, under a MAC
//! of the mesh key. It holds no host, so nothing from outside can direct a node anywhere;
//! it needs no table, so any node serves it, also after a restart. Another kind, sealed under
//! the same key, is the right to report round trips ([`Key::seal_probe`]).

mod forward;
mod probe;
mod short;
pub mod steer;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::id::{OrchestratorId, SessionId};
pub use forward::FORWARD_FOR_S;

/// The key of all tickets of a mesh; never logged.
#[derive(Clone)]
pub struct Key([u8; 32]);

/// What a ticket says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The orchestrator the URL leads to.
    pub orchestrator: OrchestratorId,
    /// The session it belongs to.
    pub session: SessionId,
    /// The path at the orchestrator that the rest of the URL is appended to; at most
    /// [`Ticket::PATH_MAX`] bytes, begins with `/`.
    pub path: String,
    /// When it ends, in seconds since the Unix epoch.
    pub expires: u64,
}

/// Why a text is not a ticket of this mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTicket {
    /// Not of the form, or not under this mesh's key.
    #[error("this URL was not made by this mesh, or by a key no longer in use; reserve again")]
    Forged,
    /// Past its time.
    #[error("this URL has expired; reserve again")]
    Expired,
}

impl Key {
    /// Takes 32 random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the text of `ticket`: URL-safe, no padding. `None` when its path is too long
    /// or does not begin with `/`.
    pub fn seal(&self, ticket: &Ticket) -> Option<String> {
        if ticket.path.len() > Ticket::PATH_MAX || !ticket.path.starts_with('/') {
            return None;
        }
        let session = ticket.session.as_str().as_bytes();
        let mut body = Vec::with_capacity(64 + session.len() + ticket.path.len());
        body.push(VERSION);
        body.extend_from_slice(&ticket.orchestrator.0.to_be_bytes());
        body.extend_from_slice(&ticket.expires.to_be_bytes());
        body.push(session.len() as u8);
        body.extend_from_slice(session);
        body.extend_from_slice(ticket.path.as_bytes());
        let tag = self.mac(&body).finalize().into_bytes();
        body.extend_from_slice(&tag[..TAG]);
        Some(URL_SAFE_NO_PAD.encode(body))
    }

    /// Reads a ticket back; `now` is in seconds since the Unix epoch.
    pub fn open(&self, text: &str, now: u64) -> Result<Ticket, BadTicket> {
        if text.len() > TEXT_MAX {
            return Err(BadTicket::Forged);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_not_base64| BadTicket::Forged)?;
        let split = bytes.len().checked_sub(TAG).ok_or(BadTicket::Forged)?;
        let (body, tag) = bytes.split_at(split);
        let genuine = self.mac(body).verify_truncated_left(tag).is_ok();
        let ticket = read(body).filter(|_| genuine).ok_or(BadTicket::Forged)?;
        if ticket.expires <= now {
            return Err(BadTicket::Expired);
        }
        Ok(ticket)
    }

    fn mac(&self, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0)
            .expect("HMAC takes a key of any length");
        mac.update(body);
        mac
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Ticket {
    /// The longest path, in bytes.
    pub const PATH_MAX: usize = 1024;
}

fn read(body: &[u8]) -> Option<Ticket> {
    let (version, rest) = body.split_first()?;
    let (orchestrator, rest) = rest.split_first_chunk::<8>()?;
    let (expires, rest) = rest.split_first_chunk::<8>()?;
    let (session_len, rest) = rest.split_first()?;
    let (session, path) = rest.split_at_checked(usize::from(*session_len))?;
    (*version == VERSION).then_some(Ticket {
        orchestrator: OrchestratorId(u64::from_be_bytes(*orchestrator)),
        session: std::str::from_utf8(session).ok()?.parse().ok()?,
        path: std::str::from_utf8(path).ok()?.to_owned(),
        expires: u64::from_be_bytes(*expires),
    })
}

const VERSION: u8 = 1;
/// Half of a SHA-256: 128 bits.
const TAG: usize = 16;
/// Longer texts are refused unread: header, session, path and tag in base64.
const TEXT_MAX: usize = (18 + SessionId::MAX + Ticket::PATH_MAX + TAG) * 4 / 3 + 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            orchestrator: OrchestratorId(7),
            session: "session_abcdefgh".parse().unwrap(),
            path: "/apps/echo/session/session_abcdefgh/app".into(),
            expires: 1000,
        }
    }

    #[test]
    fn a_ticket_opens_at_any_node_with_the_key_until_it_expires() {
        let text = Key::new([1; 32]).seal(&ticket()).unwrap();
        assert_eq!(Key::new([1; 32]).open(&text, 999), Ok(ticket()));
        assert_eq!(Key::new([1; 32]).open(&text, 1000), Err(BadTicket::Expired));
        assert_eq!(Key::new([2; 32]).open(&text, 0), Err(BadTicket::Forged));
    }

    #[test]
    fn a_path_beyond_the_limit_is_not_sealed() {
        let long = format!("/{}", "x".repeat(Ticket::PATH_MAX));
        assert_eq!(Key::new([1; 32]).seal(&Ticket { path: long, ..ticket() }), None);
        let relative = Ticket { path: "x".into(), ..ticket() };
        assert_eq!(Key::new([1; 32]).seal(&relative), None);
    }

    #[test]
    fn a_key_does_not_print_itself() {
        assert_eq!(format!("{:?}", Key::new([1; 32])), "Key(..)");
    }

    proptest! {
        #[test]
        fn no_text_but_a_sealed_one_opens(text in "[A-Za-z0-9_-]{0,200}") {
            prop_assert_eq!(Key::new([1; 32]).open(&text, 0), Err(BadTicket::Forged));
        }

        #[test]
        fn one_changed_bit_is_a_forgery(at in 0_usize..80, bit in 0_u8..8) {
            let key = Key::new([1; 32]);
            let mut bytes = URL_SAFE_NO_PAD.decode(key.seal(&ticket()).unwrap()).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(key.open(&URL_SAFE_NO_PAD.encode(bytes), 0), Err(BadTicket::Forged));
        }
    }
}
