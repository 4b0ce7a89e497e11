//! What is known of a request before anything is decided.

use std::sync::Arc;
use std::time::Instant;

use http::uri::Authority;
use http::{HeaderValue, Method};

use crate::edge::Params;
use crate::edge::fields::Fields;
use crate::edge::locate::Located;
use crate::listen::pace::Busy;
use crate::trace::TraceContext;

/// What is known of a request before anything is decided.
#[derive(Clone, Debug)]
pub struct Visit {
    /// When its head was read.
    pub started: Instant,
    /// Its trace.
    pub trace: TraceContext,
    /// Who asks.
    pub located: Arc<Located>,
    /// Whether the client reached this node, or the proxy before it, by TLS.
    pub tls: bool,
    /// The authority the client named; `None` when it named none that is one, and where the
    /// configuration says how clients reach this node.
    pub authority: Option<HeaderValue>,
    /// Which of the fields that mean something here its head has.
    pub fields: Fields,
    /// The knobs it began with.
    pub params: Arc<Params>,
    /// The method, for the log.
    pub method: Method,
    /// Keeps its connection from being taken for idle.
    pub busy: Option<Arc<Busy>>,
    /// The door, for the log.
    pub door: &'static str,
}

impl Visit {
    /// Returns how the client reaches this node, for URLs it is given: scheme and authority,
    /// without a trailing slash.
    pub fn base(&self) -> String {
        if let Some(url) = &self.params.public_url {
            return url.clone();
        }
        let scheme = if self.tls { "https" } else { "http" };
        let named = self.authority.as_ref().and_then(|it| it.to_str().ok());
        let authority = named.filter(|it| it.parse::<Authority>().is_ok());
        format!("{scheme}://{}", authority.unwrap_or("localhost"))
    }
}
