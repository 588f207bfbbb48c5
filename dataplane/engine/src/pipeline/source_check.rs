//! Which ENI sent this packet, and may it send from this address?
//!
//! First stage for everything that comes in on a link. An ENI sends only from its
//! own addresses unless its source/destination check is off (ENI-4, PKT-7). Where a
//! subnet is one shared namespace, the source address is all that tells its ENIs
//! apart. What comes from the internet has no ENI; the internet gateway judges it.
//! Touches no state.

use localvpc_api::tables::{LinkKind, SourceDestCheck};
use localvpc_api::trace::{Decision, Direction};
use localvpc_api::{DiscardReason, LinkId};

use super::{At, Observer, Stop, Walk};
use crate::tables::Tables;

pub fn admit(
    tables: &Tables,
    link: LinkId,
    walk: &mut Walk<'_>,
    seen: &mut impl Observer,
) -> Result<At, Stop> {
    let row = tables.links.get(&link).ok_or(DiscardReason::UnknownLink)?;
    if row.kind == LinkKind::Internet {
        return Ok(At::Internet);
    }
    let source = walk.tuple.source;
    if row.enis.is_empty() {
        return Err(DiscardReason::UnknownLink.into());
    }
    let index = tables.sender(row, source).ok_or(DiscardReason::SourceDestCheck)?;
    walk.sender = Some(index);
    let eni = tables.eni(index);
    let pass = eni.source_dest_check == SourceDestCheck::Disabled || eni.addresses.contains(&source);
    seen.decided(&walk.tuple, || Decision::SourceDestCheck {
        eni: eni.id,
        direction: Direction::Outbound,
        pass,
    });
    if pass { Ok(At::Leaving(index)) } else { Err(DiscardReason::SourceDestCheck.into()) }
}
