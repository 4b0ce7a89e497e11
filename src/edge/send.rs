//! One exchange with one orchestrator: connect, send, wait for the head of the answer.
//!
//! Whose fault a silence is depends on who was to speak: while the client's body is still on
//! its way, the orchestrator owes nothing.

use std::time::Instant;

use http::{Request, Uri, header};
use http_body::Body as _;

use crate::clock;
use crate::edge::Gateway;
use crate::edge::forward;
use crate::edge::job::Job;
use crate::edge::passed::onward;
use crate::edge::refusal::ServeError;
use crate::edge::route::{AnswerBody, Attempt, Exchange, Refusal, Route, Why};
use crate::edge::upload::{Upload, Waited};
use crate::upstream::{Body, Break, ConnectError, Lease, SendError};
use crate::view::Row;

impl Gateway {
    /// Connects, sends `job` and waits for the head of an answer; `started` is now.
    pub(crate) async fn exchange(
        &self,
        route: &Route,
        job: &mut Job,
        attempt: &mut Attempt,
        started: Instant,
    ) -> Result<Box<Exchange>, Refusal> {
        let row = &route.row;
        let mut lease = self.lease_for(row, job, started).await?;
        let connecting = clock::now().saturating_duration_since(started);
        // Only now, with somebody there to take it, is the body touched.
        let body = job.body_to_send(&self.replays).await.map_err(Refusal::client)?;
        let began = clock::now();
        let (body, upload) = Upload::watch(body, job.bounds(), began);
        attempt.await_answer(&upload);
        let mut request = request(route, job, body);
        let (patience, mut now) = (job.patience(began), began);
        let response = loop {
            // Patience is counted here, where it is known whose turn it is.
            let sent = upload.outlast(std::pin::pin!(lease.send(request)), patience, now).await;
            let sent = sent.map_err(|waited| in_vain(&waited))?;
            match sent.map_err(|failed| lease.why(failed)) {
                Ok(response) => match job.via.and_then(|_peer| forward::refused(&response)) {
                    Some(refusal) => return Err(refusal),
                    None => break response,
                },
                // An idle connection died as it was taken; the request is whole.
                Err(SendError::Unsent(whole)) => {
                    request = *whole;
                    lease = self.lease(row, clock::now()).await?;
                    now = clock::now();
                }
                Err(SendError::Broken(_)) if upload.is_too_long() => {
                    return Err(Refusal::client(ServeError::TooLarge(job.bounds().max)));
                }
                Err(SendError::Broken(Break { error, .. })) if error.is_user() => {
                    let said = "the client broke off".to_owned();
                    return Err(Refusal::client(ServeError::Body(said)));
                }
                Err(broken @ SendError::Broken(Break { sent: processed, .. })) => {
                    let said = broken.to_string();
                    let why = Why::Broken;
                    return Err(Refusal { why, processed, sent: true, retry_after: None, said });
                }
                Err(SendError::Silent(_)) => {
                    return Err(in_vain(&Waited::ForAnswer(patience)));
                }
            }
        };
        let waiting = upload.since_end(began);
        let (head, body) = response.into_parts();
        let body = AnswerBody::Stream(body);
        Ok(Box::new(Exchange { head, body, lease, connecting, waiting, upload }))
    }

    /// Opens the shortest way: through a peer where that is shorter and there is one.
    async fn lease_for(&self, row: &Row, job: &mut Job, now: Instant) -> Result<Lease, Refusal> {
        job.via = None;
        if let Some(peer) = row.link.via
            && let Some(lease) = Box::pin(self.lease_through(peer, row, job)).await
        {
            job.via = Some(peer);
            return Ok(lease);
        }
        self.lease(row, now).await
    }

    async fn lease(&self, row: &Row, now: Instant) -> Result<Lease, Refusal> {
        let leased = self.shared.upstream.lease(row.id, &row.uri, &row.gauge, now).await;
        leased.map_err(|error| {
            let why = match &error {
                ConnectError::Full(_) => Why::Full,
                ConnectError::Silent(_) => Why::Silent,
                ConnectError::Denied(_) | ConnectError::Pin => Why::Lasting,
                ConnectError::Refused(_) | ConnectError::Tls(_) | ConnectError::Http(_) => {
                    Why::Broken
                }
            };
            Refusal::unprocessed(why, &error.to_string())
        })
    }
}

fn request(route: &Route, job: &Job, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = job.visit.method.clone();
    *request.uri_mut() = Uri::from(route.path.clone());
    *request.headers_mut() = onward(job, route.row.uri.host_field().clone());
    if request.body().size_hint().exact().is_none() {
        // Unasked, hyper leaves out a body of unknown length where few requests have one.
        let chunked = header::HeaderValue::from_static("chunked");
        request.headers_mut().insert(header::TRANSFER_ENCODING, chunked);
    }
    request
}

/// Whose doing it is that no answer came.
fn in_vain(waited: &Waited) -> Refusal {
    match waited {
        Waited::ForClient(_) | Waited::Broken => {
            Refusal::client(ServeError::Body(waited.to_string()))
        }
        Waited::ForAnswer(_) => {
            let said = waited.to_string();
            Refusal { why: Why::Silent, processed: true, sent: true, retry_after: None, said }
        }
    }
}
