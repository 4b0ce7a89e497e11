//! Whether an orchestrator's places are for this node: what peers want, what is its share, and
//! what it lets its neighbours have.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Gauge;
use crate::view::CapabilityId;
use crate::view::board::Board;
use crate::view::claim::{HOLD, LEARNED_FOR, PAUSE};
use crate::view::spill;

/// Why work is not to go to an orchestrator though it is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldBack {
    /// Its places are others', by their word and its own.
    Taken,
    /// What is left of them is kept for its own region.
    Quota,
    /// Its own region is full of late, and turns here by and by.
    Ramp,
}

impl Gauge {
    /// Notes that it said it was full of `of`, of which it has `places`.
    pub fn note_full(&self, now: Instant, of: CapabilityId, places: u32) {
        let in_use = self.in_flight().saturating_sub(1).saturating_add(self.claimed(now));
        let in_use = in_use.max(places);
        // What is claimed is late by a moment, and then there is more of it than was.
        let known = Some(self.learned(now)).filter(|it| *it > 0);
        self.learned.take(&self.claimed_since, now, known.map_or(in_use, |it| it.min(in_use)));
        self.full.said(&self.claimed_since, now, of);
        self.trust.passed();
        if let Some((board, _orchestrator)) = &self.board
            && !self.away.load(Ordering::Relaxed)
        {
            board.spill.note(now);
        }
    }

    /// Returns why work for `of`, of which it has `places`, is not to go there now; `None` when
    /// it may. A place that was `kept` for this work is its own.
    #[inline]
    pub fn held_back(
        &self,
        now: Instant,
        of: CapabilityId,
        places: u32,
        kept: bool,
    ) -> Option<HeldBack> {
        // Almost all are at home, and nobody claims anything of them.
        if kept || self.claims.is_blank() && !self.away.load(Ordering::Relaxed) {
            return None;
        }
        self.held_back_by(now, of, places)
    }

    #[inline(never)]
    fn held_back_by(&self, now: Instant, of: CapabilityId, places: u32) -> Option<HeldBack> {
        let own = self.used();
        if self.is_ramped(now, own, places) {
            return Some(HeldBack::Ramp);
        }
        match self.share(now) {
            Some(share) if own >= share && self.is_guest.load(Ordering::Relaxed) => {
                Some(HeldBack::Quota)
            }
            Some(share) if own >= share => {
                self.trust.holds(&self.claimed_since, now).then_some(HeldBack::Taken)
            }
            Some(_share) => self.is_paused(now, own, places).then_some(HeldBack::Taken),
            None => {
                let claimed = self.claimed(now);
                let is_taken = claimed > 0
                    && claimed.saturating_add(own) >= places
                    && self.full.is_recent(&self.claimed_since, now, of);
                is_taken.then_some(HeldBack::Taken)
            }
        }
    }

    /// Notes that work for `of` goes there, and tells whether it goes against all accounts: it
    /// is beyond this node's share, or it was full, and by what is claimed its `places` are
    /// taken still. That is the one attempt of its time; the others wait for what comes of it.
    pub fn is_against_claims(&self, now: Instant, of: CapabilityId, places: u32) -> bool {
        if self.claims.is_blank() {
            return false;
        }
        if let Some(share) = self.share(now) {
            let is_beyond = self.used() >= share;
            if is_beyond {
                self.trust.test(&self.claimed_since, now);
            }
            return is_beyond;
        }
        let claimed = self.claimed(now);
        let is_full = claimed > 0 && claimed.saturating_add(self.in_flight()) >= places;
        let is_against = is_full && self.full.is_said(of);
        if is_against {
            self.full.note(&self.claimed_since, now, of);
        }
        is_against
    }

    /// Notes that something is sought of which it has `places`.
    pub fn note_sought(&self, places: u32) {
        self.sought.store(places, Ordering::Relaxed);
    }

    /// Returns what all together had there when it last said that it was full; 0 where that is
    /// not known.
    pub(crate) fn learned(&self, now: Instant) -> u32 {
        self.learned.within(&self.claimed_since, now, LEARNED_FOR)
    }

    /// Returns how many places there are to divide: all of its runners, unless it said that it
    /// was full with less in use, to this node or to those who `told` so; but those of what is
    /// sought here in any case.
    pub(crate) fn divisible(&self, now: Instant, told: impl Iterator<Item = u32>) -> u32 {
        let all = self.places();
        let known = std::iter::once(self.learned(now)).chain(told).filter(|it| *it > 0);
        let least = self.sought.load(Ordering::Relaxed).min(all);
        known.min().unwrap_or(all).clamp(least, all)
    }

    /// Tells whether one more of those who wait may go.
    pub fn has_room(&self, now: Instant) -> bool {
        let own = self.used();
        let sought = self.sought.load(Ordering::Relaxed);
        !self.is_ramped(now, own, sought)
            && match self.share(now) {
                Some(share) => own < share && !self.is_paused(now, own, sought),
                None => self.places() == 0 || own < self.places(),
            }
    }

    /// Tells whether it is elsewhere, and the own region not full for long enough that more
    /// than `own` of its `places` may turn there.
    fn is_ramped(&self, now: Instant, own: u32, places: u32) -> bool {
        if !self.away.load(Ordering::Relaxed) {
            return false;
        }
        let permille = self.board.as_ref().and_then(|(board, _id)| board.spill.permille(now));
        permille.is_some_and(|it| own >= spill::allowed(places, self.usual(), it))
    }

    /// Tells whether it is in the own region, and somebody wants to know when it is full.
    pub(crate) fn begins_spills(&self) -> bool {
        let is_asked = |(board, _id): &(Arc<Board>, _)| board.spill.is_asked_for();
        self.board.as_ref().is_some_and(is_asked) && !self.away.load(Ordering::Relaxed)
    }

    /// Notes that one more goes there, of what it has `places` for: with the last of them its
    /// region is full.
    pub(crate) fn note_filling(&self, now: Instant, places: u32) {
        if let Some((board, _orchestrator)) = &self.board
            && self.used().saturating_add(self.claimed(now)).saturating_add(1) >= places
        {
            board.spill.note(now);
        }
    }

    /// Tells whether it said of late that it is full, and nothing has changed since: as much is
    /// in use as it has `places`, because peers still have more than their share, or as much of
    /// ours as then.
    fn is_paused(&self, now: Instant, own: u32, places: u32) -> bool {
        let was_full = |last| self.full.is_within(&self.claimed_since, now, last);
        let is_used_up = own.saturating_add(self.claimed(now)) >= places;
        is_used_up && was_full(HOLD)
            || own >= self.full_at.load(Ordering::Relaxed) && was_full(PAUSE)
    }

    /// Takes which part of the places is this node's as of `now`, while peers want some; and
    /// whether it ends where the part of other regions does.
    pub(crate) fn set_share(&self, now: Instant, share: u32, is_guest: bool) {
        if self.share(now).is_none() {
            self.trust.begin(&self.claimed_since, now);
        }
        self.is_guest.store(is_guest, Ordering::Relaxed);
        self.share.take(&self.claimed_since, now, share.saturating_add(1));
    }

    /// Returns which part of the places is this node's, while peers want some.
    pub fn share(&self, now: Instant) -> Option<u32> {
        self.share.places(&self.claimed_since, now).checked_sub(1)
    }

    /// Says whether it is in another region than this node.
    pub(crate) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
    }

    /// Notes what is in flight as the usual, while no spill goes up its ramp.
    pub fn note_usual(&self, now: Instant) {
        let permille = self.board.as_ref().and_then(|(board, _id)| board.spill.permille(now));
        if permille.is_none() {
            self.usual.store(self.in_flight(), Ordering::Relaxed);
        }
    }

    fn usual(&self) -> u32 {
        self.usual.load(Ordering::Relaxed)
    }

    /// What is in flight, and what is on its way to a place that was kept.
    fn used(&self) -> u32 {
        self.in_flight().saturating_add(self.reserved.load(Ordering::Relaxed))
    }

    /// Counts a request in that waits for a place.
    pub fn wait(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.stir();
    }

    /// Counts it out.
    pub fn end_wait(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.stir();
    }

    /// Returns the requests that wait for a place.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Keeps a place for a request that has waited.
    pub fn reserve(&self) {
        self.reserved.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets go of the place that was kept; whoever waits next is told.
    pub fn release(&self) {
        self.reserved.fetch_sub(1, Ordering::Relaxed);
        self.ring();
    }

    pub(super) fn ring(&self) {
        if let Some((board, orchestrator)) = &self.board
            && self.waiting() > 0
        {
            board.ring(*orchestrator);
        }
    }

    /// Notes that it served `of` against all accounts: what is claimed is wrong.
    pub fn note_room(&self, now: Instant, of: CapabilityId) {
        self.full.was_wrong(&self.claimed_since, now, of);
        self.trust.failed(&self.claimed_since, now);
        let in_use = self.in_flight().saturating_add(self.claimed(now));
        if self.learned(now) > 0 {
            self.learned.take(&self.claimed_since, now, in_use.max(self.learned(now)));
        }
    }
}
