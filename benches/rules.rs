//! How long do security groups and network ACLs take to judge a packet?

use criterion::Criterion;
use localvpc_benches::{criterion, scenes, time};
use localvpc_engine::tables::rules::{AclRules, RuleSet};

fn security_groups(criterion: &mut Criterion, name: &str, rules: &RuleSet) {
    let mut packets = scenes::rule_packets();
    time(criterion, &format!("rules/security_groups/{name}/random_packets"), || {
        let (peer, selector) = packets.step();
        rules.admit(peer, selector)
    });
}

fn network_acl(criterion: &mut Criterion, name: &str, entries: &AclRules) {
    let mut packets = scenes::rule_packets();
    time(criterion, &format!("rules/network_acl/{name}/random_packets"), || {
        let (address, selector) = packets.step();
        entries.first_match(address, selector)
    });
}

fn main() {
    let mut criterion = criterion();
    security_groups(&mut criterion, "1_group_of_5", &scenes::security_groups(1, 5));
    security_groups(&mut criterion, "1_group_of_60", &scenes::security_groups(1, 60));
    security_groups(&mut criterion, "5_groups_of_60", &scenes::security_groups(5, 60));
    security_groups(&mut criterion, "16_groups_of_62", &scenes::security_groups(16, 62));
    network_acl(&mut criterion, "20_entries", &scenes::network_acl(20));
    network_acl(&mut criterion, "40_entries", &scenes::network_acl(40));
    criterion.final_summary();
}
