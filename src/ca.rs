//! What a mesh's certificate authority knows and decides, without its keys and its sockets.
//!
//! Pure. Which names a certificate of the mesh carries ([`name`]), what a node may ask to be
//! named ([`Request`]), who may ask ([`Token`], [`Ledger`]) and how often ([`Pace`]), which
//! certificates are of use no longer ([`Revoked`]), and when a node asks again ([`renewal`]).

mod ledger;
pub mod name;
mod pace;
pub mod renewal;
mod request;
mod revoked;
mod serial;
mod token;

pub use self::ledger::{Issued, Ledger, LedgerError, MAX_REVOKED, Revocation};
pub use self::pace::Pace;
pub use self::request::{BadRequest, MAX_REQUEST, Request};
pub use self::revoked::{BadList, MAX_LIST, Revoked};
pub use self::serial::{BadSerial, Serial};
pub use self::token::{BadToken, Token, TokenHash};
