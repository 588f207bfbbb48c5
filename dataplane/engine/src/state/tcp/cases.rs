//! Cases: segments, and the phase and the timer after each. A client at 1000 opens a connection to a server at 5000.
//!
//! A segment is written as tcpdump does ([`segment`]); `>` is from the client. Every case is played twice, with the client inside and outside.

use Phase::{Closed, Closing, Established, New};
use Timer::{Keep, Restart};
use localvpc_api::report::ConnectionState as Phase;

use super::*;
use crate::testing::segment::segment;

/// A segment, and the phase and the timer after it.
type Step = (&'static str, Phase, Timer);

/// Plays segments; returns what is known then, the client inside.
fn play(steps: &[Step]) -> Connection {
    let run = |client: Direction| {
        let mut connection = Connection::new();
        for (at, (text, phase, timer)) in steps.iter().enumerate() {
            let (facts, scale, from_client) = segment(text);
            let from = if from_client { client } else { client.opposite() };
            let restarts = connection.see(&facts, scale, from);
            let got = (connection.phase(), restarts);
            assert_eq!(got, (*phase, *timer), "step {at}, `{text}`, client {client:?}: {connection:?}");
        }
        connection
    };
    run(Direction::Inbound);
    run(Direction::Outbound)
}

/// Plays segments on an established connection: 1001 and 5001 come next, both windows are 500 bytes.
fn established(steps: &[Step]) -> Connection {
    let mut all = vec![
        ("> S 1000 win 500", New, Restart),
        ("< S. 5000 ack 1001 win 500", New, Restart),
        ("> . 1001 ack 5001 win 500", Established, Restart),
    ];
    all.extend_from_slice(steps);
    play(&all)
}

// Opening.

#[test]
fn rfc_9293_figure_6_a_handshake_establishes_with_the_third_segment() {
    established(&[]);
}

#[test]
fn the_acknowledgement_of_the_handshake_may_come_with_data() {
    play(&[
        ("> S 1000", New, Restart),
        ("< S. 5000 ack 1001", New, Restart),
        ("> . 1001 ack 5001 len 100", Established, Restart),
    ]);
}

#[test]
fn rfc_5382_req_2_simultaneous_open() {
    // RFC 9293, figure 8.
    play(&[
        ("> S 1000", New, Restart),
        ("< S 5000", New, Restart),
        ("> S. 1000 ack 5001", New, Restart),
        ("< S. 5000 ack 1001", Established, Restart),
        ("> R 1002", Established, Keep),
        ("< R 5001", Closed, Restart),
    ]);
}

#[test]
fn rfc_5382_req_2_simultaneous_open_with_bare_acknowledgements() {
    play(&[
        ("> S 1000", New, Restart),
        ("< S 5000", New, Restart),
        ("< . 5001 ack 1001", New, Restart),
        ("> . 1001 ack 5001", Established, Restart),
    ]);
}

#[test]
fn in_a_simultaneous_open_an_answered_syn_is_not_exchanged_for_another() {
    play(&[
        ("> S 1000", New, Restart),
        ("< S 5000", New, Restart),
        ("> S. 1000 ack 5001", New, Restart),
        ("< S. 7000 ack 1001", New, Keep),
        ("< S. 5000 ack 1001", Established, Restart),
    ]);
}

#[test]
fn vpp_open_retransmit_a_lost_syn_ack_is_sent_again() {
    play(&[
        ("> S 1000", New, Restart),
        ("< S. 5000 ack 1001", New, Restart),
        ("> S 1000", New, Keep),
        ("< S. 5000 ack 1001", New, Keep),
        ("> . 1001 ack 5001", Established, Restart),
    ]);
}

#[test]
fn conntrack_tcp_unreplied_a_repeated_syn_keeps_nothing_alive() {
    play(&[
        ("> S 1000", New, Restart),
        ("> S 1000", New, Keep),
        ("> S 1000", New, Keep),
        ("> S 1200", New, Keep),
        ("> S 900", New, Keep),
    ]);
}

#[test]
fn acknowledgements_alone_establish_nothing() {
    play(&[
        ("> S 1000", New, Restart),
        ("> . 1001 ack 5001", New, Restart),
        ("> . 1001 ack 0", New, Restart),
        ("> . 1001 ack 0 len 10", New, Restart),
    ]);
    play(&[("> S 1000", New, Restart), ("< . 0 ack 1001", New, Restart), ("> . 1001 ack 0", New, Restart)]);
}

#[test]
fn only_a_right_acknowledgement_ends_the_handshake() {
    for wrong in [
        ("> . 1001 ack 5000", New, Restart),
        ("> . 1001 ack 5002", New, Restart),
        ("> - 1001 ack 5001 len 10", New, Restart),
        ("> . 1502 ack 5001", New, Restart),
        ("> F. 1001 ack 5000", New, Restart),
    ] {
        play(&[
            ("> S 1000", New, Restart),
            ("< S. 5000 ack 1001", New, Restart),
            wrong,
            ("> . 1001 ack 5001", Established, Restart),
        ]);
    }
}

#[test]
fn what_the_server_sends_before_the_handshake_ends_does_not_end_it() {
    play(&[
        ("> S 1000", New, Restart),
        ("< S. 5000 ack 1001", New, Restart),
        ("< . 5001 ack 1001 len 100", New, Restart),
        ("> . 1001 ack 5101", Established, Restart),
    ]);
}

#[test]
fn a_syn_ack_that_answers_nothing_opens_nothing() {
    play(&[("< S. 5000 ack 1001", New, Keep), ("> . 1001 ack 5001", New, Restart)]);
}

#[test]
fn conntrack_synack_old_is_not_believed_and_the_right_one_is() {
    play(&[
        ("> S 1000", New, Restart),
        ("< S. 145824453 ack 643160523", New, Keep),
        ("> R 643160523", New, Keep),
        ("> S 1000", New, Keep),
        ("< S. 162602410 ack 1001", New, Restart),
        ("> . 1001 ack 162602411", Established, Restart),
    ]);
}

#[test]
fn conntrack_syn_challenge_ack_opens_nothing_and_its_reset_closes_nothing() {
    play(&[
        ("> S 1000", New, Restart),
        ("< . 145824453 ack 643160523", New, Restart),
        ("> R 643160523", New, Keep),
        ("> S 1000", New, Keep),
        ("< S. 5000 ack 1001", New, Restart),
        ("> . 1001 ack 5001", Established, Restart),
    ]);
}

#[test]
fn a_client_that_tries_again_with_later_numbers_is_followed() {
    play(&[
        ("> S 1000", New, Restart),
        ("> S 2000", New, Keep),
        ("< S. 5000 ack 1001", New, Keep),
        ("< S. 5000 ack 2001", New, Restart),
        ("> . 2001 ack 5001", Established, Restart),
        ("< R 5002", Established, Keep),
        ("> R 2001", Closed, Restart),
    ]);
}

#[test]
fn a_syn_with_earlier_numbers_counts_once_it_is_answered() {
    play(&[
        ("> S 1000", New, Restart),
        ("> S 500", New, Keep),
        ("< S. 5000 ack 501", New, Restart),
        ("> . 501 ack 5001", Established, Restart),
    ]);
    play(&[
        ("> S 1000", New, Restart),
        ("> S 500", New, Keep),
        ("< S. 5000 ack 1001", New, Restart),
        ("> . 1001 ack 5001", Established, Restart),
    ]);
}

#[test]
fn a_syn_after_the_syn_ack_counts_once_it_is_answered() {
    play(&[
        ("> S 1000", New, Restart),
        ("< S. 5000 ack 1001", New, Restart),
        ("> S 2000", New, Keep),
        ("> . 2001 ack 5001", New, Restart),
        ("< S. 6000 ack 2001", New, Restart),
        ("> . 2001 ack 6001", Established, Restart),
    ]);
}

#[test]
fn a_server_that_answers_anew_is_followed_until_it_is_acknowledged() {
    play(&[
        ("> S 1000", New, Restart),
        ("< S. 5000 ack 1001", New, Restart),
        ("< S. 7000 ack 1001", New, Restart),
        ("> . 1001 ack 5001", New, Restart),
        ("> . 1001 ack 7001", Established, Restart),
    ]);
}

#[test]
fn rfc_7413_data_in_a_syn_may_be_acknowledged_or_not() {
    for acknowledged in
        ["< S. 5000 ack 1001", "< S. 5000 ack 1011", "< S. 5000 ack 1101"].map(|text| (text, New, Restart))
    {
        play(&[
            ("> S 1000 len 100", New, Restart),
            ("< S. 5000 ack 1102", New, Keep),
            acknowledged,
            ("> . 1101 ack 5001", Established, Restart),
        ]);
    }
}

#[test]
fn sequence_numbers_go_round_within_a_handshake() {
    play(&[
        ("> S 4294967295", New, Restart),
        ("< S. 4294967294 ack 0 len 1", New, Restart),
        ("> . 0 ack 0", Established, Restart),
        ("< . 0 ack 0 len 100", Established, Restart),
        ("> R 0 ack 0", Closed, Restart),
    ]);
}

// Refusing and resetting.

#[test]
fn a_refusal_acknowledges_the_syn() {
    play(&[("> S 1000", New, Restart), ("< R. 0 ack 1001", Closed, Restart)]);
    for wrong in ["< R. 0 ack 1002", "< R. 0 ack 1000", "< R 0", "< R 0 ack 1001", "> R. 0 ack 1001"] {
        play(&[("> S 1000", New, Restart), (wrong, New, Keep)]);
    }
    play(&[("< R. 0 ack 0", New, Keep)]);
}

#[test]
fn a_refusal_may_come_after_the_syn_ack() {
    let opening = [("> S 1000", New, Restart), ("< S. 5000 ack 1001", New, Restart)];
    play(&[opening[0], opening[1], ("> S 1000", New, Keep), ("< R. 0 ack 1001", Closed, Restart)]);
    play(&[opening[0], opening[1], ("< R 5001", Closed, Restart)]);
    play(&[opening[0], opening[1], ("< R 5000", New, Keep)]);
}

#[test]
fn a_client_may_reset_what_it_has_begun() {
    let opening = [("> S 1000", New, Restart), ("< S. 5000 ack 1001", New, Restart)];
    play(&[opening[0], ("> R 1001", Closed, Restart)]);
    play(&[opening[0], ("> R 0", New, Keep)]);
    play(&[opening[0], opening[1], ("> R 1001", Closed, Restart)]);
    play(&[opening[0], opening[1], ("> R 1002", New, Keep)]);
    // A port scan with a SYN.
    play(&[opening[0], opening[1], ("> R. 1001 ack 0", Closed, Restart)]);
}

#[test]
fn before_a_syn_a_reset_closes_nothing() {
    play(&[("> R 0", New, Keep), ("< R. 0 ack 0", New, Keep)]);
}

#[test]
fn conntrack_rst_invalid_only_the_exact_reset_closes() {
    // RFC 5961 §3.2. 1001 to 1100 were sent and acknowledged, the window reaches to 1601.
    established(&[
        ("> . 1001 ack 5001 len 100", Established, Restart),
        ("< . 5001 ack 1101", Established, Restart),
        ("> R 65001", Established, Keep),
        ("> R 1100", Established, Keep),
        ("> R 1102", Established, Keep),
        ("> R 1600", Established, Keep),
        ("> R. 1001 ack 5001", Established, Keep),
        ("> R 1101", Closed, Restart),
    ]);
}

#[test]
fn a_reset_may_follow_data_that_was_not_acknowledged_yet() {
    let data = ("> . 1001 ack 5001 len 100", Established, Restart);
    established(&[data, ("> R 1050", Established, Keep), ("> R 1101", Closed, Restart)]);
    established(&[data, ("> R 1001", Closed, Restart)]);
}

#[test]
fn a_forged_segment_far_ahead_makes_no_reset_exact() {
    established(&[
        ("> . 90001 ack 5001 len 100", Established, Restart),
        ("> R 90101", Established, Keep),
        ("< . 5001 ack 90101", Established, Restart),
        ("> R 90101", Established, Keep),
        ("> R 1001", Closed, Restart),
    ]);
}

#[test]
fn once_a_fin_was_seen_a_reset_within_the_window_closes() {
    for fin in [("> F. 1001 ack 5001", Closing, Restart), ("< F. 5001 ack 1001", Closing, Restart)] {
        established(&[fin, ("> R 1000", Closing, Keep), ("> R 1501", Closing, Keep)]);
        established(&[fin, ("> R 1500", Closed, Restart)]);
        established(&[fin, ("> R 1001", Closed, Restart)]);
    }
    established(&[("> F. 1001 ack 5001 len 600", Closing, Restart), ("> R 1602", Closed, Restart)]);
}

#[test]
fn a_closed_connection_is_not_reset_again() {
    let fins = [("> F. 1001 ack 5001", Closing, Restart), ("< F. 5001 ack 1002", Closed, Restart)];
    established(&[fins[0], fins[1], ("> R 1002", Closed, Keep), ("> . 1002 ack 5002", Closed, Restart)]);
    established(&[("> R 1001", Closed, Restart), ("> R 1001", Closed, Keep), ("< R 5001", Closed, Keep)]);
}

#[test]
fn vpp_rst_established_late_data_of_its_sender_revives() {
    // RFC 7857 §2: TRANS goes back to ESTABLISHED with data.
    let reset = ("< R 5001", Closed, Restart);
    established(&[reset, ("< . 5001 ack 1001 len 10", Established, Restart)]);
    established(&[
        reset,
        ("> . 1001 ack 5001 len 10", Closed, Restart),
        ("< . 5001 ack 1011", Established, Restart),
    ]);
    established(&[reset, ("< F. 5001 ack 1001", Closing, Restart)]);
    established(&[("> F. 1001 ack 5001", Closing, Restart), reset, ("< . 5001 ack 1002", Closing, Restart)]);
    established(&[
        reset,
        ("< . 5001 ack 1001 len 10", Established, Restart),
        ("> R 1001", Closed, Restart),
        ("< . 5011 ack 1001 len 10", Closed, Restart),
    ]);
}

#[test]
fn what_was_on_its_way_when_a_reset_closed_revives_nothing() {
    established(&[
        ("< . 5001 ack 1001 len 10", Established, Restart),
        ("< R 5011", Closed, Restart),
        ("> . 1001 ack 5001 len 10", Closed, Restart),
        ("> . 1011 ack 5011", Closed, Restart),
        ("< . 5001 ack 1001 len 10", Closed, Restart),
        ("< . 95011 ack 1001 len 10", Closed, Restart),
        ("< - 5011 len 10", Closed, Restart),
    ]);
}

#[test]
fn a_refused_connection_is_not_revived() {
    play(&[
        ("> S 1000", New, Restart),
        ("< S. 5000 ack 1001", New, Restart),
        ("< R 5001", Closed, Restart),
        ("< . 5001 ack 1001 len 10", New, Restart),
    ]);
    play(&[
        ("> S 1000", New, Restart),
        ("< R. 0 ack 1001", Closed, Restart),
        ("< . 1 ack 1001 len 1", Closed, Restart),
        ("< S. 5000 ack 1001", Closed, Keep),
    ]);
}

// A SYN on a live connection.

#[test]
fn rfc_5961_4_a_syn_on_an_established_connection_is_challenged_and_the_reset_closes() {
    established(&[
        ("> S 7000", Established, Keep),
        ("< . 5001 ack 1001", Established, Restart),
        ("> R 7001", Established, Keep),
        ("> R 1001", Closed, Restart),
    ]);
}

#[test]
fn a_syn_that_a_restarted_server_answers_begins_anew() {
    established(&[
        ("> S 7000", Established, Keep),
        ("< S. 9000 ack 1001", Established, Keep),
        ("< S. 9000 ack 7001", New, Restart),
        ("> . 7001 ack 9001", Established, Restart),
        ("> R 1001", Established, Keep),
        ("> R 7001", Closed, Restart),
    ]);
}

#[test]
fn a_restarted_server_may_refuse_the_syn() {
    established(&[
        ("> S 7000", Established, Keep),
        ("< R. 0 ack 7002", Established, Keep),
        ("> R. 0 ack 7001", Established, Keep),
        ("< R 0 ack 7001", Established, Keep),
        ("< R. 0 ack 7001", Closed, Restart),
    ]);
    established(&[("< R. 0 ack 1001", Established, Keep)]);
}

#[test]
fn a_closing_connection_begins_anew_in_the_same_way() {
    established(&[
        ("> F. 1001 ack 5001", Closing, Restart),
        ("> S 7000", Closing, Keep),
        ("< S. 9000 ack 7001", New, Restart),
        ("> . 7001 ack 9001", Established, Restart),
        ("< F. 9001 ack 7001", Closing, Restart),
        ("> F. 7001 ack 9002", Closed, Restart),
    ]);
}

#[test]
fn of_two_syns_on_an_established_connection_the_last_counts() {
    established(&[
        ("> S 7000", Established, Keep),
        ("< S 9000", Established, Keep),
        ("< S. 9000 ack 7001", Established, Keep),
        ("> S. 7000 ack 9001", New, Restart),
        ("< S. 9000 ack 7001", Established, Restart),
    ]);
}

#[test]
fn a_late_copy_of_the_first_syn_or_syn_ack_changes_nothing() {
    established(&[
        ("> . 1001 ack 5001 len 100", Established, Restart),
        ("> S 1000", Established, Keep),
        ("< S. 5000 ack 1001", Established, Keep),
        ("> R 1101", Closed, Restart),
    ]);
}

// The stream.

#[test]
fn conntrack_ack_loss_stall_data_that_was_acknowledged_may_come_again() {
    let after = established(&[
        ("> . 1001 ack 5001 len 100", Established, Restart),
        ("< . 5001 ack 1101", Established, Restart),
        ("> . 1001 ack 5001 len 100", Established, Restart),
        ("< . 5001 ack 1101", Established, Restart),
        ("> . 1101 ack 5001 len 100", Established, Restart),
    ]);
    assert_eq!(
        (after.side(Direction::Outbound).reach.end, after.side(Direction::Inbound).reach.ack),
        (1201, 1101)
    );
}

#[test]
fn rfc_7323_windows_are_scaled_only_if_both_sides_offered_it() {
    // A window of 100, which is 12,800 when it is scaled. Only the client's is larger than that of its SYN.
    for (client, server, window) in [
        ("> S 1000 win 50 scale 7", "< S. 5000 ack 1001 scale 0", 12_800),
        ("> S 1000 win 50 scale 7", "< S. 5000 ack 1001", 100),
        ("> S 1000 win 50", "< S. 5000 ack 1001 scale 7", 100),
    ] {
        let connection = play(&[
            (client, New, Restart),
            (server, New, Restart),
            ("> . 1001 ack 5001 win 100", Established, Restart),
        ]);
        assert_eq!(connection.side(Direction::Outbound).reach.window, window, "{client} {server}");
    }
}

#[test]
fn rfc_7323_the_window_of_a_syn_is_not_scaled() {
    let connection = play(&[
        ("> S 1000 win 50 scale 7", New, Restart),
        ("< S. 5000 ack 1001 win 60 scale 7", New, Restart),
    ]);
    assert_eq!(connection.side(Direction::Outbound).reach.window, 50);
    assert_eq!(connection.side(Direction::Inbound).reach.window, 60);
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_not_recorded() {
    let after = established(&[("< . 5001 ack 1002", Established, Restart)]);
    assert_eq!(after.side(Direction::Inbound).reach.ack, 1001);
}

// Closing.

#[test]
fn vpp_tcp_close_in_either_order() {
    established(&[
        ("> F. 1001 ack 5001", Closing, Restart),
        ("< . 5001 ack 1002", Closing, Restart),
        ("< F. 5001 ack 1002", Closed, Restart),
        ("> . 1002 ack 5002", Closed, Restart),
    ]);
    established(&[
        ("< F. 5001 ack 1001", Closing, Restart),
        ("> . 1001 ack 5002", Closing, Restart),
        ("> F. 1001 ack 5002", Closed, Restart),
        ("< . 5002 ack 1002", Closed, Restart),
    ]);
}

#[test]
fn vpp_tcp_close_simultaneous() {
    established(&[("> F. 1001 ack 5001", Closing, Restart), ("< F. 5001 ack 1001", Closed, Restart)]);
}

#[test]
fn a_retransmitted_fin_is_not_the_other_sides() {
    established(&[
        ("> F. 1001 ack 5001", Closing, Restart),
        ("> F. 1001 ack 5001", Closing, Restart),
        ("< F. 5001 ack 1002", Closed, Restart),
        ("< F. 5001 ack 1002", Closed, Restart),
    ]);
}

#[test]
fn a_half_closed_connection_carries_data() {
    established(&[
        ("> F. 1001 ack 5001", Closing, Restart),
        ("< . 5001 ack 1002 len 400", Closing, Restart),
        ("> . 1002 ack 5401", Closing, Restart),
        ("< F. 5401 ack 1002 len 10", Closed, Restart),
    ]);
}

#[test]
fn a_fin_that_does_not_fit_closes_nothing() {
    for wrong in [
        "> F. 1502 ack 5001",
        "> F. 400 ack 5001",
        "> F. 1001 ack 5002",
        "> F 1001",
        "> F. 1001 ack 4294900000",
    ] {
        established(&[(wrong, Established, Restart)]);
    }
    established(&[("> F. 1501 ack 5001", Closing, Restart)]);
}

#[test]
fn a_fin_may_end_the_handshake_or_come_before_its_end() {
    let opening = [("> S 1000", New, Restart), ("< S. 5000 ack 1001", New, Restart)];
    play(&[opening[0], opening[1], ("> F. 1001 ack 5001", Closing, Restart)]);
    play(&[
        opening[0],
        opening[1],
        ("< F. 5001 ack 1001", Closing, Restart),
        ("> . 1001 ack 5002", Closing, Restart),
        ("> F. 1001 ack 5002", Closed, Restart),
    ]);
}

#[test]
fn senseless_flags_change_nothing() {
    play(&[("> S 1000", New, Restart), ("< S.F 5000 ack 999", New, Keep), ("< SR. 5000 ack 999", New, Keep)]);
    established(&[
        ("> - 1001", Established, Restart),
        ("> SF 1001", Established, Keep),
        ("> SF. 1001 ack 5001", Established, Keep),
        ("> SR 1002", Established, Keep),
        ("> SRF. 1002 ack 5001", Established, Keep),
    ]);
}
