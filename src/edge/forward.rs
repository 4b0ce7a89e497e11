//! Requests that pass through two nodes: sent on by the one the client entered by, passed to
//! the orchestrator by the one that is nearer to it.
//!
//! A stream carries one request, as HTTP/1.1 behind one frame that says for which orchestrator
//! it is and who vouches for it. What a node gets in this way it never sends on to a third,
//! so nothing goes around in circles. Metering and judging stay with the entry.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::counter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::clock;
use crate::edge::Gateway;
use crate::edge::job::Job;
use crate::edge::route::{Refusal, Why};
use crate::id::{NodeId, OrchestratorId};
use crate::net::{BulkStream, Endpoint};
use crate::ticket::FORWARD_FOR_S;
use crate::upstream::body::{End, Watch};
use crate::upstream::{Body, Lease, SendError};
use crate::view::Row;
use crate::wire::forward;
use crate::wire::v1::ForwardV1;

impl Gateway {
    /// Opens the way to an orchestrator through a peer; `None` where there is none now, and
    /// the request goes by itself.
    pub(crate) async fn lease_through(&self, peer: NodeId, row: &Row, job: &Job) -> Option<Lease> {
        let endpoint = self.carrier.get()?;
        let opened = async {
            let mut stream = endpoint.bulk(peer).await.map_err(|error| error.to_string())?;
            let first = self.preamble(row.id, job);
            let first = forward::encode(&first).map_err(|error| error.to_string())?;
            stream.write_all(&first).await.map_err(|error| error.to_string())?;
            let (upstream, runtime) = (&self.shared.upstream, endpoint.runtime());
            let leased = upstream.lease_over(row.id, &row.gauge, stream, runtime).await;
            leased.map_err(|error| error.to_string())
        };
        // The way by itself is there: a peer that does not answer is not waited for.
        let opened = tokio::time::timeout(OPEN_WITHIN, opened).await;
        match opened.unwrap_or_else(|_elapsed| Err("it did not answer in time".to_owned())) {
            Ok(lease) => {
                counter!("portolan_forwarded_total", "result" => "sent").increment(1);
                Some(lease)
            }
            Err(error) => {
                counter!("portolan_forwarded_total", "result" => "no-way").increment(1);
                tracing::debug!(%peer, error, "not forwarded");
                None
            }
        }
    }

    fn preamble(&self, orchestrator: OrchestratorId, job: &Job) -> ForwardV1 {
        let expires = Self::wall_s() + FORWARD_FOR_S;
        let entry = self.identity.node;
        let left = job.left(clock::now()).map_or(0, |it| it.as_millis().max(1));
        ForwardV1 {
            hops: vec![entry.as_str().to_owned()],
            orchestrator: orchestrator.0,
            deadline_ms: u32::try_from(left).unwrap_or(u32::MAX),
            trace: job.visit.trace.trace_id.0,
            expires,
            seal: self.key.seal_forward(entry, orchestrator, expires),
        }
    }
}

/// What the peer says where it did not pass the request on; never heard from an orchestrator,
/// whose answers lose the field.
pub(crate) fn refused(response: &Response<Incoming>) -> Option<Refusal> {
    let said = response.headers().get(REFUSED)?;
    let sent = said == BROKEN;
    let said = format!("the peer it goes through says: {}", said.to_str().unwrap_or("?"));
    Some(Refusal { processed: sent, sent, ..Refusal::unprocessed(Why::Broken, &said) })
}

/// Passes on what peers send, until the endpoint closes.
pub async fn serve(gateway: Arc<Gateway>, endpoint: Endpoint) {
    let mut tasks = JoinSet::new();
    while let Some(stream) = endpoint.carried().await {
        while tasks.try_join_next().is_some() {}
        if tasks.len() >= CARRIED_MAX {
            // Dropped, the stream breaks; the entry tries elsewhere.
            counter!("portolan_carried_total", "result" => "full").increment(1);
            continue;
        }
        let gateway = Arc::clone(&gateway);
        tasks.spawn(async move {
            let peer = stream.peer;
            let result = match carry(&gateway, stream).await {
                Ok(()) => "passed",
                Err(refused) => {
                    tracing::debug!(%peer, refused, "nothing was passed on");
                    "refused"
                }
            };
            counter!("portolan_carried_total", "result" => result).increment(1);
        });
    }
}

/// Passes one request on.
async fn carry(gateway: &Arc<Gateway>, mut stream: BulkStream) -> Result<(), &'static str> {
    let first = tokio::time::timeout(FIRST_WITHIN, first(&mut stream)).await;
    let first = first.map_err(|_elapsed| "its first frame did not come in time")??;
    let orchestrator = OrchestratorId(first.orchestrator);
    let [hop] = first.hops.as_slice() else { return Err("it passed other nodes before") };
    if *hop != stream.peer.as_str() {
        return Err("it names another entry than its own");
    }
    let (key, now) = (&gateway.key, Gateway::wall_s());
    key.open_forward(stream.peer, orchestrator, first.expires, &first.seal, now)
        .map_err(|_bad| "its seal is not good")?;
    let view = gateway.view();
    let (_slot, row) = view.orchestrator(orchestrator).ok_or("no such orchestrator here")?;
    let within = match first.deadline_ms {
        0 => HEAD_WITHIN,
        ms => Duration::from_millis(ms.into()).min(HEAD_WITHIN),
    };
    let service = service_fn(move |request: Request<Incoming>| {
        let (gateway, row) = (Arc::clone(gateway), Arc::clone(row));
        async move { Ok::<_, Infallible>(pass(&gateway, &row, within, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(FIRST_WITHIN)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    served.await.map_err(|_broken| "it broke off")
}

/// Reads the frame that comes first.
async fn first(stream: &mut BulkStream) -> Result<ForwardV1, &'static str> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.map_err(|_end| "it ended before its first frame")?;
    let length = forward::length(length).map_err(|_wire| "its first frame is too long")?;
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await.map_err(|_end| "it ended within its first frame")?;
    let first = forward::decode(&rest).map_err(|_wire| "its first frame cannot be read")?;
    first.ok_or("its first frame is of a type unknown here")
}

/// Asks the orchestrator and hands its answer back as it comes.
async fn pass(
    gateway: &Gateway,
    row: &Row,
    within: Duration,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let client = request
        .headers()
        .contains_key(http::header::UPGRADE)
        .then(|| hyper::upgrade::on(&mut request));
    let mut request = request.map(Body::stream);
    for _ in 0..2 {
        let leased =
            gateway.shared.upstream.lease(row.id, &row.uri, &row.gauge, clock::now()).await;
        let Ok(mut lease) = leased else { return refusal(UNREACHED) };
        match lease.send_within(request, within).await {
            Ok(response) => return answer(gateway, response, lease, client),
            Err(SendError::Unsent(whole)) => request = *whole,
            Err(SendError::Broken(broken)) if !broken.sent => return refusal(UNREACHED),
            Err(SendError::Broken(_) | SendError::Silent(_)) => return refusal(BROKEN),
        }
    }
    refusal(UNREACHED)
}

fn answer(
    gateway: &Gateway,
    response: Response<Incoming>,
    lease: Lease,
    client: Option<hyper::upgrade::OnUpgrade>,
) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    head.headers.remove(REFUSED);
    if let (StatusCode::SWITCHING_PROTOCOLS, Some(client)) = (head.status, client) {
        let mut passed = Response::new(Body::Empty);
        *passed.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *passed.headers_mut() = head.headers.clone();
        let upstream = hyper::upgrade::on(Response::from_parts(head, ()));
        gateway.upgrades.run(async move {
            let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else { return };
            let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
            // Whichever side breaks off, the other sees it by its own end.
            drop(tokio::io::copy_bidirectional(&mut client, &mut upstream).await);
            drop(lease);
        });
        return passed;
    }
    Response::from_parts(head, Body::watched(body, Box::new(PutBack(Some(lease)))))
}

fn refusal(why: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response.headers_mut().insert(REFUSED, why);
    response
}

/// Keeps the connection to the orchestrator once an answer has gone through.
struct PutBack(Option<Lease>);

impl Watch for PutBack {
    fn passes(&mut self, _n: usize) -> bool {
        true
    }

    fn ended(mut self: Box<Self>, end: End) {
        if let Some(lease) = self.0.take().filter(|_| end == End::Whole) {
            lease.put_back(clock::now());
        }
    }
}

const REFUSED: HeaderName = HeaderName::from_static("portolan-forward-refused");
const UNREACHED: HeaderValue = HeaderValue::from_static("unreached");
const BROKEN: HeaderValue = HeaderValue::from_static("broken");
/// A handshake with a peer on the other side of the globe takes half of it.
const OPEN_WITHIN: Duration = Duration::from_secs(1);
/// Requests of all peers passed on at once.
const CARRIED_MAX: usize = 4096;
/// A peer has its first frame and its head ready when it opens a stream.
const FIRST_WITHIN: Duration = Duration::from_secs(5);
/// The entry keeps its own, shorter time; this one only ends what is left over.
const HEAD_WITHIN: Duration = Duration::from_secs(600);
