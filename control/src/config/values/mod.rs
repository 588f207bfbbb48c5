//! Words and numbers of the document and how they are written: names, texts, numbers, addresses and times.
//!
//! What rules say of packets is in `traffic`, settings of which there are a few are in `settings`.

mod settings;
mod traffic;

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::{Schema, json_schema};

use super::decode::{LONGEST_LAB, LONGEST_NAME, NAME_PATTERN, Scalar, is_lab_name, is_name, name_help};
use super::diagnostic::nearest;

pub use settings::*;
pub use traffic::*;

/// Any text: a description, a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub String);

/// A name of something in the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub String);

/// The name of a lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabName(pub String);

/// A span of time in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Millis(pub u64);

impl Scalar for Text {
    const NOUN: &'static str = "a text";

    fn parse(text: &str) -> Option<Self> {
        Some(Self(text.to_owned()))
    }

    fn help(_: &str) -> String {
        "write one line of text.".into()
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string" })
    }
}

impl Scalar for Name {
    const NOUN: &'static str = "a name";

    fn parse(text: &str) -> Option<Self> {
        is_name(text).then(|| Self(text.to_owned()))
    }

    fn help(text: &str) -> String {
        name_help(text, LONGEST_NAME)
    }

    fn schema() -> Schema {
        json_schema!({ "type": ["string", "integer"], "pattern": NAME_PATTERN, "maxLength": LONGEST_NAME })
    }
}

impl Scalar for LabName {
    const NOUN: &'static str = "a name for a lab";

    fn parse(text: &str) -> Option<Self> {
        is_lab_name(text).then(|| Self(text.to_owned()))
    }

    fn help(text: &str) -> String {
        name_help(text, LONGEST_LAB)
    }

    fn schema() -> Schema {
        json_schema!({ "type": ["string", "integer"], "pattern": NAME_PATTERN, "maxLength": LONGEST_LAB })
    }
}

impl Scalar for bool {
    const NOUN: &'static str = "true or false";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn help(_: &str) -> String {
        "write `true` or `false`.".into()
    }

    fn schema() -> Schema {
        json_schema!({ "type": "boolean" })
    }
}

/// A number from 0 to 255: an ICMP type or code.
impl Scalar for u8 {
    const NOUN: &'static str = "a number from 0 to 255";

    fn parse(text: &str) -> Option<Self> {
        decimal(text)
    }

    fn help(_: &str) -> String {
        "write a whole number from 0 to 255.".into()
    }

    fn schema() -> Schema {
        json_schema!({ "type": "integer", "minimum": 0, "maximum": 255 })
    }
}

/// A port.
impl Scalar for u16 {
    const NOUN: &'static str = "a port";

    fn parse(text: &str) -> Option<Self> {
        decimal(text)
    }

    fn help(_: &str) -> String {
        "ports go from 0 to 65535.".into()
    }

    fn schema() -> Schema {
        json_schema!({ "type": "integer", "minimum": 0, "maximum": 65535 })
    }
}

/// A number, checked against its range by the model.
impl Scalar for u32 {
    const NOUN: &'static str = "a number";

    fn parse(text: &str) -> Option<Self> {
        decimal(text)
    }

    fn help(_: &str) -> String {
        "write a whole number.".into()
    }

    fn schema() -> Schema {
        json_schema!({ "type": "integer", "minimum": 0 })
    }
}

impl Scalar for IpNet {
    const NOUN: &'static str = "a CIDR";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn help(text: &str) -> String {
        match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => {
                format!("a prefix length is missing: {address}/32 is the address alone.")
            }
            _ => "a CIDR is an address and a prefix length, such as 10.0.0.0/16.".into(),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9.]+/[0-9]+$", "examples": ["10.0.0.0/16"] })
    }
}

impl Scalar for IpAddr {
    const NOUN: &'static str = "an address";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn help(text: &str) -> String {
        match text.parse::<IpNet>() {
            Ok(net) => format!("leave the prefix length out: {}.", net.addr()),
            Err(_) => "an address has four numbers from 0 to 255, such as 10.0.1.10.".into(),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9.]+$", "examples": ["10.0.1.10"] })
    }
}

impl Scalar for Millis {
    const NOUN: &'static str = "a time";

    fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at(digits);
        let unit = match unit.trim_start() {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(unit).map(Self)
    }

    fn help(text: &str) -> String {
        match text.parse::<u64>() {
            Ok(number) => format!("a time has a unit (ms, s, m, h, d): `{number}s`."),
            Err(_) => "a time is a whole number with a unit (ms, s, m, h, d), such as `350s`.".into(),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+ *(ms|s|m|min|h|d)$", "examples": ["350s"] })
    }
}

impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            ms if ms % 86_400_000 == 0 => write!(f, "{} d", ms / 86_400_000),
            ms if ms % 1_000 == 0 => write!(f, "{} s", ms / 1_000),
            ms => write!(f, "{ms} ms"),
        }
    }
}

/// A decimal number without sign.
fn decimal<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn choice(text: &str, words: &[&str], all: &str) -> String {
    match nearest(text, words.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("expected {all}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(Millis::parse("350s"), Some(Millis(350_000)));
        assert_eq!(Millis::parse("5d"), Some(Millis(432_000_000)));
        for wrong in ["350", "s", "-1s", "1y", "99999999999999999999s", ""] {
            assert_eq!(Millis::parse(wrong), None, "{wrong}");
        }
        assert!(Millis::help("350").contains("`350s`"));
    }
}
