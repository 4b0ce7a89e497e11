//! What gateways learn without working: by checks, and from each other.

use std::collections::BTreeMap;
use std::time::Duration;

use portolan::health::Versioned;

use super::Run;
use super::due::Event;
use crate::draws;
use crate::server::State;

impl Run<'_> {
    /// Starts the checks a gateway wants.
    pub(super) fn look(&mut self, now: u64, gateway: usize) {
        for server in self.gateways[gateway].checks() {
            self.then(now, Event::Asks(gateway, server));
        }
    }

    pub(super) fn asks(&mut self, now: u64, gateway: usize, server: usize) {
        self.sequence += 1;
        let noise = draws::unit(draws::word(&[self.world.seed, 8, self.sequence]));
        let rtt = (self.world.rtt[gateway][server] as f64 * (1.0 - 0.05 * noise.ln())) as u64;
        if self.cut.contains(&(gateway, server)) {
            self.then(
                now + CHECK_PATIENCE.as_micros() as u64,
                Event::Checked(gateway, server, None),
            );
        } else if self.servers[server].state == State::Down {
            self.then(now + rtt, Event::Checked(gateway, server, None));
        } else {
            self.then(now + 5 * rtt / 2, Event::Asked(gateway, server, rtt as usize));
        }
    }

    pub(super) fn tells(&mut self, now: u64, gateway: usize) {
        let (held, from) = (self.scenario.held, &self.world.gateways[gateway].point);
        let mut sent: BTreeMap<usize, Vec<Versioned>> = BTreeMap::new();
        for peer in (0..self.gateways.len()).filter(|peer| *peer != gateway) {
            let mut records = self.gateways[gateway].tell(now, peer);
            records.iter_mut().for_each(|it| it.age += held);
            sent.insert(peer, records);
        }
        for (peer, records) in sent.into_iter().filter(|(_, records)| !records.is_empty()) {
            let metres = from.distance_m(&self.world.gateways[peer].point);
            let way = portolan::geo::expected_rtt(metres).0 / 2;
            let at = now + held.as_micros() as u64 + way;
            self.then(at, Event::Told(gateway, peer, records));
        }
        self.then(now + self.scenario.told_every.as_micros() as u64, Event::Tells(gateway));
    }
}

const CHECK_PATIENCE: Duration = Duration::from_secs(3);
