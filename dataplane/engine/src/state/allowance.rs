//! Counts what each ENI tracks and the fragments it sends, and knows which of its half-open connections is the oldest.
//!
//! Every ENI may track so many connections (SG-39), so that one instance cannot take all the room there is. Where
//! there is none left, the oldest half-open TCP connection gives way to a new one: a flood of SYNs then pushes out
//! itself. An established connection never gives way.
//!
//! The locks of an allowance are the innermost: nothing else is locked while one is held.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use localvpc_api::EniId;

use super::activity::Ref;
use super::lock::Lock;
use crate::Time;
use crate::rate::{Rate, TokenBucket};

/// The allowances of all ENIs that tables have had, as long as they have.
#[derive(Debug, Default)]
pub struct Allowances(Mutex<HashMap<EniId, Arc<Allowance>, RandomState>>);

impl Allowances {
    /// The allowance of an ENI, made on first use. Tables keep it at hand for packets.
    pub fn of(&self, eni: EniId) -> Arc<Allowance> {
        self.all().entry(eni).or_default().clone()
    }

    /// The allowance of an ENI that tables have had.
    pub fn known(&self, eni: EniId) -> Option<Arc<Allowance>> {
        self.all().get(&eni).cloned()
    }

    /// Forgets ENIs that are gone. Tables that are built at this moment keep theirs.
    pub fn retain(&self, exists: impl Fn(EniId) -> bool) {
        self.all().retain(|eni, allowance| exists(*eni) || Arc::strong_count(allowance) > 1);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<EniId, Arc<Allowance>, RandomState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one ENI uses of its allowance.
#[derive(Debug, Default)]
pub struct Allowance {
    tracked: AtomicU32,
    evicted: AtomicU64,
    half_open: Lock<HalfOpen>,
    fragments: Lock<TokenBucket>,
}

#[derive(Debug, Default)]
struct HalfOpen {
    /// Those that tidying has come by and found half-open: older than all of `noted`. Empty while nothing is tidied.
    kept: VecDeque<Ref>,
    /// Oldest first. Some have become established, or have ended, since they were noted.
    noted: VecDeque<Ref>,
    /// The length at which tidying begins.
    tidy_at: usize,
    tidying: bool,
}

/// Below this length tidying is not worth it.
const TIDY_FROM: usize = 1024;

/// Connections that are looked at for each new one while the list is tidied: more than one, so that it comes to an end, and no more
/// than a packet can wait for.
const TIDY_STEP: usize = 2;

impl Allowance {
    /// Connections tracked now.
    pub fn tracked(&self) -> u32 {
        self.tracked.load(Relaxed)
    }

    /// Half-open connections that gave way so far.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }

    /// Counts one connection more, unless there are `most` already.
    pub fn take(&self, most: u32) -> bool {
        let more = |tracked: u32| (tracked < most).then(|| tracked + 1);
        self.tracked.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    /// Whether the ENI may send one fragment more, of so many in a second (ENI-13).
    pub fn take_fragment(&self, per_second: u32, now: Time) -> bool {
        let rate = Rate { per_second: per_second.into(), burst: per_second.into() };
        self.fragments.lock().take(rate, now)
    }

    /// Counts one connection less.
    pub fn give_back(&self) {
        // Of an ENI that was forgotten meanwhile there is nothing left to count.
        let _ = self.tracked.fetch_update(Relaxed, Relaxed, |tracked| tracked.checked_sub(1));
    }

    /// Notes that a half-open connection gave way.
    pub fn note_eviction(&self) {
        self.evicted.fetch_add(1, Relaxed);
        self.give_back();
    }

    /// Notes a new half-open connection. `is_half_open` tells which of the others still are: it is asked about
    /// few of them at a time.
    pub fn note_half_open(&self, activity: Ref, is_half_open: impl Fn(Ref) -> bool) {
        let mut half_open = self.half_open.lock();
        half_open.noted.push_back(activity);
        half_open.tidy(is_half_open);
    }

    /// Takes out the connection that was noted first and may still be half-open.
    pub fn take_oldest(&self) -> Option<Ref> {
        let mut half_open = self.half_open.lock();
        half_open.kept.pop_front().or_else(|| half_open.noted.pop_front())
    }

    /// Whether any connection is half-open.
    pub fn has_half_open(&self, is_half_open: impl Fn(Ref) -> bool) -> bool {
        let half_open = self.half_open.lock();
        half_open.kept.iter().chain(&half_open.noted).any(|activity| is_half_open(*activity))
    }
}

impl HalfOpen {
    /// Drops what is no longer half-open, a step at a time once the list is long.
    fn tidy(&mut self, is_half_open: impl Fn(Ref) -> bool) {
        self.tidying |= self.noted.len() >= self.tidy_at.max(TIDY_FROM);
        if !self.tidying {
            return;
        }
        for _ in 0..TIDY_STEP {
            if let Some(oldest) = self.noted.pop_front()
                && is_half_open(oldest)
            {
                self.kept.push_back(oldest);
            }
        }
        if self.noted.is_empty() {
            std::mem::swap(&mut self.kept, &mut self.noted);
            self.tidying = false;
            self.tidy_at = 2 * self.noted.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(allowance: &Allowance) -> Vec<u32> {
        std::iter::from_fn(|| allowance.take_oldest()).map(|activity| activity.slot).collect()
    }

    #[test]
    fn an_eni_is_forgotten_when_neither_tables_in_force_nor_any_that_are_built_have_it() {
        let all = Allowances::default();
        let in_new_tables = all.of(EniId(1));
        all.retain(|_| false);
        assert!(Arc::ptr_eq(&in_new_tables, &all.known(EniId(1)).unwrap()));
        drop(in_new_tables);
        all.retain(|eni| eni == EniId(1));
        assert!(all.known(EniId(1)).is_some());
        all.retain(|_| false);
        assert!(all.known(EniId(1)).is_none());
    }

    #[test]
    fn the_list_of_half_open_connections_keeps_its_order_and_stays_short() {
        let allowance = Allowance::default();
        let reference = |slot| Ref { slot, version: 0 };
        // Every hundredth stays half-open.
        let is_half_open = |activity: Ref| activity.slot.is_multiple_of(100);
        let (mut longest, questions) = (0, std::cell::Cell::new(0));
        for slot in 1..=100_000 {
            let before = questions.get();
            allowance.note_half_open(reference(slot), |activity| {
                questions.set(questions.get() + 1);
                is_half_open(activity)
            });
            assert!(questions.get() <= before + TIDY_STEP, "a packet waits for no more than that");
            let half_open = allowance.half_open.lock();
            longest = longest.max(half_open.kept.len() + half_open.noted.len());
        }
        assert!(longest < 5_000, "{longest}");
        assert!(allowance.has_half_open(is_half_open) && !allowance.has_half_open(|_| false));
        let all = noted(&allowance);
        assert!(all.is_sorted(), "the oldest goes first");
        let stayed: Vec<u32> = all.into_iter().filter(|slot| slot.is_multiple_of(100)).collect();
        assert_eq!(stayed, (1..=1000).map(|at| at * 100).collect::<Vec<_>>(), "none is lost");
    }
}
