//! The course of one attempt: over the network, into a server, and back.

use std::time::Duration;

use super::Run;
use super::due::Event;
use crate::algorithm::{Answered, End};
use crate::draws;
use crate::server::{Arrival, Server, State};

/// One request at one orchestrator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) request: usize,
    pub(super) server: usize,
    /// When it was begun, and when it was sent over an open connection.
    pub(super) began: u64,
    pub(super) sent: u64,
    pub(super) rtt: u64,
    pub(super) open: bool,
    pub(super) life: u32,
}

impl Run<'_> {
    /// Sends a request on its way to a server.
    pub(super) fn set_out(&mut self, now: u64, request: usize, server: usize) {
        let gateway = self.world.requests[request].gateway;
        let direct = self.jobs[request].list.is_some();
        let noise = draws::unit(draws::word(&[self.world.seed, 7, request as u64, server as u64]));
        let rtt = self.world.course(request, server) as f64 * (1.0 - 0.05 * noise.ln());
        let rtt = rtt as u64;
        let warm = !direct && self.lease(gateway, server);
        let attempt = self.attempts.len();
        let life = self.servers[server].life;
        let sent = if warm { now } else { now + 2 * rtt };
        self.attempts.push(Attempt { request, server, began: now, sent, rtt, open: true, life });
        if !direct && self.cut.contains(&(gateway, server)) {
            let patience = if warm { HEAD_PATIENCE } else { CONNECT_PATIENCE };
            self.then(now + patience.as_micros() as u64, Event::GaveUp(attempt));
        } else {
            self.then(now + rtt / 2, Event::Connects(attempt));
        }
    }

    /// Opens a connection ahead of the requests, unless one is being opened there.
    pub(super) fn open_ahead(&mut self, now: u64, request: usize, server: usize) {
        let gateway = self.world.requests[request].gateway;
        if self.opening.insert((gateway, server)) {
            let takes = match self.cut.contains(&(gateway, server)) {
                true => CONNECT_PATIENCE.as_micros() as u64,
                false => 2 * self.world.course(request, server),
            };
            self.then(now + takes, Event::Opened(gateway, server, self.servers[server].life));
        }
    }

    /// A connection opened ahead is there, where anybody was to open it to.
    pub(super) fn opened(&mut self, gateway: usize, server: usize, life: u32) {
        self.opening.remove(&(gateway, server));
        let Server { state, life: is, .. } = &self.servers[server];
        let closed = *state == State::Down || *is != life || self.cut.contains(&(gateway, server));
        if !closed {
            self.keep_idle(gateway, server);
        }
    }

    fn keep_idle(&mut self, gateway: usize, server: usize) {
        let idle = &mut self.idle[gateway][server];
        *idle = (*idle + 1).min(IDLE_MAX);
        self.gateways[gateway].warm(server, *idle);
    }

    /// Takes an idle connection, if there is one.
    fn lease(&mut self, gateway: usize, server: usize) -> bool {
        let idle = &mut self.idle[gateway][server];
        let warm = *idle > 0;
        *idle = idle.saturating_sub(1);
        self.gateways[gateway].warm(server, *idle);
        warm
    }

    /// The first packet arrives: at a closed port, or at somebody.
    pub(super) fn connects(&mut self, now: u64, number: usize) {
        let attempt = self.attempts[number];
        let server = &self.servers[attempt.server];
        if server.state == State::Down || server.life != attempt.life {
            self.then(now + attempt.rtt / 2, Event::Answers(number, End::Broken));
            return;
        }
        let late = attempt.sent + HEAD_PATIENCE.as_micros() as u64;
        self.then(late, Event::GaveUp(number));
        self.then(attempt.sent + attempt.rtt / 2, Event::Reaches(number));
    }

    pub(super) fn reaches(&mut self, now: u64, number: usize) {
        let attempt = self.attempts[number];
        let server = &mut self.servers[attempt.server];
        let back = now + attempt.rtt / 2;
        match server.state {
            State::Silent => {}
            State::Down => self.then(back, Event::Answers(number, End::Broken)),
            State::FailsFast => self.then(back, Event::Answers(number, End::Failed)),
            State::Well => match server.arrive(number) {
                Arrival::Begun => self.begins(now, number),
                Arrival::Queued => {}
                Arrival::Refused => self.then(back, Event::Answers(number, End::Full)),
            },
        }
    }

    fn begins(&mut self, now: u64, number: usize) {
        let Attempt { request, server, .. } = self.attempts[number];
        self.attempts[number].life = self.servers[server].life;
        self.then(now + self.world.work_us(request, server), Event::Finished(number));
    }

    pub(super) fn finished(&mut self, now: u64, number: usize) {
        let attempt = self.attempts[number];
        let server = &mut self.servers[attempt.server];
        if server.life != attempt.life {
            return;
        }
        let attempts = &self.attempts;
        let next = server.finish(|waiting| attempts[waiting].open);
        if server.state == State::Well {
            self.then(now + attempt.rtt / 2, Event::Answers(number, End::Served));
        }
        if let Some(next) = next {
            self.begins(now, next);
        }
    }

    /// An attempt ends, one way or the other; whatever comes after that is not heard.
    pub(super) fn ends(&mut self, now: u64, number: usize, end: End) {
        let attempt = self.attempts[number];
        if !std::mem::take(&mut self.attempts[number].open) {
            return;
        }
        let request = self.world.requests[attempt.request];
        let gateway = request.gateway;
        if request.direct.is_none() {
            if end == End::Served || end == End::Full || end == End::Failed {
                self.keep_idle(gateway, attempt.server);
            }
            let took = now - attempt.began;
            let waited = now.saturating_sub(attempt.sent);
            self.gateways[gateway].end(now, attempt.server, Answered { end, took, waited });
        }
        match end {
            End::Served if request.at >= self.scenario.counts_from().as_micros() as u64 => {
                self.served.push(now - request.at);
            }
            End::Served => {}
            End::Full | End::Failed | End::Broken | End::Silent => {
                self.go_on(now, attempt.request);
            }
        }
    }
}

/// How long an answer's head may take: ten times what usual work does.
const HEAD_PATIENCE: Duration = Duration::from_secs(4);
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
const IDLE_MAX: u32 = 16;
