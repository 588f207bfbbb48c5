//! What the benchmarks share: how they measure, and what they measure on.
//!
//! Every file beside this one answers one question. Names say all parameters:
//! `lpm/10k_routes/random_keys/localvpc`. Times are per operation; beside them each
//! benchmark prints how many allocations an operation takes.
//!
//! ```sh
//! cargo bench -p localvpc-benches                     # all, under three minutes
//! cargo bench -p localvpc-benches --bench lpm -- 10k  # some
//! cargo test -p localvpc-benches                      # only: the hit path allocates nothing
//! ```

pub mod delays;
pub mod prefixes;
pub mod scenes;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;

/// Short runs: the figures are medians of nanoseconds, which settle quickly.
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(900))
        .configure_from_args()
}

/// Times an operation and prints how many allocations it takes.
pub fn time<T>(criterion: &mut Criterion, name: &str, mut operation: impl FnMut() -> T) {
    let mut counted = false;
    criterion.bench_function(name, |bencher| {
        if !std::mem::replace(&mut counted, true) {
            println!("{name}: {} allocations per operation", allocations(&mut operation));
        }
        bencher.iter(&mut operation);
    });
}

/// Times an operation that handles `size` packets, per packet.
pub fn time_batches(criterion: &mut Criterion, name: &str, size: usize, mut operation: impl FnMut()) {
    let mut counted = false;
    criterion.bench_function(name, |bencher| {
        if !std::mem::replace(&mut counted, true) {
            println!("{name}: {} allocations per operation", allocations(&mut operation));
        }
        bencher.iter_custom(|packets| {
            let batches = packets.div_ceil(size as u64);
            let start = Instant::now();
            for _ in 0..batches {
                operation();
            }
            start.elapsed().mul_f64(packets as f64 / (batches * size as u64) as f64)
        });
    });
}

/// Allocations per operation, once it has warmed up.
pub fn allocations<T>(operation: &mut impl FnMut() -> T) -> f64 {
    const WARM_UP: usize = 10_000;
    const COUNTED: u32 = 10_000;
    for _ in 0..WARM_UP {
        black_box(operation());
    }
    let counted = allocation_counter::measure(|| {
        for _ in 0..COUNTED {
            black_box(operation());
        }
    });
    counted.count_total as f64 / f64::from(COUNTED)
}
