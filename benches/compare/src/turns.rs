//! Measures rows in turn: ours, null and Linux, round after round in another order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use localvpc::view::CountersView;
use localvpc_api::report::LinkCounters;

use crate::interrupt;
use crate::lab;
use crate::rows::{Figure, Row, What};
use crate::scene::{self, Kind, Scene, Settings, Way};

/// How it is measured.
#[derive(Debug)]
pub struct Plan {
    /// How often the three take turns.
    pub rounds: u16,
    /// What each measurement takes.
    pub time: Duration,
    /// How dataplanes work.
    pub settings: Settings,
}

/// What came out of all rounds.
#[derive(Debug, Default)]
pub struct Outcome {
    /// In the order of the table.
    pub rows: Vec<Measured>,
    /// Rows that failed in some round, and why.
    pub failures: Vec<String>,
    /// Whether it was ended before its time.
    pub interrupted: bool,
}

/// A row with its samples.
#[derive(Debug)]
pub struct Measured {
    /// Its name.
    pub name: String,
    /// What it is, for people.
    pub about: String,
    /// Of each figure, a value per round for every way, in rounds in which all three were measured.
    pub samples: BTreeMap<What, Vec<Sample>>,
    /// Of bulk data one way: bytes per read and per write of ours, by round.
    pub unsplit: Vec<Unsplit>,
}

/// A figure in one round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Of the lab.
    pub ours: f64,
    /// Of the null forwarder.
    pub null: f64,
    /// Of the Linux router.
    pub linux: f64,
}

/// How large what is read and written is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unsplit {
    /// Mean, where data comes in.
    pub bytes_per_read: f64,
    /// Mean, where data goes out.
    pub bytes_per_write: f64,
}

/// Measures `rows` in rounds, and tells `say` how it goes. What fails is noted, and the rest goes on.
pub fn take(rows: &[Row], plan: &Plan, say: &mut impl FnMut(&str)) -> Outcome {
    lab::sweep();
    let outcome = in_scenes(rows, plan, say);
    // Everything is down: the run directory goes.
    lab::sweep();
    outcome
}

fn in_scenes(rows: &[Row], plan: &Plan, say: &mut impl FnMut(&str)) -> Outcome {
    let &Plan { rounds, time, ref settings } = plan;
    let mut outcome = Outcome::default();
    let mut progress = Progress::of(rows.len() * usize::from(rounds));
    let mut scenes: Vec<Scene> = Vec::new();
    for row in rows {
        if !scenes.contains(&row.scene) {
            scenes.push(row.scene);
        }
    }
    let mut measured: Vec<Measured> = rows.iter().map(Measured::nothing).collect();
    'all: for scene in scenes {
        say(&format!("bringing up {} instances, three times", 2 * scene.pairs + 1));
        let ways = match bring_up(scene, settings) {
            Ok(ways) => ways,
            // Ctrl-C also comes to the `localvpc up` that was at work.
            Err(_) if interrupt::came() => {
                outcome.interrupted = true;
                break;
            }
            Err(error) => {
                let names = rows.iter().filter(|row| row.scene == scene).map(|row| row.name.as_str());
                let failure = format!("{}: {error}", names.collect::<Vec<_>>().join(", "));
                say(&format!("FAILED: {failure}"));
                outcome.failures.push(failure);
                continue;
            }
        };
        for round in 1..=rounds {
            for (row, measured) in rows.iter().zip(&mut measured).filter(|(row, _)| row.scene == scene) {
                let turn = turn(row, &ways, round, time);
                if interrupt::came() {
                    outcome.interrupted = true;
                    break 'all;
                }
                let said = match turn {
                    Ok(turn) => measured.add(turn),
                    Err(failure) => {
                        let failure = format!("{} in round {round}: {failure}", row.name);
                        outcome.failures.push(failure.clone());
                        format!("FAILED: {failure}")
                    }
                };
                say(&format!("{} round {round}/{rounds}  {:<22} {said}", progress.step(), row.name));
            }
        }
    }
    if outcome.interrupted {
        say("interrupted: taking everything down");
    }
    outcome.rows = measured;
    outcome
}

/// All three ways; fewer after an interrupt, when nobody will ask for them.
fn bring_up(scene: Scene, settings: &Settings) -> Result<Vec<Way>, scene::Error> {
    Kind::ALL.into_iter().take_while(|_| !interrupt::came()).map(|kind| scene.up(kind, settings)).collect()
}

/// One round of one row.
struct Turn {
    figures: Vec<(Kind, Vec<Figure>)>,
    unsplit: Option<Unsplit>,
}

fn turn(row: &Row, ways: &[Way], round: u16, time: Duration) -> Result<Turn, String> {
    let mut turn = Turn { figures: Vec::new(), unsplit: None };
    for way in in_order(ways, round) {
        if interrupt::came() {
            return Ok(turn);
        }
        let failed = |error: String| format!("{}: {error}", way.kind.name());
        let counted = row.data_links().filter(|_| way.kind == Kind::Ours);
        let counters = || match counted {
            None => Ok(None),
            Some(_) => way.counters().map_err(|error| failed(error.to_string())),
        };
        let before = counters()?;
        let measured = way.in_turn(|| row.measure(way, time)).map_err(|error| failed(error.to_string()))?;
        let figures = measured.map_err(|error| failed(error.to_string()))?;
        if let (Some(links), Some(before), Some(after)) = (counted, before, counters()?) {
            turn.unsplit = unsplit(links, &before, &after);
        }
        turn.figures.push((way.kind, figures));
    }
    Ok(turn)
}

/// One after the other, in one of six orders: in six rounds each of three comes twice first, and twice right behind each other one, so
/// that what one leaves behind (in caches, in the kernel) meets both others alike.
fn in_order<T>(ways: &[T], round: u16) -> Vec<&T> {
    let round = usize::from(round);
    let mut order: Vec<&T> = ways.iter().collect();
    if !order.is_empty() {
        order.rotate_left(round % ways.len());
        if (round / ways.len()) % 2 == 1 {
            order.reverse();
        }
    }
    order
}

/// What passed between two looks at the counters.
fn unsplit(links: (&str, &str), before: &CountersView, after: &CountersView) -> Option<Unsplit> {
    let link = |counters: &CountersView, name: &str| -> Option<LinkCounters> {
        counters.links.iter().find(|link| link.name == name).map(|link| link.row)
    };
    let mean = |bytes: u64, calls: u64| (calls > 0).then(|| bytes as f64 / calls as f64);
    let (into, out_of) = links;
    let (read_before, read) = (link(before, into)?, link(after, into)?);
    let (written_before, written) = (link(before, out_of)?, link(after, out_of)?);
    Some(Unsplit {
        bytes_per_read: mean(read.read_bytes - read_before.read_bytes, read.reads - read_before.reads)?,
        bytes_per_write: mean(
            written.written_bytes - written_before.written_bytes,
            written.writes - written_before.writes,
        )?,
    })
}

impl Measured {
    fn nothing(row: &Row) -> Self {
        Self {
            name: row.name.clone(),
            about: row.about.clone(),
            samples: BTreeMap::new(),
            unsplit: Vec::new(),
        }
    }

    /// Takes a round up, and says in a few words what it brought.
    fn add(&mut self, turn: Turn) -> String {
        let value = |kind, what| {
            let (_, figures) = turn.figures.iter().find(|(of, _)| *of == kind)?;
            figures.iter().find(|figure| figure.what == what).map(|figure| figure.value)
        };
        let mut said = String::new();
        let whats = turn.figures.first().map(|(_, figures)| figures.iter().map(|figure| figure.what));
        for what in whats.into_iter().flatten() {
            let all = (value(Kind::Ours, what), value(Kind::Null, what), value(Kind::Linux, what));
            let (Some(ours), Some(null), Some(linux)) = all else { continue };
            if said.is_empty() {
                said = format!("ours {ours:.4}  null {null:.4}  Linux {linux:.4} {}", what.unit());
            }
            self.samples.entry(what).or_default().push(Sample { ours, null, linux });
        }
        self.unsplit.extend(turn.unsplit);
        said
    }
}

/// How far it is.
struct Progress {
    done: usize,
    total: usize,
    began: Instant,
}

impl Progress {
    fn of(total: usize) -> Self {
        Self { done: 0, total, began: Instant::now() }
    }

    /// One more is done: `[ 12/319, about 14 min left]`.
    fn step(&mut self) -> String {
        self.done += 1;
        let left = self.began.elapsed().as_secs_f64() / self.done as f64 * (self.total - self.done) as f64;
        let left = if left < 90.0 { format!("{left:.0} s") } else { format!("{:.0} min", left / 60.0) };
        format!("[{:>3}/{}, about {left} left]", self.done, self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_six_rounds_each_way_is_first_and_behind_each_other_as_often() {
        let (mut first, mut behind) = (BTreeMap::new(), BTreeMap::new());
        for round in 1..=6 {
            let order = in_order(&Kind::ALL, round);
            *first.entry(*order[0]).or_insert(0) += 1;
            for pair in order.windows(2) {
                *behind.entry((*pair[0], *pair[1])).or_insert(0) += 1;
            }
        }
        assert_eq!(first, Kind::ALL.map(|kind| (kind, 2)).into());
        assert!(behind.len() == 6 && behind.values().all(|times| *times == 2), "{behind:?}");
        assert_eq!(in_order::<Kind>(&[], 1), <[&Kind; 0]>::default());
    }
}
