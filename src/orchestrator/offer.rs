//! What one orchestrator offers: advertised, and learned by using it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use sha2::{Digest, Sha256};

use crate::livepeer::capability;
use crate::livepeer::runner::{self, Price, PriceUnit};
use crate::orchestrator::evidence::Told;
use crate::orchestrator::median::ENOUGH;
use crate::unit::{Micros, decayed};
use crate::uri::ServiceUri;
use crate::view::CapabilityId;
use crate::view::outcome::Drained;
use crate::view::row::{Mode, Offer, Runner};

/// What is assumed until something is learned, and what a price weighs.
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// Places of an orchestrator that tells none.
    pub capacity: u32,
    /// How long a session keeps its place.
    pub session: Duration,
    /// How long the operator would wait to save one cent; zero leaves price out.
    pub wait_per_cent: Duration,
    /// What one ether costs, in cents.
    pub ether_cents: u64,
}

/// The offers of one orchestrator.
#[derive(Clone, Debug)]
pub struct Offers {
    params: Params,
    offers: Vec<Learned>,
    /// Every name it ever offered, at most [`NAMES_MAX`]; further ones are not taken.
    names: BTreeSet<Arc<str>>,
    /// Which of the offers each position of the last row was.
    shown: Vec<usize>,
}

#[derive(Clone, Debug)]
struct Learned {
    name: Arc<str>,
    runner: Option<Arc<Runner>>,
    price: Option<Price>,
    advertised: Option<u32>,
    others: u32,
    told_at: Instant,
    /// Learned capacity in thousandths; starts at what is advertised.
    learned_milli: u64,
    /// Others' use as the last row told it, in thousandths.
    others_milli: u64,
    /// Service time, averaged over the last few; `None` until the first.
    service: Option<Micros>,
}

impl Params {
    /// Returns how long the operator would wait to save the price of one unit of work.
    fn wait_for(&self, price: Price) -> Micros {
        let seconds = u128::from(self.session.as_secs());
        let wei = match price.unit {
            PriceUnit::Fixed => price.wei,
            PriceUnit::Seconds | PriceUnit::PixelSeconds720p => price.wei.saturating_mul(seconds),
            PriceUnit::Hour => price.wei.saturating_mul(seconds) / 3600,
        };
        let cents = u128::from(self.ether_cents);
        let weight = cents.saturating_mul(self.wait_per_cent.as_micros());
        let micros = wei.saturating_mul(weight) / WEI_PER_ETHER;
        Micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

impl Offers {
    /// Starts with nothing.
    pub fn new(params: Params) -> Self {
        Self { params, offers: Vec::new(), names: BTreeSet::new(), shown: Vec::new() }
    }

    /// Takes the runners of a discovery answer in place of those before; what was learned
    /// of one that stays is kept. `in_flight` is what of the places in use is our own.
    pub fn take_runners(
        &mut self,
        now: Instant,
        uri: &ServiceUri,
        runners: &[runner::Runner],
        in_flight: u32,
    ) {
        let jobs = self.offers.iter().filter(|it| it.runner.is_none()).cloned();
        let jobs: Vec<Learned> = jobs.take(OFFERS_MAX / 2).collect();
        let mut offers: Vec<Learned> = Vec::with_capacity(runners.len() + jobs.len());
        for advert in runners.iter().take(OFFERS_MAX - jobs.len()) {
            if !self.may_offer(&advert.app) {
                continue;
            }
            let price = advert.price();
            let runner = Arc::new(runner_of(uri, advert));
            let before = self.offers.iter().find(|it| {
                let same = |held: &Arc<Runner>| held.url == runner.url && held.mode == runner.mode;
                *it.name == *advert.app && it.runner.as_ref().is_some_and(same)
            });
            let mut learned = before.cloned().unwrap_or_else(|| self.unknown(now, &advert.app));
            learned.raise_to(advert.capacity);
            learned.runner = Some(runner);
            learned.price = price;
            learned.others = advert.capacity_used.saturating_sub(in_flight);
            learned.told_at = now;
            offers.push(learned);
        }
        offers.extend(jobs);
        self.offers = offers;
    }

    /// Takes the job capabilities of an `OrchestratorInfo` in place of those before.
    pub fn take_jobs(&mut self, now: Instant, jobs: &BTreeMap<String, capability::Offer>) {
        let (mut offers, before): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.offers).into_iter().partition(|it| it.runner.is_some());
        offers.truncate(OFFERS_MAX);
        for (name, job) in jobs.iter().take(OFFERS_MAX - offers.len()) {
            if !self.may_offer(name) {
                continue;
            }
            let held = before.iter().find(|it| *it.name == **name).cloned();
            let mut learned = held.unwrap_or_else(|| self.unknown(now, name));
            if job.capacity > 0 {
                learned.raise_to(job.capacity);
                learned.others = job.in_use;
                learned.told_at = now;
            }
            offers.push(learned);
        }
        self.offers = offers;
    }

    /// Names are numbered for the life of the node, so nobody gets to make up many.
    fn may_offer(&mut self, name: &str) -> bool {
        if !self.names.contains(name) && self.names.len() < NAMES_MAX {
            self.names.insert(name.into());
        }
        self.names.contains(name)
    }

    fn unknown(&self, now: Instant, name: &str) -> Learned {
        Learned {
            name: name.into(),
            runner: None,
            price: None,
            advertised: None,
            others: 0,
            told_at: now,
            learned_milli: u64::from(self.params.capacity) * 1000,
            others_milli: 0,
            service: None,
        }
    }

    /// Takes what the request path counted; `in_flight` is what of ours is there still
    /// and `claimed` what peers say is theirs.
    pub fn take_outcomes(&mut self, drained: &Drained, in_flight: u32, claimed: u32) {
        for (offer, service) in &drained.times {
            let at = self.shown.get(usize::from(*offer)).copied();
            if let Some(offer) = at.and_then(|at| self.offers.get_mut(at)) {
                offer.learn(*service, in_flight);
            }
        }
        if drained.refusals > 0 {
            self.offers.iter_mut().for_each(|offer| offer.refuse(drained.refused.full_at, claimed));
        }
    }

    /// Takes other knobs; they show with the next answer of the orchestrator.
    pub fn handle_params(&mut self, params: Params) {
        self.params = params;
    }

    /// Returns the places of all its runners, by its own word; 0 where it has none.
    pub fn places(&self) -> u32 {
        let told = self.offers.iter().filter_map(|it| Some(it.runner.as_ref()?.capacity));
        told.fold(0, u32::saturating_add)
    }

    /// Returns the places others use, as last advertised.
    pub fn others(&self) -> u32 {
        self.offers.iter().fold(0, |sum, it| sum.saturating_add(it.others))
    }

    /// Returns the mean service time over the offers that have one.
    pub fn service(&self) -> Option<Micros> {
        let known: Vec<u64> = self.offers.iter().filter_map(|it| Some(it.service?.0)).collect();
        (known.iter().sum::<u64>()).checked_div(known.len() as u64).map(Micros)
    }

    /// Returns the capacity of all offers together, in thousandths.
    pub fn capacity_milli(&self) -> Option<u32> {
        let sum: u64 = self.offers.iter().map(Learned::capacity_milli).sum();
        (!self.offers.is_empty()).then(|| u32::try_from(sum).unwrap_or(u32::MAX))
    }

    /// Returns the offers as decisions read them. `ramp` is the share of the capacity to
    /// show, in thousandths.
    pub fn rows(
        &mut self,
        now: Instant,
        told: &[Told],
        ramp: u64,
        mut intern: impl FnMut(&str) -> Option<CapabilityId>,
    ) -> Vec<Offer> {
        let all_milli = u64::from(self.capacity_milli().unwrap_or(1)).max(1);
        let sum = |pick: fn(&Told) -> u32| told.iter().map(|it| u64::from(pick(it))).sum::<u64>();
        // Two may be believed. Of more some may lie: whatever they say, it is full at most, and
        // how long one waits there this node learns for itself.
        let most_milli = if told.len() < ENOUGH { u64::MAX } else { all_milli };
        let in_flight = sum(|it| it.observation.in_flight).min(most_milli / 1000);
        let arrivals = sum(|it| it.observation.arrivals_milli);
        let told_at = told.iter().map(|it| it.at).max().unwrap_or(now);
        let params = self.params;
        let mut row = |learned: &mut Learned| {
            let capacity = learned.capacity_milli();
            // A peer tells of the orchestrator as a whole; an offer bears its share.
            let share = |milli: u64| milli.saturating_mul(capacity) / all_milli;
            let seen = (u64::from(learned.others) * 1000, learned.told_at);
            let said = (share(in_flight * 1000), told_at);
            let mode = learned.runner.as_ref().map(|it| it.mode);
            let holding = match mode {
                Some(Mode::Persistent) => params.session.into(),
                Some(Mode::SingleShot) | None => Micros::ZERO,
            };
            // Each is forgotten at the rate work ends there; what weighs more by now, counts.
            let lasts = holding.max(learned.service.unwrap_or(Micros::ZERO));
            let each = if lasts == Micros::ZERO { UNKNOWN_LASTS } else { lasts };
            let filling = share(most_milli).saturating_mul(1_000_000) / each.0;
            let by_now = |(milli, at): &(u64, Instant)| left_milli(*milli, now, *at, lasts);
            let (others, load_at) = if by_now(&seen) > by_now(&said) { seen } else { said };
            learned.others_milli = others;
            Some(Offer {
                capability: intern(&learned.name)?,
                runner: learned.runner.clone(),
                service: learned.service,
                holding,
                capacity_milli: u32::try_from((capacity * ramp / 1000).max(1000))
                    .unwrap_or(u32::MAX),
                others_milli: u32::try_from(others).unwrap_or(u32::MAX),
                arrivals_milli: u32::try_from(share(arrivals).min(filling.max(1)))
                    .unwrap_or(u32::MAX),
                load_at: load_at.into(),
                price_wei: learned.price.map(|it| it.wei),
                price: learned.price.map_or(Micros::ZERO, |price| params.wait_for(price)),
            })
        };
        let offers = self.offers.iter_mut().enumerate();
        let rows = offers.filter_map(|(at, it)| Some((at, row(it)?)));
        let (shown, rows) = rows.unzip();
        self.shown = shown;
        rows
    }
}

impl Learned {
    fn capacity_milli(&self) -> u64 {
        let advertised = self.advertised.map_or(u64::MAX, |it| u64::from(it) * 1000);
        self.learned_milli.min(advertised).max(1000)
    }

    fn raise_to(&mut self, capacity: u32) {
        if self.advertised != Some(capacity) {
            self.advertised = Some(capacity);
            self.learned_milli = u64::from(capacity) * 1000;
        }
    }

    /// Takes the service time of one request served: an average over about the last eight.
    ///
    /// One that waited lowers what is thought to fit. One that did not raises it, if all that
    /// was thought to fit was there: a place that was free anyway says nothing.
    fn learn(&mut self, service: Micros, in_flight: u32) {
        let usual = self.service.unwrap_or(service);
        let waited = service.0 > usual.0.saturating_mul(5) / 2;
        self.service = Some(Micros((usual.0.saturating_mul(7).saturating_add(service.0)) / 8));
        let was_there = self.load_milli(in_flight) + 1000;
        if waited {
            self.learned_milli = (self.learned_milli * 93 / 100).max(1000);
        } else if was_there + 1000 > self.learned_milli {
            let most = self.advertised.map_or(CAPACITY_MAX_MILLI, |it| u64::from(it) * 1000);
            self.learned_milli = (self.learned_milli + GAIN_MILLI).min(most.max(1000));
        }
    }

    /// Takes that it said it was full while `in_flight` of ours were there: half of the way
    /// from what was thought to fit to what was seen to, and a little in any case.
    fn refuse(&mut self, in_flight: u32, claimed: u32) {
        let said = (u64::from(in_flight) + u64::from(claimed)) * 1000;
        let fitted = self.load_milli(in_flight).max(said).max(1000);
        let halfway = u64::midpoint(self.learned_milli, fitted);
        self.learned_milli = halfway.min(self.learned_milli * 93 / 100).max(1000);
    }

    /// Returns what is there: ours, and others' as last heard.
    fn load_milli(&self, in_flight: u32) -> u64 {
        u64::from(in_flight) * 1000 + self.others_milli
    }
}

/// Returns what is left of `milli` places taken at `at`, where each is kept for `lasts`.
fn left_milli(milli: u64, now: Instant, at: Instant, lasts: Micros) -> u64 {
    let age = now.saturating_duration_since(at).as_millis() as u64;
    // A mean life is 1.44 half-lives.
    decayed(milli, age, (lasts.0 / 1443).max(1))
}

fn runner_of(uri: &ServiceUri, advert: &runner::Runner) -> Runner {
    let price = advert.price_info.as_deref().map_or("", |it| it.get());
    let gpu = advert.gpu.as_ref().map_or("", |it| &it.name);
    Runner {
        url: advert.url.as_str().into(),
        path: path_of(uri, &advert.url),
        mode: match advert.mode {
            runner::Mode::Persistent => Mode::Persistent,
            runner::Mode::SingleShot => Mode::SingleShot,
        },
        gpu: advert.gpu.as_ref().map(|it| it.name.as_str().into()),
        advert: serde_json::to_string(advert).unwrap_or_default().into(),
        variant: variant(price, gpu),
        capacity: advert.capacity,
        capacity_used: advert.capacity_used,
    }
}

fn variant(price: &str, gpu: &str) -> u32 {
    if price.is_empty() && gpu.is_empty() {
        return 0;
    }
    let digest = Sha256::digest(format!("{price}\0{gpu}"));
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]).max(1)
}

/// Returns path and query of `url` when it lies at the orchestrator's own origin.
fn path_of(uri: &ServiceUri, url: &str) -> Option<PathAndQuery> {
    let (scheme, rest) = url.split_once("://")?;
    let at = rest.find('/')?;
    let origin: ServiceUri = format!("{scheme}://{}", &rest[..at]).parse().ok()?;
    let same = origin.authority() == uri.authority() && origin.is_tls() == uri.is_tls();
    rest[at..].parse().ok().filter(|_| same)
}

/// The most names one orchestrator offers in its life: the table of all has 4,096.
const NAMES_MAX: usize = 128;
/// The most offers of one orchestrator.
pub const OFFERS_MAX: usize = 64;
/// What one request served raises the learned capacity by: a place more after a dozen.
const GAIN_MILLI: u64 = 80;
/// How long work of an unknown length is taken to last there.
const UNKNOWN_LASTS: Micros = Micros::from_ms(1_000);
/// The most learned capacity, in thousandths: a thousand places.
const CAPACITY_MAX_MILLI: u64 = 1_000_000;
const WEI_PER_ETHER: u128 = 1_000_000_000_000_000_000;
