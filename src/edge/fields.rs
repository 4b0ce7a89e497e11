//! Which of the fields that mean something here a request has.
//!
//! They are looked for in one pass over its head. Most requests have few of them, and looking
//! each up in the map of headers costs a hash of its name.

use http::HeaderMap;

/// A set of fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields(u16);

impl Fields {
    /// What a client asks to hear.
    pub(crate) const EXPLAIN: Self = Self(1);
    /// Whether it may be sent to another node.
    pub(crate) const STEER: Self = Self(1 << 1);
    /// What else it wishes, see [`Wishes`](crate::edge::wishes::Wishes).
    pub(crate) const WISHES: Self = Self(1 << 2);
    /// What it pays, or whom.
    pub(crate) const PAYMENT: Self = Self(1 << 3);
    /// Another protocol it would speak.
    pub(crate) const UPGRADE: Self = Self(1 << 4);
    /// What concerns this connection only.
    pub(crate) const CONNECTION: Self = Self(1 << 5);
    /// The trace it belongs to,
    pub(crate) const TRACEPARENT: Self = Self(1 << 6);
    /// and what others added to that.
    pub(crate) const TRACESTATE: Self = Self(1 << 7);
    /// What kind its body is of.
    pub(crate) const CONTENT_TYPE: Self = Self(1 << 8);
    /// What it takes for an answer.
    pub(crate) const ACCEPT: Self = Self(1 << 9);

    /// Returns which of them are there.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        headers.keys().map(|name| Self::named(name.as_str())).fold(Self(0), Self::and)
    }

    fn named(name: &str) -> Self {
        match name {
            "accept" => Self::ACCEPT,
            "connection" => Self::CONNECTION,
            "content-type" => Self::CONTENT_TYPE,
            "livepeer-payment" | "livepeer-segment" => Self::PAYMENT,
            "portolan-affinity" | "portolan-deadline" | "portolan-exclude" | "portolan-prefer" => {
                Self::WISHES
            }
            "portolan-explain" => Self::EXPLAIN,
            "portolan-steer" => Self::STEER,
            "traceparent" => Self::TRACEPARENT,
            "tracestate" => Self::TRACESTATE,
            "upgrade" => Self::UPGRADE,
            _ => Self(0),
        }
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Tells whether any of `wanted` is there.
    pub(crate) fn has(self, wanted: Self) -> bool {
        self.0 & wanted.0 != 0
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::edge::wishes;
    use crate::livepeer::bind;

    #[test]
    fn what_is_there_is_found_by_any_of_its_names() {
        let found = |names: &[HeaderName]| {
            let value = http::HeaderValue::from_static("x");
            Fields::of(&names.iter().map(|it| (it.clone(), value.clone())).collect())
        };
        assert_eq!(found(&[http::header::HOST]), Fields(0));
        for wish in [wishes::PREFER, wishes::EXCLUDE, wishes::DEADLINE, wishes::AFFINITY] {
            assert_eq!(found(&[http::header::HOST, wish]), Fields::WISHES);
        }
        for payment in [bind::SEGMENT, bind::PAYMENT] {
            assert_eq!(found(&[payment]), Fields::PAYMENT);
        }
        let both = found(&[http::header::UPGRADE, wishes::STEER]);
        assert!(both.has(Fields::UPGRADE) && both.has(Fields::STEER) && !both.has(Fields::ACCEPT));
    }
}
