//! Rights that hold nothing but their end: what else they are bound to goes into the seal, and
//! whoever opens one knows it from elsewhere.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Mac;

use super::{BadTicket, Key, TAG};

impl Key {
    /// Returns a right of `kind`, which no other ticket begins with, good until `expires`, in
    /// seconds since the Unix epoch.
    pub(super) fn seal_short(&self, kind: u8, bound: &[u8], expires: u64) -> String {
        let mut text = body(kind, expires).to_vec();
        let tag = self.mac(&[&text[..], bound].concat()).finalize().into_bytes();
        text.extend_from_slice(&tag[..TAG]);
        URL_SAFE_NO_PAD.encode(text)
    }

    /// Says why `text` is no right of `kind` at `now`.
    pub(super) fn open_short(
        &self,
        kind: u8,
        bound: &[u8],
        text: &str,
        now: u64,
    ) -> Result<(), BadTicket> {
        if text.len() > TEXT_MAX {
            return Err(BadTicket::Forged);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_not_base64| BadTicket::Forged)?;
        let (body, tag) = bytes.split_first_chunk::<BODY>().ok_or(BadTicket::Forged)?;
        if tag.len() != TAG || body[0] != kind {
            return Err(BadTicket::Forged);
        }
        let genuine = self.mac(&[&body[..], bound].concat()).verify_truncated_left(tag);
        genuine.map_err(|_other| BadTicket::Forged)?;
        let (_kind, expires) = body.split_first_chunk::<1>().ok_or(BadTicket::Forged)?;
        match expires.try_into().map(u64::from_be_bytes) {
            Ok(expires) if now < expires => Ok(()),
            Ok(_) | Err(_) => Err(BadTicket::Expired),
        }
    }
}

fn body(kind: u8, expires: u64) -> [u8; BODY] {
    let mut body = [kind; BODY];
    body[1..].copy_from_slice(&expires.to_be_bytes());
    body
}

const BODY: usize = 9;
const TEXT_MAX: usize = (BODY + TAG) * 4 / 3 + 4;
