//! `up` of a lab that is up: the difference, and nothing else.

use std::path::Path;

use localvpc::view::StatusView;

use crate::harness::{Lab, Netns, TWO_TIER, echoes, edit};

#[test]
fn up_twice_has_nothing_to_do_the_second_time() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    let before = lab.status();
    let again = lab.apply(TWO_TIER).ok();
    assert!(again.stdout.contains("nothing to do"), "{again}");
    assert!(!again.stdout.lines().any(|line| line.starts_with(['+', '~', '-'])), "{again}");
    let after = lab.status();
    assert_eq!(before.dataplane.map(|it| it.generation), after.dataplane.map(|it| it.generation));
}

#[test]
fn a_file_that_is_wrong_changes_nothing() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    let before = lab.status();
    let broken = edit(TWO_TIER, "cidr: 10.0.2.0/24", "cidr: 10.0.1.128/25");
    let line = 1 + broken.lines().position(|line| line.contains("10.0.1.128/25")).expect("the edit");
    let refused = lab.apply(&broken).exits(1);
    assert!(refused.stderr.contains(&format!("lab.yaml:{line}:")), "{refused}");
    assert!(refused.stderr.contains("Nothing was changed"), "{refused}");

    let after = lab.status();
    assert_eq!(
        before.dataplane,
        after.dataplane.map(|mut it| {
            it.workers = before.dataplane.as_ref().map(|it| it.workers.clone()).unwrap_or_default();
            it
        })
    );
    assert!(lab.curl("app", "http://198.51.100.10/").starts_with("you are 203.0.113.20:"));
}

#[test]
fn a_file_that_is_wrong_starts_nothing() {
    let Some(lab) = Lab::new() else { return };
    lab.apply(&edit(TWO_TIER, "via: nat-a", "via: nat-b")).exits(1);
    lab.nothing_is_left();
}

#[test]
fn a_dry_run_shows_the_plan_and_does_nothing() {
    let Some(lab) = Lab::new() else { return };
    let file = lab.write(TWO_TIER);
    let plan = lab.localvpc(&["up", &file, "--dry-run"]).ok();
    assert!(plan.stdout.contains("+ subnet private-a"), "{plan}");
    lab.nothing_is_left();

    lab.apply(TWO_TIER).ok();
    let before = lab.status().dataplane.map(|it| it.generation);
    lab.write(&edit(
        TWO_TIER,
        "      - { tcp: 80, from: 0.0.0.0/0, description: anybody may see the site }\n",
        "",
    ));
    let plan = lab.localvpc(&["up", &file, "--dry-run"]).ok();
    let changes: Vec<&str> = plan.stdout.lines().filter(|line| line.starts_with(['+', '~', '-'])).collect();
    assert!(changes.len() == 1 && changes[0].starts_with("~ security group web"), "{plan}");
    assert_eq!(lab.status().dataplane.map(|it| it.generation), before);
    lab.wait_for_servers();
    lab.curl("internet", "http://203.0.113.10/");
}

#[test]
fn instances_come_and_go_and_the_others_stay() {
    let Some(lab) = Lab::up(&edit(TWO_TIER, "run: localvpc serve 5432", "run: localvpc serve 5432 --echo"))
    else {
        return;
    };
    let mut connection = lab.connect("app", "10.0.2.30:5432");
    echoes(&mut connection);
    let with_echo = edit(TWO_TIER, "run: localvpc serve 5432", "run: localvpc serve 5432 --echo");
    let web = "      web: { subnet: public-a,  ip: 10.0.1.10, eip: 203.0.113.10, security_groups: [web], run: localvpc serve 80 }\n";
    let moved = edit(
        &with_echo,
        web,
        "      shop: { subnet: public-a, ip: 10.0.1.10, eip: 203.0.113.10, security_groups: [web], run: localvpc serve 80 }\n",
    );
    // Expectations are about web.
    let moved = &moved[..moved.find("\nexpect:").expect("expectations")];
    let plan = lab.apply(moved).ok();
    assert!(plan.stdout.contains("+ instance shop") && plan.stdout.contains("- instance web"), "{plan}");
    lab.wait_for_servers();
    assert!(lab.curl("internet", "http://203.0.113.10/").starts_with("you are 198.51.100.10:"));
    echoes(&mut connection);
    assert!(!Path::new("/run/netns").join(lab.netns("web")).exists());
    let refused = lab.exec("web", "true").exits(1);
    assert!(refused.stderr.contains("web"), "{refused}");
}

#[test]
fn a_changed_command_is_started_anew_and_no_other() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    let pid = |owner: &str| {
        let owner = lab.status().instances.into_iter().find(|it| it.name == owner).expect("an instance");
        owner.processes[0].pid.expect("it runs")
    };
    let (web, db) = (pid("web"), pid("db"));
    lab.apply(&edit(TWO_TIER, "run: localvpc serve 5432", "run: localvpc serve 5432 --echo")).ok();
    lab.wait_for_servers();
    assert_eq!(pid("web"), web);
    assert_ne!(pid("db"), db);
    echoes(&mut lab.connect("app", "10.0.2.30:5432"));
}

#[test]
fn a_failed_up_is_undone_and_the_lab_stays_as_it_was() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    let before = lab.status();
    let with = |name: &str, rest: &str| {
        let db = "      db:  { subnet";
        edit(
            TWO_TIER,
            db,
            &format!(
                "      new: {{ subnet: private-a, ip: 10.0.2.40 }}\n      {name}: {{ subnet: private-a{rest} }}\n{db}"
            ),
        )
    };
    let is_as_before = || {
        assert!(!Path::new("/run/netns").join(lab.netns("new")).exists());
        assert!(!Path::new("/etc/netns").join(lab.netns("new")).exists());
        let hosts = lab.exec("app", "cat /etc/hosts").ok();
        assert!(!hosts.stdout.contains("10.0.2.40"), "{hosts}");
        let after = lab.status();
        let pids = |status: &StatusView| -> Vec<Option<u32>> {
            status.instances.iter().flat_map(|it| &it.processes).map(|it| it.pid).collect()
        };
        assert_eq!(pids(&before), pids(&after));
        let generation = |status: &StatusView| status.dataplane.as_ref().map(|it| it.generation);
        assert_eq!(generation(&before), generation(&after));
        assert!(lab.curl("app", "http://198.51.100.10/").starts_with("you are 203.0.113.20:"));
    };

    let refused = lab.apply(&with("bad", ", attach: no-such-namespace")).exits(1);
    assert!(
        refused
            .stderr
            .contains("bad: cannot attach to /run/netns/no-such-namespace: there is no such namespace"),
        "{refused}"
    );
    assert!(refused.stderr.ends_with("Nothing was changed\n"), "{refused}");
    is_as_before();

    // Known too late to be checked before: what was made is removed again.
    let foreign = Netns::add(lab.netns("taken"));
    let refused = lab.apply(&with("taken", "")).exits(1);
    assert!(refused.stderr.ends_with("Rolled back: everything is as it was\n"), "{refused}");
    is_as_before();
    drop(foreign);
}
