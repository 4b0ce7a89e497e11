//! Bytes both ways until one side ends, and what is noted when they have.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use crate::clock;
use crate::edge::job::{Job, Work};
use crate::edge::marks::Marks;
use crate::edge::note::{Note, Noted, answered};
use crate::edge::passed::clean;
use crate::edge::refusal::ServeError;
use crate::edge::rewrite::Rewriter;
use crate::edge::route::{AnswerBody, Exchange, Opened, Route};
use crate::edge::{Admitted, Gateway};
use crate::session::Entry;
use crate::session::Reason;
use crate::session::table::{Opening, Using};
use crate::ticket::Ticket;
use crate::upstream::Body;
use crate::upstream::body::End;
use crate::view::View;
use crate::view::row::Mode;

/// Passes an answer on. From here on nothing is retried.
pub(crate) async fn relay(
    gateway: &Arc<Gateway>,
    view: &View,
    admitted: Admitted,
    mut job: Box<Job>,
    route: Route,
    opened: Opened,
) -> Result<Response<Body>, ServeError> {
    let Opened { exchange, attempt } = opened;
    let status = exchange.status();
    let marks = Marks::of(&job, &exchange);
    let session = within(gateway, &job, &route, status);
    let mut line = admitted.take();
    if let Some(line) = line.as_deref_mut() {
        answered(&mut line.usage, view, &job, &route, status);
    }
    let note = Note(Some(Noted {
        line,
        attempt,
        session,
        started: job.visit.started,
        upload: exchange.upload.clone(),
        lease: None,
        busy: job.visit.busy.clone(),
    }));
    let fresh = matches!(job.work, Work::New { mode: Mode::Persistent, .. }) && status.is_success();
    let mut response = match status {
        StatusCode::SWITCHING_PROTOCOLS => switch(gateway, &mut job, exchange, note)?,
        StatusCode::PAYMENT_REQUIRED => {
            Box::pin(challenge(gateway, &job, &route, exchange, note)).await?
        }
        // Fresh payment parameters are a challenge that comes as a success.
        StatusCode::OK if matches!(job.work, Work::Refresh { .. }) => {
            Box::pin(challenge(gateway, &job, &route, exchange, note)).await?
        }
        _ if fresh => Box::pin(reserved(gateway, &job, &route, exchange, note)).await?,
        _ => stream(exchange, note),
    };
    marks.put(gateway, view, &job, &route, response.headers_mut());
    Ok(response)
}

/// Streams an answer through, watched.
fn stream(exchange: Box<Exchange>, mut note: Note) -> Response<Body> {
    let Exchange { head: mut parts, body, lease, .. } = *exchange;
    clean(&mut parts.headers);
    match body {
        AnswerBody::Stream(body) => {
            note.with(|it| it.lease = Some(lease));
            Response::from_parts(parts, Body::watched(body, Box::new(note)))
        }
        AnswerBody::Whole(body) => {
            lease.put_back(clock::now());
            respond(parts, body, note)
        }
    }
}

/// Reads a reservation, opens its session, and hands out URLs of this mesh.
async fn reserved(
    gateway: &Gateway,
    job: &Job,
    route: &Route,
    exchange: Box<Exchange>,
    mut note: Note,
) -> Result<Response<Body>, ServeError> {
    let (parts, body) = whole(exchange, &mut note).await?;
    let Ok(found) = rewriter(gateway, job, route).reserved(&body) else {
        // Whatever this is, it is no session: a broken orchestrator, not a broken client.
        note.usage(|it| it.status = StatusCode::BAD_GATEWAY.as_u16());
        note.end(End::Cut);
        let said = "the orchestrator's answer is not a reserved session".to_owned();
        return Err(ServeError::Failed(said));
    };
    let app = match &job.work {
        Work::New { app, .. } => Arc::clone(app),
        Work::Within { .. } | Work::Refresh { .. } => "".into(),
    };
    let session = found.session.clone();
    note.usage(|it| it.session = Some(session));
    gateway.shared.sessions.open(
        clock::now(),
        Opening {
            orchestrator: route.row.id,
            session: found.session,
            uri: route.row.uri.clone(),
            app,
            control: found.control,
            home: job.visit.located.home,
            caller: job.visit.located.caller.place,
            decision: job.decision,
            gauge: Arc::clone(&route.row.gauge),
        },
    );
    Ok(respond(parts, found.body, note))
}

/// Binds a payment challenge to its orchestrator and passes it on.
async fn challenge(
    gateway: &Gateway,
    job: &Job,
    route: &Route,
    exchange: Box<Exchange>,
    mut note: Note,
) -> Result<Response<Body>, ServeError> {
    let (parts, body) = whole(exchange, &mut note).await?;
    match rewriter(gateway, job, route).challenged(&body) {
        Ok(found) => {
            gateway.bindings.bind(clock::now(), found.manifest, route.row.id);
            Ok(respond(parts, found.body, note))
        }
        // Some 402 carry a message only; it passes as it came.
        Err(_message) => Ok(respond(parts, body, note)),
    }
}

/// Joins the two sides after both agreed to speak something else than HTTP.
fn switch(
    gateway: &Gateway,
    job: &mut Job,
    exchange: Box<Exchange>,
    mut note: Note,
) -> Result<Response<Body>, ServeError> {
    let refused = || ServeError::BadRequest("this request did not ask for an upgrade".to_owned());
    let client = job.upgrade.take().ok_or_else(refused)?;
    let Exchange { head, lease, .. } = *exchange;
    let mut passed = Response::new(Body::Empty);
    *passed.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *passed.headers_mut() = head.headers.clone();
    let upstream = hyper::upgrade::on(Response::from_parts(head, ()));
    gateway.upgrades.run(async move {
        // The connection is the stream's now; its place stays taken until the end.
        let _lease = lease;
        let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else {
            return note.end(End::Cut);
        };
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        let copied = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
        // Which of the two sides vanished is not told; nobody is blamed for it.
        let end = if copied.is_ok() { End::Whole } else { End::Abandoned };
        let (up, down) = copied.unwrap_or_default();
        note.usage(|it| it.bytes_up += up);
        note.passed(down as usize);
        note.end(end);
    });
    Ok(passed)
}

/// Reads a short answer whole; its connection is then free.
async fn whole(
    mut exchange: Box<Exchange>,
    note: &mut Note,
) -> Result<(http::response::Parts, Bytes), ServeError> {
    if let Err(said) = exchange.read_whole().await {
        note.end(End::Cut);
        return Err(ServeError::Failed(said));
    }
    let Exchange { head: mut parts, body, lease, .. } = *exchange;
    let AnswerBody::Whole(body) = body else {
        note.end(End::Cut);
        return Err(ServeError::Failed("its answer was not read".to_owned()));
    };
    lease.put_back(clock::now());
    clean(&mut parts.headers);
    parts.headers.remove(header::CONTENT_LENGTH);
    Ok((parts, body))
}

fn respond(parts: http::response::Parts, body: impl Into<Bytes>, mut note: Note) -> Response<Body> {
    let body = body.into();
    note.passed(body.len());
    note.end(End::Whole);
    Response::from_parts(parts, Body::whole(body))
}

/// Finds the session a request belongs to, or takes it in when this node has not seen it
/// yet, since another node reserved it or this one was restarted; and notes what the answer
/// says of its end.
fn within(gateway: &Gateway, job: &Job, route: &Route, status: StatusCode) -> Option<Using> {
    let Work::Within { ticket, stop, .. } = &job.work else { return None };
    let gone = status == StatusCode::NOT_FOUND;
    let key = (ticket.orchestrator, ticket.session.clone());
    let entry = match gateway.shared.sessions.find(&key) {
        Some(entry) => entry,
        // A session its orchestrator does not know is none.
        None if gone || !gateway.shared.sessions.has_room() => return None,
        None => adopt(gateway, job, route, ticket),
    };
    if *stop && (status.is_success() || gone) {
        entry.note_end(Reason::Stopped);
    } else if gone && *route.path.as_str() == format!("{}/payment", entry.control) {
        // Only the orchestrator's own paths tell that the session is gone; an app may answer
        // 404 for reasons of its own.
        entry.note_end(Reason::Lost);
    }
    entry.begin(clock::now())
}

fn adopt(gateway: &Gateway, job: &Job, route: &Route, ticket: &Ticket) -> Arc<Entry> {
    let control = ticket.path.strip_suffix("/app").unwrap_or(&ticket.path);
    gateway.shared.sessions.open(
        clock::now(),
        Opening {
            orchestrator: route.row.id,
            session: ticket.session.clone(),
            uri: route.row.uri.clone(),
            app: "".into(),
            control: control.to_owned(),
            home: job.visit.located.home,
            caller: job.visit.located.caller.place,
            decision: None,
            gauge: Arc::clone(&route.row.gauge),
        },
    )
}

pub(crate) fn rewriter<'a>(gateway: &'a Gateway, job: &'a Job, route: &'a Route) -> Rewriter<'a> {
    Rewriter {
        key: &gateway.key,
        base: job.visit.base(),
        orchestrator: route.row.id,
        uri: &route.row.uri,
        expires: Gateway::wall_s() + job.visit.params.ticket_for.as_secs(),
    }
}

/// The tasks that carry switched protocols.
#[derive(Debug, Default)]
pub struct Upgrades(Mutex<JoinSet<()>>);

impl Upgrades {
    pub(crate) fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Ends what still runs.
    pub fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}
