//! Tables with rows changed, repeated, exchanged and left out.
//!
//! - They are refused with the row at fault, the same every time, or built.
//! - What was built carries packets: nothing panics, with a flow cache or without, and a trace says what a packet would meet.

use localvpc_api::{LinkId, Tables};
use localvpc_engine::metrics::Metrics;
use localvpc_engine::packet::{Offload, TcpFacts};
use localvpc_engine::testing::craft;
use localvpc_engine::testing::fabric::Fabric;
use localvpc_engine::testing::lab::{self, APP, DB, INTERNET, WEB};
use localvpc_engine::{Limits, Worker, tables as engine};
use serde_json::{Value, json};

use crate::input::Input;

/// Bytes: changes to the tables of the lab.
pub fn tables(bytes: &[u8]) {
    run(&mut Input::new(bytes));
}

fn run(input: &mut Input<'_>) -> Option<()> {
    let mut value = serde_json::to_value(lab::tables()).expect("rows are JSON");
    let mut changes = 0;
    while changes < 16 && change(&mut value, input).is_some() {
        changes += 1;
    }
    let rows: Tables = serde_json::from_value(value).ok()?;
    let metrics = Metrics::default();
    let built = engine::build(&rows, &metrics);
    let again = engine::build(&rows, &metrics);
    assert_eq!(built.as_ref().err(), again.as_ref().err());
    match built {
        Ok(_) => carry(rows),
        Err(refused) => assert!(!refused.row.is_empty() && !refused.problem.to_string().is_empty()),
    }
    Some(())
}

/// Changes one value, or the number of its rows.
fn change(value: &mut Value, input: &mut Input<'_>) -> Option<()> {
    let at = input.byte()?;
    match value {
        Value::Object(fields) if at < 0xF0 => {
            let keys: Vec<_> = fields.keys().cloned().collect();
            change(&mut fields[&keys[usize::from(at) % keys.len()]], input)
        }
        Value::Array(rows) if at < 0xE0 && !rows.is_empty() => {
            let length = rows.len();
            change(&mut rows[usize::from(at) % length], input)
        }
        Value::Array(rows) if !rows.is_empty() => {
            let length = rows.len();
            let which = usize::from(input.byte()?);
            match at & 3 {
                0 => rows.push(rows[which % length].clone()),
                1 => drop(rows.remove(which % length)),
                2 => rows.swap(which % length, 0),
                _ => rows.clear(),
            }
            Some(())
        }
        Value::Array(rows) => {
            rows.push(other(input)?);
            Some(())
        }
        value => {
            *value = other(input)?;
            Some(())
        }
    }
}

fn other(input: &mut Input<'_>) -> Option<Value> {
    let kind = input.byte()?;
    Some(match kind % 12 {
        0 => json!(kind / 12),
        1 => json!(input.word()?),
        2 => json!(input.long()?),
        3 => {
            let [a, b, c, d] = input.long()?.to_be_bytes();
            json!(format!("{a}.{b}.{c}.{d}"))
        }
        4 => {
            let [a, b, c, d] = input.long()?.to_be_bytes();
            json!(format!("{a}.{b}.{c}.{d}/{}", input.byte()? % 33))
        }
        5 => json!(format!("10.0.{}.{}", input.byte()? % 4, input.byte()?)),
        6 => json!(format!("10.0.{}.0/{}", input.byte()? % 4, 16 + input.byte()? % 17)),
        7 => input.choose(&["::/0", "2001:db8::/56", "2001:db8::1", "0.0.0.0/0", "255.255.255.255"])?.into(),
        8 => {
            let words =
                ["local", "blackhole", "enis", "internet", "all", "allow", "deny", "enabled", "disabled"];
            input.choose(&words)?.into()
        }
        9 => {
            let target = input.choose(&[
                "internet_gateway",
                "nat_gateway",
                "network_interface",
                "security_group",
                "protocol",
            ])?;
            json!({ target: input.byte()? })
        }
        10 => {
            let range = json!({ "from": input.word()?, "to": input.word()? });
            json!({ input.choose(&["tcp", "udp"])?: range })
        }
        _ => {
            let part = |value: u8| if value < 128 { json!(value) } else { Value::Null };
            json!({ "icmp": { "kind": part(input.byte()?), "code": part(input.byte()?) } })
        }
    })
}

fn carry(rows: Tables) {
    let workers = vec![Worker::with_cache(0, 5, 0), Worker::with_cache(1, 5, 64)];
    let mut net = Fabric::with_workers(rows, workers, Limits { connections: 100, leases: 100 });
    let (syn, ack) = (TcpFacts::SYN, TcpFacts::ACK);
    for (from, source, destination) in WAYS {
        for packet in [
            craft::tcp(syn, *source, *destination),
            craft::tcp(ack, *source, *destination),
            craft::udp(*source, *destination, &[7; 1473]),
            craft::fragmentable(craft::udp(*source, *destination, &[7; 1473])),
            craft::with_ttl(craft::tcp(syn, *source, *destination), 1),
        ] {
            for worker in [0, 1, 1] {
                net.offer_on(worker, *from, packet.clone(), Offload::default());
            }
        }
        net.trace(*from, craft::tuple(localvpc_api::trace::Protocol::TCP, *source, *destination));
    }
    net.pass_ms(1000);
}

const WAYS: &[(LinkId, &str, &str)] = &[
    (APP.1, "10.0.2.20:5000", "203.0.113.5:443"),
    (APP.1, "10.0.2.20:5000", "10.0.2.30:5432"),
    (APP.1, "10.0.2.20:5000", "10.0.1.10:80"),
    (APP.1, "10.0.2.20:5000", "198.51.100.10:80"),
    (WEB.1, "10.0.1.10:5000", "10.0.2.30:5432"),
    (DB.1, "10.0.2.30:5000", "203.0.113.5:443"),
    (INTERNET, "203.0.113.5:5000", "198.51.100.10:80"),
    (INTERNET, "203.0.113.5:5000", "198.51.100.20:1024"),
];
