//! How a dataplane works, apart from what it decides: the trade between latency, throughput and processor time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Settings of a dataplane. They change no packet's fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How workers wait for packets.
    pub poll: Poll,
    /// Whether small packets of a flow are joined before they are written.
    pub merge: Merge,
}

/// How workers wait for packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Poll {
    /// Look for some time after the last packet, then sleep until the next.
    #[default]
    Adaptive,
    /// Never sleep: lowest latency, and each worker takes a processor for itself.
    Busy,
    /// Sleep as soon as nothing waits.
    Block,
}

/// Whether consecutive small packets of a flow leave as one super-packet, where the receiving link takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Merge {
    /// They do.
    #[default]
    On,
    /// Every packet leaves as it came.
    Off,
}

/// A word that is none of those expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is none of {expected}")]
pub struct UnknownWord {
    /// The word.
    pub found: String,
    /// Those that there are.
    pub expected: String,
}

macro_rules! words {
    ($($name:ident { $($variant:ident = $word:literal,)* })*) => {$(
        impl $name {
            /// Every value by its word.
            pub const WORDS: &[(&'static str, Self)] = &[$(($word, Self::$variant),)*];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word,)* })
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                let known = Self::WORDS.iter().find(|(known, _)| *known == word);
                known.map(|(_, value)| *value).ok_or_else(|| {
                    let words: Vec<_> = Self::WORDS.iter().map(|(word, _)| *word).collect();
                    UnknownWord { found: word.into(), expected: words.join(", ") }
                })
            }
        }
    )*};
}

words! {
    Poll { Adaptive = "adaptive", Busy = "busy", Block = "block", }
    Merge { On = "on", Off = "off", }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_json() {
        for (word, poll) in Poll::WORDS {
            assert_eq!(serde_json::to_string(poll).unwrap(), format!("\"{word}\""));
            assert_eq!((poll.to_string(), word.parse()), ((*word).into(), Ok(*poll)));
        }
        for (word, merge) in Merge::WORDS {
            assert_eq!(serde_json::to_string(merge).unwrap(), format!("\"{word}\""));
            assert_eq!((merge.to_string(), word.parse()), ((*word).into(), Ok(*merge)));
        }
        let error = "spin".parse::<Poll>().unwrap_err();
        assert_eq!(error.to_string(), "`spin` is none of adaptive, busy, block");
    }
}
