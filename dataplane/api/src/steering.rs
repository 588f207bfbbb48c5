//! How a device spreads packets over its queues, so that both directions of a connection come to one worker.
//!
//! A device of a lab has one queue for each worker. Left to itself the kernel remembers by which queue the packets of a flow were
//! written and lets what answers them come by the same, but of at most 4,096 flows for each device (`MAX_TAP_FLOWS`); the others are spread by a secret hash.
//! Where a NAT gateway changes the port, the two directions then meet in one worker only by chance. So control gives devices a program
//! of its own, and the NAT gateway, which is free in its choice, takes ports that keep a connection where it is.
//!
//! - TCP and UDP in one piece: half of each port, added up. Linux gives clients even ports, so that neighbours go to neighbouring queues.
//! - anything else in IPv4: the lower halves of the addresses, added up
//! - what is not IPv4: the first queue
//!
//! Sums, because the sum of one direction is that of the other. No addresses in the first one, because an internet gateway changes
//! addresses and not ports. A device without offload has one queue, and a kernel may refuse the program; then nothing of this matters.

/// What a port adds to the sum.
#[inline]
pub const fn share(port: u16) -> u32 {
    port as u32 >> 1
}

/// The queue that TCP and UDP between two ports come by.
pub const fn queue(port: u16, other: u16, queues: u32) -> u32 {
    (share(port) + share(other)) % queues
}

/// Ports that far apart share a queue, whatever the other port is. `None` if there is but one queue, or so many that a port could be guessed.
#[inline]
pub const fn period(queues: u32) -> Option<u16> {
    if queues < 2 || queues > MANY { None } else { Some(2 * queues as u16) }
}

/// A port less than a [`period`] from `wanted`, above it where there is room, whose packets come by the same queue as those of `port`, whatever
/// the other port is. `queues` is one of those that have a period.
#[inline]
pub const fn like(port: u16, wanted: u16, queues: u32) -> u16 {
    // More than any share, so that nothing is negative.
    let ahead = (queues << 15) + share(port) - share(wanted);
    // A division takes as long as ten other instructions.
    let ahead = if queues.is_power_of_two() { ahead & (queues - 1) } else { ahead % queues };
    let found = wanted as u32 + 2 * ahead;
    (if found > u16::MAX as u32 { found - 2 * queues } else { found }) as u16
}

/// More queues than that have no [`period`]: less than 252 of the 64,512 ports that a NAT gateway has would be left to choose from.
const MANY: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_come_by_one_queue() {
        for (port, other) in [(40_000, 80), (1, 65_535), (0, 0), (65_535, 65_535)] {
            assert_eq!(queue(port, other, 7), queue(other, port, 7));
        }
    }

    #[test]
    fn neighbouring_clients_are_spread() {
        // Linux gives a client that asks for no port an even one.
        let queues: Vec<_> = [40_000, 40_002, 40_004, 40_006].map(|port| queue(port, 80, 4)).into();
        assert_eq!(queues, [0, 1, 2, 3]);
    }

    /// Every port, every wish: the same queue, in the range, and near.
    #[test]
    fn a_port_like_another_is_close_to_what_was_wanted() {
        for queues in [2, 3, 16, 255, 256] {
            let period = period(queues).unwrap();
            for wanted in 1024..=65_535 {
                let port = 40_001_u16.wrapping_mul(wanted);
                let found = like(port, wanted, queues);
                assert_eq!(queue(found, 443, queues), queue(port, 443, queues), "{port}, {wanted}, {queues}");
                assert!(found >= 1024 && found.abs_diff(wanted) <= period, "{port}, {wanted}: {found}");
                assert!(found >= wanted || wanted > u16::MAX - period, "{port}, {wanted}: {found}");
            }
        }
        assert_eq!((period(1), period(257)), (None, None));
    }
}
