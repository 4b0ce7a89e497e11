//! Which fields of a request go on to its orchestrator, and which of an answer come back.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::edge::fields::Fields;
use crate::edge::job::{Job, Work};
use crate::trace::passable_state;

/// Returns the fields of a request as its orchestrator gets them: without what concerns the
/// client's connection, what names the client, and what only an orchestrator may say to its
/// runner. `host` is the orchestrator's own.
pub(crate) fn onward(job: &Job, host: HeaderValue) -> HeaderMap {
    let fields = job.visit.fields;
    let named = named(&job.headers, fields.has(Fields::CONNECTION));
    let mut passed = HeaderMap::with_capacity((job.headers.len() + ADDED).max(ANSWERED));
    passed.insert(header::HOST, host);
    for (name, value) in &job.headers {
        if goes_on(name.as_str(), value, &named, job.belongs()) {
            passed.append(name.clone(), value.clone());
        }
    }
    if let Ok(value) = HeaderValue::from_bytes(&job.visit.trace.header()) {
        passed.insert(TRACEPARENT, value);
    }
    if fields.has(Fields::UPGRADE)
        && matches!(job.work, Work::Within { .. })
        && let Some(protocol) = job.headers.get(header::UPGRADE)
    {
        passed.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        passed.insert(header::UPGRADE, protocol.clone());
    }
    passed
}

/// Tells whether a field goes on. Whose payment it is must be known, or it goes nowhere.
fn goes_on(name: &str, value: &HeaderValue, named: &[Vec<u8>], belongs: bool) -> bool {
    let is_ours = match name {
        "livepeer-payment" | "livepeer-segment" => !belongs,
        "tracestate" => passable_state(value.as_bytes()).is_none(),
        name => stays(name),
    };
    !is_ours && !is_of_one_connection(name, named)
}

/// Removes from an answer what concerns one connection only.
pub(crate) fn clean(headers: &mut HeaderMap) {
    let named = named(headers, headers.contains_key(header::CONNECTION));
    let gone = |name: &&HeaderName| is_of_one_connection(name.as_str(), &named);
    for name in headers.keys().filter(gone).cloned().collect::<Vec<HeaderName>>() {
        headers.remove(name);
    }
}

/// Returns the fields that a `Connection` names, in lower case; `some` tells whether there is
/// one.
fn named(headers: &HeaderMap, some: bool) -> Vec<Vec<u8>> {
    if !some {
        return Vec::new();
    }
    let values = headers.get_all(header::CONNECTION).iter();
    let names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    names.map(|name| name.trim_ascii().to_ascii_lowercase()).collect()
}

/// Tells whether a field concerns one connection only (RFC 9110, section 7.6.1).
fn is_of_one_connection(name: &str, named: &[Vec<u8>]) -> bool {
    match name {
        "connection" | "keep-alive" | "proxy-authenticate" | "proxy-authorization" => true,
        "proxy-connection" | "te" | "trailer" | "transfer-encoding" | "upgrade" => true,
        // A peer cannot have these removed by naming them.
        "content-length" | "host" | "content-type" | "authorization" => false,
        name => named.iter().any(|it| it == name.as_bytes()),
    }
}

/// Tells whether a field is this node's affair, or replaced by its own.
fn stays(name: &str) -> bool {
    matches!(
        name,
        "host"
            | "expect"
            | "forwarded"
            | "x-forwarded-for"
            | "x-forwarded-host"
            | "x-forwarded-proto"
            | "x-real-ip"
            | "cf-connecting-ip"
            | "true-client-ip"
            | "portolan-client-ip"
            | "portolan-explain"
            | "portolan-prefer"
            | "portolan-exclude"
            | "portolan-deadline"
            | "portolan-affinity"
            | "portolan-steer"
            | "livepeer-runner-route"
            | "livepeer-session-id"
            | "livepeer-session-token"
            | "livepeer-session-control"
            | "http2-settings"
            | "traceparent"
    )
}

/// What is added to the fields of nearly every request: a trace.
const ADDED: usize = 1;
/// The HTTP layer reads an answer's fields into the emptied map of its request: so many of both
/// have room without growing it, those added to the answer (`edge::marks`) among them.
const ANSWERED: usize = 12;
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::STATE_MAX;

    #[test]
    fn what_a_connection_names_and_what_is_ours_goes_no_further() {
        let named = [b"x-own".to_vec(), b"livepeer-payment".to_vec(), b"host".to_vec()];
        let value = HeaderValue::from_static("a=1");
        let goes = |name: &str, belongs| goes_on(name, &value, &named, belongs);
        for passes in ["accept", "x-other", "tracestate", "content-type", "livepeer-segment"] {
            assert!(goes(passes, true), "{passes}");
        }
        for stays in ["x-own", "livepeer-payment", "connection", "te", "host", "x-real-ip"] {
            assert!(!goes(stays, true), "{stays}");
        }
        assert!(!goes("livepeer-segment", false), "nobody known takes it");
        let long = HeaderValue::from_str(&"x".repeat(STATE_MAX + 1)).unwrap();
        assert!(!goes_on("tracestate", &long, &named, true));
    }
}
