//! Any options in a SYN: what is read from them is what etherparse reads, and the MSS is lowered without harm.
//!
//! - The MSS that etherparse finds is at most the limit afterwards, and no larger than before.
//! - Nothing but its two bytes and the checksum changes, and the checksum is as right as it was.

use etherparse::{TcpOptionElement, TcpOptionsIterator};
use localvpc_engine::packet::{Offload, TcpFacts, parse};
use localvpc_engine::pipeline::mss;
use localvpc_engine::testing::craft;

use crate::input::Input;
use crate::sums;

/// Bytes: flags, the limit, options.
pub fn tcp_options(bytes: &[u8]) {
    run(&mut Input::new(bytes));
}

fn run(input: &mut Input<'_>) -> Option<()> {
    let (flags, limit) = (input.byte()? | TcpFacts::SYN, input.word()?);
    let mut options = input.take(40).to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    let before = craft::tcp_with_options(flags, "10.0.2.20:5000", "203.0.113.5:443", &options);
    let packet = parse(&before, Offload::default()).expect("a segment that is right");

    let (mss, scale) = understood(&options);
    assert_eq!(packet.window_scale, scale, "{options:?}");

    let mut after = before.clone();
    mss::clamp(&mut after, &packet, limit);
    assert_eq!(sums::error(&after), Some(0));
    assert_eq!(understood(&after[40..]).0, mss.map(|mss| mss.min(limit)), "{options:?}");
    let changed: Vec<_> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
    let places = changed.iter().filter(|at| !(36..38).contains(*at)).collect::<Vec<_>>();
    match (places.first(), places.last()) {
        (Some(first), Some(last)) => assert!(**first >= 40 && **last - **first <= 1, "{changed:?}"),
        _ => assert!(changed.is_empty()),
    }
    Some(())
}

/// MSS and window scale as etherparse reads them: the first of each, as far as the options are right.
///
/// It insists that those it knows have their right length; we go by the length that is written, and ignore an option that has another.
fn understood(options: &[u8]) -> (Option<u16>, Option<u8>) {
    let (mut mss, mut scale) = (None, None);
    let mut rest = options;
    while !rest.is_empty() {
        let mut elements = TcpOptionsIterator::from_slice(rest);
        match elements.next() {
            Some(Ok(TcpOptionElement::MaximumSegmentSize(value))) => mss = mss.or(Some(value)),
            Some(Ok(TcpOptionElement::WindowScale(value))) => scale = scale.or(Some(value)),
            Some(Ok(_)) => {}
            None => break,
            Some(Err(_)) => match rest {
                [_, length, ..] if *length >= 2 && usize::from(*length) <= rest.len() => {
                    rest = &rest[usize::from(*length)..];
                    continue;
                }
                _ => break,
            },
        }
        rest = elements.rest();
    }
    (mss, scale)
}
