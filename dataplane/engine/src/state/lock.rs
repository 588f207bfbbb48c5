//! Excludes others for less than a microsecond: one atomic exchange takes the lock, and a store gives it back.
//!
//! A new connection takes several. A lock that sleeps while it waits needs an exchange at both ends, each of which waits for all stores before it:
//! about 10 ns where those go to lines that come from memory.

use std::cell::UnsafeCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering::*};

/// A value that one thread at a time reads and changes. A panic while it is locked leaves it as it is then, and free.
#[derive(Default)]
pub struct Lock<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

/// The right to a locked value.
#[derive(Debug)]
pub struct Locked<'a, T>(&'a Lock<T>);

/// Looks at a lock that another worker holds before the processor is given up: that worker may be asleep.
const SPINS: usize = 100;

// SAFETY: only a `Locked` reaches the value, there is one of them at a time, and taking the next one happens after the last one was
// dropped (Acquire, Release).
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    /// Waits until nobody else has it.
    #[inline]
    pub fn lock(&self) -> Locked<'_, T> {
        while self.taken.swap(true, Acquire) {
            self.wait();
        }
        Locked(self)
    }

    /// The right to it, unless somebody else has that.
    #[inline]
    pub fn try_lock(&self) -> Option<Locked<'_, T>> {
        (!self.taken.swap(true, Acquire)).then(|| Locked(self))
    }

    #[cold]
    fn wait(&self) {
        for _ in 0..SPINS {
            if !self.taken.load(Relaxed) {
                return;
            }
            std::hint::spin_loop();
        }
        std::thread::yield_now();
    }
}

impl<T> Deref for Locked<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: it is locked, and borrowed for as long as it is.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Locked<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: likewise, and this is the only reference to it.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Locked<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.0.taken.store(false, Release);
    }
}

impl<T> fmt::Debug for Lock<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Lock").field("taken", &self.taken).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excludes_others() {
        let counted = Lock::<u64>::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| *counted.lock() += 1));
            }
        });
        assert_eq!(*counted.lock(), 40_000);
    }

    #[test]
    fn is_free_again_after_a_panic_and_taken_until_then() {
        let lock = Lock::<u64>::default();
        let locked = lock.lock();
        assert!(lock.try_lock().is_none());
        drop(locked);
        let panics = std::panic::AssertUnwindSafe(|| {
            let _locked = lock.lock();
            std::panic::resume_unwind(Box::new("while it is locked"));
        });
        assert!(std::panic::catch_unwind(panics).is_err());
        assert!(lock.try_lock().is_some());
    }
}
