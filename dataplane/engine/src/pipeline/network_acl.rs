//! Does the network ACL let the packet out of, or into, this subnet?
//!
//! Only packets that cross a subnet's edge come here (NACL-4). Entries are tried by
//! ascending number, the first match decides, and what matches none is denied by `*`
//! (NACL-2). Inbound entries match the source, outbound ones the destination; ports are
//! always the packet's destination port (NACL-8). There is no state: replies need
//! entries of their own (NACL-5), and so each packet is judged by the entries as they
//! are now (NACL-16). Touches no state.

use localvpc_api::DiscardReason;
use localvpc_api::tables::Action;
use localvpc_api::trace::{Decision, Direction};

use super::{At, Next, Observer, Stop, Walk, route_table};
use crate::tables::{SubnetIndex, Tables};

pub fn leave(
    tables: &Tables,
    walk: &mut Walk<'_>,
    subnet: SubnetIndex,
    next: Next,
    seen: &mut impl Observer,
) -> Result<At, Stop> {
    filter(tables, walk, subnet, Direction::Outbound, seen)?;
    Ok(match next {
        Next::Eni(eni) => At::Inbound(tables.eni(eni).subnet, next),
        Next::NatGateway(nat) => At::Inbound(tables.nat_gateway(nat).subnet, next),
        Next::InternetGateway(igw) => At::InternetGateway(igw),
    })
}

pub fn enter(
    tables: &Tables,
    walk: &mut Walk<'_>,
    subnet: SubnetIndex,
    next: Next,
    seen: &mut impl Observer,
) -> Result<At, Stop> {
    filter(tables, walk, subnet, Direction::Inbound, seen)?;
    Ok(route_table::arrive(next))
}

fn filter(
    tables: &Tables,
    walk: &mut Walk<'_>,
    subnet: SubnetIndex,
    direction: Direction,
    seen: &mut impl Observer,
) -> Result<(), Stop> {
    let row = tables.subnet(subnet);
    let acl = tables.network_acl(row.network_acl);
    let (entries, address) = match direction {
        Direction::Inbound => (&acl.inbound, walk.tuple.source),
        Direction::Outbound => (&acl.outbound, walk.tuple.destination),
    };
    let hit = entries.first_match(address, walk.selector());
    let (entry, action) = match hit {
        Some((number, action)) => (Some(number), action),
        None => (None, Action::Deny),
    };
    seen.decided(&walk.tuple, || Decision::NetworkAcl {
        subnet: row.id,
        network_acl: acl.id,
        direction,
        entry,
        action,
    });
    match action {
        Action::Allow => {
            walk.filtered.note(subnet, direction, walk.tuple.destination_port);
            Ok(())
        }
        Action::Deny => Err(DiscardReason::NetworkAcl.into()),
    }
}
