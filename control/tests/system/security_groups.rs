//! Security groups: references, and what a changed rule does to connections that are there.

use crate::harness::{Lab, TWO_TIER, echoes, edit, is_silent};

const MISMATCH: &str = "ENI_SG_RULES_MISMATCH";

#[test]
fn sg_20_a_reference_admits_the_members_of_that_group_and_nobody_else() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    assert!(lab.curl("app", "http://10.0.2.30:5432/").starts_with("you are 10.0.2.20:"));
    lab.curl_is_cut("web", "http://10.0.2.30:5432/", MISMATCH);
    // It is at db that it ends, and only there.
    let counters = lab.counters();
    let discards_at = |name: &str| {
        let eni = counters.enis.iter().find(|eni| eni.name == name).expect("an ENI of the lab");
        eni.row.discards.iter().map(|it| it.packets).sum::<u64>()
    };
    assert!(discards_at("db") > 0 && discards_at("app") == 0, "{:?}", counters.enis);

    // Membership is live (SG-22).
    lab.apply(&edit(TWO_TIER, "security_groups: [web], run", "security_groups: [web, app], run")).ok();
    assert!(lab.curl("web", "http://10.0.2.30:5432/").starts_with("you are 10.0.1.10:"));
}

const MEMBERS: &str = "
lab: members
vpcs:
  main:
    cidr: 10.0.0.0/16
    subnets:
      net: { cidr: 10.0.1.0/24 }
    security_groups:
      team: { inbound: [ { tcp: 80, from: self }, { icmp: echo-request, from: self } ] }
      other: {}
    instances:
      one: { subnet: net, ip: 10.0.1.11, security_groups: [team], run: localvpc serve 80 }
      two: { subnet: net, ip: 10.0.1.12, security_groups: [team, other] }
      stranger: { subnet: net, ip: 10.0.1.13, security_groups: [other] }
";

#[test]
fn sg_21_a_group_that_admits_itself_admits_its_members() {
    let Some(lab) = Lab::up(MEMBERS) else { return };
    assert!(lab.curl("two", "http://10.0.1.11/").starts_with("you are 10.0.1.12:"));
    lab.exec("one", "ping -n -c 1 -W 10 10.0.1.12").ok();
    lab.curl_is_cut("stranger", "http://10.0.1.11/", MISMATCH);
    lab.ping_is_cut("one", "10.0.1.13", "SG_HAS_NO_RULES");
}

/// web's rule is for everybody and so is its way out: untracked (SG-32). db's is for app: tracked.
const ECHOES: &str = "
lab: echoes
vpcs:
  main:
    cidr: 10.0.0.0/16
    internet_gateway: igw
    subnets:
      net: { cidr: 10.0.1.0/24, route_table: public }
    route_tables:
      public: [ { to: 0.0.0.0/0, via: igw } ]
    security_groups:
      web:
        inbound:
          - { tcp: 80, from: 0.0.0.0/0 }
      db:
        inbound:
          - { tcp: 5432, from: app }
      app: {}
    instances:
      web: { subnet: net, ip: 10.0.1.10, eip: 203.0.113.10, security_groups: [web], run: localvpc serve 80 --echo }
      app: { subnet: net, ip: 10.0.1.20, security_groups: [app] }
      db: { subnet: net, ip: 10.0.1.30, security_groups: [db], run: localvpc serve 5432 --echo }
internet:
  hosts:
    client: { ip: 198.51.100.20 }
";

#[test]
fn sg_31_a_removed_rule_leaves_tracked_connections_alone_and_refuses_new_ones() {
    let Some(lab) = Lab::up(ECHOES) else { return };
    let mut tracked = lab.connect("app", "10.0.1.30:5432");
    echoes(&mut tracked);
    let at_db = lab.connections().into_iter().filter(|it| it.name == "db").count();
    assert_eq!(at_db, 1, "{:?}", lab.connections());

    let without = edit(ECHOES, "- { tcp: 5432, from: app }", "- { tcp: 5433, from: app }");
    lab.apply(&without).ok();
    echoes(&mut tracked);
    lab.connect_is_cut("app", "10.0.1.30:5432", MISMATCH);
    echoes(&mut tracked);

    lab.apply(ECHOES).ok();
    echoes(&mut lab.connect("app", "10.0.1.30:5432"));
}

#[test]
fn sg_32_sg_33_a_removed_rule_cuts_untracked_connections_at_once() {
    let Some(lab) = Lab::up(ECHOES) else { return };
    let mut untracked = lab.connect("internet", "203.0.113.10:80");
    echoes(&mut untracked);
    let at_web = lab.connections().into_iter().find(|it| it.name == "web");
    assert!(at_web.is_none(), "open on both sides to everybody, so not tracked: {at_web:?}");

    lab.apply(&edit(ECHOES, "- { tcp: 80, from: 0.0.0.0/0 }", "- { tcp: 81, from: 0.0.0.0/0 }")).ok();
    lab.discards(MISMATCH, || is_silent(&mut untracked));
    lab.connect_is_cut("internet", "203.0.113.10:80", MISMATCH);
}

#[test]
fn sg_39_an_instance_at_its_limit_takes_no_new_connection() {
    let limited = edit(
        ECHOES,
        "ip: 10.0.1.30, security_groups: [db],",
        "ip: 10.0.1.30, max_connections: 2, security_groups: [db],",
    );
    let Some(lab) = Lab::up(&limited) else { return };
    let mut open: Vec<_> = (0..2).map(|_| lab.connect("app", "10.0.1.30:5432")).collect();
    open.iter_mut().for_each(echoes);
    lab.connect_is_cut("app", "10.0.1.30:5432", "CONNTRACK_ALLOWANCE_EXCEEDED");
    let counters = lab.counters();
    let db = &counters.enis.iter().find(|eni| eni.name == "db").expect("an ENI of the lab").row;
    assert_eq!(db.conntrack_allowance_available, 0);
    assert!(db.conntrack_allowance_exceeded > 0, "{db:?}");
    assert_eq!(lab.explain("app db tcp/5432", 1)["code"], "CONNTRACK_ALLOWANCE_EXCEEDED");
    open.iter_mut().for_each(echoes);

    // A larger limit is in force at once, and cuts nothing.
    lab.apply(ECHOES).ok();
    echoes(&mut lab.connect("app", "10.0.1.30:5432"));
    open.iter_mut().for_each(echoes);
}

#[test]
fn sg_36_without_the_way_out_for_everybody_the_same_rule_is_tracked() {
    let narrow = "          - { tcp: 80, from: 0.0.0.0/0 }\n        outbound: []";
    let with_state = edit(ECHOES, "          - { tcp: 80, from: 0.0.0.0/0 }", narrow);
    let Some(lab) = Lab::up(&with_state) else { return };
    let mut tracked = lab.connect("internet", "203.0.113.10:80");
    echoes(&mut tracked);
    lab.apply(&edit(&with_state, "- { tcp: 80, from: 0.0.0.0/0 }", "- { tcp: 81, from: 0.0.0.0/0 }")).ok();
    echoes(&mut tracked);
    lab.connect_is_cut("internet", "203.0.113.10:80", MISMATCH);
}
