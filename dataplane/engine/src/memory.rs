//! Big arrays that begin as zeros, take memory only where they are used, and lie in huge pages if the system has some.
//!
//! A random access to a table of hundreds of megabytes misses the cache for the data, and with 4 KiB pages for the page
//! tables too: a flow hit among a million took a third longer.

use std::ops::{Deref, DerefMut};

use zerocopy::FromZeros;

/// A fixed number of elements.
#[derive(Debug)]
pub struct Zeroed<T>(Box<[T]>);

impl<T: FromZeros> Zeroed<T> {
    /// `count` elements, all zero.
    ///
    /// # Panics
    /// If there is not that much memory.
    pub fn new(count: usize) -> Self {
        let elements = <[T]>::new_box_zeroed_with_elems(count).expect("memory for a table as large as asked");
        advise_huge_pages(&elements);
        Self(elements)
    }
}

impl<T> Deref for Zeroed<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for Zeroed<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

/// Has the processor fetch the cache line at `data`, without waiting for it.
#[inline]
pub fn prefetch<T>(data: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch changes nothing that a program can see, whatever the address; this one is a reference's.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(data).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = data;
}

const HUGE_PAGE: usize = 2 << 20;

fn advise_huge_pages<T>(elements: &[T]) {
    let bytes = std::ptr::from_ref(elements).cast::<u8>();
    let start = bytes.align_offset(HUGE_PAGE);
    let length = size_of_val(elements).saturating_sub(start) / HUGE_PAGE * HUGE_PAGE;
    if length > 0 {
        // SAFETY: the range lies within the allocation, and the advice changes how it is backed, not what it holds.
        // A system that does not take it is only slower.
        let _ = unsafe {
            rustix::mm::madvise(bytes.add(start).cast_mut().cast(), length, rustix::mm::Advice::LinuxHugepage)
        };
    }
}

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
    }
}
