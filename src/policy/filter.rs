//! Who is out, and why: the hard rules, each explained.

use std::time::Instant;

use crate::policy::ask::{Ask, PathKind, Shut};
use crate::view::outcome::HeldBack;
use crate::view::row::{Offer, Row, Standing};

/// Why a candidate may not serve a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exclusion {
    /// It was tried for this request.
    Tried,
    /// Nothing was heard of it yet.
    Unchecked,
    /// It is put aside after failures.
    Suspended,
    /// It is being tried again and the one place is taken.
    ProbationTaken,
    /// It asked to be left alone for a while.
    Resting,
    /// Its places are those of peers, who use them or wait for them.
    Taken,
    /// What is left of its places is kept for its own region.
    ForeignQuota,
    /// Its own region is full of late, and work turns here by and by.
    SpillRamp,
    /// It takes nothing new.
    Draining,
    /// Its region is turned down, and this client is not among those it gets.
    Dialed,
    /// Work is given to it the other way (persistent or single-shot).
    Mode,
    /// Its runner answers at another origin than its own, or at no path; nothing is relayed
    /// there.
    ForeignOrigin,
    /// It runs on another graphics card than asked for.
    Gpu,
    /// It asks another price, or runs on another graphics card, than the client was shown.
    OtherVariant,
    /// Its price is above the ceiling.
    PriceCeiling,
    /// Its declared country is not among those allowed, or it declares none.
    Residency,
    /// It is not on the list of those allowed.
    NotAllowed,
    /// It is on the list of those denied.
    Denied,
    /// It is expected to need longer than the deadline leaves.
    Deadline,
}

impl Exclusion {
    /// Tells whether a place there is worth waiting for.
    pub fn is_for_now(self) -> bool {
        matches!(self, Self::Taken | Self::ForeignQuota | Self::SpillRamp)
    }
}

/// Returns why `offer` of `row` may not serve `ask`, or `None` when it may.
#[inline]
pub fn exclusion(
    row: &Row,
    offer: &Offer,
    ask: &Ask<'_>,
    probing: bool,
    now: Instant,
) -> Option<Exclusion> {
    let standing = match row.standing {
        Standing::Ready => None,
        Standing::Unknown => Some(Exclusion::Unchecked),
        Standing::Suspended | Standing::Probation if ask.overlook => None,
        Standing::Suspended => Some(Exclusion::Suspended),
        Standing::Probation => probing.then_some(Exclusion::ProbationTaken),
        Standing::Draining => Some(Exclusion::Draining),
    };
    if ask.tried.contains(&row.id) {
        return Some(Exclusion::Tried);
    }
    let resting = || row.gauge.resting().left(now).map(|_left| Exclusion::Resting);
    // A client that connects by itself is in nobody's share.
    let taken = || {
        let places = offer.runner.as_ref().filter(|_| ask.path == PathKind::Relayed)?.capacity;
        let kept = ask.kept == Some(row.id);
        let held_back = row.gauge.held_back(now, offer.capability, places, kept)?;
        Some(match held_back {
            HeldBack::Taken => Exclusion::Taken,
            HeldBack::Quota => Exclusion::ForeignQuota,
            HeldBack::Ramp => Exclusion::SpillRamp,
        })
    };
    standing
        .or_else(resting)
        .or_else(|| wanted(offer, ask))
        .or_else(|| allowed(row, offer, ask))
        // Last: who is out for lack of a place alone is worth waiting for.
        .or_else(taken)
}

#[inline]
fn wanted(offer: &Offer, ask: &Ask<'_>) -> Option<Exclusion> {
    let runner = offer.runner.as_deref();
    // Most ask for nothing in particular.
    if ask.mode.is_none() && ask.gpus.is_empty() && ask.variant.is_none() {
        let foreign = ask.path == PathKind::Relayed && runner.is_some_and(|it| it.path.is_none());
        return foreign.then_some(Exclusion::ForeignOrigin);
    }
    if ask.mode.is_some() && runner.map(|it| it.mode) != ask.mode {
        return Some(Exclusion::Mode);
    }
    if ask.path == PathKind::Relayed && runner.is_some_and(|it| it.path.is_none()) {
        return Some(Exclusion::ForeignOrigin);
    }
    let gpu = runner.and_then(|it| it.gpu.as_deref());
    if !ask.gpus.is_empty() && !ask.gpus.iter().any(|asked| Some(asked.as_str()) == gpu) {
        return Some(Exclusion::Gpu);
    }
    let variant = runner.map_or(0, |it| it.variant);
    ask.variant.filter(|shown| *shown != variant).map(|_other| Exclusion::OtherVariant)
}

#[inline]
fn allowed(row: &Row, offer: &Offer, ask: &Ask<'_>) -> Option<Exclusion> {
    let rules = ask.rules;
    if let Some(shut) = &rules.shut {
        let bit = Shut::bit(row.region);
        if shut.drained & bit != 0 || shut.orchestrators.contains(&row.id) {
            return Some(Exclusion::Draining);
        }
        if shut.dialed & bit != 0 {
            return Some(Exclusion::Dialed);
        }
    }
    if rules.never.contains(&row.id) {
        return Some(Exclusion::Denied);
    }
    if rules.only.as_ref().is_some_and(|only| !only.contains(&row.id)) {
        return Some(Exclusion::NotAllowed);
    }
    let in_country = |countries: &std::collections::BTreeSet<_>| {
        row.country.is_some_and(|it| countries.contains(&it))
    };
    if rules.countries.as_ref().is_some_and(|countries| !in_country(countries)) {
        return Some(Exclusion::Residency);
    }
    let ceiling = rules.price_max_wei.unwrap_or(u128::MAX);
    (offer.price_wei.unwrap_or(0) > ceiling).then_some(Exclusion::PriceCeiling)
}
