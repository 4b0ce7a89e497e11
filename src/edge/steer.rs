//! Sending a client to the node with the best course, where it asks for that.
//!
//! Only new work is sent elsewhere, so a session stays where it began; and only for a clear
//! gain, as [`better`] says. Where a client was sent, it is served: a right in the
//! URL keeps it from being sent to and fro.

use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use metrics::counter;

use crate::edge::apps;
use crate::edge::fields::Fields;
use crate::edge::refusal::ServeError;
use crate::edge::visit::Visit;
use crate::edge::wishes::Wishes;
use crate::edge::{Gateway, serve};
use crate::livepeer::bind;
use crate::policy::entrance::better;
use crate::ticket::steer::STEER_FOR_S;
use crate::upstream::Body;

/// Serves a client that a peer sent here, as if it had come by itself.
pub(crate) async fn arrived(
    gateway: &Arc<Gateway>,
    visit: Visit,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, ServeError> {
    let whole = request.uri().path_and_query().map_or("", |it| it.as_str());
    let rest = whole.strip_prefix(PREFIX).unwrap_or_default();
    let (right, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    // A right that is not good here, of a node with another key or clock, costs nothing: who
    // comes by it is served as well, and sent nowhere else.
    let result = match gateway.key.open_steer(right, Gateway::wall_s()) {
        Ok(()) => "arrived",
        Err(_bad) => "arrived-late",
    };
    counter!("portolan_steered_total", "result" => result).increment(1);
    if !path.starts_with("/apps/") {
        return Err(ServeError::NoDoor);
    }
    let uri: Uri = path.parse().map_err(|_unreadable| ServeError::NoDoor)?;
    *request.uri_mut() = uri;
    let job = apps::job(gateway, visit, request).await?;
    serve(gateway, job).await
}

impl Gateway {
    /// Returns the answer that sends a request to a node with a clearly better course; `None`
    /// where it is to be served here.
    pub(crate) fn steered(
        &self,
        visit: &Visit,
        request: &Request<Incoming>,
    ) -> Result<Option<Response<Body>>, ServeError> {
        let headers = request.headers();
        if !Wishes::takes_redirect(headers, visit.params.clients_may)? {
            return Ok(None);
        }
        // What belongs to somebody already is not begun anew elsewhere.
        let Some(wanted) = apps::wanted(self, request) else { return Ok(None) };
        if visit.fields.has(Fields::PAYMENT) && bind::read(headers)?.session.is_some() {
            return Ok(None);
        }
        let ranked = self.entrances(visit.started, &visit.located, visit.base(), &wanted);
        let Some(url) = better(self.identity.node, &ranked) else {
            counter!("portolan_steered_total", "result" => "stays").increment(1);
            return Ok(None);
        };
        let right = self.key.seal_steer(Self::wall_s() + STEER_FOR_S);
        let path = request.uri().path_and_query().map_or("", |it| it.as_str());
        let location = format!("{url}{PREFIX}{right}{path}");
        let Ok(location) = HeaderValue::from_str(&location) else { return Ok(None) };
        counter!("portolan_steered_total", "result" => "sent").increment(1);
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        response.headers_mut().insert(header::LOCATION, location);
        Ok(Some(response))
    }
}

/// What the path of a client that was sent begins with.
pub(crate) const PREFIX: &str = "/steered/";
