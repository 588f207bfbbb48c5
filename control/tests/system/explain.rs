//! `explain` and `check` against a lab that runs: what the dataplane adds, and packets.

use serde_json::Value;

use crate::harness::{Lab, TWO_TIER, behind_a_nat_gateway};

#[test]
fn a_probe_proves_what_the_analysis_says() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    let probe = |question: &str, exit: i32| -> Value {
        let words: Vec<&str> = question.split(' ').collect();
        let done = lab.localvpc(&[&["explain"], &words[..], &["--probe", "-o", "json"]].concat()).exits(exit);
        serde_json::from_str(&done.stdout).expect("JSON")
    };
    // A server, a closed port, a ping, a datagram, another protocol: all of them come back.
    for (question, answer) in [
        ("app example tcp/443", "SYN-ACK"),
        ("web app tcp/9", "blocked"),
        ("app db tcp/5432", "SYN-ACK"),
        ("internet web icmp", "echo reply"),
        ("web example tcp/81", "RST"),
        ("web example udp/53", "reply"),
        ("web example 47", "reply"),
    ] {
        let exit = i32::from(answer == "blocked");
        let said = probe(question, exit);
        assert_eq!(said["probe"]["agrees"], true, "{said:#}");
        assert_eq!(said["probe"]["answer"].as_str().unwrap_or("blocked"), answer, "{question}: {said:#}");
        assert_eq!(said["NetworkPathFound"], answer != "blocked");
    }
    let stopped = probe("web db tcp/5432", 1);
    assert_eq!(stopped["probe"]["arrived"], false);
    assert_eq!(stopped["probe"]["discarded"][0], "eni db: ENI_SG_RULES_MISMATCH", "{stopped:#}");
}

/// NATGW-22: a datagram's reply that is routed to a NAT gateway leaves as another sender's, and is no reply.
#[test]
fn a_reply_from_somebody_else_is_no_answer() {
    let Some(lab) = Lab::up(behind_a_nat_gateway!(
        "
    security_groups:
      open: { inbound: [ { all: true, from: 0.0.0.0/0 } ] }
    instances:
      astray: { subnet: private, eip: 203.0.113.30, security_groups: [open] }
internet:
  hosts:
    example: { ip: 198.51.100.10 }
"
    )) else {
        return;
    };
    let done = lab.localvpc(&["explain", "example", "astray", "udp/53", "--probe", "-o", "json"]).exits(1);
    let said: Value = serde_json::from_str(&done.stdout).expect("JSON");
    assert_eq!(said["code"], "NGW_SOURCE_ADDRESS_REASSIGN", "{said:#}");
    assert_eq!(said["dataplane"]["agrees"], true, "{said:#}");
    assert_eq!(said["probe"]["arrived"], true, "{said:#}");
    assert_eq!(said["probe"]["answer"], Value::Null, "{said:#}");
    assert_eq!(said["probe"]["agrees"], true, "{said:#}");
}

#[test]
fn what_differs_from_the_analysis_is_told() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    // A firewall of the receiver's own, of which no file knows.
    lab.localvpc(&[
        "exec",
        "db",
        "--",
        "sh",
        "-c",
        "nft add table ip own; nft add chain ip own in '{ type filter hook input priority 0; }'; nft add rule ip own in drop",
    ])
    .ok();
    let done = lab.localvpc(&["explain", "app", "db", "tcp/5432", "--probe"]).exits(3);
    assert!(done.stdout.contains("arrived, but no answer came back"), "{done}");
    assert!(done.stdout.contains("The packet does not do what the analysis says"), "{done}");
    let file = lab.file().to_string_lossy().into_owned();
    let checked = lab.localvpc(&["check", &file]).exits(1);
    assert!(checked.stdout.contains("a real packet did not come back"), "{checked}");
    lab.localvpc(&["check", &file, "--offline"]).ok();
    // A file that is not what runs is only analysed, and that is a warning.
    lab.write(&TWO_TIER.replace("tcp: 5432, from: app", "tcp: 5432, from: web"));
    let other = lab.localvpc(&["check", &file]).exits(1);
    assert!(other.stdout.contains("runs another version of the file"), "{other}");
}
