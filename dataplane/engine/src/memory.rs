//! Big arrays that begin as zeros, take memory only where they are used, and lie in huge pages if the system has some.
//!
//! A random access to a table of hundreds of megabytes misses the cache for the data, and with 4 KiB pages for the page
//! tables too: a flow hit among a million took a third longer.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::{NonNull, null_mut};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use zerocopy::FromZeros;

/// A fixed number of elements, in memory that the kernel gives at their first use.
///
/// It comes from the kernel and not from an allocator: one that writes the zeros itself would use all of it at once, and
/// in small pages, before it can be advised.
#[derive(Debug)]
pub struct Zeroed<T> {
    first: NonNull<T>,
    count: usize,
    mapping: Option<Mapping>,
    owns: PhantomData<T>,
}

// SAFETY: it owns its elements, as a box does.
unsafe impl<T: Send> Send for Zeroed<T> {}
// SAFETY: likewise.
unsafe impl<T: Sync> Sync for Zeroed<T> {}

impl<T: FromZeros> Zeroed<T> {
    /// `count` elements, all zero.
    ///
    /// # Panics
    /// If there is not that much memory.
    pub fn new(count: usize) -> Self {
        const { assert!(!std::mem::needs_drop::<T>() && align_of::<T>() <= SMALL_PAGE && size_of::<T>() > 0) };
        let bytes = count.checked_mul(size_of::<T>()).expect("a table smaller than the address space");
        let page = if bytes < WORTH_HUGE_PAGES { SMALL_PAGE } else { HUGE_PAGE };
        let mapping = (bytes > 0).then(|| Mapping::new(bytes, page));
        let first = mapping.as_ref().map_or(NonNull::dangling(), |mapping| mapping.start.cast());
        Self { first, count, mapping, owns: PhantomData }
    }
}

impl<T> Zeroed<T> {
    /// Has the kernel give all of the memory now, so that nobody waits for a page later. Where it cannot, it does so at the first use, as always.
    pub fn populate(&mut self) {
        if let Some(Mapping { start, used, .. }) = &self.mapping {
            // SAFETY: the range lies within the mapping, and what it holds stays as it is.
            let _ = unsafe { madvise(start.as_ptr().cast(), *used, Advice::LinuxPopulateWrite) };
        }
    }
}

impl<T> Deref for Zeroed<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the mapping holds so many elements from `first` on, which is aligned to a page; zeros are a valid `T`
        // (`FromZeros`); it lives as long as `self`, and only what `self` lends refers to it.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }
}

impl<T> DerefMut for Zeroed<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.count) }
    }
}

/// Gives out values that are zero, side by side, so that many small ones lie in huge pages together.
#[derive(Debug)]
pub struct Pool<T> {
    block: Mutex<Block>,
    gives: PhantomData<fn() -> T>,
}

/// What was given out last, and what is left of it.
#[derive(Debug)]
struct Block {
    mapping: Arc<Mapping>,
    /// Bytes that are left.
    rest: usize,
}

impl<T: FromZeros> Pool<T> {
    /// The first `few` values lie in small pages, so that whoever needs no more takes no more than that.
    ///
    /// # Panics
    /// If there is not that much memory.
    pub fn new(few: usize) -> Self {
        const {
            assert!(!std::mem::needs_drop::<T>() && align_of::<T>() <= SMALL_PAGE);
            assert!(size_of::<T>().is_power_of_two() && size_of::<T>() <= HUGE_PAGE);
        };
        let bytes = few.max(1).checked_mul(size_of::<T>()).expect("less than the address space");
        let page = size_of::<T>().max(SMALL_PAGE);
        let mapping = Arc::new(Mapping::new(bytes, page));
        Self { block: Mutex::new(Block { rest: mapping.used, mapping }), gives: PhantomData }
    }

    /// One more value, zero.
    ///
    /// # Panics
    /// If there is no more memory.
    pub fn take(&self) -> Pooled<T> {
        let mut block = self.block.lock().unwrap_or_else(PoisonError::into_inner);
        if block.rest == 0 {
            let mapping = Arc::new(Mapping::new(BLOCK, HUGE_PAGE));
            *block = Block { rest: mapping.used, mapping };
        }
        // Its length is a multiple of the size of a value: of its page, if that is larger, as both are powers of two.
        block.rest -= size_of::<T>();
        // SAFETY: the value lies within the mapping, as `rest` was at least its size.
        let value = unsafe { block.mapping.start.add(block.rest) }.cast();
        Pooled { value, _block: Arc::clone(&block.mapping), owns: PhantomData }
    }
}

/// A value that a [`Pool`] gave. Its memory goes back to the system with that of its neighbours.
#[derive(Debug)]
pub struct Pooled<T> {
    value: NonNull<T>,
    _block: Arc<Mapping>,
    owns: PhantomData<T>,
}

// SAFETY: it owns its value, as a box does.
unsafe impl<T: Send> Send for Pooled<T> {}
// SAFETY: likewise.
unsafe impl<T: Sync> Sync for Pooled<T> {}

impl<T> Deref for Pooled<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: nobody else was given these bytes of the mapping, which lives as long as `self`; they are aligned, as the
        // mapping begins at a page and values lie their size apart; zeros are a valid `T` (`FromZeros`).
        unsafe { self.value.as_ref() }
    }
}

impl<T> DerefMut for Pooled<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { self.value.as_mut() }
    }
}

/// Memory from the kernel.
#[derive(Debug)]
struct Mapping {
    whole: NonNull<u8>,
    length: usize,
    /// Where what was asked for begins: at a huge page, if it is large.
    start: NonNull<u8>,
    /// Bytes from there on, in whole pages.
    used: usize,
}

// SAFETY: it says where memory is and gives it back in the end; who may look at the memory is the matter of its users.
unsafe impl Send for Mapping {}
// SAFETY: likewise.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// At least so many bytes, in whole pages.
    fn new(bytes: usize, page: usize) -> Self {
        let used = bytes.checked_next_multiple_of(page).expect("less than the address space");
        // One page more, to begin at a multiple of it.
        let length = if page == HUGE_PAGE { used + page } else { used };
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping at a place that the kernel chooses touches no other memory.
        let whole = unsafe { mmap_anonymous(null_mut(), length, access, flags) };
        let whole = whole.ok().and_then(|whole| NonNull::new(whole.cast::<u8>()));
        let whole = whole.expect("memory for a table as large as asked");
        let distance = if page == HUGE_PAGE { whole.align_offset(HUGE_PAGE) } else { 0 };
        // SAFETY: the distance to the next page is less than the page that was added.
        let start = unsafe { whole.add(distance) };
        if page == HUGE_PAGE {
            // SAFETY: the range lies within the mapping, and the advice changes how it is backed, not what it holds.
            // A system that does not take it is only slower.
            let _ = unsafe { madvise(start.as_ptr().cast(), used, Advice::LinuxHugepage) };
        }
        Self { whole, length, start, used }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone, and whoever could refer to it is gone. Unmapping all of it does not fail.
        let _ = unsafe { munmap(self.whole.as_ptr().cast(), self.length) };
    }
}

/// Has the processor fetch the cache line at `data`, without waiting for it.
#[inline]
pub fn prefetch<T>(data: &T) {
    prefetch_at(std::ptr::from_ref(data).cast());
}

/// The same of all lines of `data`.
#[inline]
pub fn prefetch_all<T>(data: &T) {
    let start = std::ptr::from_ref(data).cast::<u8>();
    for at in (0..size_of::<T>()).step_by(LINE) {
        prefetch_at(start.wrapping_add(at));
    }
}

#[inline]
fn prefetch_at(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch changes nothing that a program can see, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Of the processor's cache, in bytes.
const LINE: usize = 64;

const SMALL_PAGE: usize = 4 << 10;
const HUGE_PAGE: usize = 2 << 20;

/// What a [`Pool`] asks the kernel for at once: a number, until it is used.
const BLOCK: usize = 16 << 20;

/// From here on, at most three quarters of a huge page are for nothing.
const WORTH_HUGE_PAGES: usize = HUGE_PAGE / 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_as_zeros_however_large() {
        let mut table = Zeroed::<u64>::new(3 << 20);
        assert!(table.iter().all(|element| *element == 0));
        table[1 << 20] = 7;
        prefetch(&table[1 << 20]);
        assert_eq!((table[1 << 20], table.len()), (7, 3 << 20));
        assert!(Zeroed::<u64>::new(0).is_empty());
        table.populate();
        assert_eq!((table[1 << 20], table[0]), (7, 0));
        let mut small = Zeroed::<u32>::new(5);
        small[4] = 9;
        assert_eq!(*small, [0, 0, 0, 0, 9]);
    }

    #[test]
    fn a_pool_gives_zeros_that_nobody_else_has() {
        let pool = Pool::<[u64; 512]>::new(3);
        let values = BLOCK / 4096 * 2 + 3;
        let mut given: Vec<_> = (0..values).map(|_| pool.take()).collect();
        drop(pool);
        for (number, value) in given.iter_mut().enumerate() {
            assert!(value.iter().all(|word| *word == 0));
            value.fill(number as u64 + 1);
        }
        for (number, value) in given.iter().enumerate() {
            assert!(value.iter().all(|word| *word == number as u64 + 1));
        }
        let small = Pool::<u32>::new(0);
        let mut given: Vec<_> = (0..3000).map(|_| small.take()).collect();
        given.iter_mut().zip(0..).for_each(|(value, number)| **value = number);
        assert!(given.iter().zip(0..).all(|(value, number)| **value == number));
    }
}
