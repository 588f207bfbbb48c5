//! Reads TCP segments as tcpdump writes them: `> S. 1000 ack 5001 len 10 win 500 scale 7`, with S, F, R, `.` for ACK, `-` for none.

use crate::packet::TcpFacts;

/// The numbers of a segment, the window scale that it offers, and whether it goes forward (`>`). Its window is 500 if nothing is said.
///
/// # Panics
/// If that is not how a segment is written.
pub fn segment(text: &str) -> (TcpFacts, Option<u8>, bool) {
    let mut words = text.split(' ');
    let mut word = || words.next();
    let forward = word() == Some(">");
    let mut flags = 0;
    for letter in word().expect("flags").chars() {
        flags |= match letter {
            'S' => TcpFacts::SYN,
            'F' => TcpFacts::FIN,
            'R' => TcpFacts::RST,
            '.' => TcpFacts::ACK,
            '-' => 0,
            _ => panic!("`{letter}` in `{text}`"),
        };
    }
    let number = |word: Option<&str>| word.and_then(|word| word.parse::<u32>().ok()).expect("a number");
    let sequence = number(word());
    let mut facts = TcpFacts { flags, sequence, acknowledgement: 0, window: 500, payload: 0 };
    let mut scale = None;
    while let Some(name) = word() {
        let value = number(word());
        match name {
            "ack" => facts.acknowledgement = value,
            "len" => facts.payload = value,
            "win" => facts.window = value as u16,
            "scale" => scale = Some(value as u8),
            _ => panic!("`{name}` in `{text}`"),
        }
    }
    (facts, scale, forward)
}
