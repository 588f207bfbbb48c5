//! The differences that may be: each with the fact that explains it.

use localvpc::view::Named;
use localvpc_api::report::Connection;

use super::probe::{Kind, Outcome, Port, Probe, Seen};
use super::rules::INSTANCES;

/// When a probe was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// For the first time.
    First,
    /// Once more, after it was answered and the rules were replaced.
    AfterChange,
}

/// The fact that explains why Linux does otherwise. `tracked`: whether every ENI that it met tracks it.
pub fn explained(
    (probe, when): (&Probe, When),
    here: Outcome,
    there: Outcome,
    tracked: bool,
) -> Option<&'static str> {
    let to = probe.to.ip().to_string();
    let inside = probe.from != "internet";
    match to.as_str() {
        // Linux answers on its own addresses, whatever they stand for.
        "10.0.1.100" | "203.0.113.20" if here == Outcome::Silent && probe.kind == Kind::Ping => {
            Some("NATGW-19: a NAT gateway answers no ping")
        }
        "10.0.1.100" | "203.0.113.20" if here == Outcome::Silent => {
            Some("NATGW-18: a NAT gateway lets nothing in, and says so to nobody")
        }
        "10.0.1.1" if here == Outcome::Silent => Some("PKT-6: the router answers nothing"),
        "10.0.2.99" if here == Outcome::Silent && there == Outcome::Unreachable => {
            Some("RT-26: no unreachable from the router")
        }
        // UDP sockets do not hear of an unreachable network.
        "203.0.113.10"
            if inside && matches!(there, Outcome::Unreachable | Outcome::Silent | Outcome::Refused) =>
        {
            reflected(probe, here)
                .then_some("IGW-14, NATGW-38: the internet gateway reflects, this router does not")
        }
        _ if tracked => None,
        // The answer to an untracked datagram is an ICMP error that no rule lets out, or none lets in.
        _ if probe.kind == Kind::Udp && (here, there) == (Outcome::Silent, Outcome::Refused) => {
            Some("SG-32, SG-41: an untracked flow has no related errors")
        }
        // Linux tracks it from here on, and so lets the RST through.
        _ if probe.kind == Kind::LostAck && (here, there) == (Outcome::Silent, Outcome::Refused) => {
            Some("SG-42: a segment in mid-stream begins no tracked connection")
        }
        _ if when == When::AfterChange
            && here == Outcome::Silent
            && matches!(there, Outcome::Answered(_)) =>
        {
            Some("SG-33: an untracked flow is judged by the rules as they are")
        }
        _ => None,
    }
}

/// Whether a probe to the Elastic IP of web did nothing else than what reflection would do: if there was an answer, web saw
/// itself, or the NAT gateway.
fn reflected(probe: &Probe, here: Outcome) -> bool {
    let expected = match probe.from {
        "web" => ("203.0.113.10", Port::Kept),
        _ => ("203.0.113.20", Port::Translated),
    };
    match here {
        Outcome::Answered(Some(Seen { address, port })) => (address.to_string().as_str(), port) == expected,
        _ => true,
    }
}

/// Whether each ENI at which a probe was filtered tracks its connection. Ports tell connections apart: none is used twice.
pub fn is_tracked(probe: &Probe, connections: &[Named<Connection>]) -> bool {
    let port = probe.source.port();
    let at = |eni: &str| {
        connections.iter().any(|it| {
            let Connection { outbound, .. } = &it.row;
            it.name == eni
                && outbound.protocol.0 == protocol(probe.kind)
                && (outbound.source_port == port || outbound.destination_port == port)
        })
    };
    let to = match probe.to.ip().to_string().as_str() {
        "203.0.113.10" => Some("web"),
        address => INSTANCES.iter().find(|(_, own)| *own == address).map(|(name, _)| *name),
    };
    let from = (probe.from != "internet").then_some(probe.from);
    from.into_iter().chain(to).all(at)
}

fn protocol(kind: Kind) -> u8 {
    match kind {
        Kind::Ping => 1,
        Kind::Tcp | Kind::LostAck => 6,
        Kind::Udp => 17,
    }
}
