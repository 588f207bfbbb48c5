//! TCP segment by segment through the whole dataplane: what everybody who keeps the connection makes of it (RFC 5961, 7857, 9293).
//!
//! A segment is written as tcpdump does ([`segment`]); `>` is from app. Each case runs between two instances, where both ENIs track it, and through the NAT gateway, where app's ENI
//! tracks it and the gateway leases a port. All of them must agree. No segment is refused for its numbers: AWS documents
//! no such check.

use localvpc_api::DiscardReason;
use localvpc_api::report::ConnectionState::{self as Phase, Closed, Closing, Established, New};
use localvpc_api::tables::Peer;
use localvpc_engine::packet::{Kind, TcpFacts, parse};
use localvpc_engine::report;
use localvpc_engine::testing::craft::{self, tcp_scaled, tcp_segment};
use localvpc_engine::testing::fabric::{Fabric, Outcome};
use localvpc_engine::testing::lab::{self, *};
use localvpc_engine::testing::segment::segment;

const APP_END: &str = "10.0.2.20:40000";
const S: u64 = 1_000;

/// Where the far end of app's connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Far {
    /// db, in the same subnet.
    Inside,
    /// A server on the internet, behind the NAT gateway.
    Outside,
}

const BOTH: [Far; 2] = [Far::Inside, Far::Outside];

/// A connection between app and its far end.
struct Talk {
    net: Fabric,
    far: Far,
    /// Where the far end sees app.
    app_seen: String,
}

impl Talk {
    fn with(far: Far, change: impl FnOnce(&mut localvpc_api::Tables)) -> Self {
        let mut net = Fabric::new(lab::tables());
        net.push(change);
        Self { net, far, app_seen: APP_END.to_owned() }
    }

    fn new(far: Far) -> Self {
        Self::with(far, |_| {})
    }

    /// A handshake later: 1001 and 5001 come next, both windows are 500 bytes.
    fn established(far: Far) -> Self {
        let mut talk = Self::new(far);
        talk.play(&[("> S 1000", New), ("< S. 5000 ack 1001", New), ("> . 1001 ack 5001", Established)]);
        talk
    }

    /// The far end's address and port.
    fn peer(&self) -> &'static str {
        match self.far {
            Far::Inside => "10.0.2.30:5432",
            Far::Outside => "203.0.113.5:443",
        }
    }

    fn send(&mut self, text: &str) -> Outcome {
        let (facts, scale, from_app) = segment(text);
        let (peer, seen) = (self.peer(), self.app_seen.clone());
        let (from, source, destination) = match (from_app, self.far) {
            (true, _) => (APP.1, APP_END, peer),
            (false, Far::Inside) => (DB.1, peer, seen.as_str()),
            (false, Far::Outside) => (INTERNET, peer, seen.as_str()),
        };
        let packet = match scale {
            Some(scale) => tcp_scaled(facts, scale, source, destination),
            None => tcp_segment(facts, source, destination),
        };
        let out = self.net.send(from, packet);
        if from_app && out.verdict.is_ok() {
            let tuple = out.tuple();
            self.app_seen = format!("{}:{}", tuple.source, tuple.source_port);
        }
        out
    }

    /// Sends segments; each passes, and leads everybody to the phase beside it.
    #[track_caller]
    fn play(&mut self, steps: &[(&str, Phase)]) {
        for (at, (text, phase)) in steps.iter().enumerate() {
            let out = self.send(text);
            assert!(out.verdict.is_ok(), "{:?}, step {at}, `{text}`: {out:?}", self.far);
            let phases: Vec<_> = self.keepers().into_iter().map(|(phase, ..)| phase).collect();
            assert_eq!(phases, [*phase; 2], "{:?}, step {at}, `{text}`", self.far);
        }
    }

    /// Phase, idle time and timeout, in milliseconds, at each of the two who keep the connection.
    fn keepers(&self) -> Vec<(Phase, u64, u64)> {
        let tracked = report::connections(&self.net.state, self.net.now);
        let leased = report::leases(&self.net.state, self.net.now);
        let tracked = tracked.iter().map(|row| (row.state, row.idle_ms, row.timeout_ms));
        tracked.chain(leased.iter().map(|row| (row.state, row.idle_ms, row.timeout_ms))).collect()
    }

    fn timeouts(&self) -> Vec<u64> {
        self.keepers().into_iter().map(|(.., timeout)| timeout).collect()
    }

    fn idle(&self) -> Vec<u64> {
        self.keepers().into_iter().map(|(_, idle, _)| idle).collect()
    }
}

/// Plays segments on a new connection, with either far end.
#[track_caller]
fn play(steps: &[(&str, Phase)]) {
    for far in BOTH {
        Talk::new(far).play(steps);
    }
}

/// Plays segments on an established connection, with either far end.
#[track_caller]
fn established(steps: &[(&str, Phase)]) {
    for far in BOTH {
        Talk::established(far).play(steps);
    }
}

// Sequence numbers.

#[test]
fn rfc5961_only_the_exact_reset_closes() {
    // RFC5961-RST: in the window is not enough.
    established(&[
        ("> . 1001 ack 5001 len 100", Established),
        ("< . 5001 ack 1101", Established),
        ("> R 65001", Established),
        ("> R 1100", Established),
        ("> R 1102", Established),
        ("> R 1600", Established),
        ("> R 1101", Closed),
    ]);
    // And the other way round.
    established(&[("< R 5000", Established), ("< R 5002", Established), ("< R 5001", Closed)]);
}

#[test]
fn rfc5961_a_syn_on_an_established_connection_is_challenged() {
    // RFC5961-SYN: it changes nothing. RFC5961-CHALLENGE: the acknowledgement passes, and the reset it brings is exact.
    established(&[
        ("> S 7000", Established),
        ("< . 5001 ack 1001", Established),
        ("> . 1001 ack 5001 len 10", Established),
        ("> R 7001", Established),
        ("< . 5001 ack 1011", Established),
        ("> R 1011", Closed),
    ]);
    // A challenge for a SYN, as one gets who reuses ports too early: it opens nothing.
    play(&[
        ("> S 1000", New),
        ("< . 145824453 ack 643160523", New),
        ("> R 643160523", New),
        ("> S 1000", New),
        ("< S. 5000 ack 1001", New),
        ("> . 1001 ack 5001", Established),
    ]);
}

#[test]
fn rfc5961_after_a_fin_a_reset_within_the_window_closes() {
    // RFC5961-RST-AFTER-FIN.
    established(&[("> F. 1001 ack 5001", Closing), ("> R 1501", Closing), ("> R 1500", Closed)]);
    established(&[("< F. 5001 ack 1001", Closing), ("> R 1000", Closing), ("> R 1400", Closed)]);
}

#[test]
fn rfc5961_an_old_syn_ack_opens_nothing_and_the_right_one_does() {
    // RFC5961-OLD-SYN-ACK.
    play(&[
        ("> S 1000", New),
        ("< S. 145824453 ack 643160523", New),
        ("> R 643160523", New),
        ("> S 1000", New),
        ("< S. 162602410 ack 1001", New),
        ("> . 1001 ack 162602411", Established),
    ]);
}

#[test]
fn rfc5961_data_that_was_acknowledged_may_come_again() {
    // RFC5961-OLD-DATA: as after lost acknowledgements.
    established(&[
        ("> . 1001 ack 5001 len 100", Established),
        ("< . 5001 ack 1101", Established),
        ("> . 1001 ack 5001 len 100", Established),
        ("< . 5001 ack 1101", Established),
        ("> . 1101 ack 5001 len 100", Established),
        ("> R 1201", Closed),
    ]);
}

#[test]
fn rfc5961_windows_are_scaled_only_if_both_ends_offer_it() {
    // RFC5961-SCALE: app's window is 500, or 64,000 when it is scaled; the far end's FIN lies 60,000 bytes ahead.
    for (syn, syn_ack, phase) in [
        ("> S 1000 scale 7", "< S. 5000 ack 1001 scale 7", Closing),
        ("> S 1000 scale 7", "< S. 5000 ack 1001", Established),
        ("> S 1000", "< S. 5000 ack 1001 scale 7", Established),
    ] {
        play(&[
            (syn, New),
            (syn_ack, New),
            ("> . 1001 ack 5001", Established),
            // In mid-stream, so that the flow caches know it, too.
            ("> . 1001 ack 5001", Established),
            ("> . 1001 ack 5001", Established),
            ("< F. 65001 ack 1001", phase),
        ]);
    }
}

#[test]
fn rfc5961_what_does_not_fit_passes_and_changes_nothing() {
    // RFC5961-SWITCHES: as with Linux's `nf_conntrack_tcp_be_liberal`, and nothing else can be had.
    established(&[
        ("> . 90001 ack 5001 len 100", Established),
        ("> F. 90101 ack 5001", Established),
        ("< F. 5001 ack 90101", Established),
        ("> F 1001", Established),
        ("> . 1001 ack 5001 len 100", Established),
        ("> R 90101", Established),
        ("> R 1101", Closed),
    ]);
}

// The state machine.

#[test]
fn rfc7857_from_opening_to_closed_by_every_way() {
    // RFC7857-STATE: closed by FINs in either order and at once, while data flows, and by a RST.
    established(&[
        ("> . 1001 ack 5001 len 100", Established),
        ("> F. 1101 ack 5001", Closing),
        ("< . 5001 ack 1102 len 400", Closing),
        ("> . 1102 ack 5401", Closing),
        ("< F. 5401 ack 1102", Closed),
        ("> . 1102 ack 5402", Closed),
    ]);
    established(&[("< F. 5001 ack 1001", Closing), ("> F. 1001 ack 5002", Closed)]);
    established(&[("> F. 1001 ack 5001", Closing), ("< F. 5001 ack 1001", Closed)]);
    play(&[("> S 1000", New), ("< R. 0 ack 1001", Closed)]);
    // Refused in mid-handshake, and a handshake that is repeated because its end was lost.
    play(&[("> S 1000", New), ("< S. 5000 ack 1001", New), ("> R 1001", Closed)]);
    play(&[
        ("> S 1000", New),
        ("> S 1000", New),
        ("< S. 5000 ack 1001", New),
        ("< S. 5000 ack 1001", New),
        ("> . 1001 ack 5001", Established),
    ]);
}

#[test]
fn rfc9293_figure_8_a_simultaneous_open_between_instances() {
    // Through a NAT gateway it is `rfc5382_2_simultaneous_open`.
    let mut talk = Talk::with(Far::Inside, |rows| {
        let everything = rule(localvpc_api::tables::Traffic::All, Peer::SecurityGroup(DB_GROUP));
        rows.security_groups[1].inbound = vec![everything];
    });
    talk.play(&[
        ("> S 1000", New),
        ("< S 5000", New),
        ("> S. 1000 ack 5001", New),
        ("< S. 5000 ack 1001", Established),
        ("> . 1001 ack 5001 len 10", Established),
    ]);
}

#[test]
fn rfc7857_a_reset_is_translated_and_the_connection_held_for_a_minute() {
    // RFC7857-RST asks for four minutes; AWS has about one (NATGW-14).
    for far in BOTH {
        let mut talk = Talk::established(far);
        talk.play(&[("< R 5001", Closed)]);
        assert_eq!(talk.timeouts(), [60 * S; 2], "{far:?}");
        talk.net.pass_ms(60 * S - 1);
        talk.play(&[("> . 1001 ack 5001 len 10", Closed)]);
        // It was not the far end's own: this is.
        talk.play(&[("< . 5001 ack 1011 len 10", Established)]);
        assert_eq!(talk.timeouts()[0], 432_000 * S, "RFC 7857 §2: data brings it back");
        talk.play(&[("< R 5011", Closed)]);
        talk.net.pass_ms(60 * S);
        assert!(talk.keepers().is_empty());
        let late = talk.send("> . 1011 ack 5011");
        assert_eq!(late.verdict.is_err(), far == Far::Outside, "NATGW-22; db's group admits the port");
    }
}

#[test]
fn rfc7857_a_reset_sent_in_answer_refreshes_nothing() {
    // RFC7857-ERRORS: neither one that is not believed, nor one that comes again.
    for far in BOTH {
        let mut talk = Talk::established(far);
        talk.net.pass_ms(20 * S);
        talk.play(&[("> R 1300", Established)]);
        assert_eq!(talk.idle(), [20 * S; 2], "{far:?}");
        talk.play(&[("> R 1001", Closed)]);
        talk.net.pass_ms(20 * S);
        talk.play(&[("> R 1001", Closed)]);
        assert_eq!(talk.idle(), [20 * S; 2], "{far:?}");
    }
}

#[test]
fn a_repeated_syn_keeps_nothing_alive() {
    // The kernel's conntrack_tcp_unreplied: a flood of the same SYN does not hold its place for ever.
    for far in BOTH {
        let mut talk = Talk::new(far);
        talk.play(&[("> S 1000", New)]);
        for _ in 0..11 {
            talk.net.pass_ms(10 * S);
            talk.play(&[("> S 1000", New)]);
        }
        assert_eq!(talk.idle(), [110 * S; 2], "{far:?}");
        let before = talk.app_seen.clone();
        talk.net.pass_ms(10 * S);
        talk.send("> S 1000");
        let app = report::connections(&talk.net.state, talk.net.now);
        assert_eq!((app[0].state, app[0].idle_ms), (New, 0), "{far:?}: a new connection at app's ENI");
        assert_eq!(talk.app_seen, before, "{far:?}: the lease has twice the time");
    }
}

// Timers.

#[test]
fn rfc7857_every_phase_has_a_timer_of_its_own() {
    // RFC7857-TIMERS, SG-38, NATGW-25. At the NAT gateway opening and closing have RFC 5382's four minutes.
    let to = |far, steps: &[(&str, Phase)]| {
        let mut talk = Talk::new(far);
        talk.play(steps);
        talk
    };
    let (syn, syn_ack, ack) =
        (("> S 1000", New), ("< S. 5000 ack 1001", New), ("> . 1001 ack 5001", Established));
    let (fin, other_fin) = (("> F. 1001 ack 5001", Closing), ("< F. 5001 ack 1002", Closed));
    let all = [syn, syn_ack, ack, fin, other_fin];
    for (count, tracked, leased) in
        [(1, 120, 240), (2, 120, 240), (3, 432_000, 350), (4, 120, 240), (5, 60, 60)]
    {
        let steps = &all[..count];
        assert_eq!(to(Far::Inside, steps).timeouts(), [tracked * S; 2], "{steps:?}");
        assert_eq!(to(Far::Outside, steps).timeouts(), [tracked * S, leased * S], "{steps:?}");
        // And they end then: not a millisecond earlier.
        let mut talk = to(Far::Inside, steps);
        talk.net.pass_ms(tracked * S - 1);
        assert_eq!(talk.keepers().len(), 2, "{steps:?}");
        talk.net.pass_ms(1);
        assert!(talk.keepers().is_empty(), "{steps:?}");
        let mut talk = to(Far::Outside, steps);
        talk.net.pass_ms(leased * S - 1);
        assert_eq!(talk.net.state.leases.len(), 1, "{steps:?}");
        talk.net.pass_ms(1);
        assert!(talk.net.state.leases.is_empty(), "{steps:?}");
    }
}

#[test]
fn natgw_22_sg_37_timers_are_configurable() {
    // An experiment of 350 s in five: the other phases are no longer than that.
    let fast = |rows: &mut localvpc_api::Tables| {
        rows.nat_gateways[0].idle_timeout_ms = 5 * S;
        rows.enis[1].tracking.tcp_established_ms = 7 * S;
    };
    let mut talk = Talk::with(Far::Outside, fast);
    for (segment, phase, tracked, leased) in [
        ("> S 1000", New, 120, 5),
        ("< S. 5000 ack 1001", New, 120, 5),
        ("> . 1001 ack 5001", Established, 7, 5),
        ("> F. 1001 ack 5001", Closing, 120, 5),
        ("< F. 5001 ack 1002", Closed, 60, 5),
    ] {
        talk.play(&[(segment, phase)]);
        assert_eq!(talk.timeouts(), [tracked * S, leased * S], "{segment}");
    }
    let mut talk = Talk::with(Far::Outside, fast);
    talk.play(&[("> S 1000", New), ("< S. 5000 ack 1001", New), ("> . 1001 ack 5001", Established)]);
    talk.net.pass_ms(5 * S);
    let late = talk.send("> . 1001 ack 5001 len 10");
    assert_eq!((late.verdict, late.answers.len()), (Err(DiscardReason::NatNoConnection), 1), "NATGW-22");
    let Kind::Tcp(reset) = parse(&late.answers[0].1, Default::default()).unwrap().kind else { panic!("TCP") };
    assert_eq!(
        (reset.flags & TcpFacts::RST, reset.sequence),
        (TcpFacts::RST, 5001),
        "exactly what app expects"
    );
}

#[test]
fn natgw_22_the_reset_reaches_an_instance_that_has_forgotten_the_connection_itself() {
    // As on instance types that track for 350 s, too (SG-37): both timers run out at the same time.
    let mut talk = Talk::with(Far::Outside, |rows| rows.enis[1].tracking.tcp_established_ms = 350 * S);
    talk.play(&[("> S 1000", New), ("< S. 5000 ack 1001", New), ("> . 1001 ack 5001", Established)]);
    talk.net.pass_ms(350 * S);
    assert!(talk.keepers().is_empty());
    let late = talk.send("> . 1001 ack 5001 len 10");
    assert_eq!((late.verdict, late.answers.len()), (Err(DiscardReason::NatNoConnection), 1));
    assert_eq!(late.answers[0].0, APP.1);
    assert!(talk.keepers().is_empty(), "SG-42: and nothing is tracked by it");
}

// Tuples that are used again.

#[test]
fn a_tuple_is_used_again_after_it_was_closed() {
    for far in BOTH {
        let mut talk = Talk::established(far);
        talk.play(&[("> F. 1001 ack 5001", Closing), ("< F. 5001 ack 1002", Closed)]);
        let before = talk.app_seen.clone();
        talk.net.pass_ms(S);
        // At once, with numbers of its own, and while the old one is still held.
        talk.play(&[("> S 90000", New), ("< S. 300 ack 90001", New), ("> . 90001 ack 301", Established)]);
        assert_eq!(talk.timeouts()[0], 432_000 * S);
        if far == Far::Outside {
            assert_eq!(
                talk.app_seen, before,
                "NATGW-14: nobody else gets the port while the far end may remember it"
            );
            assert_eq!(talk.net.state.leases.len(), 1);
        }
        talk.play(&[("> R 1002", Established), ("> R 90001", Closed)]);
    }
}

#[test]
fn sg_43_a_tuple_that_is_used_again_is_judged_anew() {
    let mut talk = Talk::established(Far::Inside);
    talk.net.push(|rows| rows.security_groups[2].inbound.clear());
    talk.play(&[("> . 1001 ack 5001 len 10", Established)]);
    // A SYN on the live connection is only challenged (SG-31); one on a closed connection asks for another one.
    talk.play(&[("> S 7000", Established), ("> R 1011", Closed)]);
    let again = talk.send("> S 7000");
    assert_eq!(again.verdict, Err(DiscardReason::SecurityGroupEmpty), "SG-43");
    talk.play(&[("> . 1011 ack 5001", Closed)]);
}

#[test]
fn natgw_18_a_closed_connection_is_not_opened_again_from_outside() {
    let mut talk = Talk::established(Far::Outside);
    talk.play(&[("> F. 1001 ack 5001", Closing), ("< F. 5001 ack 1002", Closed)]);
    let syn = talk.send("< S 9000");
    assert_eq!(syn.verdict, Err(DiscardReason::NatNoConnection), "NATGW-18");
    assert!(syn.answers.is_empty());
    talk.play(&[("< F. 5001 ack 1002", Closed)]);
}

#[test]
fn sg_42_a_segment_in_mid_stream_begins_nothing_at_the_nat_gateway_either() {
    let mut talk = Talk::new(Far::Outside);
    for text in ["> . 1001 ack 5001 len 10", "> F. 1001 ack 5001", "> S. 1000 ack 5001"] {
        let out = talk.send(text);
        assert_eq!(out.verdict, Err(DiscardReason::NatNoConnection), "`{text}`");
        assert_eq!(out.answers.len(), 1, "NATGW-22: `{text}` is answered by a RST");
    }
    let reset = talk.send("> R 1001");
    assert!(reset.verdict.is_err() && reset.answers.is_empty(), "RFC 9293 §3.5.2: no RST for a RST");
    assert!(talk.keepers().is_empty());
    let junk = talk.net.send(APP.1, craft::tcp(0, APP_END, "203.0.113.5:443"));
    assert!(junk.verdict.is_err() && talk.keepers().is_empty());
}
