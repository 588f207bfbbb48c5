//! What the flow cache must not confuse: flows that look alike to it, and packets of a known flow that do not fit its way.

use localvpc_api::DiscardReason;
use localvpc_api::tables::{PortRange, Traffic};
use localvpc_engine::packet::Offload;
use localvpc_engine::testing::craft::{self, udp};
use localvpc_engine::testing::fabric::Fabric;
use localvpc_engine::testing::lab::{self, *};
use localvpc_engine::{Limits, Worker};

#[test]
fn flows_that_share_a_tag_are_kept_apart() {
    let mut tables = lab::tables();
    for group in [0, 2] {
        tables.security_groups[group].inbound.push(rule(Traffic::Udp(PortRange::ALL), anyone()));
    }
    // One set of 16 flows, which are told apart by 16 bits of their hash before their keys are compared.
    let worker = Worker::with_cache(0, 7, 16);
    let mut net = Fabric::with_workers(tables, vec![worker], Limits { connections: 1 << 17, leases: 16 });
    // So many flows meet one with their tag about nine times: 40,000 · 15 / 65,536.
    for ports in (1..=40_000_u16).collect::<Vec<_>>().chunks(32) {
        let far = |port: &u16| if port % 2 == 0 { (DB.1, "10.0.2.30:53") } else { (WEB.1, "10.0.1.10:53") };
        let packet = |port: &u16| udp(format!("10.0.2.20:{port}").as_str(), far(port).1, b"whose?");
        let batch = ports.iter().map(|port| (APP.1, packet(port), Offload::default())).collect();
        for (outcome, port) in net.offer_batch(0, batch).into_iter().zip(ports) {
            assert_eq!(outcome.unwrap().verdict, Ok(far(port).0), "port {port}");
        }
    }
}

#[test]
fn a_known_flow_whose_ttl_runs_out_is_walked() {
    let mut net = Fabric::new(lab::tables());
    let packet = |ttl| craft::with_ttl(udp("10.0.2.20:5000", "203.0.113.5:53", b"?"), ttl);
    for ttl in [64, 64, 64] {
        assert!(net.send(APP.1, packet(ttl)).verdict.is_ok());
    }
    let batch = [64, 1, 64, 2, 1].map(|ttl| (APP.1, packet(ttl), Offload::default()));
    let found: Vec<_> = net
        .offer_batch(0, batch.to_vec())
        .into_iter()
        .map(|outcome| outcome.unwrap().verdict.err())
        .collect();
    let expired = Some(DiscardReason::TtlExceeded);
    assert_eq!(found, [None, expired, None, None, expired], "RFC1812-TTL");
}
