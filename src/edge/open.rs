//! Choosing a route and opening it: what may fail before the client sees a byte.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use crate::clock;
use crate::edge::Gateway;
use crate::edge::decisions::Record;
use crate::edge::job::{Job, JobBody, Work, says_full};
use crate::edge::refusal::ServeError;
use crate::edge::route::{Attempt, Exchange, Opened, Refusal, Route, Why};
use crate::policy::{Ask, PathKind, choose};
use crate::unit::Micros;
use crate::view::View;
use crate::view::column::COLD_ROUND_TRIPS;
use crate::view::outcome::Outcome;
use crate::view::row::{Mode, Standing};

impl Gateway {
    /// Returns where `job` goes next.
    pub(crate) fn choose(&self, view: &View, job: &mut Job) -> Result<Route, ServeError> {
        match &job.work {
            Work::Within { ticket, path, .. } => {
                let lost = || ServeError::SessionOver("its orchestrator is not known here".into());
                let (_slot, row) = view.orchestrator(ticket.orchestrator).ok_or_else(lost)?;
                Ok(Route { row: Arc::clone(row), offer: 0, path: path.clone() })
            }
            Work::Refresh { bound } => {
                let lost = || ServeError::SessionOver("its orchestrator is not known here".into());
                let (_slot, row) = view.orchestrator(*bound).ok_or_else(lost)?;
                let path = format!("{}/refresh-payment", row.uri.base_path());
                Ok(Route { row: Arc::clone(row), offer: 0, path })
            }
            Work::New { .. } => self.choose_new(view, job),
        }
    }

    fn choose_new(&self, view: &View, job: &mut Job) -> Result<Route, ServeError> {
        let Work::New { app, capability, variant, mode, query, bound } = job.work.clone() else {
            return Err(ServeError::NoDoor);
        };
        let params = Arc::clone(&job.visit.params);
        let mut rules = std::borrow::Cow::Borrowed(&params.rules);
        if let Some(bound) = bound {
            rules.to_mut().only = Some([bound].into());
        }
        let ask = Ask {
            caller: &job.visit.located.caller,
            capability,
            path: PathKind::Relayed,
            mode: Some(mode),
            variant: Some(variant),
            gpus: &[],
            rules: &rules,
            tried: &job.tried,
            running: None,
            deadline: None,
            cold_round_trips: COLD_ROUND_TRIPS,
        };
        let now = clock::now();
        if job.tried.len() >= params.attempts_max {
            return Err(job.nobody_left().unwrap_or(ServeError::Full));
        }
        let chosen = choose(view, |gauge| gauge.into(), &ask, now, self.draw());
        let decision = match chosen {
            Ok(decision) => decision,
            Err(no_route) if no_route.excluded.is_empty() => {
                return Err(unknown(view, &app));
            }
            Err(_no_route) if bound.is_some() => {
                // The one it belongs to cannot take it.
                job.unbind();
                return self.choose_new(view, job);
            }
            Err(no_route) => return Err(job.nobody_left().unwrap_or(no_route.into())),
        };
        job.choosing += clock::now().saturating_duration_since(now);
        if decision.scanned {
            metrics::counter!("portolan_choice_scans_total").increment(1);
        }
        let member = decision.chosen().member;
        let id = self.decisions.next_id();
        self.decisions.keep(Arc::new(Record {
            id,
            at_ms: clock::wall().as_millis() as u64,
            capability: app,
            path: PathKind::Relayed,
            place: job.visit.located.caller.place,
            home: job.visit.located.home,
            tried: job.tried.clone(),
            decision,
        }));
        job.decision = Some(id);
        let route = view.row(member.slot).and_then(|row| {
            let runner = row.offers.get(usize::from(member.offer))?.runner.as_ref()?;
            let path = format!("{}{query}", runner.path.as_deref()?);
            Some(Route { row: Arc::clone(row), offer: member.offer, path })
        });
        route.ok_or(ServeError::NoDoor)
    }

    /// Connects, sends, and waits for the head of an answer worth passing on.
    pub(crate) async fn open(&self, route: &Route, job: &mut Job) -> Result<Opened, Refusal> {
        let counted = matches!(job.work, Work::New { .. });
        let taken = || Refusal::unprocessed(Why::Full, "the one place of a probation is taken");
        let mut attempt = Attempt::begin(route, counted).ok_or_else(taken)?;
        let exchanged = self.exchange(route, job, &mut attempt).await;
        attempt.heard();
        let judged = match exchanged {
            Ok(exchange) => judge(exchange, job).await,
            Err(refusal) => Err(refusal),
        };
        match judged {
            Ok(exchange) => {
                attempt.will_end(outcome(route, &exchange, job));
                Ok(Opened { exchange, attempt })
            }
            Err(refusal) => {
                attempt.will_end(match refusal.why {
                    Why::Full => Outcome::Full,
                    Why::Broken | Why::Silent => Outcome::Failed,
                    Why::Stale | Why::Client(_) => Outcome::Neutral,
                });
                Err(refusal)
            }
        }
    }
}

/// Nobody offers an app: never, or not as far as is known yet.
pub(crate) fn unknown(view: &View, app: &str) -> ServeError {
    let unheard = view.version == 0
        || view
            .rows()
            .any(|(_slot, row)| row.standing == Standing::Unknown && row.last_failure.is_none());
    match unheard {
        true => ServeError::NotYet(app.to_owned()),
        false => ServeError::Unknown(app.to_owned()),
    }
}

/// Passes an answer on, or turns it into a refusal when somebody else may do better.
async fn judge(exchange: Exchange, job: &Job) -> Result<Exchange, Refusal> {
    let status = exchange.response.status();
    let Work::New { mode, bound, .. } = &job.work else { return Ok(exchange) };
    let repeatable = !matches!(job.body, JobBody::Gone);
    let elsewhere = repeatable && bound.is_none();
    // An app may answer a single-shot call with a 404 of its own, and did its work then.
    if status == StatusCode::NOT_FOUND && elsewhere && *mode == Mode::Persistent {
        let said = "it does not know this runner any more";
        return Err(Refusal::unprocessed(Why::Stale, said));
    }
    let overloaded = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];
    if overloaded.contains(&status) && elsewhere {
        let body = read_refusal(exchange.response).await;
        let why = if says_full(status, &body) { Why::Full } else { Why::Broken };
        let said = format!("{status}: {}", crate::livepeer::error::message(&body));
        return Err(Refusal { why, processed: false, said });
    }
    let broken = status.is_server_error() && *mode == Mode::Persistent;
    if broken && elsewhere {
        let said = format!("it answered {status}");
        return Err(Refusal { why: Why::Broken, processed: true, said });
    }
    Ok(exchange)
}

async fn read_refusal(response: Response<Incoming>) -> Bytes {
    let body = Limited::new(response.into_body(), 8 * 1024).collect();
    let body = tokio::time::timeout(Duration::from_secs(2), body).await;
    body.ok().and_then(Result::ok).map(|it| it.to_bytes()).unwrap_or_default()
}

/// Returns how an attempt counts once its answer has gone through whole.
fn outcome(route: &Route, exchange: &Exchange, job: &Job) -> Outcome {
    let status = exchange.response.status();
    let counted = matches!(job.work, Work::New { .. });
    match () {
        // Busy is not bad, also where the request could not go elsewhere.
        () if [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS]
            .contains(&status) =>
        {
            if counted {
                Outcome::Full
            } else {
                Outcome::Neutral
            }
        }
        // Within a session a 500 is the app's affair; only the way to it is judged.
        () if !counted => match status {
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Outcome::Failed,
            _ => Outcome::Neutral,
        },
        () if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED => Outcome::Failed,
        () if status.is_client_error() => Outcome::Neutral,
        () => {
            let service = Micros::from(exchange.waiting).0.saturating_sub(route.row.link.rtt.0);
            Outcome::Served { service: Micros(service), offer: route.offer }
        }
    }
}
