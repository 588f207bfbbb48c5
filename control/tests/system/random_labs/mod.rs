//! Random labs with real namespaces: what the analysis says of random packets is what becomes of them.
//!
//! The labs are those of the `reachability` test, where the analysis meets a naive evaluator and the engine; here each is
//! written as a file, brought up, and every question sent as a real packet. What the analysis of the file
//! alone says becomes the file's `expect:`, so that `localvpc check` is what compares. Instances have secondary addresses,
//! and some subnets are one namespace; what stays in it is no packet of the lab's, and not asked about.
//!
//! Nearly all of a lab's time is waiting (for packets that should not come, for the kernel to end namespaces), so several are
//! up at a time; four tests share the labs, so that other tests run between them.
//!
//! `RANDOM_LABS=N` tries N labs, `RANDOM_LAB=SEED` that one alone.

mod file;
mod questions;

#[path = "../../reachability/random.rs"]
mod random;
#[path = "../../reachability/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use localvpc::view::ExplainOutcome;
use localvpc_api::DiscardReason;
use serde_json::Value;

use crate::harness::{Lab, wait};
use questions::Question;
use random::Random;
use world::World;

/// Labs that are tried where nobody asks for another number, how many of them are up at a time, questions that are thought
/// of in each, and how many of them are asked.
const LABS: u64 = 200;
const AT_ONCE: usize = 8;
const IDEAS: usize = 120;
const QUESTIONS: usize = 20;

/// Tests that share the labs.
const PARTS: u64 = 4;

/// RA-1: what the file alone says is what becomes of packets.
#[test]
fn analysis_and_packets_agree_in_random_labs_1() {
    compare_part(0);
}

#[test]
fn analysis_and_packets_agree_in_random_labs_2() {
    compare_part(1);
}

#[test]
fn analysis_and_packets_agree_in_random_labs_3() {
    compare_part(2);
}

#[test]
fn analysis_and_packets_agree_in_random_labs_4() {
    compare_part(3);
}

/// Tries the labs of one of the tests: every fourth.
fn compare_part(part: u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("RANDOM_LAB") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number("RANDOM_LABS").unwrap_or(LABS),
    };
    let seeds: Vec<u64> = seeds.filter(|seed| seed % PARTS == part).collect();
    let next = AtomicUsize::new(0);
    let tried = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(seeds.len()) {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let Some(tally) = compare(*seed) else { return };
                    // Nobody panics with it in hand.
                    tried.lock().unwrap().push(tally);
                }
            });
        }
    });
    let tried = tried.into_inner().unwrap_or_else(PoisonError::into_inner);
    let labs = tried.len();
    let mut tally = Tally::new();
    for (what, count) in tried.into_iter().flatten() {
        *tally.entry(what).or_default() += count;
    }
    println!("{labs} labs: {tally:#?}");
    let count = |what: &str| tally.get(what).copied().unwrap_or_default();
    if labs >= 6 {
        assert!(
            count("reachable") >= 2 * labs && count("blocked") >= 2 * labs,
            "too few to say anything: {tally:#?}"
        );
        assert!(count("with a secondary address") > 0, "none has several addresses: {tally:#?}");
    }
}

/// How questions came out, and how often.
type Tally = BTreeMap<String, usize>;

/// Brings the lab of a seed up, and sends its packets; none without root.
#[track_caller]
fn compare(seed: u64) -> Option<Tally> {
    let mut tally = Tally::new();
    let mut random = Random::new(seed);
    let world = World::random(&mut random);
    let text = file::of(&world);
    let ideas = questions::of(&world, &mut random, IDEAS);
    let asked = questions::mixed(questions::decided(&text, ideas), QUESTIONS);
    let expect: String = asked.iter().map(Question::expectation).collect();
    let text = format!("{text}expect:\n{expect}");
    let lab = Lab::up(&text)?;
    let done = lab.localvpc(&["check", &lab.file().to_string_lossy(), "-o", "json"]);
    let about = || format!("RANDOM_LAB={seed}\n{text}\n{done}");
    let report: Value =
        serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}\n{}", about()));
    assert_eq!(report["mode"], "probe", "{}", about());
    let results = report["results"].as_array().map_or(&[][..], Vec::as_slice);
    assert_eq!(results.len(), asked.len(), "{}", about());
    for (result, question) in results.iter().zip(&asked) {
        assert_eq!(result["verdict"], "holds", "{result:#}\n{}", about());
        assert_eq!(result["probe"]["agrees"], true, "no packet, or another fate: {result:#}\n{}", about());
        let outcome = if question.outcome == ExplainOutcome::Reachable { "reachable" } else { "blocked" };
        *tally.entry(outcome.to_owned()).or_default() += 1;
        *tally.entry("with a secondary address".into()).or_default() += usize::from(question.has_secondary());
        *tally.entry(question.code.clone().unwrap_or_else(|| "a reply came back".into())).or_default() += 1;
    }
    // Packets were discarded for the reasons that the analysis gives. Where several things are in the way, it tells them in
    // AWS's order, and a packet meets one of them (ORD-4).
    for result in results.iter().filter(|result| result["analysis"] == "blocked") {
        let codes = result["codes"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let reasons: Vec<&str> = codes.filter(|code| is_reason(code)).collect();
        // On a busy machine it may be discarded after its sender has given up.
        let counted = wait::within(wait::PATIENCE, || {
            let is_counted = reasons.is_empty() || reasons.iter().any(|reason| lab.discarded(reason) > 0);
            is_counted.then_some(())
        });
        assert!(counted.is_some(), "{:#?}\nnot for {reasons:?}: {result:#}\n{}", lab.counters(), about());
    }
    Some(tally)
}

/// Whether a code is that of a reason which the dataplane counts; others say more about one.
fn is_reason(code: &str) -> bool {
    DiscardReason::ALL.iter().any(|reason| reason.code() == code)
}
