//! Counts what each ENI tracks and the fragments it sends, and knows which of its half-open connections is the oldest.
//!
//! Every ENI may track so many connections (SG-39), so that one instance cannot take all the room there is. Where
//! there is none left, the oldest half-open TCP connection gives way to a new one: a flood of SYNs then pushes out
//! itself. An established connection never gives way.
//!
//! The locks of an allowance are the innermost: nothing else is locked while one is held.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use localvpc_api::EniId;

use super::activity::Ref;
use crate::Time;
use crate::rate::{Rate, TokenBucket};

/// The allowances of all ENIs that have ever tracked something.
#[derive(Debug, Default)]
pub struct Allowances(RwLock<HashMap<EniId, Arc<Allowance>, RandomState>>);

impl Allowances {
    /// The allowance of an ENI, made on first use.
    pub fn of(&self, eni: EniId) -> Arc<Allowance> {
        if let Some(known) = self.known(eni) {
            return known;
        }
        self.0.write().unwrap_or_else(PoisonError::into_inner).entry(eni).or_default().clone()
    }

    /// Calls `act` with the allowance of an ENI, made on first use. It must not ask for others.
    pub fn with<T>(&self, eni: EniId, act: impl FnOnce(&Allowance) -> T) -> T {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match all.get(&eni) {
            Some(allowance) => act(allowance),
            None => {
                drop(all);
                act(&self.of(eni))
            }
        }
    }

    /// The allowance of an ENI that has tracked something.
    pub fn known(&self, eni: EniId) -> Option<Arc<Allowance>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&eni).cloned()
    }

    /// Forgets ENIs that are gone.
    pub fn retain(&self, exists: impl Fn(EniId) -> bool) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|eni, _| exists(*eni));
    }
}

/// What one ENI uses of its allowance.
#[derive(Debug, Default)]
pub struct Allowance {
    tracked: AtomicU32,
    evicted: AtomicU64,
    half_open: Mutex<HalfOpen>,
    fragments: Mutex<TokenBucket>,
}

#[derive(Debug, Default)]
struct HalfOpen {
    /// Oldest first. Some have become established, or have ended, since they were noted.
    noted: VecDeque<Ref>,
    /// The length at which those are dropped.
    tidy_at: usize,
}

/// Below this length tidying is not worth it.
const TIDY_FROM: usize = 1024;

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
        self.fragments.lock().unwrap_or_else(PoisonError::into_inner).take(rate, now)
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

    /// Notes a new half-open connection. `is_half_open` tells which of the others still are: it is asked so rarely that
    /// a connection costs two questions on average.
    pub fn note_half_open(&self, activity: Ref, is_half_open: impl Fn(Ref) -> bool) {
        let mut half_open = self.lock();
        half_open.noted.push_back(activity);
        if half_open.noted.len() >= half_open.tidy_at.max(TIDY_FROM) {
            half_open.noted.retain(|activity| is_half_open(*activity));
            half_open.tidy_at = 2 * half_open.noted.len();
        }
    }

    /// Takes out the connection that was noted first and may still be half-open.
    pub fn take_oldest(&self) -> Option<Ref> {
        self.lock().noted.pop_front()
    }

    /// Whether any connection is half-open.
    pub fn has_half_open(&self, is_half_open: impl Fn(Ref) -> bool) -> bool {
        self.lock().noted.iter().any(|activity| is_half_open(*activity))
    }

    fn lock(&self) -> MutexGuard<'_, HalfOpen> {
        self.half_open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
